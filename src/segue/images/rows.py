"""Images that are read from their first row to their last, a few rows at a time."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from segue.images import files
from segue.images.files import ImageError, Raster
from segue.images.png import png_size

LARGE = 2**25  # pixels from which on an image is labelled in bands


@dataclass(frozen=True)
class Source:
    """An image that gives its rows in order."""

    path: Path
    height: int
    width: int
    channels: int
    kind: np.dtype[Any]
    """uint8, uint16 or float32."""
    rows: Callable[[int], Iterator[Raster]]
    """All rows from the one of this number on, as arrays (rows, W, C) of a few megabytes."""
    photo: bool = False
    """Whether it is 8-bit grey or RGB, perhaps with transparency, which can become either."""
    alpha: bool = False
    """Whether the last channel is transparency."""
    tags: tuple[tuple[int, int, int, Any, bool], ...] = ()
    """A TIFF's georeference, as tifffile writes it."""
    void: Callable[[int], Iterator[NDArray[Any]]] | None = None
    """As `rows`, whether each pixel, (rows, W, 1), shows nothing, where the file may say so: by GDAL's nodata, nan, or a mask."""

    @property
    def row_bytes(self) -> int:
        return self.width * self.channels * self.kind.itemsize


def fit(source: Source, channels: int) -> Source:
    """The image with as many channels as a network takes; ImageError if it cannot have them.

    Of a photo of 8 bits, transparency is dropped, and colour becomes grey or grey colour, as when it is read whole. Where an
    image is transparent it shows nothing, unless the network sees the transparency as one of its channels.
    """
    if channels in (1, 3) and source.photo:
        if source.channels == channels:
            return source
        change = to_grey if channels == 1 else to_colour
    elif source.channels == channels:
        return source
    elif source.alpha and source.channels == channels + 1:
        change = without_last
    else:
        raise ImageError(
            f"{source.path} has {source.channels} channel(s) of {source.kind}, but the network takes {channels}; "
            "give it an image with as many"
        )
    return replace(
        source, channels=channels, rows=lambda first: (change(rows) for rows in source.rows(first)), alpha=False,
        void=partial(hidden, source) if source.alpha else source.void,
    )  # fmt: skip


def hidden(source: Source, first: int) -> Iterator[NDArray[np.bool_]]:
    """Which pixels of the rows from `first` on are transparent, or show nothing in another way, (rows, W, 1)."""
    for rows, void in zip(source.rows(first), source.void(first) if source.void else repeat(False)):  # noqa: B905
        yield void | (rows[..., -1:] == 0)


def to_colour(rows: Raster) -> Raster:
    return rows[..., :3] if rows.shape[2] >= 3 else rows[..., :1].repeat(3, axis=2)


def to_grey(rows: Raster) -> Raster:
    return files.to_grey(np.ascontiguousarray(rows[..., :3], np.uint8)) if rows.shape[2] >= 3 else rows[..., :1]


def without_last(rows: Raster) -> Raster:
    return rows[..., :-1]


class Window:
    """Any rows of a source, if later calls ask for later ones; rows that two calls in turn share are read once."""

    def __init__(self, source: Source, first: int, most: int) -> None:
        """first: the row of the first call. most: rows of a call."""
        self.buffer = np.empty((most, source.width, source.channels), source.kind)
        self.top, self.held = first, 0  # rows of the image in the buffer
        self.coming = source.rows(first)
        self.rest: NDArray[Any] = self.buffer[:0]

    def __call__(self, start: int, stop: int) -> Raster:
        keep = max(0, self.top + self.held - start)
        self.buffer[:keep] = self.buffer[self.held - keep : self.held]
        skip = max(0, start - (self.top + self.held))
        self.top, self.held = start, keep
        while self.held < stop - start:
            if not len(self.rest):
                self.rest = next(self.coming)
            passed = min(skip, len(self.rest))
            skip, self.rest = skip - passed, self.rest[passed:]
            taken = min(len(self.rest), stop - start - self.held)
            self.buffer[self.held : self.held + taken] = self.rest[:taken]
            self.held, self.rest = self.held + taken, self.rest[taken:]
        return self.buffer[: stop - start]


def size_of(path: Path) -> tuple[int, int]:
    """Height and width by the file's header."""
    with path.open("rb") as file:
        start = file.read(24)
        if start[:4] in files.TIFF:
            import tifffile

            with tifffile.TiffFile(path) as tiff:
                return tiff.pages[0].imagelength, tiff.pages[0].imagewidth  # type: ignore[union-attr]
        if size := png_size(start):
            return size[1], size[0]
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # asked for its size alone, it is not decoded
            with PIL.Image.open(file) as picture:
                return picture.height, picture.width


def is_large(path: str | Path) -> bool:
    """Whether an image is to be labelled in bands: it has more than 2**25 pixels. An unreadable file is not."""
    try:
        height, width = size_of(Path(path))
    except PIL.Image.DecompressionBombError:
        return True
    except Exception:  # a damaged TIFF can raise anything; who reads it tells
        return False
    return height * width > LARGE


def shorter_side(path: str | Path) -> int:
    """Of an image, in pixels, by its header; 0 for an unreadable file."""
    try:
        return min(size_of(Path(path)))
    except Exception:  # as above
        return 0


def suffix_for(path: str | Path) -> str:
    """Of the file for an image's label map: .tif for a TIFF, whose georeference it keeps, else .png."""
    with files.explained(path), Path(path).open("rb") as file:
        return ".tif" if file.read(4) in files.TIFF else ".png"
