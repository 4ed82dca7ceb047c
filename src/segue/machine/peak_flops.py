"""The most that this machine computes, found by trying."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numba
import numpy as np
import torch
from numpy.typing import NDArray

CHAIN = 16  # multiply-adds that follow each other on a number of the loop that finds the CPU's peak


@cache
def peak_gflops(threads: int, device: str = "cpu") -> float:
    """The float32 operations, in 10^9 a second, that the machine does at most, found by trying: a multiply-add is two.

    On a CPU a loop of multiply-adds in registers, in so many threads at once, or as many as there are cores, or torch's product
    of two matrices there, whichever does more: compilers leave half of some processors' vectors unused. On a GPU a product of
    large matrices, in the precision that torch is set to. The best of several runs.
    """
    if device == "cuda":
        return matrix_gflops()
    compiled = numba.njit("void(float32[::1], float32, float32, int64)", nogil=True, fastmath={"contract"})(chains)
    rounds = 40_000

    def run(_: int) -> float:
        """What one thread does; by its own time, in which no other program's work counts."""
        numbers = np.ones(1024, np.float32)
        seconds = []
        for _ in range(20):
            start = time.thread_time()
            compiled(numbers, 0.5, 0.25, rounds)
            seconds.append(time.thread_time() - start)
        return 2e-9 * CHAIN * rounds * numbers.size / min(seconds)

    threads = min(threads, os.cpu_count() or threads)
    with ThreadPoolExecutor(threads) as pool:
        loop = sum(pool.map(run, range(threads)))
    return max(loop, product_gflops(threads))


def product_gflops(threads: int, size: int = 1024) -> float:
    """Of torch's matrix product on the CPU."""
    before, a, seconds = torch.get_num_threads(), torch.rand(size, size), []
    torch.set_num_threads(threads)
    try:
        for _ in range(20):
            start = time.perf_counter()
            a @ a
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return 2e-9 * size**3 / min(seconds)


def chains(x: NDArray[np.float32], factor: float, term: float, rounds: int) -> None:
    """Four numbers at a time, and of each as many as a vector has: enough that no multiply-add waits for the one before."""
    quarter = x.size // 4
    for _ in range(rounds):
        for i in range(quarter):
            a, b, c, d = x[i], x[i + quarter], x[i + 2 * quarter], x[i + 3 * quarter]
            for _ in range(CHAIN):
                a = a * factor + term
                b = b * factor + term
                c = c * factor + term
                d = d * factor + term
            x[i], x[i + quarter], x[i + 2 * quarter], x[i + 3 * quarter] = a, b, c, d


def matrix_gflops(size: int = 8192) -> float:
    a, b = torch.rand(2, size, size, device="cuda")
    milliseconds = []
    event = partial(torch.cuda.Event, enable_timing=True)
    for _ in range(10):
        start, end = event(), event()
        start.record()
        a @ b
        end.record()
        torch.cuda.synchronize()
        milliseconds.append(start.elapsed_time(end))
    return 2e-6 * size**3 / min(milliseconds)
