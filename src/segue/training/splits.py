"""The data of a training, which its stages share."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

from torch.utils.data import Dataset

from segue.data import create_dataset
from segue.data.batches.cache import cached
from segue.data.batches.transforms import Transform
from segue.doctor import quick_check
from segue.doctor.reading import Progress
from segue.labels import Labels
from segue.recipes import Recipe
from segue.training.class_weights import LabelCounts, count_labels


class Splits:
    """The training and the validation split: opened once, checked once, counted once and decoded once for all stages.

    train_data, val_data: in place of what the recipe names. progress: called with what is being done, it wraps a sequence.
    ValueError for data that cannot be opened, or that have no labels.
    """

    def __init__(
        self, recipe: Recipe, train_data: Dataset[Any] | None = None, val_data: Dataset[Any] | None = None,
        labels: Labels | None = None, transform: Transform | None = None,
        progress: Callable[[str], Progress] = lambda description: iter,
    ) -> None:  # fmt: skip
        self.train = train_data if train_data is not None else create_dataset(recipe.data, recipe.root, recipe.split)
        self.val = val_data if val_data is not None else create_dataset(recipe.data, recipe.root, "val")
        known = labels or getattr(self.train, "labels", None)
        if known is None:
            raise ValueError("the training data have no attribute `labels`; pass labels=Labels.from_names([...])")
        self.labels: Labels = known
        self.transform, self.progress = transform, progress
        self.kept: dict[tuple[str, int, int], Dataset[Any]] = {}

    def check(self) -> None:
        """DataError if one of the splits is broken."""
        quick_check(self.train, self.val, self.progress, self.labels)

    @cached_property
    def label_counts(self) -> LabelCounts:
        """Of the training split."""
        return count_labels(self.train, len(self.labels), self.progress("counting labels"))

    def decoded(self, cache: Literal["auto", "memory", "none"], processes: int, workers: int) -> Dataset[Any]:
        """The training split, kept in memory where `segue.data.batches.cache.cached` does so: the same for all that ask alike."""
        asked = cache, processes, workers
        if asked not in self.kept:
            self.kept[asked] = cached(self.train, cache, processes, workers)
        return self.kept[asked]
