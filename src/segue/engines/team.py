"""Loops as machine code that the threads of torch's own operations run.

Threads of our own would compete with torch's, which go on spinning for milliseconds after each operation. So a loop is given to
OpenMP as torch uses it on Linux: GNU's, whose entry is GOMP_parallel. A loop is a function of its task, whole numbers of which
the first is the next of its pieces that no thread has taken yet.
"""

import ctypes
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic

FAST: Any = {"fastmath": True, "error_model": "numpy", "nogil": True}  # no rounding is prescribed: sums may be reordered
TASK = types.void(types.CPointer(types.int64))


@intrinsic
def pointer(_: Any, address: Any) -> Any:
    """The pointer to float32 that a whole number is."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def next_piece(_: Any, numbers: Any) -> Any:
    """The next piece, which no other thread gets."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.atomic_rmw("add", values[0], ir.IntType(64)(1), "monotonic")

    return types.int64(types.CPointer(types.int64)), generate


take: Any = next_piece  # a numba function gives the first argument itself
floats: Any = pointer
carray: Any = numba.carray  # type: ignore[attr-defined]


@cache
def team() -> Any:
    """OpenMP's entry, which calls a function in so many threads and returns when all are done."""
    entry = ctypes.CDLL(None).GOMP_parallel
    entry.argtypes, entry.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return entry


@cache
def compiled(function: Any) -> Any:
    try:
        return cfunc(TASK, cache=True)(function)
    except Exception:  # no folder for it can be written, or what is there is damaged
        return cfunc(TASK)(function)


def run(function: Any, task: list[int], threads: int) -> None:
    """A loop over its task, whose first number is set to 0, in so many threads."""
    numbers = np.array([0, *task], np.int64)
    team()(compiled(function).address, numbers.ctypes.data, threads, 0)
