"""Several processes, as torchrun starts them: which one this is, and how their results come together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """Process `number` of `count`."""

    number: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.number == 0

    @property
    def device(self) -> str:
        """Its GPU, or the CPU where there is none."""
        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"

    def gather(self, own: T) -> list[T]:
        """What each process has, in their order, on the first one; nothing on the others. ValueError if one of them has ended."""
        if self.count == 1:
            return [own]
        received: list[T | None] | None = [None] * self.count if self.is_first else None
        try:
            dist.gather_object(own, received)
        except RuntimeError:
            raise ValueError("another process has stopped, and its own message says why") from None
        return [value for value in received or [] if value is not None]


@contextmanager
def joined() -> Iterator[Process]:
    """This process among those that torchrun started, connected to them; alone without torchrun.

    The connections are made at the beginning, so that a process that ends with an error is noticed and nobody waits for it.
    """
    process = Process(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    if process.count == 1:
        yield process
        return
    dist.init_process_group("gloo", timeout=timedelta(days=1))  # of CPUs: results are objects, and shares differ in their time
    try:
        yield process
    finally:
        dist.destroy_process_group()
