"""Files that appear under their name when they are whole."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path, suffix: str = "") -> Iterator[Path]:
    """A file beside `path` for the body to write, NAME.RANDOM.new, which then takes its place.

    Where the body fails, or writes nothing, what stood there stays; nothing is left beside it. Of two processes that write one
    file, the last to end wins: each has a name of its own.
    suffix: put behind .new, for what tells a file's format by its name.
    """
    path = Path(path)
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new{suffix}")
    try:
        yield new
        if new.exists():
            new.replace(path)
    finally:
        new.unlink(missing_ok=True)
