"""Counting: the confusion matrix.

segue's ConfusionMatrix.update against torchmetrics' MulticlassConfusionMatrix, on one map of 1024 x 2048 pixels with 19
classes. One thread for each side; in each round each side counts a map once, in turn. What is measured is the thread's
processor time, to which other work on the machine adds little; on an idle machine it is the time that passes. Truth and
prediction are uint8 labels in memory; 255 is ignored. Both sides must give the same matrix before anything is timed.
torchmetrics is timed as it comes, and with validate_args=False, where it no longer checks labels; segue always does.

Maps: "street", a scene of segue.data.synthetic.streets (9 of the 19 classes), predicted at an eighth of its size; "noise", each
pixel drawn alone, with 5 % ignored: the worst that can come.
"""

import time
from typing import Any

import numpy as np
import torch
from harness import Times, arguments, command_line, compare, summarize, write_record
from torchmetrics.classification import MulticlassConfusionMatrix

from segue.data.synthetic.streets import Streets
from segue.labels import IGNORE
from segue.metrics import ConfusionMatrix

CLASSES = 19
SIZE = (1024, 2048)


def draw_maps() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Truth and prediction by name."""
    street = Streets("val", count=1, size=SIZE)[0]["mask"].copy()
    coarse = street[4::8, 4::8].repeat(8, axis=0).repeat(8, axis=1)
    rng = np.random.default_rng(0)
    noise, other = (rng.integers(0, CLASSES, SIZE, np.uint8) for _ in range(2))
    noise[rng.random(SIZE) < 0.05] = IGNORE
    return {"street": (street, np.where(coarse == IGNORE, 0, coarse).astype(np.uint8)), "noise": (noise, other)}


class Segue:
    def __init__(self) -> None:
        self.matrix = ConfusionMatrix([f"class {i}" for i in range(CLASSES)])

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        self.matrix.update(truth, prediction)

    def counts(self) -> np.ndarray:
        return self.matrix.counts


class TorchMetrics:
    def __init__(self, validate: bool) -> None:
        self.metric = MulticlassConfusionMatrix(CLASSES, ignore_index=IGNORE, validate_args=validate)

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        self.metric.update(torch.from_numpy(prediction), torch.from_numpy(truth))

    def counts(self) -> np.ndarray:
        return self.metric.compute().numpy()


SIDES = {
    "segue": Segue,
    "torchmetrics": lambda: TorchMetrics(True),
    "torchmetrics, validate_args=False": lambda: TorchMetrics(False),
}


def measure(labels: tuple[np.ndarray, np.ndarray], rounds: int) -> Times:
    """Seconds for one update; SystemExit if the sides count differently."""
    found: dict[str, Any] = {side: make() for side, make in SIDES.items()}
    for side, counter in found.items():
        counter.update(*labels)
        if not np.array_equal(counter.counts(), found["segue"].counts()):
            raise SystemExit(f"{side} and segue count differently")
    updates = {side: lambda counter=counter: counter.update(*labels) for side, counter in found.items()}
    return compare(updates, rounds, clock=time.thread_time)


def main() -> None:
    options = arguments(__doc__, rounds=31)
    torch.set_num_threads(1)
    results = {name: summarize(measure(labels, options.rounds), "segue") for name, labels in draw_maps().items()}
    write_record(options.out, command_line(), results, notes=[f"Maps of {SIZE[0]} x {SIZE[1]} pixels, {CLASSES} classes."])


if __name__ == "__main__":
    main()
