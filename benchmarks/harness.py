"""What all benchmarks share: sides that take turns, medians with quartiles, and one form of record.

A benchmark is a script whose docstring is its description in the report: the first line its title, the rest what is measured,
what is included, and how the sides were made equal. It ends with

    options = arguments(__doc__)
    ...
    results[case] = summarize(compare({"segue": ..., "peer": ...}, options.rounds), "segue")
    write_record(options.out, command_line(), results, notes=["..."])
"""

import argparse
import json
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segue.checkpoint import Card, load_checkpoint
from segue.machine.provenance import commit, describe_machine, name_processor
from segue.machine.timing import wait
from segue.models.enet import ENet

PACKAGES = {"cv2": "opencv-python-headless", "PIL": "Pillow", "cityscapesscripts": "cityscapesScripts"} | {
    name: name
    for name in (
        "numpy", "numba", "scipy", "torchvision", "torchmetrics", "timm", "onnx", "onnxruntime", "openvino", "nncf", "monai",
        "segmentation_models_pytorch", "pixseg", "albumentations", "pytorch_lightning", "tifffile", "triton",
    )
}  # fmt: skip
"""Distributions by the module that they bring; a record names the versions of those that its benchmark imported."""

Times = dict[str, list[float]]  # seconds, a round each, by side
Summary = dict[str, dict[str, Any]]  # figures by side


def arguments(
    description: str | None, rounds: int = 15, devices: tuple[str, ...] = ("cpu",), **more: Any
) -> argparse.Namespace:  # fmt: skip
    """The options of a benchmark, with `more` of its own by their defaults; also sets torch's threads, which segue's follow.

    devices: what the benchmark can measure; "cuda" only if it computes there with --device cuda.
    """
    script = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each side runs")
    parser.add_argument("--quick", action="store_true", help="3 rounds, small sizes and no record: to see that it runs")
    parser.add_argument("--out", type=Path, help=f"the record, docs/performance/{script}.json; on a GPU {script}-cuda.json")
    parser.add_argument("--device", choices=devices, default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    options = parser.parse_args()
    options.rounds = min(options.rounds, 3) if options.quick else options.rounds
    if options.out is None and not options.quick:
        options.out = Path(f"docs/performance/{script}{'-cuda' if options.device == 'cuda' else ''}.json")
    torch.set_num_threads(options.threads)
    return options


def command_line() -> str:
    """The command that runs, without --out."""
    words = [word for word in sys.argv[1:] if not word.startswith("--out=")]
    if "--out" in words:
        del words[words.index("--out") : words.index("--out") + 2]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def compare(
    sides: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter, rest: float = 0.0
) -> Times:
    """Seconds of each side: all run once to warm up, then once a round, each round beginning with the next of them.

    rest: seconds before each, in which the threads of the side before, which go on looking for work for a while, fall asleep;
    after it the side runs once unmeasured, as if it had the machine to itself.
    """
    times: Times = {side: [] for side in sides}
    for run in sides.values():
        run()
    for i in range(rounds):
        for side in [*sides][i % len(sides) :] + [*sides][: i % len(sides)]:
            if rest:
                time.sleep(rest)
                sides[side]()
            wait()
            start = clock()
            sides[side]()
            wait()
            times[side].append(clock() - start)
    return times


class Apart:
    """A function in a process of its own, for a side that must not share what segue sets for its whole process.

    make: gives the function; it and `arguments` must be such as can be pickled. What is given to the function, and what it
    gives, goes through a pipe.
    """

    def __init__(self, make: Callable[..., Callable[..., Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, make, arguments), daemon=True)
        self.process.start()
        other.close()

    def __call__(self, *arguments: Any) -> Any:
        self.pipe.send(arguments)
        result = self.pipe.recv()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        self.pipe.close()
        self.process.join()


def serve(pipe: Connection, make: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...]) -> None:
    function = make(*arguments)
    try:
        while True:
            given = pipe.recv()
            try:
                pipe.send(function(*given))
            except Exception as error:
                pipe.send(error)
    except EOFError:  # closed
        pass


def enet_of_classes(classes: int) -> tuple[ENet, Card]:
    """The ENet that ships with segue, and its card. Further classes are those that it has, less 3, and so win nowhere."""
    network, card = load_checkpoint("enet-camvid")
    if not isinstance(network, ENet):
        raise SystemExit(f"enet-camvid is a {type(network).__name__}")
    more, last = classes - network.num_classes, network.fullconv
    network.fullconv = nn.ConvTranspose2d(last.in_channels, classes, 2, stride=2)
    weights = {"weight": torch.cat([last.weight, last.weight[:, :more]], 1), "bias": torch.cat([last.bias, last.bias[:more] - 3])}  # type: ignore[list-item]
    network.fullconv.load_state_dict(weights)
    return network.eval(), card


def summarize(times: Times, first: str, unit: str = "s") -> Summary:
    """By side, `first` before the others: median and quartiles, and the same of its ratio to `first`, taken round by round."""
    return {
        side: {"unit": unit, **spread(values), "ratio": ratios["median"], "ratio_quartiles": [*ratios.values()][1:]}
        for side, values in {first: times[first], **times}.items()
        for ratios in [spread([a / b for a, b in zip(values, times[first], strict=True)])]
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles, to four digits."""
    quarter, median, three_quarters = (float(f"{number:.4g}") for number in np.quantile(values, [0.25, 0.5, 0.75]))
    return {"median": median, "quartile_1": quarter, "quartile_3": three_quarters}


def write_record(path: Path | None, command: str, results: Any, device: str = "cpu", **notes: Any) -> None:
    """Print the results, and write them with where they come from, unless `path` is None.

    results: summaries by case, {case: {side: figures}}, or a summary alone, or the list of rows that both become: dicts of
    case, side, unit, median, quartile_1, quartile_3, ratio and whatever else there is to say of the side. device: what was
    measured, cpu or cuda. Keywords are more entries of the record: `notes`, sentences for the reader; `title` and `what`, which
    are else those of the script's docstring.
    """
    title, _, what = (sys.modules["__main__"].__doc__ or "").strip().partition("\n")
    rows = to_rows(results)
    record = {
        "title": title.rstrip("."), "what": what.strip(), "command": command, **notes, "rows": rows,
        "machine": {**machine(device), "load": round(os.getloadavg()[0], 1)}, "threads": threads(), "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }  # fmt: skip
    record["machine"]["versions"] |= versions()
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def to_rows(results: Any) -> list[dict[str, Any]]:
    """See write_record."""
    if isinstance(results, list):
        return results
    cases = {"": results} if any("median" in figures for figures in results.values()) else results
    return [{"case": case, "side": side, **figures} for case, sides in cases.items() for side, figures in sides.items()]


def machine(device: str) -> dict[str, Any]:
    """What measured; how many threads did so on a CPU stands beside it in a record."""
    found = describe_machine(device)
    return found if device == "cuda" else found | {"hardware": f"{name_processor()}, {os.cpu_count()} cores"}


def threads() -> dict[str, Any]:
    found = {"torch": torch.get_num_threads(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "")}
    if "cv2" in sys.modules:
        found["OpenCV"] = sys.modules["cv2"].getNumThreads()
    return found


def versions() -> dict[str, str]:
    found = {}
    for module, name in PACKAGES.items():
        if module in sys.modules:
            try:
                found[name] = version(name)
            except PackageNotFoundError:  # a build under another name
                found[name] = str(getattr(sys.modules[module], "__version__", "?"))
    return found
