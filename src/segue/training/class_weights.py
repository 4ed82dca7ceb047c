"""Weights of the loss: of classes, from a data set's label counts, and of pixels, from the borders between instances."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segue.labels import IGNORE

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class LabelCounts:
    """How often each of K classes occurs in a data set, and, as the last entry, void: the ignored pixels."""

    pixels: Counts
    """(K + 1,) pixels of each."""
    pixels_where_present: Counts
    """(K + 1,) all pixels of the images in which it occurs."""

    @classmethod
    def of(cls, histograms: Counts, num_classes: int) -> "LabelCounts":
        """From one histogram of labels an image, (images, 256)."""
        others = histograms[:, num_classes:IGNORE]
        if others.any():
            image, label = np.argwhere(others)[0] + (0, num_classes)
            raise ValueError(
                f"sample {image} has the label {label}, but there are {num_classes} classes, 0 to {num_classes - 1}; "
                f"map other labels to a class, or to {IGNORE} to ignore them"
            )
        labels = histograms[:, [*range(num_classes), IGNORE]]
        sizes = labels.sum(axis=1, keepdims=True)
        return cls(labels.sum(axis=0), ((labels > 0) * sizes).sum(axis=0))


def median_frequency_weights(counts: LabelCounts) -> NDArray[np.float32]:
    """SegNet's weights (section 3.1, after Eigen and Fergus): median(freq) / freq, (K,).

    freq is a label's pixels over all pixels of the images in which it occurs; the median is over the labels that occur, void
    among them. It seems that SegNet's list for CamVid was made so: the median of its eleven classes would be the frequency of
    one of them and give it the weight 1, which none has. The labels as released give ten of the weights to within 11 %, but 3.53
    for signs, where the list has 9.64; so it was made from other labels. A class that never occurs has weight 0.
    """
    present = counts.pixels > 0
    frequency = counts.pixels[present] / counts.pixels_where_present[present]
    weights = np.zeros(len(counts.pixels), np.float32)
    weights[present] = np.median(frequency) / frequency
    return weights[:-1]


def enet_weights(counts: LabelCounts, c: float = 1.02) -> NDArray[np.float32]:
    """ENet's weights (section 5.1): 1 / ln(c + p), (K,).

    p is a class's share of all pixels, void ones included, as in the authors' code. A class that never occurs has weight 0.
    """
    if c <= 1:
        raise ValueError(f"c (={c}) must be above 1: ln(c + p) must be positive even for the rarest class; ENet has 1.02")
    share = counts.pixels[:-1] / max(1, counts.pixels.sum())
    return np.where(share > 0, 1 / np.log(c + share), 0).astype(np.float32)


def count_labels(samples: Any, num_classes: int, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> LabelCounts:
    """Read every mask of a data set once and count. `progress` wraps the sample numbers, as tqdm and rich's track do."""

    def histogram(index: int) -> Counts:
        mask = samples.mask(index) if callable(getattr(samples, "mask", None)) else samples[index]["mask"]
        return np.bincount(np.asarray(mask).reshape(-1), minlength=256)

    numbers = range(len(samples))
    with ThreadPoolExecutor() as pool:
        histograms = [counts for _, counts in zip(progress(numbers), pool.map(histogram, numbers), strict=True)]
    return LabelCounts.of(np.array(histograms), num_classes)


def class_weights(counts: LabelCounts, formula: Literal["median_frequency", "enet"], enet_c: float = 1.02) -> NDArray[np.float32]:
    """The weights (K,) of the classes that were counted, by a formula's name.

    median_frequency: see `median_frequency_weights`. enet: see `enet_weights`, whose c is `enet_c`.
    """
    if formula == "enet":
        return enet_weights(counts, enet_c)
    if formula == "median_frequency":
        return median_frequency_weights(counts)
    raise ValueError(f"formula (={formula!r}) must be 'median_frequency' or 'enet'")
