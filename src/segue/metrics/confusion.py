"""Scores from one confusion matrix over a whole set: acc, acc_cls, iu, mean_iu, fw_iu (Long et al., CVPR 2015, section 5)."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segue.labels import IGNORE
from segue.machine.compiled import compile_loop
from segue.machine.replacing import replacing


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column), int64, over as many images as one likes.

    Pixels whose truth is 255 are not counted, whatever is predicted there. A class that is neither in the truth nor predicted has
    the iu nan and is left out of mean_iu, as the Cityscapes evaluator does; one that is predicted but not in the truth has the
    iu 0. Scores are shares, 0 to 1; nan where nothing was counted.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if not 1 <= len(names) <= IGNORE:
            raise ValueError(f"names (={len(names)} of them) must be 1 to {IGNORE} class names")
        self.names = tuple(names)
        self.counts: NDArray[np.int64] = np.zeros((len(self.names), len(self.names)), np.int64)

    def update(self, truth: ArrayLike, prediction: ArrayLike) -> None:
        """Count one or more label maps of integers (or bools: 0 and 1), of any one shape, as arrays or tensors on the CPU.

        ValueError, and nothing counted, if a pixel's truth is neither a class nor 255, or a counted pixel's prediction no class.
        """
        truth, prediction = as_labels("truth", truth), as_labels("prediction", prediction)
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has the shape {truth.shape}, but prediction {prediction.shape}; they must be equal")
        classes = len(self.names)
        if not (fits_a_byte(truth) and fits_a_byte(prediction)):
            reject_others(truth, prediction, classes)  # if nothing is wrong, what does not fit is where nothing is counted
        pairs = count_pairs(truth, prediction, classes)
        if pairs[classes].any() or pairs[:classes, classes].any():
            reject_others(truth, prediction, classes)
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
        counts = np.array(fields["counts"])
        if counts.shape != matrix.counts.shape or counts.dtype.kind != "i" or (counts < 0).any():
            wanted = f"{matrix.counts.shape} of whole numbers, one a pair of classes, none negative"
            raise ValueError(f"counts (shape {counts.shape} of {counts.dtype}) must be {wanted}")
        matrix.counts = counts.astype(np.int64)
        return matrix

    def save(self, path: str | Path) -> None:
        """Write the matrix as JSON; a file that was there is replaced whole or not at all."""
        with replacing(path) as new:
            new.write_text(json.dumps(self.to_json()))

    @classmethod
    def load(cls, path: str | Path) -> "ConfusionMatrix":
        try:
            return cls.from_json(json.loads(Path(path).read_text()))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no confusion matrix: {type(error).__name__} {error}") from None


def as_labels(what: str, values: ArrayLike) -> NDArray[Any]:
    labels = np.asarray(values)
    if labels.dtype.kind not in "biu":
        raise ValueError(f"{what} has the type {labels.dtype}; label maps are of integers (take the argmax of scores)")
    return labels


def fits_a_byte(labels: NDArray[Any]) -> bool:
    """Whether all are 0 to 255, that is, none has a bit above the eighth."""
    return labels.dtype == np.uint8 or bool(0 <= np.bitwise_or.reduce(labels, axis=None) <= 255)


def reject_others(truth: NDArray[Any], prediction: NDArray[Any], classes: int) -> None:
    """ValueError if a label that is to be counted is no class."""
    counted = truth != IGNORE
    for what, labels in (("truth", truth[counted]), ("prediction", prediction[counted])):
        wrong, pixels = np.unique(labels[(labels < 0) | (labels >= classes)], return_counts=True)
        if len(wrong):
            found = ", ".join(f"{label} ({many:,} pixels)" for label, many in zip(wrong[:5], pixels[:5], strict=True))
            raise ValueError(
                f"{what} has the label {found}, but there are {classes} classes, 0 to {classes - 1}; "
                f"map other labels to a class, or to {IGNORE} in the truth to ignore them"
            )


def divide(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """part / whole, nan where whole is 0."""
    shares: NDArray[np.float64] = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=shares, where=np.asarray(whole) > 0)


def mean(values: NDArray[np.float64]) -> float:
    """The mean of what is not nan; nan if nothing is left."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def count_pairs(truth: NDArray[Any], prediction: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Pixels by truth (row) and prediction (column): each class, then all labels that are no class; a last row has the ignored
    pixels. Of each label only the low byte is looked at."""
    column = np.minimum(np.arange(256, dtype=np.uintp), classes)
    row = column * (classes + 1)
    row[IGNORE] = (classes + 1) ** 2
    lanes = np.zeros((4, (classes + 2) * (classes + 1)), np.int64)
    flat = [np.ascontiguousarray(labels, np.uint8).reshape(-1) for labels in (truth, prediction)]
    compiled_count()(*flat, row, column, lanes)
    pairs: NDArray[np.int64] = lanes.sum(axis=0).reshape(classes + 2, classes + 1)
    return pairs


def count(truth: Any, prediction: Any, row: Any, column: Any, lanes: Any) -> None:
    """Add 1 at row[t] + column[p] for each pixel, in any of four lanes: a counter that was just written is slow to read, and
    neighbours are mostly alike. Where 64 neighbours are all alike, which is most of a map of real things, add 64."""
    whole = len(truth) - len(truth) % 64
    for start in range(0, whole, 64):
        t, p = truth[start], prediction[start]
        differences = np.uint8(0)
        for i in range(start, start + 64):
            differences |= (truth[i] ^ t) | (prediction[i] ^ p)
        if differences == 0:
            lanes[0, row[t] + column[p]] += 64
            continue
        for i in range(start, start + 64, 4):
            for lane in range(4):
                lanes[lane, row[truth[i + lane]] + column[prediction[i + lane]]] += 1
    for i in range(whole, len(truth)):
        lanes[0, row[truth[i]] + column[prediction[i]]] += 1


@cache
def compiled_count() -> Callable[..., None]:
    from numba import int64, types, uint8, uintp

    labels, table = (types.Array(kind, 1, "C", readonly=True) for kind in (uint8, uintp))
    signature = types.void(labels, labels, table, table, int64[:, ::1])
    return compile_loop(count, signature)
