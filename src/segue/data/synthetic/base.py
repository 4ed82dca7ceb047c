"""Samples that the program draws from a seed and a number, so that they need no download."""

import copy

import numpy as np

from segue.data.samples import Sample, Samples
from segue.data.synthetic.drawing import Chance

COUNTS = {"train": 400, "val": 60, "test": 60}
SMALLEST = 32  # height and width of a scene
KEPT = 512 * 2**20  # bytes of drawn samples that are kept for the next epoch


class Drawn(Samples):
    """A sample depends on the seed, the split, its number and the size alone. A subclass defines `draw` and sets `labels`."""

    def __init__(self, split: str, count: int | None, size: tuple[int, int], seed: int) -> None:
        if split not in COUNTS:
            raise ValueError(f"split (={split!r}) must be one of {', '.join(COUNTS)}")
        if count is not None and count < 1:
            raise ValueError(f"count (={count}) must be at least 1")
        if len(size) != 2 or min(size) < SMALLEST:
            raise ValueError(f"size (={size}) must be (height, width), each at least {SMALLEST}")
        if seed < 0:
            raise ValueError(f"seed (={seed}) must be at least 0")
        self.split = split
        self.count = count or COUNTS[split]
        self.size = size
        self.seed = seed
        self.drawn: dict[int, Sample] = {}
        self.kept = KEPT

    def without_keeping(self) -> "Drawn":
        """The same samples, of which no more are kept: for who keeps them in another way."""
        same = copy.copy(self)
        same.kept = 0
        return same

    def check(self, index: int) -> None:
        """Nothing: what is drawn can be used."""

    def draw(self, chance: Chance) -> Sample:
        raise TypeError(f"{type(self).__name__} has no draw(): drawn data must define it")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"index (={index}) must be 0 to {self.count - 1}")
        if index in self.drawn:
            return dict(self.drawn[index])
        numbers = [self.seed, list(COUNTS).index(self.split), index]
        sample = self.draw(Chance(np.random.PCG64(numbers)))
        if (len(self.drawn) + 1) * sum(array.nbytes for array in sample.values()) <= self.kept:
            for array in sample.values():
                array.flags.writeable = False  # it is given again
            self.drawn[index] = sample
        return dict(sample)
