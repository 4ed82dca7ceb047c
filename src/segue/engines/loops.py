"""Loops as machine code that the threads of torch's own operations run: Winograd's transforms, and depthwise convolution.

Threads of our own would compete with torch's, which go on spinning for milliseconds after each operation. So a loop is given to
OpenMP as torch uses it on Linux: GNU's, whose entry is GOMP_parallel. A loop is a function of its task, whole numbers of which
the first is the next of its pieces that no thread has taken yet. All that is compiled stands in this file, by whose date numba
knows whether what it has kept is still good.

The matrices are those of F(4x4, 3x3) in A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016
(https://arxiv.org/abs/1509.09308), section 4.
"""

import ctypes
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.extending import intrinsic

BLOCK = 32  # channels that are transformed together
ROW = 6 * BLOCK
SHARE = 8  # tiles that a thread takes at once
LOWEST = np.finfo(np.float32).min

# Of Winograd's tasks: whole numbers, of which some are addresses.
NEXT, X, V, ROWS, COLUMNS, CHANNELS, DOWN, ACROSS, DILATION, FIRST, LAST, PADDING = range(12)
Y, M, RELU, BIAS, OTHER = X, V, PADDING, 12, 13
# Of the depthwise task.
(
    D_NEXT, D_X, D_Y, D_KERNELS, D_BIAS, D_OTHER, D_ROWS, D_COLUMNS, D_HEIGHT, D_WIDTH, D_CHANNELS, D_TAPS_DOWN, D_TAPS_ACROSS,
    D_STRIDE_DOWN, D_STRIDE_ACROSS, D_PADDING_DOWN, D_PADDING_ACROSS, D_DILATION_DOWN, D_DILATION_ACROSS, D_RELU,
) = range(20)  # fmt: skip

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


@njit(inline="always", **FAST)
def place(tile: int, down: int, across: int, dilation: int) -> tuple[int, int]:
    """The first row and column of a tile's results; with dilation a tile takes every `dilation`-th pixel."""
    phase, at = divmod(tile, down * across)
    return phase // dilation + 4 * dilation * (at // across), phase % dilation + 4 * dilation * (at % across)


@njit(inline="always", **FAST)
def transform_rows(d: Any) -> None:
    """B^T d, over the first axis of d (6, 6, BLOCK)."""
    for k in range(ROW):
        d0, d1, d2, d3, d4, d5 = d[k], d[ROW + k], d[2 * ROW + k], d[3 * ROW + k], d[4 * ROW + k], d[5 * ROW + k]
        even, odd = d4 - 4 * d2, d3 - 4 * d1
        half, twice = d4 - d2, 2 * (d3 - d1)
        d[k] = 4 * d0 - 5 * d2 + d4
        d[ROW + k] = even + odd
        d[2 * ROW + k] = even - odd
        d[3 * ROW + k] = half + twice
        d[4 * ROW + k] = half - twice
        d[5 * ROW + k] = 4 * d1 - 5 * d3 + d5


@njit(inline="always", **FAST)
def transform_columns(d: Any, row: int, v: Any, stride: int) -> None:
    """d B, for one row of d, into v: six blocks that lie `stride` apart."""
    v1, v2, v3, v4, v5 = v[stride:], v[2 * stride :], v[3 * stride :], v[4 * stride :], v[5 * stride :]
    d0, d1, d2 = row * ROW, row * ROW + BLOCK, row * ROW + 2 * BLOCK
    d3, d4, d5 = row * ROW + 3 * BLOCK, row * ROW + 4 * BLOCK, row * ROW + 5 * BLOCK
    for k in range(BLOCK):  # a loop for each block: only then LLVM makes vectors of them
        v[k] = 4 * d[d0 + k] - 5 * d[d2 + k] + d[d4 + k]
    for k in range(BLOCK):
        v1[k] = (d[d4 + k] - 4 * d[d2 + k]) + (d[d3 + k] - 4 * d[d1 + k])
    for k in range(BLOCK):
        v2[k] = (d[d4 + k] - 4 * d[d2 + k]) - (d[d3 + k] - 4 * d[d1 + k])
    for k in range(BLOCK):
        v3[k] = (d[d4 + k] - d[d2 + k]) + 2 * (d[d3 + k] - d[d1 + k])
    for k in range(BLOCK):
        v4[k] = (d[d4 + k] - d[d2 + k]) - 2 * (d[d3 + k] - d[d1 + k])
    for k in range(BLOCK):
        v5[k] = 4 * d[d1 + k] - 5 * d[d3 + k] + d[d5 + k]


@njit(**FAST)
def transform_input(
    x: Any, v: Any, down: int, across: int, dilation: int, padding: int, first: int, start: int, end: int
) -> None:
    """B^T d B of the tiles start to end of x (H, W, C), into v (tiles from `first`, 36, C to whole blocks)."""
    rows, columns, channels = x.shape
    padded = v.shape[1] // 36
    d = np.empty(36 * BLOCK, np.float32)
    for tile in range(start, end):
        top, left = place(tile, down, across, dilation)
        for c in range(0, padded, BLOCK):
            here = min(BLOCK, channels - c)
            for i in range(6):
                for j in range(6):
                    row, column, at = top - padding + i * dilation, left - padding + j * dilation, (6 * i + j) * BLOCK
                    if 0 <= row < rows and 0 <= column < columns:
                        if here == BLOCK:
                            for k in range(BLOCK):
                                d[at + k] = x[row, column, c + k]
                        else:
                            for k in range(here):
                                d[at + k] = x[row, column, c + k]
                            for k in range(here, BLOCK):
                                d[at + k] = 0
                    else:
                        for k in range(BLOCK):
                            d[at + k] = 0
            transform_rows(d)
            for i in range(6):
                transform_columns(d, i, v[tile - first, 6 * i * padded + c :], padded)


@njit(inline="always", **FAST)
def gather_rows(m: Any, stride: int, s: Any, column: int) -> None:
    """A^T m, for one column of m, whose six blocks lie 6 `stride` apart, into s (4, 6, BLOCK)."""
    m1, m2, m3, m4, m5 = m[6 * stride :], m[12 * stride :], m[18 * stride :], m[24 * stride :], m[30 * stride :]
    at = column * BLOCK
    for k in range(BLOCK):
        s[at + k] = m[k] + (m1[k] + m2[k]) + (m3[k] + m4[k])
    for k in range(BLOCK):
        s[ROW + at + k] = (m1[k] - m2[k]) + 2 * (m3[k] - m4[k])
    for k in range(BLOCK):
        s[2 * ROW + at + k] = (m1[k] + m2[k]) + 4 * (m3[k] + m4[k])
    for k in range(BLOCK):
        s[3 * ROW + at + k] = (m1[k] - m2[k]) + 8 * (m3[k] - m4[k]) + m5[k]


@njit(inline="always", **FAST)
def gather_columns(s: Any, row: int, o: Any) -> None:
    """s A, for one row of s (4, 6, BLOCK), into o (4, BLOCK)."""
    for k in range(BLOCK):
        s0, s1, s2 = s[row * ROW + k], s[row * ROW + BLOCK + k], s[row * ROW + 2 * BLOCK + k]
        s3, s4, s5 = s[row * ROW + 3 * BLOCK + k], s[row * ROW + 4 * BLOCK + k], s[row * ROW + 5 * BLOCK + k]
        o[k] = s0 + (s1 + s2) + (s3 + s4)
        o[BLOCK + k] = (s1 - s2) + 2 * (s3 - s4)
        o[2 * BLOCK + k] = (s1 + s2) + 4 * (s3 + s4)
        o[3 * BLOCK + k] = (s1 - s2) + 8 * (s3 - s4) + s5


@njit(**FAST)
def transform_output(
    m: Any, bias: Any, other: Any, y: Any, down: int, across: int, dilation: int, relu: bool, first: int, start: int, end: int
) -> None:
    """A^T m A of the tiles start to end, plus bias and what is in `other` if anything, into y (H, W, K)."""
    rows, columns, channels = y.shape
    padded = m.shape[1] // 36
    s, o = np.empty(4 * ROW, np.float32), np.empty(4 * BLOCK, np.float32)
    floor = np.float32(0) if relu else LOWEST
    for tile in range(start, end):
        top, left = place(tile, down, across, dilation)
        for c in range(0, channels, BLOCK):
            here = min(BLOCK, channels - c)
            for j in range(6):
                gather_rows(m[tile - first, j * padded + c :], padded, s, j)
            for i in range(4):
                row = top + i * dilation
                if row >= rows:
                    break
                gather_columns(s, i, o)
                for j in range(4):
                    column = left + j * dilation
                    if column >= columns:
                        break
                    to = y[row, column, c : c + here]
                    if len(other):
                        plus = other[row, column, c : c + here]
                        for k in range(here):
                            to[k] = max(o[j * BLOCK + k] + bias[c + k] + plus[k], floor)
                    else:
                        for k in range(here):
                            to[k] = max(o[j * BLOCK + k] + bias[c + k], floor)


def input_task(task: Any) -> None:
    x = carray(floats(task[X]), (task[ROWS], task[COLUMNS], task[CHANNELS]))
    padded = (task[CHANNELS] + BLOCK - 1) // BLOCK * BLOCK
    v = carray(floats(task[V]), (task[LAST] - task[FIRST], 36 * padded))
    start = task[FIRST] + SHARE * take(task)
    while start < task[LAST]:
        end = min(start + SHARE, task[LAST])
        transform_input(x, v, task[DOWN], task[ACROSS], task[DILATION], task[PADDING], task[FIRST], start, end)
        start = task[FIRST] + SHARE * take(task)


def output_task(task: Any) -> None:
    shape = (task[ROWS], task[COLUMNS], task[CHANNELS])
    padded = (task[CHANNELS] + BLOCK - 1) // BLOCK * BLOCK
    m = carray(floats(task[M]), (task[LAST] - task[FIRST], 36 * padded))
    bias = carray(floats(task[BIAS]), (task[CHANNELS],))
    other = carray(floats(task[OTHER]), shape if task[OTHER] else (0, task[COLUMNS], task[CHANNELS]))
    y = carray(floats(task[Y]), shape)
    start = task[FIRST] + SHARE * take(task)
    while start < task[LAST]:
        end = min(start + SHARE, task[LAST])
        transform_output(m, bias, other, y, task[DOWN], task[ACROSS], task[DILATION], task[RELU] != 0, task[FIRST], start, end)
        start = task[FIRST] + SHARE * take(task)


@njit(**FAST)
def convolve_row(x: Any, kernels: Any, bias: Any, other: Any, y: Any, row: int, task: Any) -> None:
    rows, columns, channels = x.shape
    floor = np.float32(0) if task[D_RELU] else LOWEST
    for column in range(y.shape[1]):
        to = y[row, column]
        if len(other):
            plus = other[row, column]
            for c in range(channels):
                to[c] = bias[c] + plus[c]
        else:
            for c in range(channels):
                to[c] = bias[c]
        for i in range(kernels.shape[0]):
            at = row * task[D_STRIDE_DOWN] + i * task[D_DILATION_DOWN] - task[D_PADDING_DOWN]
            if not 0 <= at < rows:
                continue
            for j in range(kernels.shape[1]):
                beside = column * task[D_STRIDE_ACROSS] + j * task[D_DILATION_ACROSS] - task[D_PADDING_ACROSS]
                if 0 <= beside < columns:
                    source, kernel = x[at, beside], kernels[i, j]
                    for c in range(channels):
                        to[c] += source[c] * kernel[c]
        for c in range(channels):
            to[c] = max(to[c], floor)


def rows_task(task: Any) -> None:
    channels = task[D_CHANNELS]
    x = carray(floats(task[D_X]), (task[D_ROWS], task[D_COLUMNS], channels))
    y = carray(floats(task[D_Y]), (task[D_HEIGHT], task[D_WIDTH], channels))
    kernels = carray(floats(task[D_KERNELS]), (task[D_TAPS_DOWN], task[D_TAPS_ACROSS], channels))
    bias = carray(floats(task[D_BIAS]), (channels,))
    other = carray(floats(task[D_OTHER]), (task[D_HEIGHT] if task[D_OTHER] else 0, task[D_WIDTH], channels))
    row = take(task)
    while row < task[D_HEIGHT]:
        convolve_row(x, kernels, bias, other, y, row, task)
        row = take(task)


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
