"""Memory that torch frees on a CPU, kept for what it allocates next."""

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # numbers of mallopt's options in malloc.h
OWN = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"  # by which users choose themselves


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, for the whole process and for good; whether that could be done.

    It otherwise gives large maps back to the system, which hands them out again page by page, filled with zeros: in a network
    with large maps that takes as long as computing them. The process keeps as much memory as it needed at most. Who has told
    glibc what to do by its environment variables is not overruled.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in OWN):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> None:
    """Undo it, where memory matters more than time: large maps are given back at once, as glibc does it by itself."""
    if keep_freed_memory():
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_MAX, 2**16), mallopt(MMAP_THRESHOLD, 2**25), mallopt(TRIM_THRESHOLD, 2**26)


def peak_memory(function: Callable[[], object], device: torch.device) -> int | None:
    """Bytes at the peak of a call above those held before it; None on a CPU whose system is not Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    status = Path("/proc/self/status")
    with suppress(OSError, AttributeError, TypeError):  # of other systems than Linux
        ctypes.CDLL(None).malloc_trim(0)  # give back what is free, or it would serve the call unseen
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = peak_of(status.read_text())
    except OSError:
        function()
        return None
    function()
    return peak_of(status.read_text()) - before


def peak_of(status: str) -> int:
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def free_memory() -> int:
    """Bytes that this process may take without a swap: what the machine has free, or less where a control group allows less."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        try:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # no system but Linux tells what is free
        except (AttributeError, ValueError, OSError):
            return 0
    return max(0, min([free, *control_groups()]))


def control_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What is left of each limit that this process has: Linux's control groups, version 2 or 1, and those above them."""
    left = []
    try:
        entries = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    for _, controllers, path in entries:
        if controllers == "":
            top, files = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top, files = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = top / path.strip("/")
        for folder in [group, *group.parents]:
            if folder.is_relative_to(top):
                left += group_left(folder, *files)
    return left


def group_left(folder: Path, limit: str, used: str, reclaimed: str) -> list[int]:
    """The limit of a control group less what it uses, files that can be read again aside; nothing if it has no limit."""
    try:
        text = (folder / limit).read_text().strip()
        if text == "max":
            return []
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return [int(text) - int((folder / used).read_text()) + int(statistics.get(reclaimed, 0))]
    except (OSError, ValueError):
        return []
