"""Label maps that a program has written into files: which file is of which sample, and what its numbers mean."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segue.data.cityscapes import FRAME, Cityscapes
from segue.data.files import FileSamples, read
from segue.data.samples import DataError, Samples
from segue.images import IMAGE_SUFFIXES
from segue.images.fast_decoding import read_mask
from segue.labels import IGNORE, Mask

SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
"""Of formats that keep numbers as they are."""
IDS = ("train", "label")
WRITTEN = "comparison.png"
"""What segue compare writes beside a scores.json: of all that segue keeps in a record, the one file that may be a label map."""


class LabelMaps:
    """The predicted label map of each sample, from files of one channel of 8 bits, palettes included.

    found: a folder, whose files are matched by their names as `find_label_maps` does, or the file of each sample in their order.
    ids: "train" if the files hold class numbers from 0 on, as segue predict writes them, and "label" if they hold the numbers of
    the data's own masks, such as Cityscapes' label ids, which its server takes. Without it, names that end in labelIds or
    trainIds tell; it is only asked for where the two differ.

    A label that is not scored becomes 255. DataError for files that are missing, too many, or no label maps.
    """

    def __init__(self, found: str | Path | Sequence[str | Path], samples: Samples, ids: str = "") -> None:
        self.paths = find_label_maps(found, samples) if isinstance(found, str | Path) else [Path(path) for path in found]
        if len(self.paths) != len(samples):
            raise DataError(f"there are {len(self.paths)} files for {len(samples)} samples; give one for each, in their order")
        self.ids = choose_ids(ids, self.paths, samples)
        self.samples = samples

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Mask:
        """The class number of each pixel (H, W), or 255."""
        path = self.paths[index]
        stored = read(path, read_mask)
        return self.samples.decode(stored, path) if self.ids == "label" and isinstance(self.samples, FileSamples) else stored

    @property
    def hint(self) -> str:
        """What may be wrong where a label is no class, to be read after a semicolon; nothing where there is no doubt."""
        if not are_renumbered(self.samples):
            return ""
        if self.ids == "train":
            return "; the file was taken for class numbers: if it has the numbers of the data's own masks, say --ids label"
        return "; the numbers were taken for those of the data's own masks: if they are class numbers, say --ids train"

    def check(self, index: int, truth: Mask) -> None:
        """DataError if a label that is not scored is predicted where the truth is, which a confusion matrix cannot count."""
        if self.ids != "label" or not isinstance(self.samples, FileSamples):
            return
        path = self.paths[index]
        wrong = np.unique(read(path, read_mask)[(truth != IGNORE) & (self[index] == IGNORE)])
        if len(wrong):
            raise DataError(
                f"{path} has the label {', '.join(map(str, wrong[:8]))}, which is not scored, where the truth is a class; "
                "predict one of the classes there, or count it as a miss with segue.metrics.cityscapes.LabelIdScores in Python"
                f"{self.hint}"
            )


def find_label_maps(folder: str | Path, samples: Samples) -> list[Path]:
    """The file of each sample in a folder and the folders in it: it has the image's name, whatever the suffix.

    In Cityscapes the name's begin is enough, city, sequence and frame: *_pred_labelIds.png. Of images with equal names the one
    is meant whose folders are called like the file's. Pictures of segue compare in the folder are passed over. DataError if a
    sample has no file, or several, or if a file is of no sample.
    """
    folder = Path(folder)
    files = files_in(folder)
    images = [Path(samples.name(index)) for index in range(len(samples))]
    alike: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        alike.setdefault(plain_name(image, samples), []).append(index)
    found: dict[int, Path] = {}
    lone = []
    for path in files:
        indices = alike.get(plain_name(path, samples), [])
        if not indices:
            lone.append(path)
            continue
        shared = [common_tail(path.relative_to(folder).parent, images[index].parent) for index in indices]
        index = indices[shared.index(max(shared))]
        if shared.count(max(shared)) > 1:
            raise DataError(
                f"{path} may be of any of {len(indices)} images, such as {images[index]}; put it in a folder like its"
            )
        if index in found:
            raise DataError(f"{found[index]} and {path} are both of {images[index]}; keep the one that is to be scored")
        found[index] = path
    missing = [index for index in range(len(images)) if index not in found]
    more = f" (and {len(lone) - 1} more)" if len(lone) > 1 else ""
    if missing:
        image = images[missing[0]]
        others = f"; {lone[0]}{more} is of none" if lone else ""
        raise DataError(
            f"{len(missing)} of {len(images)} images have no label map in {folder}, such as {image}, whose map would be "
            f"{plain_name(image, samples)}.png{others}; predict them, or choose another --split"
        )
    if lone:
        raise DataError(f"{lone[0]}{more} is of no image of these data; move it away, or choose another --split")
    return [found[index] for index in range(len(images))]


def files_in(folder: Path) -> list[Path]:
    """The files that may be label maps, by their suffix, in the order of their paths."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; name one of label maps")
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and not (path.name == WRITTEN and path.with_name("scores.json").exists())
    ]
    if not files:
        raise DataError(f"{folder} holds neither a checkpoint nor label maps ({', '.join(SUFFIXES)})")
    return files


def plain_name(path: Path, samples: Samples) -> str:
    """By what the names of an image and of its label map are compared."""
    frame = FRAME.match(path.name) if isinstance(samples, Cityscapes) else None
    if frame:
        return frame[0]
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def common_tail(a: Path, b: Path) -> int:
    """How many of the last folders of both are called the same."""
    pairs = list(zip(reversed(a.parts), reversed(b.parts), strict=False))
    return next((i for i, (one, other) in enumerate(pairs) if one != other), len(pairs))


def choose_ids(ids: str, paths: Sequence[Path], samples: Samples) -> str:
    """What the numbers in the files are, "train" or "label"; DataError if that must be told."""
    if ids and ids not in IDS:
        raise DataError(f"ids (={ids!r}) must be one of {', '.join(IDS)}")
    if ids or not are_renumbered(samples):
        return ids or "train"
    for kind in IDS:
        if all(path.stem.lower().endswith(f"{kind}ids") for path in paths):
            return kind
    raise DataError(
        f"the name of {paths[0]} does not tell what its numbers are; say --ids train for class numbers, 0 to "
        f"{len(samples.labels) - 1}, as segue predict writes them, or --ids label for the numbers of the data's own masks"
    )


def are_renumbered(samples: Samples) -> bool:
    """Whether the masks' files have other numbers than the classes."""
    if not isinstance(samples, FileSamples):
        return False
    stored = np.flatnonzero(samples.known & (samples.table != IGNORE))
    return bool((samples.table[stored] != stored).any())
