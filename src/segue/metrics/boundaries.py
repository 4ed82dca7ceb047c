"""How well boundaries are met: the boundary F1 score, and pixels near a boundary scored apart from the rest.

BF is defined in: What is a good evaluation measure for semantic segmentation? Gabriela Csurka, Diane Larlus, Florent Perronnin,
BMVC 2013, http://www.bmva.org/bmvc/2013/Papers/paper0032/, section 3; it is averaged as in SegNet, https://arxiv.org/abs/1511.00561,
section 4.1: over the classes in an image's truth, then over the images.

Decided here, where the papers leave it open:
- A boundary pixel of a class touches, left, right, above or below, a pixel of another class. Neither the image's border nor void
  is a boundary, and predictions under void are void. So a truth whose classes never touch, as VOC's, has no BF.
- A class without a boundary in an image's truth is left out of that image; one with a boundary there, but none in the prediction,
  has the F1 0.
- Nearer than the tolerance, not as near, is near enough.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segue.labels import IGNORE, Mask
from segue.machine.compiled import compile_loop
from segue.metrics.confusion import ConfusionMatrix, mean

NONE = IGNORE
"""In a map of boundaries: no boundary here."""


class Boundaries:
    """Boundary F1, and confusion matrices of the pixels near a boundary of the truth and of the others, over many images."""

    def __init__(self, names: Sequence[str]) -> None:
        self.near = ConfusionMatrix(names)
        """Pixels nearer than the tolerance to a boundary between two classes of the truth."""
        self.interior = ConfusionMatrix(names)
        """All others that are not void."""
        self.class_sums: NDArray[np.float64] = np.zeros(len(names))
        self.class_images: NDArray[np.int64] = np.zeros(len(names), np.int64)
        self.image_sum, self.images = 0.0, 0

    def update(self, truth: Mask, prediction: Mask) -> NDArray[np.float64]:
        """Count one image (H, W); gives its F1 by class, nan for classes without a boundary in the truth."""
        predicted = np.where(truth == IGNORE, IGNORE, prediction)
        boundary = boundary_map(truth)
        near = near_any(boundary)
        self.near.update(np.where(near, truth, IGNORE), prediction)
        self.interior.update(np.where(near, IGNORE, truth), prediction)
        f1 = boundary_f1(boundary, boundary_map(predicted), len(self.class_sums))
        self.class_sums += np.nan_to_num(f1)
        self.class_images += ~np.isnan(f1)
        if not np.isnan(f1).all():
            self.image_sum += mean(f1)
            self.images += 1
        return f1

    def merge(self, other: "Boundaries") -> None:
        """Take in what was counted on other images."""
        self.near += other.near
        self.interior += other.interior
        self.class_sums += other.class_sums
        self.class_images += other.class_images
        self.image_sum += other.image_sum
        self.images += other.images

    @property
    def bf(self) -> float:
        """SegNet's BF: the mean over the images of the mean over their classes, 0 to 1; nan without any boundary."""
        return self.image_sum / self.images if self.images else float("nan")

    @property
    def bf_per_class(self) -> NDArray[np.float64]:
        """The mean over the images whose truth has a boundary of the class; nan where none has."""
        empty = np.full(len(self.class_sums), np.nan)
        return np.divide(self.class_sums, self.class_images, out=empty, where=self.class_images > 0)


def tolerance(height: int, width: int) -> float:
    """0.75 % of the diagonal, in pixels; pixels of a boundary match where they are nearer than this."""
    return float(0.0075 * np.hypot(height, width))


def reach(height: int, width: int) -> float:
    """Where to cut distances between pixels: halfway in their squares, whole numbers, from below the tolerance to the next."""
    below = (9 * (height**2 + width**2) - 1) // 160_000  # 0.0075 ** 2 = 9 / 160,000
    return float(np.sqrt(below + 0.5))


def boundary_map(labels: Mask) -> Mask:
    """The class of each pixel that touches another class, void excepted, with one of its four sides; NONE elsewhere."""
    touches = np.zeros(labels.shape, bool)
    for one, other in (((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
                       ((slice(None), slice(None, -1)), (slice(None), slice(1, None)))):  # fmt: skip
        differ = (labels[one] != labels[other]) & (labels[one] != IGNORE) & (labels[other] != IGNORE)
        touches[one] |= differ
        touches[other] |= differ
    return np.where(touches, labels, NONE)


def near_any(boundary: Mask) -> NDArray[np.bool_]:
    """Where some boundary is nearer than the tolerance."""
    apart = (boundary == NONE).view(np.uint8)
    if apart.all():
        return np.zeros(boundary.shape, bool)
    return cv2.distanceTransform(apart, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) < reach(*boundary.shape)


def boundary_f1(truth: Mask, prediction: Mask, classes: int) -> NDArray[np.float64]:
    """F1 by class of two boundary maps (H, W): of precision, the share of the prediction's boundary pixels that are near to the
    truth's, and recall, the share of the truth's that are near to the prediction's. nan for a class without any in the truth."""
    true, predicted = (np.bincount(boundary.reshape(-1), minlength=256)[:classes] for boundary in (truth, prediction))
    found, right = count_near(truth, prediction)[:classes], count_near(prediction, truth)[:classes]
    recall, precision = found / np.maximum(1, true), right / np.maximum(1, predicted)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return np.where(true > 0, f1, np.nan)


def count_near(these: Mask, those: Mask) -> NDArray[np.int64]:
    """By class, how many pixels of the boundaries `these` have one of `those` of their class nearer than the tolerance."""
    within = reach(*these.shape)
    margin = int(within)
    around = np.pad(those, margin, constant_values=NONE)
    y, x = np.mgrid[-margin : margin + 1, -margin : margin + 1]
    nearest_first = np.argsort(np.hypot(y, x), axis=None, kind="stable")[: np.count_nonzero(np.hypot(y, x) < within)]
    steps = (y * around.shape[1] + x).reshape(-1)[nearest_first]
    counts = np.zeros(256, np.int64)
    compiled_search()(np.ascontiguousarray(these), around.reshape(-1), steps.astype(np.int64), margin, counts)
    return counts


def search(these: Any, around: Any, steps: Any, margin: int, counts: Any) -> None:
    """Add 1 to the class of each pixel of `these` that meets its class in `around`, which is wider by `margin`, by some step."""
    height, width = these.shape
    for y in range(height):
        for x in range(width):
            number = these[y, x]
            if number != NONE:
                start = (y + margin) * (width + 2 * margin) + x + margin
                for step in steps:
                    if around[start + step] == number:
                        counts[number] += 1
                        break


@cache
def compiled_search() -> Callable[..., None]:
    """`search` as machine code: a distance transform for each class would take seconds for a large image of many classes."""
    import numba

    labels, flat = (numba.types.Array(numba.uint8, dimensions, "C", readonly=True) for dimensions in (2, 1))
    signature = numba.void(labels, flat, numba.int64[::1], numba.int64, numba.int64[::1])
    return compile_loop(search, signature)
