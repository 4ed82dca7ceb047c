"""What is counted so far of an evaluation, kept in a file while it runs, so that one that was stopped goes on."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segue._version import __version__
from segue.data.files import FileSamples
from segue.data.samples import Samples
from segue.metrics import ImageMatrices

KEEP_EVERY = 30  # seconds between two writings of what is counted so far


def check_record(out: Path) -> None:
    """ValueError if a record would overwrite what is none, or lie in what is no folder."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file, so no scores can be written into {out}; choose another --out")
    if (out / "README.md").exists() and not (out / "scores.json").exists():
        raise ValueError(f"{out} holds a README.md that is no record of scores, and would be overwritten; choose another --out")


def part_file(out: Path, checkpoint: Path, data: str, root: str, split: str, samples: Samples) -> Path:
    """Where the matrices of an evaluation are kept while it runs: a name that no other checkpoint, data or segue has."""
    told = (checkpoint / "model.json").read_text(), data, split, str(Path(root).resolve()), files_of(samples)
    return out / f"{hashlib.sha256(repr((__version__, *map(str, told))).encode()).hexdigest()[:16]}.part.npz"


def files_of(samples: Samples) -> list[Any]:
    """What tells whether the data are still the same: their names, and of files the size, the time and how masks are read."""
    told = [samples.labels, [samples.name(index) for index in range(len(samples))]]
    if isinstance(samples, FileSamples):
        paths = {path for pair in samples.pairs for path in pair} | {*getattr(samples, "depths", ())}
        found = [(str(path), path.stat()) for path in sorted(paths) if path.exists()]  # some name a part of a file
        told += [(path, status.st_size, status.st_mtime_ns) for path, status in found]
        told += samples.table.tolist()
    return told


def load_part(part: Path | None, names: Sequence[str], say: Callable[[str], None]) -> ImageMatrices:
    """What is kept of this evaluation; nothing if there is none, or if it is damaged, which `say` is told."""
    if part and part.exists():
        try:
            return ImageMatrices.load(part)
        except ValueError as error:
            say(f"{error}; beginning anew")
    return ImageMatrices(names)


def keeping(
    images: ImageMatrices, part: Path | None, progress: Callable[[Iterable[int]], Iterable[int]]
) -> Callable[[Iterable[int]], Iterable[int]]:
    """The progress bar, which also writes the matrices counted so far to `part` from time to time."""

    def shown(indices: Iterable[int]) -> Iterator[int]:
        kept = time.monotonic()
        for index in progress(indices):
            yield index
            if part and time.monotonic() - kept > KEEP_EVERY:
                images.save(part)
                kept = time.monotonic()

    return shown


@contextmanager
def kept(images: ImageMatrices, part: Path | None, total: int, say: Callable[[str], None]) -> Iterator[None]:
    """However it ends, what was counted is in `part`; `say` is told if it is less than `total`."""
    try:
        yield
    finally:
        if part and len(images):
            images.save(part)
            if len(images) < total:
                say(f"{len(images)} of {total} images are scored; the same command goes on from there")
