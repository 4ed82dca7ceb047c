"""Scores: of pixels from one confusion matrix, and what else a data set is judged by."""

from segue.metrics.confusion import ConfusionMatrix

__all__ = ["ConfusionMatrix"]
