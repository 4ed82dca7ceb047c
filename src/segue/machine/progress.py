"""How far something is, on a terminal."""

import sys
from collections.abc import Callable
from typing import Any


def progress(description: str) -> Callable[[Any], Any]:
    """A progress bar for a sequence, gone when it is done; none where the output is no terminal."""
    from rich.progress import track  # slow to import

    return lambda sequence: track(sequence, description, transient=True, disable=not sys.stdout.isatty())
