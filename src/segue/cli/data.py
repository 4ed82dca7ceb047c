"""segue data."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated


def data(args: Sequence[str]) -> None:
    """List the data sets, tell of one, or fetch it: segue data; segue data camvid; segue data fetch camvid"""
    import tyro

    def fetch(
        name: tyro.conf.Positional[str], root: Path | None = None, source: Annotated[str, tyro.conf.arg(name="from")] = "",
        sha256: str = "",
    ) -> None:  # fmt: skip
        """Download a data set, check and unpack it. A download that was cut goes on where it stopped.

        Args:
            name: One of those that `segue data` lists with this command.
            root: The folder for it; by default data/NAME.
            source: An archive that you have, or its address on another server.
            sha256: The checksum that the archive must have, in place of the one that segue knows.
        """
        fetch_files(name, root, source, sha256)

    def tell(name: tyro.conf.Positional[str] = "") -> None:
        """List the data sets, or tell of one: its files, splits, classes, terms, and where to get it.

        To download one: segue data fetch NAME

        Args:
            name: The name of a data set.
        """
        if name:
            describe(name)
        else:
            list_data()

    if args and args[0] == "fetch":
        tyro.cli(fetch, args=args[1:], prog="segue data fetch")
    else:
        tyro.cli(tell, args=args, prog="segue data")


def fetch_files(name: str, root: Path | None, source: str, sha256: str) -> None:
    """Fetch, then count what can be read of it, and say what to type next."""
    from segue.data.fetching.archives import SOURCES
    from segue.data.fetching.download import Screen
    from segue.data.fetching.fetch import count_samples, fetch, find_archives, is_complete
    from segue.data.files import PackageError
    from segue.data.samples import DataError

    find_archives(name)
    owner = SOURCES[name].data or name
    root = root or Path("data", owner)
    try:
        fetch(name, root, source, sha256, Screen(say=print, bar=show_bar if sys.stdout.isatty() else silent_bar))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise
    counts = count_samples(owner, root)
    faults = [count for count in counts.values() if isinstance(count, DataError)]
    more = not all(is_complete(other, root) for other in SOURCES if owner in (other, SOURCES[other].data))
    if len(faults) == len(counts) and is_complete(owner, root) and not isinstance(faults[0], PackageError):
        raise DataError(f"what was fetched cannot be read: {faults[0]}; to fetch anew, move {root} away")
    for split, count in counts.items():
        waits = "not yet" if more or isinstance(count, PackageError) else "cannot be read"
        print(f"{split}: {count} images" if isinstance(count, int) else f"{split}: {waits}; {count}")
    if SOURCES[name].next and len(faults) < len(counts):
        print(f"next: {SOURCES[name].next.format(root=shlex.quote(str(root)))}")


@contextmanager
def show_bar(what: str, start: int, total: int | None) -> Iterator[Callable[[int], object]]:
    """A bar with the bytes, their speed and the time that is left; gone when it is done."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    text = TextColumn("{task.description}", markup=False)
    with Progress(text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), transient=True) as progress:
        task = progress.add_task(what, total=total, completed=start)
        yield lambda count: progress.advance(task, count)


@contextmanager
def silent_bar(what: str, start: int, total: int | None) -> Iterator[Callable[[int], object]]:
    """A line, for what is no terminal."""
    known = f": {total - start:,} of {total:,} bytes" if total is not None else ""
    print(what + known, flush=True)
    yield lambda count: None


def list_data() -> None:
    from segue.data.fetching.archives import WHAT

    rows = [("name", "what", "images", "classes", "get it"), *((name, WHAT[name], *facts(name)) for name in sorted(WHAT))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nimages: of train, val and test. All of one, its terms, and where to register: segue data NAME")
    print("To download one: segue data fetch NAME")


def facts(name: str) -> tuple[str, str, str]:
    """Images, classes, and the way to get it, in a word."""
    from segue.data import DATASETS, DRAWN
    from segue.data.fetching.archives import SOURCES
    from segue.data.synthetic.base import COUNTS

    if name in DRAWN:
        return ", ".join(map(str, COUNTS.values())), str(len(DATASETS[name]().labels)), "drawn"
    if name not in SOURCES:
        return "-", "-", "yours"
    source = SOURCES[name]
    return source.images, source.classes, "fetch" if source.archives else "register"


def describe(name: str) -> None:
    """All that the documentation of a data set says of it, and how to get it."""
    import inspect

    from segue.data import DATASETS, DRAWN
    from segue.data.fetching.archives import SOURCES
    from segue.data.fetching.fetch import find_help
    from segue.suggest import did_you_mean

    if name not in DATASETS and name not in SOURCES:
        raise ValueError(f'no data set "{name}"{did_you_mean(name, DATASETS)}')
    owner = SOURCES[name].data or name if name in SOURCES else name
    module = inspect.getdoc(inspect.getmodule(DATASETS[owner])) or ""
    parts = [module, inspect.getdoc(DATASETS[owner]) or ""]
    if name in SOURCES:
        parts.append(f"Terms: {SOURCES[name].licence}. More: {SOURCES[name].page}")
    if name in SOURCES and SOURCES[name].archives:
        parts.append(f"To get it: segue data fetch {name} ({', '.join(archive.urls[0] for archive in SOURCES[name].archives)})")
    elif name in SOURCES:
        parts.append(f"To get it: {find_help(name)}")
    elif name in DRAWN:
        parts.append("It is drawn by the program and needs no files.")
    print("\n\n".join(parts))
