"""Objects found, merged and split: whether cells that touch come apart.

A label map of two classes becomes objects: the 4-connected parts of class 1, however small. They are compared with the true ones
by the pixels that they share:

- a true object lies in a predicted one if more than half of it does; two or more in the same one are merged. (So it is in the
  Cell Tracking Challenge: Matula et al., PLoS ONE 2015.)
- a true object is split if two or more predicted ones, each more than half inside it, each cover a tenth of it or more;
- it is found if it shares with a predicted one more than half of what the two cover together (an IoU above 0.5), missed
  otherwise;
- a predicted object is spurious if no more than half of it is in any true one and no true one lies in it.

Each true object has one fate: merged, or else split, or else found, or else missed. F1 is of pairs with an IoU above 0.5,
whatever their fate, over all images together. The score of the 2018 Data Science Bowl (dsb) is TP / (TP + FP + FN) at an IoU
above 0.5, 0.55, ... 0.95, their mean, and the mean of that over images. (Caicedo et al., Cytometry A 2019, call merged and split
what has an IoU above 0.1 with two; so four nuclei in one, but not eleven. Hence the rule above.)

Where objects touch, `segue.data.nuclei.separate` takes a rim of one pixel from each in the labels, so a network that has learned
them draws such objects that much smaller. The true ones here have all of their pixels, and the IoU suffers a little.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segue.labels import Mask

if TYPE_CHECKING:
    from segue.data.samples import Sample, Samples
    from segue.labels import Confidence

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]

FATES = ("found", "merged", "split", "missed")
PART = 0.1  # of a true object: a smaller piece does not make it split
LEVELS = np.arange(10, 20) / 20  # of the IoU


def components(mask: NDArray[Any]) -> Numbers:
    """The 4-connected parts of where a mask (H, W) is not 0, as numbers from 1 on; 0 elsewhere."""
    return cv2.connectedComponents((mask != 0).astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1].astype(np.int64)


@dataclass(frozen=True)
class Overlaps:
    """Which objects share pixels, and how many. Objects are counted from 0 in the order of their numbers in the maps."""

    truth: Numbers
    """(N,) pixels of each true object."""
    predicted: Numbers
    """(M,) pixels of each predicted object."""
    rows: Numbers
    """(K,) the true object of each pair that shares pixels."""
    columns: Numbers
    """(K,) the predicted one."""
    shared: Numbers
    """(K,) how many they share."""

    @classmethod
    def of(cls, truth: NDArray[Any], predicted: NDArray[Any]) -> "Overlaps":
        """Of two maps (H, W) of whole numbers, 0 for no object; an object may be in several parts."""
        check_map("truth", truth)
        check_map("predicted", predicted)
        if truth.shape != predicted.shape:
            raise ValueError(f"truth has the shape {truth.shape}, but predicted {predicted.shape}; they must be equal")
        return cls.of_ordered(in_order(truth)[1], in_order(predicted)[1])

    @classmethod
    def of_ordered(cls, truth: Numbers, predicted: Numbers) -> "Overlaps":
        """Of two maps whose objects have the numbers 1 to N and 1 to M."""
        width = int(predicted.max(initial=0)) + 1
        pairs, counts = np.unique(truth * width + predicted, return_counts=True)
        rows, columns = pairs // width, pairs % width
        areas, others = (np.bincount(which, counts)[1:].astype(np.int64) for which in (rows, columns))
        both = (rows > 0) & (columns > 0)
        return cls(areas, others, rows[both] - 1, columns[both] - 1, counts[both])

    @property
    def iou(self) -> NDArray[np.float64]:
        """(K,) of each pair: pixels shared over pixels that either has."""
        return self.shared / (self.truth[self.rows] + self.predicted[self.columns] - self.shared)

    def hits(self, level: float) -> int:
        """Pairs with an IoU above a level of 0.5 or more: at most one for each object."""
        return int((self.iou > level).sum())


@dataclass(frozen=True)
class Match:
    """What became of each object."""

    overlaps: Overlaps
    fates: NDArray[np.str_]
    """(N,) of each true object, one of FATES."""
    merging: Flags
    """(M,) whether two or more true objects lie in a predicted one."""
    splitting: Flags
    """(M,) whether a predicted one is a part of a split one."""
    spurious: Flags
    """(M,)"""


def match(truth: NDArray[Any], predicted: NDArray[Any]) -> Match:
    """Compare two maps (H, W) of object numbers, 0 for none, by the rules above."""
    overlaps = Overlaps.of(truth, predicted)
    rows, columns, shared = overlaps.rows, overlaps.columns, overlaps.shared
    lies_in = 2 * shared > overlaps.truth[rows]
    inside = 2 * shared > overlaps.predicted[columns]
    merging = np.bincount(columns[lies_in], minlength=len(overlaps.predicted)) > 1
    part = inside & (shared >= PART * overlaps.truth[rows])
    split = np.bincount(rows[part], minlength=len(overlaps.truth)) > 1

    fates = np.full(len(overlaps.truth), "missed")
    fates[rows[overlaps.iou > 0.5]] = "found"
    fates[split] = "split"
    fates[rows[lies_in & merging[columns]]] = "merged"
    spurious = np.ones(len(overlaps.predicted), bool)
    spurious[columns[lies_in | inside]] = False
    splitting = np.zeros(len(overlaps.predicted), bool)
    splitting[columns[part & (fates[rows] == "split")]] = True
    return Match(overlaps, fates, merging, splitting, spurious)


def touching(instances: NDArray[Any]) -> Flags:
    """(N,) whether each object of a map (H, W), in the order of their numbers, has a pixel beside one of another, corners too."""
    numbers, labels = in_order(instances)
    touches = np.zeros(len(numbers) + 1, bool)
    for one, other in (
        (labels[1:], labels[:-1]),
        (labels[:, 1:], labels[:, :-1]),
        (labels[1:, 1:], labels[:-1, :-1]),
        (labels[1:, :-1], labels[:-1, 1:]),
    ):
        meet = (one != other) & (one > 0) & (other > 0)
        touches[one[meet]] = touches[other[meet]] = True
    return touches[1:]


def data_science_bowl(overlaps: Overlaps) -> float:
    """The score of one image; 1 if there is nothing and nothing was predicted."""
    objects = len(overlaps.truth) + len(overlaps.predicted)
    hits = (overlaps.iou > LEVELS[:, None]).sum(axis=1)
    return float((hits / (objects - hits)).mean()) if objects else 1.0


class InstanceScorer:
    """Counts of objects by their fate over a data set of two classes that has `instances`, and of those that touch another."""

    needs_confidence = False

    def __init__(self, samples: "Samples") -> None:
        names = samples.labels.names
        if len(names) != 2:
            raise ValueError(
                f"the data have {len(names)} classes ({', '.join(names)}); objects are counted where there are two, "
                "background and then what the objects are, as in nuclei and cells"
            )
        self.title = f"objects of the class {names[1]}"
        self.fates = np.zeros((2, len(FATES)), np.int64)  # all, touching
        self.predicted = self.spurious = self.hits = self.images = 0
        self.dsb = 0.0

    def update(self, index: int, sample: "Sample", prediction: Mask, confidence: "Confidence | None" = None) -> None:
        if "instances" not in sample:
            raise ValueError("the sample has no instances, the numbers of its objects; data sets nuclei and cells have them")
        instances = sample["instances"]
        matched = match(instances, components(prediction == 1))
        for row, fates in enumerate((matched.fates, matched.fates[touching(instances)])):
            self.fates[row] += [(fates == fate).sum() for fate in FATES]
        self.predicted += len(matched.overlaps.predicted)
        self.spurious += int(matched.spurious.sum())
        self.hits += matched.overlaps.hits(0.5)
        self.dsb += data_science_bowl(matched.overlaps)
        self.images += 1

    def merge(self, other: "InstanceScorer") -> None:
        self.fates += other.fates
        self.predicted += other.predicted
        self.spurious += other.spurious
        self.hits += other.hits
        self.dsb += other.dsb
        self.images += other.images

    def scores(self) -> dict[str, float]:
        """Numbers of objects; f1 and dsb are shares, 0 to 1, nan where there is nothing to count."""
        every, beside = self.fates.astype(float)
        objects = every.sum() + self.predicted
        return {
            "objects": every.sum(),
            **dict(zip(FATES, every.tolist(), strict=True)),
            "spurious": float(self.spurious),
            "f1": 2 * self.hits / objects if objects else float("nan"),
            "dsb": self.dsb / self.images if self.images else float("nan"),
            "touching": beside.sum(),
            **{f"touching_{fate}": count for fate, count in zip(FATES, beside.tolist(), strict=True)},
        }

    def table(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("", "all", "touching another")]
        totals = self.fates.sum(axis=1)
        rows.append(("objects", *(f"{total:,}" for total in totals)))
        for fate, counts in zip(FATES, self.fates.T, strict=True):
            rows.append((fate, *(f"{n:,} ({n / max(1, total):.1%})" for n, total in zip(counts, totals, strict=True))))
        scores = self.scores()
        rows.append(("spurious", f"{self.spurious:,} of {self.predicted:,} predicted", ""))
        rows += [("F1 at an IoU of 0.5", f"{scores['f1']:.3f}", ""), ("Data Science Bowl", f"{scores['dsb']:.3f}", "")]
        return rows


def check_map(what: str, numbers: NDArray[Any]) -> None:
    if numbers.ndim != 2 or numbers.dtype.kind not in "iu":
        wanted = "(height, width) of whole numbers, 0 for none and a number an object"
        raise ValueError(f"{what} (shape {numbers.shape} of {numbers.dtype}) must be {wanted}")


def in_order(instances: NDArray[Any]) -> tuple[NDArray[Any], Numbers]:
    """The numbers that occur but 0, and the map with 1 for the smallest, 2 for the next and so on."""
    numbers, labels = np.unique(instances, return_inverse=True)
    return numbers[numbers != 0], labels.reshape(instances.shape) + int(0 not in numbers)
