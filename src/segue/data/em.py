"""ISBI-2012 EM: slices of a fly's nerve cord under the electron microscope, and the membranes of its cells."""

from pathlib import Path

import numpy as np

from segue.data.files import FileSamples, pair_files, read
from segue.data.samples import DataError
from segue.images import ImageError
from segue.images.files import opened
from segue.labels import Image, Labels, Mask

EM = Labels(names=("cell", "membrane"), palette=((255, 255, 255), (0, 0, 0)))

SLICES, TRAINED = 30, 24
VOLUME, LABELS = "train-volume.tif", "train-labels.tif"
HELP = (
    f"ISBI-2012 EM is {VOLUME} and {LABELS}, of {SLICES} slices each: segue data fetch em, or get them from "
    "imagej.net/events/isbi-2012-segmentation-challenge; or else it is the folders images and membranes, of as many PNGs each; "
    "name the place with --root"
)


class Em(FileSamples):
    """30 grey slices of 512 x 512 pixels, each with every pixel labelled: cell (0) or membrane (1, 22 % of the pixels).

    Layout, as distributed: train-volume.tif and train-labels.tif, TIFFs of 30 pages of 8 bits; in the labels 0 is membrane, 255
    cell. Or folders: images/00.png to images/29.png with membranes/00.png to membranes/29.png, where 1 is membrane, 0 cell.

    The labels of the challenge's own test volume are not public, so the splits are segue's: train is the first 24 slices, val is
    the last 6. A score on val is not the challenge's. The palette is the challenge's: cells white, membranes black.

    Ventral nerve cord of a Drosophila larva, 4 x 4 x 50 nm a voxel. Arganda-Carreras et al.: Crowdsourcing the creation of image
    segmentation algorithms for connectomics, Frontiers in Neuroanatomy 2015; Cardona et al., PLoS Biology 2010. For research;
    cite both.
    """

    splits = ("train", "val")

    def __init__(self, root: str | Path, split: str = "train") -> None:
        root = Path(root)
        self.check_split(split)
        self.stacked = (root / VOLUME).exists()
        if self.stacked:
            for path in (root / VOLUME, root / LABELS):
                check_count(path, read(path, count_pages))
            pairs = [(root / VOLUME, root / LABELS)] * SLICES
        else:
            pairs = pair_files(root / "images", root / "membranes", HELP)
            check_count(root / "images", len(pairs))
        self.slices = range(TRAINED) if split == "train" else range(TRAINED, SLICES)
        super().__init__([pairs[i] for i in self.slices], EM, mapping={0: 1, 255: 0} if self.stacked else {0: 0, 1: 1})

    def image(self, index: int) -> Image:
        return self.read_slice(index, self.pairs[index][0])[..., None]

    def mask(self, index: int) -> Mask:
        path = self.pairs[index][1]
        return self.decode(self.read_slice(index, path), path)

    def read_slice(self, index: int, path: Path) -> Mask:
        page = self.slices[index] if self.stacked else 0
        return read(path, lambda path: read_page(path, page))

    def name(self, index: int) -> str:
        return f"{self.pairs[index][0]}, slice {self.slices[index]}" if self.stacked else super().name(index)

    def check(self, index: int) -> None:
        self[index]


def check_count(path: Path, count: int) -> None:
    if count != SLICES:
        raise DataError(f"{path} has {count} slice(s); it must have {SLICES}; {HELP}")


def count_pages(path: Path) -> int:
    with opened(path) as file:
        return getattr(file, "n_frames", 1)


def read_page(path: Path, page: int) -> Mask:
    """One page of a grey picture, (H, W)."""
    with opened(path) as file:
        file.seek(page)
        if file.mode != "L":
            raise ImageError(f"{path} has the mode {file.mode}; a slice must have one channel of 8 bits")
        return np.array(file)
