"""What a TIFF must be to be read, whole or in rows: one image, there to its end."""

import logging
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.images.files import ImageError, check_promise

if TYPE_CHECKING:
    import tifffile

# tifffile logs what it finds odd in a TIFF's tags, which Python would print on standard error; what matters is raised.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def usable_pages(path: str | Path, file: Any) -> list[Any]:
    """The pages of a tifffile.TiffFile that hold the image's channels, without smaller copies and transparency.

    ImageError if they are no one image: one page, or pages of one channel that are alike.
    """
    check_chain(path, file)
    pages = [page for page in list(file.pages) if not page.is_reduced and not page.is_mask]
    first = pages[0]
    if len({(page.shape, page.dtype) for page in pages}) > 1 or (len(pages) > 1 and first.axes != "YX"):
        shapes = ", ".join(f"{page.shape} {page.dtype}" for page in pages[:3])
        raise ImageError(f"{path} has pages of {shapes} and so on; they must be alike, each one channel, or else one page")
    if first.axes not in ("YX", "YXS", "SYX"):
        raise ImageError(f"{path} has the axes {first.axes} of the lengths {first.shape}; it must be one image, not a volume")
    return pages


def check_codec(path: str | Path, error: Exception) -> None:
    """ImageError with the way out if tifffile could not decode this because a package is missing."""
    if "imagecodecs" in str(error):
        raise ImageError(
            f"{path} cannot be read here: {error}: pip install imagecodecs; or save it with deflate or without compression"
        ) from None


def check_chain(path: str | Path, file: Any) -> None:
    """ImageError if the last page that was found names another one: tifffile stops there, and the image would lack channels."""
    at, form = file.filehandle, file.tiff
    last = at.seek(file.pages[-1].offset)
    (tags,) = struct.unpack(form.tagnoformat, at.read(form.tagnosize))
    at.seek(last + form.tagnosize + tags * form.tagsize)
    if any(at.read(form.offsetsize)):
        raise ImageError(f"{path} is cut short: its last pages are missing; copy it again")


def check_extent(path: str | Path, size: int, pages: Sequence[Any]) -> None:
    """ImageError if a TIFF of `size` bytes cannot hold the pages that its tags promise, before memory is taken for them."""
    first = pages[0]
    width, height = first.imagewidth, first.imagelength
    if 0 in first.shape:
        raise ImageError(f"{path} says it is {width} x {height} pixels (width x height), so none; copy it again")
    check_promise(path, width, height, sum(page.nbytes for page in pages), size)
    for page in pages:
        for number, (start, length) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            if start + length > size:
                across, down = segments(page)
                held = max(0, size - start) // (page.nbytes // page.imagelength) if page.is_contiguous else 0
                row = min(page.imagelength, number // across % down * stripe_height(page) + held)
                raise ImageError(f"{path} is cut short: it ends at row {row} of {page.imagelength}; copy it again")


def stripe_height(page: "tifffile.TiffPage") -> int:
    """Rows that are packed together."""
    return page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)


def segments(page: "tifffile.TiffPage") -> tuple[int, int]:
    """How many tiles or strips there are across, and down."""
    across = math.ceil(page.imagewidth / page.tilewidth) if page.is_tiled else 1
    return across, math.ceil(page.imagelength / stripe_height(page))
