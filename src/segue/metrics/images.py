"""The confusion matrix of each image by its name: kept, extended, added up with none counted twice, and compared."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segue.machine.replacing import replacing
from segue.metrics.confusion import ConfusionMatrix

Cells = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Where an image's matrix is not zero (true class x classes + predicted class), and the pixels there."""


class ImageMatrices:
    """Confusion matrices by the names of their images, of which only what is not zero is kept.

        images = ImageMatrices.load("runs/enet/report/camvid-test/images.npz")
        images["test/0001TP_008550.png"].mean_iu                  # one image's scores
        evaluate_images(predictor, more_samples, into=images)     # go on with other images
        (images + others).total.mean_iu                           # of two runs, or two processes, together

    An image that is there already is refused, so that none counts twice.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = ConfusionMatrix(names).names
        self.cells: dict[str, Cells] = {}

    def add(self, image: str, truth: ArrayLike, prediction: ArrayLike) -> None:
        """Count an image's label maps, as ConfusionMatrix.update does; ValueError if it is there, or a label is no class."""
        self.reject_counted([image])
        matrix = ConfusionMatrix(self.names)
        matrix.update(truth, prediction)
        counts = matrix.counts.reshape(-1)
        filled = np.flatnonzero(counts)
        self.cells[image] = filled, counts[filled]

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __contains__(self, image: object) -> bool:
        return image in self.cells

    def __getitem__(self, image: str) -> ConfusionMatrix:
        """The matrix of one image."""
        return self.summed([self.cells[image]])

    @property
    def total(self) -> ConfusionMatrix:
        """The matrix of all images together."""
        return self.summed(self.cells.values())

    def summed(self, cells: Any) -> ConfusionMatrix:
        matrix = ConfusionMatrix(self.names)
        flat = matrix.counts.reshape(-1)
        for filled, counts in cells:
            flat[filled] += counts
        return matrix

    def __add__(self, other: "ImageMatrices") -> "ImageMatrices":
        """Those of both; ValueError if they share an image, or are of different classes."""
        if self.names != other.names:
            raise ValueError(f"cannot add matrices of different classes: {', '.join(self.names)} and {', '.join(other.names)}")
        self.reject_counted(other)
        both = ImageMatrices(self.names)
        both.cells = {**self.cells, **other.cells}
        return both

    def reject_counted(self, images: Any) -> None:
        twice = [image for image in images if image in self.cells]
        if twice:
            more = f" (and {len(twice) - 1} more)" if len(twice) > 1 else ""
            raise ValueError(f"{twice[0]}{more} would be counted twice; add each image once, under a name of its own")

    def save(self, path: str | Path) -> None:
        """Write a compressed .npz, images in the order of their names; a file that was there is replaced whole or not at all."""
        images = sorted(self.cells)
        filled = [self.cells[image][0] for image in images]
        counts = [self.cells[image][1] for image in images]
        with replacing(path) as new, new.open("wb") as file:
            np.savez_compressed(
                file,
                classes=np.array(self.names),
                images=np.array(images, np.str_),
                ends=np.cumsum([len(part) for part in filled], dtype=np.int64),
                filled=np.concatenate([np.empty(0, np.int64), *filled]).astype(np.uint16),  # 255 classes make 65,025 pairs
                counts=np.concatenate([np.empty(0, np.int64), *counts]),
            )

    @classmethod
    def load(cls, path: str | Path) -> "ImageMatrices":
        """ValueError if the file is missing, damaged, or something else."""
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls.from_arrays(**{name: arrays[name] for name in ("classes", "images", "ends", "filled", "counts")})
        except FileNotFoundError:
            raise ValueError(f"there is no file {path}; segue evaluate writes it") from None
        except Exception as error:  # a damaged file makes zipfile, zlib and NumPy raise nearly anything
            raise ValueError(f"{path} holds no matrices of images: {type(error).__name__} {error}") from None

    @classmethod
    def from_arrays(cls, classes: Any, images: Any, ends: Any, filled: Any, counts: Any) -> "ImageMatrices":
        matrices = cls([str(name) for name in classes])
        cells = [0, *map(int, ends)]
        pairs = len(matrices.names) ** 2
        if len(ends) != len(images) or cells[-1] != len(filled) or len(filled) != len(counts) or sorted(cells) != cells:
            raise ValueError(f"{len(images)} images, {len(filled)} cells and {len(counts)} counts do not go together")
        if filled.dtype != np.uint16 or counts.dtype != np.int64 or (filled >= pairs).any() or (counts < 0).any():
            raise ValueError("the counts must be whole numbers, one a pair of classes, none negative")
        for image, (start, end) in zip(images, pairwise(cells), strict=True):
            matrices.reject_counted([str(image)])
            matrices.cells[str(image)] = filled[start:end].astype(np.int64), counts[start:end]
        return matrices
