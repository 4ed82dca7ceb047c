"""Scores from one confusion matrix over a whole set: acc, acc_cls, iu, mean_iu, fw_iu (Long et al., CVPR 2015, section 5)."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from segue.labels import IGNORE


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column), int64, over as many images as one likes.

    Pixels whose truth is 255 are not counted, whatever is predicted there. A class that is neither in the truth nor predicted has
    the iu nan and is left out of mean_iu, as the Cityscapes evaluator does; a class that is predicted but not in the truth has iu 0.
    Scores are shares, 0 to 1; nan where nothing was counted.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.counts: NDArray[np.int64] = np.zeros((len(self.names), len(self.names)), np.int64)

    def update(self, truth: ArrayLike, prediction: ArrayLike) -> None:
        """Count one or more label maps of integers, of any one shape; ValueError, and nothing counted, if a label is no class."""
        truth, prediction = as_labels("truth", truth), as_labels("prediction", prediction)
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has the shape {truth.shape}, but prediction {prediction.shape}; they must be equal")
        pairs = np.zeros((256, 256), np.int64)
        count_pairs(truth.reshape(-1), prediction.reshape(-1), pairs)
        classes = len(self.names)
        counted = np.delete(pairs, IGNORE, axis=0)
        reject_others("truth", counted.sum(axis=1), classes)
        reject_others("prediction", counted.sum(axis=0), classes)
        self.counts += pairs[:classes, :classes]

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """The matrix of both sets of images together."""
        if self.names != other.names:
            raise ValueError(f"cannot add matrices of different classes: {', '.join(self.names)} and {', '.join(other.names)}")
        total = ConfusionMatrix(self.names)
        total.counts = self.counts + other.counts
        return total

    @property
    def acc(self) -> float:
        """Pixel accuracy: the share of counted pixels that are right."""
        return float(divide(self.counts.trace(), self.counts.sum()))

    @property
    def acc_per_class(self) -> NDArray[np.float64]:
        """The share of each class's true pixels that are right; nan for a class that is not in the truth."""
        return divide(self.counts.diagonal(), self.counts.sum(axis=1))

    @property
    def acc_cls(self) -> float:
        """The mean of acc_per_class over the classes in the truth."""
        return mean(self.acc_per_class)

    @property
    def iu(self) -> NDArray[np.float64]:
        """Intersection over union of each class; nan for a class in neither truth nor prediction."""
        hits = self.counts.diagonal()
        return divide(hits, self.counts.sum(axis=0) + self.counts.sum(axis=1) - hits)

    @property
    def mean_iu(self) -> float:
        """The mean of iu over the classes in the truth or the prediction."""
        return mean(self.iu)

    @property
    def fw_iu(self) -> float:
        """The mean of iu weighted by each class's share of the true pixels."""
        share = self.counts.sum(axis=1) / max(1, self.counts.sum())
        return float(np.nansum(share * self.iu)) if self.counts.any() else float("nan")

    def scores(self) -> dict[str, float]:
        """The four summary scores by name."""
        return {"acc": self.acc, "acc_cls": self.acc_cls, "mean_iu": self.mean_iu, "fw_iu": self.fw_iu}

    def to_json(self) -> dict[str, Any]:
        return {"names": self.names, "counts": self.counts.tolist()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ConfusionMatrix":
        matrix = cls(fields["names"])
        counts = np.array(fields["counts"], np.int64)
        if counts.shape != matrix.counts.shape or (counts < 0).any():
            raise ValueError(f"counts (shape {counts.shape}) must be {matrix.counts.shape}, one count a pair of classes, none negative")
        matrix.counts = counts
        return matrix

    def save(self, path: str | Path) -> None:
        """Write the matrix as JSON; a file that was there is replaced whole or not at all."""
        temporary = Path(f"{path}.tmp")
        temporary.write_text(json.dumps(self.to_json()))
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | Path) -> "ConfusionMatrix":
        try:
            return cls.from_json(json.loads(Path(path).read_text()))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} holds no confusion matrix: {error}") from None


def as_labels(what: str, values: ArrayLike) -> NDArray[np.uint8]:
    """The labels as uint8, without a copy where they are."""
    labels = np.asarray(values)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{what} has the type {labels.dtype}; label maps are of integers")
    if labels.dtype != np.uint8:
        wrong = np.unique(labels[(labels < 0) | (labels > 255)])
        if len(wrong):
            raise ValueError(f"{what} has the label {', '.join(map(str, wrong[:5]))}; labels are 0 to 254, and {IGNORE} is ignored")
        labels = labels.astype(np.uint8)
    return np.ascontiguousarray(labels)


def reject_others(what: str, pixels: NDArray[np.int64], classes: int) -> None:
    """ValueError if any of the labels `classes` and above was counted."""
    wrong = [f"{label} ({pixels[label]:,} pixels)" for label in range(classes, len(pixels)) if pixels[label]]
    if wrong:
        raise ValueError(
            f"{what} has the label {', '.join(wrong[:5])}, but there are {classes} classes, 0 to {classes - 1}; "
            f"map other labels to a class, or to {IGNORE} in the truth to ignore them"
        )


def divide(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """part / whole, nan where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def mean(values: NDArray[np.float64]) -> float:
    """The mean of what is not nan; nan if nothing is left."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


@numba.njit(cache=True, nogil=True)  # type: ignore[misc]
def count_pairs(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], pairs: NDArray[np.int64]) -> None:
    """Add to pairs[t, p] the number of places with truth t and prediction p.

    Neighbours are mostly alike, and a counter that was just written is slow to read: so four neighbours have four counters.
    """
    lanes = np.zeros((4, 65536), np.uint32)
    whole = len(truth) - len(truth) % 4
    for start in range(0, whole, 4):
        for lane in range(4):
            i = start + lane
            lanes[lane, np.uint32(truth[i]) << 8 | prediction[i]] += 1
    for i in range(whole, len(truth)):
        lanes[0, np.uint32(truth[i]) << 8 | prediction[i]] += 1
    for code in range(65536):
        total = np.int64(lanes[0, code]) + lanes[1, code] + lanes[2, code] + lanes[3, code]
        pairs[code >> 8, code & 255] += total
