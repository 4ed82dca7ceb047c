"""Other numbers for the labels of a map, through a table."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.labels import Mask
from segue.machine.compiled import compile_loop


def relabel(labels: Mask, table: NDArray[np.uint8]) -> tuple[Mask, NDArray[np.bool_]]:
    """The map with `table[label]` for each label, and which of the 256 labels it holds, (256,)."""
    given = np.ascontiguousarray(labels)
    renamed, seen = np.empty_like(given), np.zeros(256, bool)
    compiled_rename()(given.reshape(-1), table, renamed.reshape(-1), seen)
    return renamed, seen


def rename(labels: Any, table: Any, renamed: Any, seen: Any) -> None:
    """Look up each label; where 64 neighbours are alike, which is most of a map of real things, the first alone."""
    whole = len(labels) - len(labels) % 64
    for start in range(0, whole, 64):
        first = labels[start]
        differences = np.uint8(0)
        for i in range(start, start + 64):
            differences |= labels[i] ^ first
        if differences == 0:
            seen[first] = True
            label = table[first]
            for i in range(start, start + 64):
                renamed[i] = label
            continue
        for i in range(start, start + 64):
            seen[labels[i]] = True
            renamed[i] = table[labels[i]]
    for i in range(whole, len(labels)):
        seen[labels[i]] = True
        renamed[i] = table[labels[i]]


@cache
def compiled_rename() -> Callable[..., None]:
    from numba import boolean, types, uint8

    given = types.Array(uint8, 1, "C", readonly=True)
    return compile_loop(rename, types.void(given, given, uint8[::1], boolean[::1]))
