"""What a call takes of the memory."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch


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
