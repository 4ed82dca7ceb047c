"""Samples in files: an image and a mask of class numbers for each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from segue.data.samples import DataError, Sample, Samples
from segue.images import IMAGE_SUFFIXES, ImageError, check_image, read_image, read_mask
from segue.labels import IGNORE, Labels, Mask

Pair = tuple[Path, Path]
T = TypeVar("T")


class FileSamples(Samples):
    """Pairs of an image file and a mask file.

    `mapping` takes each label that may stand in a mask to a class number or to 255; any other label is a DataError.
    """

    def __init__(self, pairs: Sequence[Pair], labels: Labels, mapping: Mapping[int, int]) -> None:
        self.pairs = list(pairs)
        self.labels = labels
        self.known = np.zeros(256, bool)
        self.table = np.full(256, IGNORE, np.uint8)
        for label, number in mapping.items():
            self.known[label] = True
            self.table[label] = number

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, mask_path = self.pairs[index]
        image, mask = read(image_path, read_image), self.mask(index)
        if image.shape[:2] != mask.shape:
            raise DataError(size_message(image_path, image.shape[1::-1], mask_path, mask.shape[::-1]))
        return {"image": image, "mask": mask}

    def mask(self, index: int) -> Mask:
        path = self.pairs[index][1]
        stored = read(path, read_mask)
        wrong = np.flatnonzero((np.bincount(stored.reshape(-1), minlength=256) > 0) & ~self.known)
        if len(wrong):
            raise DataError(
                f"{path} has the label {', '.join(map(str, wrong[:8]))}; "
                f"allowed are {', '.join(ranges(np.flatnonzero(self.known)))}; correct the mask or the mapping of labels"
            )
        return self.table[stored]

    def name(self, index: int) -> str:
        return str(self.pairs[index][0])

    def check(self, index: int) -> None:
        """Raise DataError unless the image is whole and the mask fits it, labels included."""
        image_path, mask_path = self.pairs[index]
        size, mask = read(image_path, check_image), self.mask(index)
        if size != mask.shape[::-1]:
            raise DataError(size_message(image_path, size, mask_path, mask.shape[::-1]))


def read(path: Path, reader: Callable[[Path], T]) -> T:
    try:
        return reader(path)
    except ImageError as error:
        raise DataError(str(error)) from None


def pair_files(images: Path, masks: Path, help: str) -> list[Pair]:
    """Each image in the folder with the mask of the same stem; DataError, ending in `help`, if any is missing or alone."""
    return pair(files_by_stem(images, help), files_by_stem(masks, help), help)


def files_by_stem(folder: Path, help: str) -> dict[str, Path]:
    """The images of a folder in the order of their names; hidden files are passed over."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; {help}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in files:
                raise DataError(f"{files[path.stem]} and {path} differ in the suffix alone; keep one of them")
            files[path.stem] = path
    if not files:
        raise DataError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)}); {help}")
    return files


def pair(images: Mapping[str, Path], masks: Mapping[str, Path], help: str) -> list[Pair]:
    """Each image with the mask of the same key; DataError, ending in `help`, if any is alone."""
    for here, there, what in ((images, masks, "mask"), (masks, images, "image")):
        alone = [path for key, path in here.items() if key not in there]
        if alone:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise DataError(f"{alone[0]}{more} has no {what} of the same name; {help}")
    return [(image, masks[key]) for key, image in images.items()]


def size_message(image: Path, image_size: tuple[int, ...], mask: Path, mask_size: tuple[int, ...]) -> str:
    return (
        f"{image} is {image_size[0]} x {image_size[1]} pixels (width x height), but its mask {mask} is "
        f"{mask_size[0]} x {mask_size[1]}; they must be equal"
    )


def ranges(numbers: np.ndarray) -> list[str]:
    """Numbers as ranges: 0, 1, 2, 7 -> "0 to 2", "7"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
