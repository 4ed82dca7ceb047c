"""Samples in files: an image and a mask of class numbers for each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from segue.data.samples import DamagedError, DataError, Sample, Samples
from segue.images import IMAGE_SUFFIXES, ImageError, Raster, check_image
from segue.images.fast_decoding import read_image, read_stored
from segue.images.files import DamagedImageError
from segue.images.masks import ColourError, StoredMask
from segue.images.relabel import relabel
from segue.labels import IGNORE, Labels, Mask

Pair = tuple[Path, Path]
T = TypeVar("T")


class PackageError(DataError):
    """The data are read with a package that is not installed; the message names it."""


def import_package(module: str, need: str) -> Any:
    """A module of a package that segue does without otherwise; PackageError, with `need` as its message, if it is missing."""
    try:
        return import_module(module)
    except ImportError:
        raise PackageError(need) from None


LONE: ContextVar[list[tuple[Path, str]] | None] = ContextVar("LONE", default=None)  # see leaving_out_lone_files


class FileSamples(Samples):
    """Pairs of an image file and a mask file.

    `mapping` takes each label that may stand in a mask, any whole number, to a class number or to 255; any other label is a
    DataError.
    """

    splits: tuple[str, ...] = ()
    """The parts that it has by name, if it has such."""
    help = ""
    """Where to get the files and how to lay them out, which ends the message on a file that is not there."""

    def __init__(self, pairs: Sequence[Pair], labels: Labels, mapping: Mapping[int, int]) -> None:
        self.pairs = list(pairs)
        self.labels = labels
        self.known = np.zeros(256, bool)
        self.table = np.full(256, IGNORE, np.uint8)
        self.said: frozenset[int] = frozenset()  # labels of which the user says what they are, whatever a file says
        self.stand_ins: dict[int, int] = {}  # for labels that are no byte: a byte with the same meaning
        self.reserved: set[int] = set()  # those of these bytes that are no labels themselves
        for label, number in sorted(mapping.items(), key=lambda entry: not 0 <= entry[0] <= 255):
            byte = label if 0 <= label <= 255 else self.stand_in(label, number)
            self.known[byte] = True
            self.table[byte] = number

    def stand_in(self, label: int, number: int) -> int:
        """A byte for a label that is none; ValueError if all are taken."""
        alike = [byte for byte in range(256) if self.known[byte] and self.table[byte] == number]
        free = [byte for byte in (number, *range(IGNORE)) if not self.known[byte]]
        if not alike and not free:
            raise ValueError(f"mapping has the label {label} beside 256 others; give fewer")
        if not alike:
            self.reserved.add(free[0])
        self.stand_ins[label] = (alike or free)[0]
        return self.stand_ins[label]

    def check_split(self, split: str) -> None:
        """DataError if there is no such part."""
        if split not in self.splits:
            raise DataError(f"split (={split!r}) must be one of {', '.join(self.splits)}")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image, mask = self.image(index), self.mask(index)
        self.check_sizes(index, image.shape[1::-1], mask)
        return {"image": image, "mask": mask}

    def image(self, index: int) -> Raster:
        return read(self.pairs[index][0], read_image, self.help)

    def mask(self, index: int) -> Mask:
        path = self.pairs[index][1]
        stored, void = self.as_bytes(read(path, read_stored, self.help), path)
        mask = self.decode(stored, path)
        if void is not None:
            mask[void] = IGNORE
        return mask

    def as_bytes(self, stored: StoredMask, path: Path) -> tuple[Mask, NDArray[np.bool_] | None]:
        """Labels of 8 bits, and where the file says that there are none; DataError for others that mean nothing.

        What the user says of a number counts more than that the file says it is none.
        """
        numbers, void, nodata = stored
        if nodata is not None and nodata not in self.said:
            missing = numbers == nodata
            void = missing if void is None else void | missing
        if numbers.dtype == np.uint8 and void is None and not self.stand_ins:
            return numbers.astype(np.uint8, copy=False), None
        labels = numbers.astype(np.int64)
        if void is not None:
            labels[void] = self.void_label
        held = set(np.unique(labels).tolist())
        strange = [label for label in sorted(held) if label in self.reserved or not (0 <= label < 256 or label in self.stand_ins)]
        if strange:
            raise DataError(self.strange_labels(strange, path))
        for label in held & self.stand_ins.keys():
            labels[labels == label] = self.stand_ins[label]
        return labels.astype(np.uint8), void

    @property
    def void_label(self) -> int:
        """A label that is ignored, if there is any."""
        known = np.flatnonzero(self.known)[::-1].tolist()
        return next((label for label in known if self.table[label] == IGNORE), known[-1])

    def strange_labels(self, labels: Sequence[int], path: Path) -> str:
        """What to say of a file with labels that mean nothing."""
        known = sorted({*np.flatnonzero(self.known).tolist()} - self.reserved | self.stand_ins.keys())
        return (
            f"{path} has the label {', '.join(map(str, labels[:8]))}; "
            f"allowed are {', '.join(ranges(np.array(known)))}; correct the mask or the mapping of labels"
        )

    def decode(self, stored: Mask, path: Path) -> Mask:
        """The class numbers of the labels that this file holds."""
        numbers, seen = relabel(stored, self.table)
        wrong = np.flatnonzero(seen & ~self.known)
        if len(wrong):
            raise DataError(self.strange_labels(wrong.tolist(), path))
        return numbers

    def name(self, index: int) -> str:
        return str(self.pairs[index][0])

    def check(self, index: int) -> None:
        """Raise DataError unless the image is whole and the mask fits it, labels included."""
        self.check_sizes(index, read(self.pairs[index][0], check_image, self.help), self.mask(index))

    def check_sizes(self, index: int, size: tuple[int, ...], mask: Mask) -> None:
        """Raise DataError unless an image of this (width, height) fits its mask."""
        image_path, mask_path = self.pairs[index]
        if size != mask.shape[::-1]:
            raise DataError(size_message(image_path, size, mask_path, mask.shape[::-1]))


def read(path: Path, reader: Callable[[Path], T], help: str = "") -> T:
    """What the reader gives; where it fails, a DataError, which ends in `help` if there is no such file."""
    try:
        return reader(path)
    except ImageError as error:
        kind = DamagedError if isinstance(error, DamagedImageError) else DataError
        raise kind(f"{error}; {help}" if help and not path.exists() else str(error)) from None


def read_numbers(path: Path) -> NDArray[np.uint16]:
    """The numbers of 0 to 65535 in a grey picture, (H, W); 0 where it says that there are none."""
    try:
        numbers, void, nodata = read_stored(path)
    except ColourError as error:
        raise ImageError(f"{path} has the mode {error.mode}; it must have one channel that holds numbers") from None
    if nodata is not None:
        void = numbers == nodata if void is None else void | (numbers == nodata)
    if void is not None:
        numbers = np.where(void, numbers.dtype.type(0), numbers)
    low, high = numbers.min(initial=0), numbers.max(initial=0)
    if low < 0 or high > 65535:
        raise ImageError(f"{path} holds the numbers {low} to {high}; they must be 0 to 65535")
    return numbers.astype(np.uint16)


def read_lines(path: Path, help: str) -> list[str]:
    """The lines of a list in a file, without those that are empty; DataError, ending in `help`, if there are none."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {path} cannot be read: {error}; {help}") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError(f"the list {path} is empty; {help}")
    return found


def pair_files(images: Path, masks: Path, help: str) -> list[Pair]:
    """Each image in the folder, and the folders in it, with the mask of the same place and stem; DataError, ending in `help`, if
    any is missing or alone."""
    return pair(files_by_stem(images, help), files_by_stem(masks, help), help)


def files_by_stem(folder: Path, help: str) -> dict[str, Path]:
    """The images of a folder and those in it, in the order of their names, by their place in it without the suffix; hidden ones
    are passed over."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; {help}")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in place.parts) and path.is_file():
            stem = place.with_suffix("").as_posix()
            if stem in files:
                raise DataError(f"{files[stem]} and {path} differ in the suffix alone; keep one of them")
            files[stem] = path
    if not files:
        raise DataError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)}); {help}")
    return files


def pair(images: Mapping[str, Path], masks: Mapping[str, Path], help: str) -> list[Pair]:
    """Each image with the mask of the same key; DataError, ending in `help`, if any is alone and none are left out."""
    alone = [(path, "mask") for key, path in images.items() if key not in masks]
    alone += [(path, "image") for key, path in masks.items() if key not in images]
    left_out = LONE.get()
    if left_out is not None:
        left_out += alone
    elif alone:
        path, what = alone[0]
        others = sum(lacking == what for _, lacking in alone) - 1
        more = f" (and {others} more)" if others else ""
        raise DataError(f"{path}{more} has no {what} of the same name; {help}")
    return [(image, masks[key]) for key, image in images.items() if key in masks]


@contextmanager
def leaving_out_lone_files() -> Iterator[list[tuple[Path, str]]]:
    """Within it, files without a partner are no DataError: they are left out of the pairs, and listed with what each lacks."""
    left_out: list[tuple[Path, str]] = []
    token = LONE.set(left_out)
    try:
        yield left_out
    finally:
        LONE.reset(token)


def size_message(image: Path, image_size: tuple[int, ...], mask: Path, mask_size: tuple[int, ...]) -> str:
    return (
        f"{image} is {image_size[0]} x {image_size[1]} pixels (width x height), but its mask {mask} is "
        f"{mask_size[0]} x {mask_size[1]}; they must be equal"
    )


def ranges(numbers: np.ndarray) -> list[str]:
    """Numbers as ranges: 0, 1, 2, 7 -> "0 to 2", "7"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
