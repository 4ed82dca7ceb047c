"""Decoded samples kept in memory, once for all the processes that load them."""

import json
import mmap
import os
import sys
import tempfile
import weakref
from multiprocessing import reduction
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from segue.data.samples import DataError, Sample, Samples
from segue.data.synthetic.base import Drawn
from segue.machine.memory import free_memory

SHARE = 0.5  # of the memory that is free, which decoded samples may take
PROBED = 8  # samples that are read to estimate the size of all
SPARE = 1.5  # a sample may be so many times as large as the largest of these; pages that are not written take no memory
PAGE = 4096


class Estimate(NamedTuple):
    """What it would take to keep a split in memory."""

    size: int
    """Bytes of all samples, for each of `processes`."""
    free: int
    """Bytes of memory that are free now."""
    processes: int = 1

    @property
    def fits(self) -> bool:
        """Whether the samples take at most half of the memory that is free."""
        return self.size * self.processes <= SHARE * self.free

    def check(self) -> None:
        """DataError if they take more than there is."""
        need, gb = self.size * self.processes, 2**30
        if need > self.free > 0:  # 0 where the system does not tell
            raise DataError(
                f'cache (="memory") needs {need / gb:.1f} GB for the decoded images'
                + (f" of {self.processes} devices" if self.processes > 1 else "")
                + f', and {self.free / gb:.1f} GB are free; take cache "auto" or "none"'
            )


def cached(
    samples: Dataset[Any], cache: Literal["auto", "memory", "none"] = "auto", processes: int = 1, workers: int = 0
) -> Dataset[Any]:
    """The data set with its samples kept in memory, read once by whichever process is first; or as it is.

    auto: only Samples, which give the same each time, and only where they fit, once for each of `processes` training on this
    machine; their `workers` share them. memory: in any case; DataError where they take more than is free.
    none: never.
    """
    if cache == "none" or (cache == "auto" and not (isinstance(samples, Samples) and may_share(workers))):
        return samples
    if not len(samples):  # type: ignore[arg-type]
        return samples
    sizes = probe(samples)
    kept = estimate(samples, processes, sizes)
    if cache == "memory":
        kept.check()
    elif not kept.fits:
        return samples
    return Cached(samples, int(SPARE * max(sizes)))


def may_share(workers: int) -> bool:
    """Whether the worker processes can be given the memory of this one."""
    return sys.platform != "win32" or not workers


def estimate(samples: Dataset[Any], processes: int = 1, sizes: list[int] | None = None) -> Estimate:
    """The size of all samples by the mean of some."""
    sizes = sizes or probe(samples)
    return Estimate(sum(sizes) * len(samples) // max(1, len(sizes)), free_memory(), processes)  # type: ignore[arg-type]


def probe(samples: Dataset[Any]) -> list[int]:
    """The bytes of a few samples from all over the split."""
    length = len(samples)  # type: ignore[arg-type]
    chosen = np.linspace(0, length - 1, min(PROBED, length)).round().astype(int)
    return [sum(np.asarray(array).nbytes for array in samples[int(index)].values()) for index in chosen]


class Cached(Samples):
    """Samples that are read once and then given from memory that processes share, under fork and spawn alike.

    Each has a place of its own, in which it is written before it is marked as present: no process waits for another, and where
    two read one sample at once, both write the same. A sample that is larger than its place is read each time.
    """

    def __init__(self, samples: Dataset[Any], largest: int) -> None:
        self.samples = samples.without_keeping() if isinstance(samples, Drawn) else samples
        if isinstance(samples, Samples):
            self.labels = samples.labels
        self.length = len(samples)  # type: ignore[arg-type]
        self.start = self.length + -self.length % PAGE  # of the first place, behind a byte for each sample
        self.place = largest + PAGE + -largest % PAGE
        self.memory = SharedMemory(self.start + self.length * self.place)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            return self.samples[index]
        memory, start = self.memory.bytes, self.start + index * self.place
        place = memory[start : start + self.place]
        if memory[index]:
            return unpack(place)
        sample: Sample = self.samples[index]
        if pack(sample, place):
            memory[index] = 1
        return sample

    def name(self, index: int) -> str:
        name = getattr(self.samples, "name", None)
        return str(name(index)) if callable(name) else super().name(index)


def pack(sample: Sample, place: NDArray[np.uint8]) -> bool:
    """Write a sample's arrays one after another, behind a description; False if there is too little room."""
    if not all(isinstance(array, np.ndarray) and array.dtype.kind in "uifb" for array in sample.values()):
        return False
    described = [(name, array.dtype.str, array.shape) for name, array in sample.items()]
    head = json.dumps(described).encode()
    ends = np.cumsum([8 + len(head) + -len(head) % 64, *(array.nbytes + -array.nbytes % 64 for array in sample.values())])
    if ends[-1] > len(place):
        return False
    place[:8] = np.frombuffer(len(head).to_bytes(8, "little"), np.uint8)
    place[8 : 8 + len(head)] = np.frombuffer(head, np.uint8)
    for start, array in zip(ends, sample.values(), strict=False):
        place[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return True


def unpack(place: NDArray[np.uint8]) -> Sample:
    """Copies of the arrays that `pack` has written."""
    length = int.from_bytes(place[:8].tobytes(), "little")
    start, sample = 8 + length + -length % 64, {}
    for name, kind, shape in json.loads(place[8 : 8 + length].tobytes()):
        count = int(np.prod(shape)) * np.dtype(kind).itemsize
        sample[name] = place[start : start + count].view(kind).reshape(shape).copy()
        start += count + -count % 64
    return sample


class SharedMemory:
    """Bytes that this process shares with those that it starts. They are in no folder, so nothing can be left behind."""

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        self.size, self.descriptor = size, nameless_file(size) if descriptor is None else descriptor
        self.bytes = np.frombuffer(mmap.mmap(self.descriptor, size), np.uint8)
        weakref.finalize(self, os.close, self.descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        return attach, (self.size, reduction.DupFd(self.descriptor))


def nameless_file(size: int) -> int:
    """A file of zeros in memory where the system has such (Linux), or else one without a name in the folder for such."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("segue")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def attach(size: int, descriptor: Any) -> SharedMemory:
    return SharedMemory(size, descriptor.detach())
