"""Class weights from a data set's label counts."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class LabelCounts:
    """How often each class occurs in a data set."""

    pixels: Counts
    """(K,) pixels of each class."""
    pixels_where_present: Counts
    """(K,) counted pixels of the images in which the class occurs."""
    void: int
    """Pixels that are ignored."""

    @classmethod
    def of(cls, histograms: NDArray[np.int64], num_classes: int) -> "LabelCounts":
        """From one histogram of labels an image, (images, 256)."""
        classes = histograms[:, :num_classes]
        counted = classes.sum(axis=1, keepdims=True)
        return cls(classes.sum(axis=0), ((classes > 0) * counted).sum(axis=0), int(histograms[:, num_classes:].sum()))


def median_frequency_weights(counts: LabelCounts) -> NDArray[np.float32]:
    """SegNet's weights (section 3.1, after Eigen and Fergus): median(freq) / freq, (K,).

    freq is a class's pixels over the pixels of the images in which it occurs. A class that never occurs has weight 0.
    """
    present = counts.pixels > 0
    frequency = counts.pixels[present] / counts.pixels_where_present[present]
    weights = np.zeros(len(counts.pixels), np.float32)
    weights[present] = np.median(frequency) / frequency if present.any() else 0
    return weights


def enet_weights(counts: LabelCounts, c: float = 1.02) -> NDArray[np.float32]:
    """ENet's weights (section 5.1): 1 / ln(c + p), (K,).

    p is a class's share of all pixels, void ones included, as in the authors' code. A class that never occurs has weight 0.
    """
    if c <= 1:
        raise ValueError(f"c (={c}) must be above 1: ln(c + p) must be positive even for the rarest class; ENet has 1.02")
    share = counts.pixels / max(1, int(counts.pixels.sum()) + counts.void)
    return np.where(share > 0, 1 / np.log(c + share), 0).astype(np.float32)


def count_labels(samples: Any, num_classes: int, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> LabelCounts:
    """Read every mask of a data set once and count. `progress` wraps the sample numbers, as tqdm and rich's track do."""

    def histogram(index: int) -> Counts:
        mask = samples.mask(index) if hasattr(samples, "mask") else samples[index]["mask"]
        return np.bincount(np.asarray(mask).reshape(-1), minlength=256)

    with ThreadPoolExecutor() as pool:
        histograms = list(pool.map(histogram, progress(range(len(samples)))))
    return LabelCounts.of(np.array(histograms), num_classes)
