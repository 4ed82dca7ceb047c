"""Scores: of pixels from one confusion matrix, and what else a data set is judged by."""

from segue.metrics.bootstrap import Comparison, compare
from segue.metrics.confusion import ConfusionMatrix
from segue.metrics.images import ImageMatrices

__all__ = ["Comparison", "ConfusionMatrix", "ImageMatrices", "compare"]
