"""Memory that torch frees on a CPU, kept for what it allocates next."""

import ctypes
import os
import sys
from functools import cache

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
