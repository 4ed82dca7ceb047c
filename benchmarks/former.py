"""This build beside a former one.

    python benchmarks/former.py --former ../segue-of-last-week

Another checkout of segue does the same work, in a process of its own under the same Python: predictions of 512 x 1024 pixels by
each engine, the last step alone (19 class maps of 64 x 128 to 512 x 1024 labels), scoring of label maps in files, loading of
training samples from JPEGs, and the dense CRF (321 x 321, 21 classes). The builds take turns, each round beginning with the
other; their results must agree before anything is timed. Seconds are wall clock, on the threads that torch takes by itself.
"""

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, SIZE = 19, (512, 1024)
ENGINES = ("torch", "fused", "onnxruntime", "openvino")
NETWORKS = {"enet": {}, "bisenetv1": {}, "unet": {"width": 16, "padding": "same"}}
# Where builds have what is not in segue's own namespace: the newest place first.
PLACES = {
    "Streets": ("segue.data.synthetic.streets", "segue.data.streets"),
    "FileSamples": ("segue.data.files",),
    "TrainingSamples": ("segue.data.batches.loading", "segue.data.loading"),
    "Augment": ("segue.data.batches.transforms", "segue.data.transforms"),
    "CRFS": ("segue.inference.crf", "segue.crf"),
}


def find(name: str) -> Any:
    for place in PLACES[name]:
        try:
            return getattr(importlib.import_module(place), name)
        except ImportError:
            pass
    raise SystemExit(f"{name} is in none of {PLACES[name]}; add the place where this build has it")


def cases(folder: Path) -> dict[str, Callable[[], Callable[[], Any]]]:
    """What to measure, by name: each gives a function that does the work once and gives what came out."""
    made: dict[str, Callable[[], Callable[[], Any]]] = {
        f"{network} by {engine}": partial(prediction, network, engine) for network in NETWORKS for engine in ENGINES
    }
    more = {"the last step": last_step, "scoring 12 label maps": scoring, "loading 24 samples": loading, "CRF": dense_crf}
    return made | {name: partial(case, folder) for name, case in more.items()}


def street(size: tuple[int, int], number: int = 0) -> dict[str, np.ndarray]:
    return dict(find("Streets")("val", count=number + 1, size=size)[number])


def prediction(name: str, engine: str) -> Callable[[], Any]:
    import torch

    import segue

    torch.manual_seed(0)
    model = segue.create_model(name, CLASSES, 3, **NETWORKS[name]).eval()
    names = segue.Labels.from_names([str(number) for number in range(CLASSES)])
    predictor = segue.Predictor(model, names, (0.5,) * 3, (0.25,) * 3, engine=engine)
    return partial(predictor, street(SIZE)["image"])


def last_step(folder: Path) -> Callable[[], Any]:
    import torch

    import segue

    coarse = torch.randn(1, CLASSES, 8, 16, generator=torch.Generator().manual_seed(0))
    maps = torch.nn.functional.interpolate(coarse, (SIZE[0] // 8, SIZE[1] // 8), mode="bilinear")
    names = segue.Labels.from_names([str(number) for number in range(CLASSES)])
    return partial(segue.Predictor(lambda x: maps, names, (0.5,) * 3, (0.25,) * 3), street(SIZE)["image"])


def write_files(folder: Path, count: int) -> Any:
    """Streets as JPEGs with masks, and coarser label maps of them in maps/."""
    import PIL.Image

    pairs = [(folder / f"{number}.jpg", folder / f"{number}_mask.png") for number in range(count)]
    (folder / "maps").mkdir(exist_ok=True)
    streets = find("Streets")("val", count=count, size=(360, 480))
    for number, (image, mask) in enumerate(pairs):
        if not image.exists():
            scene = streets[number]
            PIL.Image.fromarray(scene["image"]).save(image, quality=95)
            PIL.Image.fromarray(scene["mask"]).save(mask)
            coarse = np.where(scene["mask"] == 255, 0, scene["mask"])[::4, ::4].repeat(4, 0).repeat(4, 1)
            PIL.Image.fromarray(coarse).save(folder / "maps" / f"{number}.png")
    return find("FileSamples")(pairs, streets.labels, {**{n: n for n in range(len(streets.labels))}, 255: 255})


def scoring(folder: Path) -> Callable[[], Any]:
    import segue

    samples = write_files(folder, 12)
    maps = [folder / "maps" / f"{number}.png" for number in range(12)]
    return lambda: segue.evaluate_files(maps, samples).total.counts


def loading(folder: Path) -> Callable[[], Any]:
    samples = write_files(folder, 24)
    training = find("TrainingSamples")(samples, find("Augment")((360, 480), (0.5, 2.0), True, 0.25), len(samples.labels), 0)
    return lambda: [training[0, index]["mask"].numpy() for index in range(24)][-1]


def dense_crf(folder: Path) -> Callable[[], Any]:
    scene, rng = street((321, 321)), np.random.default_rng(0)
    truth = np.where(scene["mask"] == 255, 0, scene["mask"])
    noisy = 3 * (truth == np.arange(21)[:, None, None]) + rng.normal(0, 1, (21, 321, 321))
    shares = (np.exp(noisy) / np.exp(noisy).sum(axis=0)).astype(np.float32)
    crf = next(iter(find("CRFS").values()))
    return lambda: crf(scene["image"], shares).argmax(axis=0).astype(np.uint8)


def serve(folder: Path) -> None:
    """Prepare the case of each line, run it at each "run" after it, and answer with the seconds; "check" writes what came out."""
    replies, sys.stdout = sys.stdout, sys.stderr  # what else is printed is no answer
    ready: Callable[[], Any] = lambda: None  # noqa: E731
    for line in sys.stdin:
        command, _, name = line.strip().partition(" ")
        if command == "prepare":
            ready = cases(folder)[name]()
        start = time.perf_counter()
        result = ready()
        seconds = time.perf_counter() - start
        if command == "check":
            np.save(name, result)
        print(json.dumps(seconds), file=replies, flush=True)


class Build:
    """A checkout of segue at work in a process of its own."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        import os

        source = checkout.resolve() / "src"
        if not (source / "segue").is_dir():
            raise SystemExit(f"{checkout} is no checkout of segue: it has no src/segue")
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(source)},
        )  # fmt: skip

    def __call__(self, command: str) -> float:
        if self.process.stdin is None or self.process.stdout is None:
            raise SystemExit("the process has no pipes")
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a build ended at: {command}")
        return float(json.loads(line))


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]))
        return
    from harness import arguments, command_line, summarize, write_record

    options = arguments(__doc__, rounds=9, former="")
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builds = {"now": Build(Path(__file__).parents[1], folder), "former": Build(Path(options.former), folder)}
        for case in cases(folder):
            for side, build in builds.items():
                build(f"prepare {case}")
                build(f"check {folder / side}.npy")
            now, former = (np.load(folder / f"{side}.npy") for side in builds)
            if now.shape != former.shape or np.mean(now == former) < 0.999:
                print(f"{case}: the builds disagree: {np.mean(now == former):.4%} equal", file=sys.stderr)
            times: dict[str, list[float]] = {side: [] for side in builds}
            for number in range(options.rounds):
                for side in [*builds][:: -1 if number % 2 else 1]:
                    times[side].append(builds[side]("run"))
            results[case] = summarize(times, "now")
    write_record(options.out, command_line(), results)


if __name__ == "__main__":
    main()
