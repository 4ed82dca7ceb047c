"""Seconds of a call, alone or beside others in turns."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def compare(sides: Mapping[str, Callable[[], object]], seconds: float, runs: int = 5) -> dict[str, float]:
    """Median seconds of each side, run in turns as often as there is time for, up to so many times.

    A first run, in which much gets ready, counts only where all together took longer than that.
    """
    first = {name: clock(side) for name, side in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    end = time.perf_counter() + seconds - sum(first.values())
    while time.perf_counter() < end and min(map(len, times.values())) < runs:
        for name, side in sides.items():
            times[name].append(clock(side))
    return {name: statistics.median(times[name] or [first[name]]) for name in sides}


def clock(side: Callable[[], object]) -> float:
    start = now()
    side()
    return now() - start


def now() -> float:
    """Seconds of a clock, read after `wait`."""
    wait()
    return time.perf_counter()


def wait() -> None:
    """Until a GPU, if one is in use, has done what it was given."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
