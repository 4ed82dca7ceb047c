"""segue benchmark."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segue.cli.console import print_table

if TYPE_CHECKING:
    from torch import nn

    from segue.benchmark import Timing
    from segue.checkpoint import Card

ENGINES = ("torch", "fused", "onnxruntime", "openvino")  # of "all"


def benchmark(args: Sequence[str]) -> None:
    """Time a network on this machine: segue benchmark enet --size 1024x2048"""
    import tyro

    def command(
        model: tyro.conf.Positional[str], size: str = "1024x2048", engine: str = "auto",
        device: Literal["auto", "cpu", "cuda"] = "auto", seconds: float = 20, classes: int | None = None,
        json: Path | None = None,
    ) -> None:  # fmt: skip
        """Time predictions from a uint8 image to its uint8 label map, in parts, beside the most that the machine can do.

        Args:
            model: A name of `segue models`, which gets random weights, or a checkpoint.
            size: Of the image: height x width.
            engine: torch, fused, onnxruntime, openvino, auto, or all of them one after the other.
            device: The processor, the graphics card, or the latter where there is one.
            seconds: How long to measure each engine; five predictions are made at least.
            classes: Of a network with random weights; 19 if it is not said.
            json: Write the figures to this file as well.
        """
        time_model(model, size, engine, "" if device == "auto" else device, seconds, classes, json)

    tyro.cli(command, args=args, prog="segue benchmark")


def time_model(name: str, size: str, engine: str, device: str, seconds: float, classes: int | None, out: Path | None) -> None:
    from segue.benchmark import INCLUDED, network_of, parse_size
    from segue.machine.provenance import describe_machine

    height, width = parse_size(size)
    check_request(name, device, seconds, classes, out)
    model, card, trained = network_of(name, 19 if classes is None else classes)
    machine = describe_machine(device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = "" if trained else ", random weights: for its times, not for its labels"
    print(f"{card.network}, {len(card.labels)} classes, {parameters:,} parameters{weights}")
    print(f"{height} x {width} pixels (height x width) on {machine['hardware']}, torch {machine['versions']['torch']}")
    engines = ENGINES if engine == "all" else (engine,)
    timings: list[Timing] = []
    try:
        for timing in time_engines(model, card, (height, width), engines, device, seconds):
            timings.append(timing)
    finally:  # what is measured before a failure counts
        if timings:
            show(timings)
            print("\n".join([*(timing.how for timing in timings), INCLUDED]))
        if timings and out is not None:
            record = {
                "network": card.network, "trained": trained, "classes": len(card.labels), "parameters": parameters,
                "height": height, "width": width, "included": INCLUDED, "machine": machine,
                "engines": [{**dataclasses.asdict(timing), "share_of_limit": timing.share} for timing in timings],
            }  # fmt: skip
            out.write_text(json.dumps(record, indent=2) + "\n")


def check_request(name: str, device: str, seconds: float, classes: int | None, out: Path | None) -> None:
    """ValueError, before anything takes time, if this cannot be done."""
    import torch

    from segue.checkpoint import find_checkpoint

    if not 0 <= seconds < float("inf"):
        raise ValueError(f"seconds (={seconds}) must be 0 or more")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch finds no graphics card of CUDA here; leave out --device, or take --device cpu")
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"{out.parent} is no folder, so {out.name} cannot be written there")
    if out is not None and out.is_dir():
        raise ValueError(f"{out} is a folder; --json names the file for the figures, such as {out / 'benchmark.json'}")
    if classes is not None and find_checkpoint(name) is not None:
        raise ValueError(f"{name} is a checkpoint, which has its own classes; leave out --classes (={classes})")


def time_engines(
    model: "nn.Module", card: "Card", size: tuple[int, int], engines: Sequence[str], device: str, seconds: float
) -> "Iterator[Timing]":
    """One engine after the other; of several, one that cannot be used is named and left out."""
    import torch
    from rich.console import Console

    from segue.benchmark import time_engine

    for engine in engines:
        try:
            with Console(stderr=True).status(f"{engine}: getting ready, then {seconds:g} s of predictions"):
                timing = time_engine(model, card, size, engine, device, seconds)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise ValueError(f"{size[0]} x {size[1]} pixels do not fit into memory; choose a smaller --size") from error
        except ValueError as error:
            if len(engines) == 1:
                raise
            print(f"{engine} is left out: {error}")
        else:
            yield timing


def show(timings: "Sequence[Timing]") -> None:
    """A table with a column for each engine."""
    first = timings[0]

    print(f"{first.multiply_adds / 1e9:,.2f} G multiply-adds; the machine does {first.limit:,.0f} GFLOP/s at most")
    print_table([
        ("", *(timing.engine for timing in timings)),
        ("median", *(milliseconds(timing.median) for timing in timings)),
        ("middle half", *(f"{1e3 * timing.quartile_1:,.1f} to {milliseconds(timing.quartile_3)}" for timing in timings)),
        ("95 of 100 within", *(milliseconds(timing.p95) for timing in timings)),
        ("images a second", *(f"{timing.images_per_second:,.2f}" for timing in timings)),
        ("  prepare", *(milliseconds(timing.prepare) for timing in timings)),
        ("  network", *(milliseconds(timing.network) for timing in timings)),
        ("  last step", *(milliseconds(timing.last_step) for timing in timings)),
        ("share of the limit", *(f"{timing.share:.1%}" for timing in timings)),
        ("extra memory", *(megabytes(timing.extra_memory) for timing in timings)),
        ("predictions", *(str(timing.runs) for timing in timings)),
    ])  # fmt: skip


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f} ms"


def megabytes(number: int | None) -> str:
    return "unknown" if number is None else f"{number / 1e6:,.0f} MB"
