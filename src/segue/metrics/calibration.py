"""Whether a network is right as often as it says: the expected calibration error (Guo et al., ICML 2017).

On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, section 2.
"""

import numpy as np
from numpy.typing import NDArray

from segue.labels import IGNORE, Mask

BINS = 15
"""As many as the paper takes."""


class Calibration:
    """Counts of pixels by the confidence that they were predicted with, in 15 bins of equal width, over any number of images.

    Bin i, from 0, holds the confidences above i / 15 up to (i + 1) / 15; 0 itself is in the first. Pixels whose truth is 255 are
    not counted.
    """

    def __init__(self) -> None:
        self.pixels: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.right: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.confidence: NDArray[np.float64] = np.zeros(BINS)
        """The sum over a bin's pixels."""

    def update(self, truth: Mask, prediction: Mask, confidence: NDArray[np.float32]) -> None:
        """Count label maps and the probability of each pixel's predicted class, 0 to 1, all of one shape.

        ValueError, and nothing counted, if a counted pixel's confidence is not 0 to 1, or the shapes differ.
        """
        if not truth.shape == prediction.shape == confidence.shape:
            shapes = f"{truth.shape}, {prediction.shape} and {confidence.shape}"
            raise ValueError(f"truth, prediction and confidence have the shapes {shapes}; they must be equal")
        counted = truth != IGNORE
        certain = confidence[counted].astype(np.float64)
        if not ((certain >= 0) & (certain <= 1 + 1e-5)).all():  # a softmax in float32 may pass 1 by its rounding
            raise ValueError("confidence must be 0 to 1 wherever the truth is not void; give the softmax of the predicted class")
        bins = np.clip(np.ceil(certain * BINS) - 1, 0, BINS - 1).astype(np.intp)
        right = (truth == prediction)[counted]
        self.pixels += np.bincount(bins, minlength=BINS)
        self.right += np.bincount(bins[right], minlength=BINS)
        self.confidence += np.bincount(bins, weights=certain, minlength=BINS)

    def merge(self, other: "Calibration") -> None:
        """Take in what was counted on other images."""
        self.pixels += other.pixels
        self.right += other.right
        self.confidence += other.confidence

    @property
    def ece(self) -> float:
        """The gap between a bin's mean confidence and its share of right pixels, on average over the pixels; nan without any."""
        total = self.pixels.sum()
        return float(np.abs(self.right - self.confidence).sum() / total) if total else float("nan")

    @property
    def overconfidence(self) -> float:
        """The mean confidence less the share of right pixels, -1 to 1: above 0, the network promises too much."""
        total = self.pixels.sum()
        return float((self.confidence.sum() - self.right.sum()) / total) if total else float("nan")
