"""Reading all channels of an image as they are stored, of any number and of 8 bits, 16 bits or floats."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.ExifTags
import PIL.Image
from numpy.typing import NDArray

from segue.images.files import TIFF, ImageError, Raster, explained, is_deep, opened, upright
from segue.images.tiff import check_codec, check_extent, usable_pages


def read_channels(path: str | Path) -> Raster:
    """All channels of an image as they are stored, (H, W, C), turned upright where a tag says so: TIFF, PNG and others.

    A TIFF has its channels in each pixel, in planes, or in pages of one size. Integers of 8 and 16 bits are kept, int16 becomes
    uint16, all floats float32; palettes become RGB, single bits 0 and 255. Of 8 bits and fewer, white is the largest number, also
    where a TIFF stores it as zero. ImageError if it cannot be read, or holds other numbers.
    """
    with explained(path):
        with Path(path).open("rb") as file:
            start = file.read(4)
        return to_raster(read_tiff(path) if start in TIFF else read_picture(path), path)


def read_tiff(path: str | Path) -> NDArray[Any]:
    """The channels of a TIFF's page, or its pages, (H, W) or (H, W, C)."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            pages = usable_pages(path, file)
            first = pages[0]
            if len(pages) == 1 and first.photometric == tifffile.PHOTOMETRIC.PALETTE:
                return read_picture(path)
            check_pixels(path, first.imagelength, first.imagewidth)
            check_extent(path, file.filehandle.size, pages)
            array = np.dstack([page.asarray() for page in pages]) if len(pages) > 1 else first.asarray()
            orientation = first.tags.get("Orientation")
            inverted = first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    except ImageError:
        raise
    except Exception as error:  # a damaged TIFF can raise anything
        check_codec(path, error)
        raise ImageError(f"{path} cannot be read as an image: {error or type(error).__name__}") from None
    if array.shape[: len(first.shape)] != first.shape:
        raise ImageError(f"{path} is decoded to the lengths {array.shape}, but its tags say {first.shape}; save it anew")
    if first.axes == "SYX":
        array = array.transpose(1, 2, 0)
    if inverted and array.dtype in (np.uint8, np.bool_):
        array = ~array
    return turn_upright(array, orientation.value if orientation else 1)


def check_pixels(path: str | Path, height: int, width: int) -> None:
    """ImageError if these are too many for an image that is read whole."""
    limit = 2 * (PIL.Image.MAX_IMAGE_PIXELS or height * width)
    if height * width > limit:
        raise ImageError(
            f"{path} says it is {width} x {height} pixels (width x height), more than {limit} in all; cut it to tiles"
        )


def read_picture(path: str | Path) -> NDArray[Any]:
    """The channels of a PNG, JPEG or the like, (H, W) or (H, W, C)."""
    with opened(path) as file:
        if not is_deep(file):
            mode = {"1": "L"}.get(file.mode, file.mode)
            return np.array(upright(file).convert(mode if mode in ("L", "LA", "RGB", "RGBA") else "RGB"))
        orientation = file.getexif().get(PIL.ExifTags.Base.Orientation, 1) if "exif" in file.info else 1
        file.verify()  # OpenCV gives what it could read of a damaged file
    import cv2

    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ImageError(f"{path} cannot be read as an image; save it as TIFF")
    if array.ndim == 3:
        array = array[..., [2, 1, 0, *range(3, array.shape[2])]]  # OpenCV's order is blue, green, red
    return turn_upright(array, orientation)


def turn_upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo what EXIF's and TIFF's tag Orientation, 1 to 8, says of rows and columns."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return array[rows, columns]


def to_raster(array: NDArray[Any], path: str | Path) -> Raster:
    """(H, W) or (H, W, C) of numbers that fit one of a Raster's types, as such."""
    kind = array.dtype
    if kind == np.bool_:
        array = array * np.uint8(255)
    elif kind.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is found as such
            array = array.astype(np.float32)
    elif kind.newbyteorder("=") == np.int16 and array.min(initial=0) >= 0:
        array = array.astype(np.uint16)
    elif kind.newbyteorder("=") not in (np.uint8, np.uint16):
        below = " below 0" if kind.newbyteorder("=") == np.int16 else ""
        raise ImageError(f"{path} holds {kind.name}{below}; save it as uint8, uint16 or float32")
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return array if array.ndim == 3 else array[..., None]
