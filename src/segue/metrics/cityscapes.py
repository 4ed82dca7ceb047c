"""The scores of the Cityscapes benchmark: IoU and iIoU of classes and of categories.

Cordts et al.: The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016, section 4.1. The iIoU asks how well each
road user is found, however small it is: a pixel of an instance weighs as many times more as the average instance of its class is
larger. False positives belong to no instance and weigh 1. The figures are those of the official evaluator (cityscapesscripts,
evalPixelLevelSemanticLabeling), which are not always what one expects:

- Labels that are not scored are ignored in the truth; predicted where the truth is scored, they are misses.
- A category has a hit where any scored class of it is predicted. In its iIoU the labels that are not scored, such as caravans,
  are hits as well, and false positives.
- A group of cars that could not be told apart counts in the IoU, and is neither hit nor miss in the iIoU.
- A class that is neither in the truth nor predicted has no score and is left out of the mean; one that is predicted alone has 0.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segue.images.relabel import relabel
from segue.labels import IGNORE, Mask
from segue.metrics.confusion import ConfusionMatrix, as_labels

if TYPE_CHECKING:
    from segue.data.cityscapes import Cityscapes
    from segue.data.samples import Sample

Flags = NDArray[np.bool_]
Scores = dict[str, float]

AVERAGE_SIZE = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Pixels of an average instance, as the official evaluator has them. These classes have an iIoU."""
ROAD_USERS = ("human", "vehicle")
"""The categories that have an iIoU."""


class LabelIdScores:
    """Counts label maps of Cityscapes' own ids, as in the files *_labelIds.png, and scores them; scores are shares, 0 to 1.

    `label_ids` is segue.data.cityscapes.LABEL_IDS: id, name, class number (255 if it is not scored) and category of each label.
    """

    def __init__(self, label_ids: Iterable[tuple[int, str, int, str]]) -> None:
        table = sorted(row for row in label_ids if row[0] >= 0)
        self.names = tuple(name for _, name, _, _ in table)
        self.categories = tuple(dict.fromkeys(category for _, _, _, category in table))
        self.category = np.array([self.categories.index(category) for _, _, _, category in table])
        self.scored: Flags = np.array([number != IGNORE for _, _, number, _ in table])
        self.matrix = ConfusionMatrix(self.names)
        self.weighted = {name: np.zeros(2) for name in (*AVERAGE_SIZE, *ROAD_USERS)}
        """Hits and misses in the instances of each class and category."""
        self.lacking = 0
        """How many images came without instances. If there is any, every iIoU is nan."""

    def update(self, truth: ArrayLike, prediction: ArrayLike, instances: ArrayLike | None = None) -> None:
        """Count one image: ids 0 to 33 (H, W) of truth and prediction, and the numbers in its file *_instanceIds.png.

        An instance has the number 1000 * id + a running number; what is 1000 or less belongs to none. ValueError, and nothing
        counted, for other ids (the licence plate, -1, is not drawn into the files) and for instances of scored classes that
        have none; the official evaluator stops there, too.
        """
        truth, prediction = as_labels("truth", truth), as_labels("prediction", prediction)
        if (truth == IGNORE).any():
            raise ValueError(f"truth has the label {IGNORE}; the ids are 0 to {len(self.names) - 1}, and 0 is unlabeled")
        if instances is None:
            self.matrix.update(truth, prediction)
            self.lacking += 1
            return
        instances = as_labels("instances", instances)
        if instances.shape != truth.shape:
            raise ValueError(f"instances have the shape {instances.shape}, but truth {truth.shape}; they must be equal")
        inside = instances > 1000
        numbers = instances[inside]
        self.check_instances(numbers)
        self.matrix.update(truth, prediction)
        self.count_instances(numbers, prediction[inside])

    def check_instances(self, numbers: NDArray[Any]) -> None:
        """ValueError if one is of no label, or of a scored class that has no instances."""
        largest = numbers.max(initial=0)
        if largest >= 1000 * len(self.names):
            raise ValueError(f"instances have the number {largest}, but the largest id is {len(self.names) - 1}, times 1000")
        for label in np.flatnonzero(np.bincount(numbers // 1000)):
            if self.scored[label] and self.names[label] not in AVERAGE_SIZE:
                raise ValueError(f"instances have the id {label}, {self.names[label]}; only {', '.join(AVERAGE_SIZE)} have any")

    def count_instances(self, numbers: NDArray[Any], predicted: NDArray[Any]) -> None:
        """Add hits and misses, of the pixels that belong to instances: the instance's number, and what is predicted."""
        label = numbers // 1000
        sizes = np.bincount(numbers)
        hits = np.bincount(numbers[predicted == label], minlength=len(sizes))
        near = np.bincount(numbers[self.category[predicted] == self.category[label]], minlength=len(sizes))
        for number in np.flatnonzero(sizes).tolist():
            name, category = self.names[number // 1000], self.categories[self.category[number // 1000]]
            if name in AVERAGE_SIZE:
                size = sizes[number]
                weight = AVERAGE_SIZE[name] / size
                self.weighted[name] += np.array([hits[number], size - hits[number]]) * weight
                self.weighted[category] += np.array([near[number], size - near[number]]) * weight

    def merge(self, other: Self) -> None:
        """Take in what was counted on other images."""
        self.matrix += other.matrix
        self.lacking += other.lacking
        for name, counts in other.weighted.items():
            self.weighted[name] += counts

    @property
    def class_iou(self) -> Scores:
        """IoU of each of the 19 classes."""
        return {self.names[i]: self.iou(self.only(i)) for i in np.flatnonzero(self.scored).tolist()}

    @property
    def class_iiou(self) -> Scores:
        """iIoU of each of the 8 classes that have instances."""
        return {name: self.iiou(name, self.only(self.names.index(name))) for name in AVERAGE_SIZE}

    @property
    def category_iou(self) -> Scores:
        """IoU of each of the 7 categories."""
        return {name: self.iou(self.scored & self.within(name)) for name in self.categories if name != "void"}

    @property
    def category_iiou(self) -> Scores:
        """iIoU of the categories human and vehicle."""
        return {name: self.iiou(name, self.within(name)) for name in ROAD_USERS}

    def only(self, label: int) -> Flags:
        return np.arange(len(self.names)) == label

    def within(self, category: str) -> Flags:
        return self.category == self.categories.index(category)

    def iou(self, ids: Flags) -> float:
        """Of several scored labels taken as one."""
        counts = self.matrix.counts
        hits = int(counts[ids][:, ids].sum())
        return share(hits, int(counts[ids].sum()) - hits, self.false_positives(ids))

    def iiou(self, name: str, ids: Flags) -> float:
        hits, misses = self.weighted[name].tolist()
        return float("nan") if self.lacking else share(hits, misses, self.false_positives(ids))

    def false_positives(self, ids: Flags) -> int:
        """Pixels predicted to be one of `ids` where the truth is another label that is scored."""
        return int(self.matrix.counts[self.scored & ~ids][:, ids].sum())


class CityscapesScorer:
    """The benchmark's scores of predictions of the 19 classes, as `evaluate` wants them.

    An image whose file of instances is missing leaves the iIoU without a score.
    """

    title = "Cityscapes benchmark"
    needs_confidence = False

    def __init__(self, samples: "Cityscapes") -> None:
        self.samples = samples
        self.counts = LabelIdScores(samples.label_ids)
        self.ids = np.zeros(256, np.uint8)
        """The id of each class number; void becomes 0, unlabeled."""
        for label, _, number, _ in samples.label_ids:
            if number != IGNORE:
                self.ids[number] = label

    def update(self, index: int, sample: "Sample", prediction: Mask, confidence: Any = None) -> None:
        """Count one image. ValueError if what is predicted is no class, or if the instances do not fit.

        What is predicted may be 255 where the truth is, too. The sample may bring its `instance_ids`; else they are read.
        """
        classes = len(self.samples.labels)
        largest = prediction.max(initial=0)
        if largest == IGNORE:
            largest = prediction[(prediction != IGNORE) | (sample["mask"] != IGNORE)].max(initial=0)
        if largest >= classes:
            raise ValueError(f"prediction has the label {largest}, but there are {classes} classes, 0 to {classes - 1}")
        instances = sample["instance_ids"] if "instance_ids" in sample else self.samples.instance_ids(index)
        truth, predicted = (relabel(labels, self.ids)[0] for labels in (sample["mask"], prediction))
        self.counts.update(truth, predicted, instances)

    def merge(self, other: Self) -> None:
        """Take in what another scorer has counted on other images."""
        self.counts.merge(other.counts)

    def scores(self) -> Scores:
        """The four means by which the benchmark ranks, 0 to 1."""
        counts = self.counts
        return {
            "iou_class": mean(counts.class_iou),
            "iiou_class": mean(counts.class_iiou),
            "iou_category": mean(counts.category_iou),
            "iiou_category": mean(counts.category_iiou),
        }

    def table(self) -> list[tuple[str, ...]]:
        """IoU and iIoU of each class and category with their means, 0 to 1 with three decimals, as officially printed."""
        means = {name: decimals(score) for name, score in self.scores().items()}
        rows: list[tuple[str, ...]] = [("class", "IoU", "iIoU")]
        rows += in_rows(self.counts.class_iou, self.counts.class_iiou)
        rows += [("mean of the classes", means["iou_class"], means["iiou_class"])]
        rows += in_rows(self.counts.category_iou, self.counts.category_iiou, "category ")
        rows += [("mean of the categories", means["iou_category"], means["iiou_category"])]
        if self.counts.lacking:
            rows += [(f"no iIoU: {self.counts.lacking} images lack their *_instanceIds.png", "", "")]
        return rows


def in_rows(iou: Scores, iiou: Scores, before: str = "") -> list[tuple[str, ...]]:
    return [(before + name, decimals(score), decimals(iiou.get(name, float("nan")))) for name, score in iou.items()]


def share(hits: float, misses: float, false_positives: float) -> float:
    """Intersection over union; nan if there is neither."""
    union = hits + false_positives + misses
    return hits / union if union else float("nan")


def mean(scores: Scores) -> float:
    """The mean of what is not nan, added one by one as officially done, for the same last bit; nan if nothing is left."""
    present = [score for score in scores.values() if not np.isnan(score)]
    return float(np.cumsum(present)[-1]) / len(present) if present else float("nan")


def decimals(score: float) -> str:
    return "-" if np.isnan(score) else f"{score:.3f}"
