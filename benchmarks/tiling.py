"""Tiles: an image of 6000 x 6000 pixels and 19 classes, from uint8 pixels to uint8 labels, on the CPU.

segue.inference.tiling.predict_tiled beside MONAI's sliding_window_inference (one window at a time, gaussian blending), which is
given the normalised image and followed by argmax. Windows and their overlap are those that segue chooses; both run the same
network in eager torch: "enet", the one that ships with segue, as segue runs it on a CPU, with batch norms folded and channels
last, and with 8 more classes that win nowhere, on a drawn street; "stand-in", a mean of 8 x 8 pixels and a 1x1 convolution, so
that next to nothing is spent in it, on squares of chance colours. "Overhead" is the time that is not spent in the network's own
layers, at its own resolution: conversion, cutting, upsampling, blending, argmax. "Memory" is the peak of a process of its own,
above what it holds before it begins: libraries, network and image. Threads: torch's for both, --threads.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import arguments, command_line, compare, enet_of_classes, summarize, write_record
from torch import Tensor, nn

from segue import Labels, Predictor
from segue.data.synthetic.streets import Streets
from segue.engines.folding import fold_batch_norms
from segue.inference.tiling import make_plan, predict_tiled
from segue.models.base import SegmentationModel

CLASSES = 19
SMALL = 2400
EQUAL = (
    "equal: the share of pixels in which both sides agree. segue gives the labels of the whole image where the overlap suffices; "
    "MONAI blends in what each window says near its edges."
)


class StandIn(SegmentationModel):
    stride = 8

    def __init__(self) -> None:
        super().__init__(CLASSES, 3)
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, CLASSES, 1)

    def score(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.avg_pool2d(x, 8))


class Clock:
    """Time that is not spent in a network's own layers, of a network that is told to count it."""

    def __init__(self, network: SegmentationModel) -> None:
        self.inside, self.score = 0.0, network.score
        network.score = self.timed  # type: ignore[method-assign]

    def timed(self, x: Tensor) -> Tensor:
        start = time.perf_counter()
        scores = self.score(x)
        self.inside += time.perf_counter() - start
        return scores

    def __call__(self) -> float:
        return time.perf_counter() - self.inside


def prepare(name: str, size: int) -> tuple[SegmentationModel, Clock, np.ndarray, dict[str, Callable[[], np.ndarray]]]:
    """The network, its clock, an image, and the two sides."""
    network: SegmentationModel
    if name == "stand-in":
        network, mean, std = StandIn().eval(), (0.5,) * 3, (0.25,) * 3
        coarse = np.random.default_rng(0).integers(0, 256, (size // 40, size // 40, 3), dtype=np.uint8)
        image = np.kron(coarse, np.ones((40, 40, 1), np.uint8))
    else:
        trained, card = enet_of_classes(CLASSES)
        network = fold_batch_norms(trained).to(memory_format=torch.channels_last)
        mean, std = card.mean, card.std  # type: ignore[assignment]
        image = Streets("val", count=1, size=(size, size))[0]["image"]
    clock = Clock(network)
    predictor = Predictor(network, Labels.from_names([str(i) for i in range(CLASSES)]), mean, std)
    predictor.engine = network.score
    plan = make_plan(predictor, *image.shape[:2])
    tile = plan.tile[0]
    shared = plan.columns.stops[0] - plan.columns.starts[1] if len(plan.columns) > 1 else 0

    @torch.inference_mode()
    def monai() -> np.ndarray:
        from monai.inferers import sliding_window_inference

        x = predictor.prepare(image, None)
        scores = sliding_window_inference(x, (tile, tile), 1, network, overlap=shared / tile, mode="gaussian")
        return scores.argmax(dim=1)[0].to(torch.uint8).numpy()  # type: ignore[union-attr]

    return network, clock, image, {"segue": lambda: predict_tiled(predictor, image, tile), "MONAI": monai}


def memory(entry: str) -> int:
    """Bytes that this process holds now (VmRSS), or has held (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(entry))
    return 1024 * int(line.split()[1])


def peak_above(name: str, size: int, side: str, threads: int) -> float:
    """Megabytes, in a process of its own."""
    command = [sys.executable, __file__, "--peak", json.dumps([name, size, side, threads])]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def print_peak(name: str, size: int, side: str, threads: int) -> None:
    import monai.inferers  # noqa: F401

    torch.set_num_threads(threads)
    *_, small = prepare(name, SMALL)
    small[side]()  # what the libraries allocate once
    *_, sides = prepare(name, size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    sides[side]()
    print((memory("VmHWM") - before) / 2**20)


def main() -> None:
    options = arguments(__doc__, rounds=5)
    size = SMALL if options.quick else 6000
    results: dict[str, Any] = {}
    for name in ("stand-in",) if options.quick else ("stand-in", "enet"):
        _, clock, _, sides = prepare(name, size)
        labels = {side: run() for side, run in sides.items()}
        equal = float((labels["segue"] == labels["MONAI"]).mean())
        if equal < 0.95:
            raise SystemExit(f"{name}: the sides agree in {equal:.3f} of the pixels only")
        rounds = options.rounds if name == "stand-in" else min(options.rounds, 2)
        summary = summarize(compare(sides, rounds, clock), "segue")
        results[f"{name}, overhead, {size} x {size}"] = summary
        peaks = {side: [peak_above(name, size, side, options.threads)] for side in sides}
        results[f"{name}, memory, {size} x {size}"] = summarize(peaks, "segue", unit="MB")
        for figures in summary.values():
            figures["equal"] = round(equal, 5)
    write_record(options.out, command_line(), results, notes=[EQUAL])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(*json.loads(sys.argv[2]))
    else:
        main()
