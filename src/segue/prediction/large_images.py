"""From a file to the file of its label map, in bands; what was interrupted goes on where it stopped."""

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from segue._version import __version__
from segue.images.open_rows import open_source
from segue.images.pictures import tint, to_rgb
from segue.images.png_rows import write_png
from segue.images.rows import Source, Window, fit
from segue.images.tiff import NODATA
from segue.images.tiff_rows import write_tiff
from segue.inference import Predictor
from segue.inference.tiling import Plan, label_bands, make_plan
from segue.labels import IGNORE, Labels, Mask
from segue.machine.replacing import replacing
from segue.prediction.targets import beside, check_target

if sys.platform != "win32":
    import fcntl

OVERLAY = 4096  # pixels of its longer side, at most
HEAD = 2**20  # bytes of a file's beginning that tell it from another
LABELLED = 0.95  # of the whole time, when the label map is to be packed

Progress = Callable[[float], object]


def label_file(
    predictor: Predictor, source: str | Path, target: str | Path, *, identity: str = "", tile: int = 0, overlay: bool = True,
    progress: Progress = lambda share: None,
) -> NDArray[np.int64]:  # fmt: skip
    """Write an image's label map, of its own size, and beside it NAME_overlay.jpg; how many pixels each class has.

    target: .png, or .tif for a TIFF in tiles with the source's georeference. Pixels that have the value which the source names as
    nodata in all channels become 255, which is named as nodata in turn. What is done is kept in TARGET.part and TARGET.state; the
    same call goes on from there if the source, `identity` (of checkpoint and settings) and `tile` (its side) are as they were;
    where the system can, two calls at once are kept from each other.
    progress: called with the share that is done.

    ImageError (a ValueError) if the source cannot be read; ValueError if it does not fit the network, would be overwritten, or if
    the target cannot be written.
    """
    target, pictured = Path(target), beside(Path(target), "overlay")
    if target.suffix.lower() not in (".png", ".tif", ".tiff"):
        raise ValueError(f"{target} must end in .png or .tif: these can be written in bands")
    for path in (target, pictured) if overlay else (target,):
        check_target(path, {Path(source).resolve()}, "the image itself", "name")
    image = fit(open_source(source), predictor.channels)
    with reserved(target):
        work = Work.begin(image, target, identity, tile)
        with work.explained():
            label_rows(predictor, image, work, tile, progress)
            counts = finish(image, work, predictor.labels, pictured if overlay else None, progress)
        work.end()
    return counts


def label_rows(predictor: Predictor, image: Source, work: "Work", tile: int, progress: Progress) -> None:
    """Label what is not yet done."""
    plan = choose_plan(predictor, image, work, tile)
    window = Window(image, plan.rows.starts[max(0, first_band(plan, work.done) - 1)], max_rows(plan))
    for top, labels in label_bands(predictor, plan, window, work.done, lambda share: progress(LABELLED * share)):
        work.add(labels, top)


@contextmanager
def reserved(target: Path) -> Iterator[None]:
    """Keep other runs from TARGET.part, where the system has locks; they end with the process that has them."""
    part = target.with_name(target.name + ".part")
    if sys.platform == "win32":
        yield
        return
    try:
        file = part.open("ab")
    except OSError as error:
        raise ValueError(f"{target} cannot be written: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{target} is being made by another run, which has {part}: wait until that ends, or choose another name"
            ) from None
        except OSError:
            pass  # this file system has no locks
        try:
            yield
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()


@dataclass
class Work:
    """What is known of a label map that is being made: its rows so far, in TARGET.part, and how they were made."""

    target: Path
    width: int
    key: dict[str, Any]
    """What must not change for the work to go on."""
    done: int = 0
    """Rows."""
    tile: tuple[int, int] | None = None
    part: Path = field(init=False)
    state: Path = field(init=False)

    def __post_init__(self) -> None:
        self.part, self.state = (self.target.with_name(self.target.name + end) for end in (".part", ".state"))

    @classmethod
    def begin(cls, image: Source, target: Path, identity: str, tile: int) -> "Work":
        """Anew, or where it was interrupted."""
        about = image.path.stat()
        with image.path.open("rb") as file:
            head = hashlib.sha256(file.read(HEAD)).hexdigest()
        key = {
            "source": [about.st_size, about.st_mtime_ns, head], "image": [image.height, image.width, image.channels],
            "identity": identity, "tile": tile, "segue": __version__,
        }  # fmt: skip
        work = cls(target, image.width, key)
        try:
            saved = json.loads(work.state.read_text())
            if saved["key"] == key and work.part.stat().st_size >= saved["done"] * image.width:
                work.done, work.tile = int(saved["done"]), (int(saved["tile"][0]), int(saved["tile"][1]))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            pass  # there is none, or it is of no use
        return work

    def add(self, labels: Mask, top: int) -> None:
        """Keep a band. The rows are on the disk before the state counts them."""
        with self.part.open("r+b" if top else "wb") as file:
            file.seek(top * self.width)
            file.write(labels.data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self.done = top + len(labels)
        with replacing(self.state) as new:
            new.write_text(json.dumps({"key": self.key, "done": self.done, "tile": self.tile}))

    def end(self) -> None:
        self.state.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say how to go on when the disk is full, or the like."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise ValueError(
                f"{self.target} could not be written: {error}; {self.done} rows are kept in {self.part.name}: "
                f"{'make room' if full else 'remove the cause'}, and the same command goes on from there"
            ) from error


def choose_plan(predictor: Predictor, image: Source, work: Work, tile: int) -> Plan:
    sides = work.tile or ((tile, tile) if tile else None)
    plan = make_plan(predictor, image.height, image.width, sides, image.row_bytes)
    if work.done not in plan.rows.cuts:
        work.done = 0
    work.tile = plan.tile
    return plan


def first_band(plan: Plan, done: int) -> int:
    return plan.rows.cuts.index(done)


def max_rows(plan: Plan) -> int:
    return max(stop - start for start, stop in zip(plan.rows.starts, plan.rows.stops, strict=True))


def finish(image: Source, work: Work, labels: Labels, pictured: Path | None, progress: Progress) -> NDArray[np.int64]:
    """Pack the rows that are kept into the target, draw the overlay (if it has a path), and count."""
    factor = -(-max(image.height, image.width) // OVERLAY)
    step = 16 * factor * max(1, 32 // factor)  # rows at a time: a multiple of 16 for TIFF's tiles, and of the factor
    counts = np.zeros(256, np.int64)
    small: list[tuple[NDArray[Any], NDArray[np.uint8]]] = []
    nothing = None if image.void is None else replace(image, rows=image.void, channels=1, kind=np.dtype(bool))

    def bands() -> Iterator[Mask]:
        window = Window(image, 0, step) if pictured else None
        void = Window(nothing, 0, step) if nothing else None
        with work.part.open("rb") as file:
            for top in range(0, image.height, step):
                stop = min(top + step, image.height)
                band = np.frombuffer(file.read((stop - top) * image.width), np.uint8).reshape(stop - top, image.width)
                if void:
                    band = np.where(void(top, stop)[..., 0], np.uint8(IGNORE), band)
                if window:
                    small.append((shrink(window(top, stop), factor), shrink(labels.colorize(band), factor)))
                counts[:] += np.bincount(band.reshape(-1), minlength=256)
                progress(LABELLED + (1 - LABELLED) * stop / image.height)
                yield band

    with replacing(work.target) as new:
        if work.target.suffix.lower() == ".png":
            write_png(new, image.height, image.width, bands())
        else:
            nodata = ((NODATA, 2, 0, str(IGNORE), True),) if nothing else ()
            write_tiff(new, image.height, image.width, bands(), step, (*image.tags, *nodata))
        if pictured:
            shown, colours = (np.concatenate(parts) for parts in zip(*small, strict=True))
            with replacing(pictured) as sketch:
                PIL.Image.fromarray(tint(to_rgb(shown), colours)).save(sketch, "JPEG", quality=90)
    return counts[: len(labels)]


def shrink(rows: NDArray[Any], factor: int) -> NDArray[Any]:
    """The mean of `factor` x `factor` pixels, the last ones continued; (rows, W, 1 or 3), the first channels."""
    rows = rows[..., :3] if rows.shape[2] >= 3 else rows[..., :1]
    height, width = (-(-size // factor) for size in rows.shape[:2])
    if factor > 1:
        below, right = height * factor - rows.shape[0], width * factor - rows.shape[1]
        rows = cv2.copyMakeBorder(np.ascontiguousarray(rows), 0, below, 0, right, cv2.BORDER_REPLICATE)
        rows = cv2.resize(rows, (width, height), interpolation=cv2.INTER_AREA)
    return rows.reshape(height, width, -1).copy()
