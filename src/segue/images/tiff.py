"""What a TIFF must be to be read, whole or in rows: one image, there to its end."""

import logging
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segue.images.files import DamagedImageError, ImageError, check_promise

if TYPE_CHECKING:
    import tifffile

NODATA = 42113  # GDAL's tag
ALPHA = (1, 2)  # extra samples
LERC = 34887  # compression

# tifffile logs what it finds odd in a TIFF's tags, which Python would print on standard error; what matters is raised.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class PackedImageError(ImageError):
    """The file is packed in a way that needs a package which is not installed; the message names it."""


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
    if first.compression == LERC and void_value(first) is not None and np.isnan(void_value(first)):
        raise ImageError(
            f"{path} is packed by LERC with nan where there are no data, which imagecodecs gives as 0; save it with deflate, "
            "such as by gdal_translate -co COMPRESS=DEFLATE"
        )
    return pages


def void_value(page: Any) -> Any:
    """What GDAL's tag says of pixels that show nothing, in the page's type; None if it says nothing, or no pixel can be it."""
    kind = np.dtype(page.dtype)
    try:
        value = float(str(page.tags.valueof(NODATA)).strip(" \0"))
    except ValueError:
        return None
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return kind.type(value)
    fits = kind.kind in "iu" and value.is_integer() and np.iinfo(kind).min <= value <= np.iinfo(kind).max
    return kind.type(int(value)) if fits else None


def has_alpha(page: Any) -> bool:
    """Whether the last sample of its pixels is transparency."""
    return bool(page.extrasamples) and page.extrasamples[-1] in ALPHA


def mask_page(file: Any) -> Any:
    """The page that is the mask of the first one, with 0 where that shows nothing; None if there is none."""
    size = file.pages[0].shape[:2] if file.pages[0].axes != "SYX" else file.pages[0].shape[1:]
    masks = (page for page in list(file.pages) if page.is_mask and not page.is_reduced)
    return next((page for page in masks if page.shape == size), None)


def is_sparse(page: Any) -> bool:
    """Whether some of its strips or tiles were never written (GDAL's SPARSE_OK): they show nothing, or zeros."""
    return 0 in page.dataoffsets or 0 in page.databytecounts


def find_void(pixels: NDArray[Any], value: Any, alpha: bool) -> NDArray[np.bool_]:
    """Which pixels (..., C) show nothing, (..., 1): all their channels are `value` or nan.

    alpha: the last channel is transparency, and may be anything.
    """
    colours = pixels[..., :-1] if alpha and pixels.shape[-1] > 1 else pixels
    void: NDArray[np.bool_] = np.isnan(colours) if colours.dtype.kind == "f" else np.zeros(colours.shape, bool)
    if value is not None and value == value:
        void |= colours == value
    return np.asarray(void.all(axis=-1, keepdims=True))


def without_void(pixels: NDArray[Any], void: NDArray[np.bool_], value: Any) -> NDArray[Any]:
    """What a network sees of pixels (..., C): of floats and signed integers, 0 where they are `void` (..., 1) or the value."""
    if pixels.dtype.kind not in "fi":
        return pixels
    nothing = void if value is None else void | (pixels == value)
    return np.where(nothing, pixels.dtype.type(0), pixels)


def check_codec(path: str | Path, error: Exception) -> None:
    """ImageError with the way out if tifffile could not decode this because a package is missing."""
    if "imagecodecs" in str(error) or isinstance(error, ImportError):  # ZSTD is looked for in Python's own library first
        said = f": {error}" if "imagecodecs" in str(error) else ", by its compression"
        raise PackedImageError(
            f"{path} cannot be read here{said}: pip install imagecodecs; or save it with deflate or without compression"
        ) from None


def check_chain(path: str | Path, file: Any) -> None:
    """ImageError if the last page that was found names another one: tifffile stops there, and the image would lack channels."""
    at, form = file.filehandle, file.tiff
    last = at.seek(file.pages[-1].offset)
    (tags,) = struct.unpack(form.tagnoformat, at.read(form.tagnosize))
    at.seek(last + form.tagnosize + tags * form.tagsize)
    if any(at.read(form.offsetsize)):
        raise DamagedImageError(f"{path} is cut short: its last pages are missing; copy it again")


def check_extent(path: str | Path, size: int, pages: Sequence[Any]) -> None:
    """ImageError if a TIFF of `size` bytes cannot hold the pages that its tags promise, before memory is taken for them."""
    first = pages[0]
    width, height = first.imagewidth, first.imagelength
    if 0 in first.shape:
        raise DamagedImageError(f"{path} says it is {width} x {height} pixels (width x height), so none; copy it again")
    check_promise(path, width, height, sum(page.nbytes for page in pages), size)
    for page in pages:
        for number, (start, length) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            if start + length > size:
                across, down = segments(page)
                held = max(0, size - start) // (page.nbytes // page.imagelength) if page.is_contiguous else 0
                row = min(page.imagelength, number // across % down * stripe_height(page) + held)
                raise DamagedImageError(f"{path} is cut short: it ends at row {row} of {page.imagelength}; copy it again")


def stripe_height(page: "tifffile.TiffPage") -> int:
    """Rows that are packed together."""
    return page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)


def segments(page: "tifffile.TiffPage") -> tuple[int, int]:
    """How many tiles or strips there are across, and down."""
    across = math.ceil(page.imagewidth / page.tilewidth) if page.is_tiled else 1
    return across, math.ceil(page.imagelength / stripe_height(page))
