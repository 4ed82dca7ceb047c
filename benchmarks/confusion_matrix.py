"""segue's ConfusionMatrix.update against torchmetrics' MulticlassConfusionMatrix, on one 1024 x 2048 map with 19 classes.

    python benchmarks/confusion_matrix.py

One thread for each side; in each round each side counts each map once, in turn. What is measured is the thread's processor time,
to which other work on the machine adds little; on an idle machine it is the time that passes.
Truth and prediction are uint8 labels in memory; 255 is ignored. Both sides must give the same matrix before anything is timed.
torchmetrics is timed as it comes, and with validate_args=False, where it no longer checks labels; segue always does.

Maps: "street", a scene of segue.data.streets (9 of the 19 classes), predicted at an eighth of its size; "noise", each pixel drawn
alone, with 5 % ignored: the worst that can come.
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from segue.data.streets import Streets
from segue.labels import IGNORE
from segue.metrics import ConfusionMatrix

CLASSES = 19
SIZE = (1024, 2048)


def draw_maps() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Truth and prediction by name."""
    street = Streets("val", count=1, size=SIZE)[0]["mask"]
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


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds for one update, by map and side."""
    maps = draw_maps()
    for name, labels in maps.items():
        found = {}
        for side, make in SIDES.items():
            fresh = make()
            fresh.update(*labels)
            found[side] = fresh.counts()
        for side, counts in found.items():
            if not np.array_equal(counts, found["segue"]):
                raise SystemExit(f"{side} and segue count the map {name} differently")
    times: dict[str, dict[str, list[float]]] = {name: {side: [] for side in SIDES} for name in maps}
    counters = {side: make() for side, make in SIDES.items()}
    for _ in range(rounds):
        for name, labels in maps.items():
            for side, counter in counters.items():
                start = time.thread_time()
                counter.update(*labels)
                times[name][side].append(1000 * (time.thread_time() - start))
    return times


def spread(values: list[float]) -> dict[str, float]:
    quarter, median, three_quarters = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": round(median, 3), "quartile_1": round(quarter, 3), "quartile_3": round(three_quarters, 3)}


def summarize(times: dict[str, list[float]]) -> dict[str, Any]:
    """By side: milliseconds, and how many times segue's, round by round."""
    return {
        side: {"ms": spread(values), "times_segue": spread([a / b for a, b in zip(values, times["segue"], strict=True)])}
        for side, values in times.items()
    }


def machine() -> dict[str, Any]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    packages = ("numpy", "numba", "torch", "torchmetrics")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--out", type=Path, default=Path("docs/results/confusion-matrix.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = machine()
    results = {name: summarize(times) for name, times in measure(options.rounds).items()}

    print(f"one {SIZE[0]} x {SIZE[1]} uint8 map, {CLASSES} classes; {options.rounds} rounds; median (quartiles)")
    print(f"{about['threads']} thread a side; {about['cores']} cores of {about['processor']}, load {about['load']} at the start")
    print(", ".join(f"{name} {number}" for name, number in about["versions"].items()))
    print(f"\n{'map':8}{'side':36}{'ms':>26}{'times segue':>26}")
    for name, sides in results.items():
        for side, found in sides.items():
            cells = [f"{s['median']:.2f} ({s['quartile_1']:.2f} to {s['quartile_3']:.2f})" for s in found.values()]
            print(f"{name:8}{side:36}{cells[0]:>26}{cells[1]:>26}")

    record = {"command": "python benchmarks/confusion_matrix.py", "rounds": options.rounds, "classes": CLASSES, "size": SIZE}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**record, "machine": about, "maps": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
