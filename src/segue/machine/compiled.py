"""Loops as machine code."""

from collections.abc import Callable
from typing import Any


def compile_loop(function: Callable[..., Any], signature: Any, contract: bool = False) -> Callable[..., Any]:
    """`function` compiled by numba for one signature, kept on the disk between runs where that can be; it holds no GIL.

    contract: products need not be rounded before they are added to something. numba is slow to import, so call this only where
    the function is needed, and keep what it gives.
    """
    import numba

    fastmath = {"contract"} if contract else False
    try:
        return numba.njit(signature, cache=True, nogil=True, fastmath=fastmath)(function)
    except Exception:  # no folder for it can be written, or what is there is damaged, which pickle shows in many ways
        return numba.njit(signature, nogil=True, fastmath=fastmath)(function)
