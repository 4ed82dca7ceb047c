"""Reading all channels of an image as they are stored, of any number and of 8 bits, 16 bits or floats."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.ExifTags
import PIL.Image
from numpy.typing import NDArray

from segue.images.files import TIFF, DamagedImageError, ImageError, Raster, explained, is_deep, opened, upright
from segue.images.tiff import (
    check_codec,
    check_extent,
    find_void,
    has_alpha,
    is_sparse,
    mask_page,
    usable_pages,
    void_value,
    without_void,
)


class Stored(NamedTuple):
    """An image with what its file says of it."""

    image: Raster
    void: NDArray[np.bool_] | None
    """(H, W), which pixels show nothing, where there are such: see `segue.images.tiff.find_void`. Those of floats are 0."""
    alpha: bool
    """Whether the last channel is transparency."""

    def without_alpha(self) -> "Stored":
        """The image without its transparency; where it is transparent, it shows nothing."""
        if not self.alpha:
            return self
        hidden = self.image[..., -1] == 0
        void = hidden if self.void is None else self.void | hidden
        return Stored(self.image[..., :-1], void if void.any() else None, False)


def read_channels(path: str | Path) -> Raster:
    """All channels of an image as they are stored, (H, W, C), turned upright where a tag says so: TIFF, PNG and others.

    A TIFF has its channels in each pixel, in planes, or in pages of one size. Integers of 8 and 16 bits are kept, int16 becomes
    uint16, all floats float32; palettes become RGB, single bits 0 and 255. Of 8 bits and fewer, white is the largest number, also
    where a TIFF stores it as zero. Where a TIFF of floats or signed integers has no data, it is 0. ImageError if it cannot be
    read, or holds other numbers.
    """
    return read_with_void(path).image


def read_with_void(path: str | Path) -> Stored:
    """What read_channels gives, and which pixels show nothing: by a TIFF's nodata value, nan, or its mask."""
    with explained(path):
        if is_tiff(path):
            array, void, alpha = read_tiff(path)
        else:
            array, void = read_picture(path), None
            alpha = array.ndim == 3 and array.shape[2] in (2, 4)
        return Stored(to_raster(array, path), void if void is not None and void.any() else None, alpha)


def is_tiff(path: str | Path) -> bool:
    with Path(path).open("rb") as file:
        return file.read(4) in TIFF


def read_tiff(path: str | Path) -> tuple[NDArray[Any], NDArray[np.bool_], bool]:
    """The channels of a TIFF's page, or its pages, (H, W) or (H, W, C); which pixels are void, (H, W); whether it has alpha."""
    import tifffile

    with reading(path) as (file, pages):
        first = pages[0]
        array = np.dstack([page.asarray() for page in pages]) if len(pages) > 1 else first.asarray()
        mask = mask_page(file)
        shown = None if mask is None else mask.asarray()
        value, turn = void_value(first), first.tags.valueof("Orientation", 1)
        palette = first.colormap if first.photometric == tifffile.PHOTOMETRIC.PALETTE and len(pages) == 1 else None
    if array.shape[: len(first.shape)] != first.shape:
        raise ImageError(f"{path} is decoded to the lengths {array.shape}, but its tags say {first.shape}; save it anew")
    if first.axes == "SYX":
        array = array.transpose(1, 2, 0)
    pixels = array if array.ndim == 3 else array[..., None]
    void = find_void(pixels, value, has_alpha(first))
    if shown is not None:
        void |= shown[..., None] == 0
    array = without_void(pixels, void, value)
    if palette is not None:
        array = (palette.T >> 8).astype(np.uint8)[array[..., 0]]
    elif first.photometric == tifffile.PHOTOMETRIC.MINISWHITE and array.dtype in (np.uint8, np.bool_):
        array = ~array
    return turn_upright(array, turn), turn_upright(void[..., 0], turn), has_alpha(first)


@contextmanager
def reading(path: str | Path) -> Iterator[tuple[Any, list[Any]]]:
    """A tifffile.TiffFile and its pages, which are not larger than the file can hold; ImageError for what goes wrong within."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            pages = usable_pages(path, file)
            check_pixels(path, pages[0].imagelength, pages[0].imagewidth)
            check_extent(path, file.filehandle.size, pages)
            yield file, pages
    except ImageError:
        raise
    except Exception as error:  # a damaged TIFF can raise anything
        check_codec(path, error)
        raise DamagedImageError(f"{path} cannot be read as an image: {error or type(error).__name__}") from None


def decode_elsewhere(path: str | Path, page: Any) -> NDArray[Any] | None:
    """The pixels of a TIFF's first page as stored, by Pillow's libtiff, which knows more compressions; None where it cannot.

    It shows what it reads: fewer than 8 bits are spread over 0 to 255, and where white is zero, all of these are inverted.
    """
    if is_sparse(page):  # Pillow would show bytes of other places
        return None
    try:
        with PIL.Image.open(path) as file:
            if file.mode not in ("L", "LA", "P", "1", "I", "F", "RGB", "RGBA") and not file.mode.startswith("I;16"):
                return None
            turned = page.tags.valueof("Orientation", 1)
            shown = np.array(file)
    except Exception:  # who asks tells why
        return None
    if turned != 1:  # Pillow has turned it
        shown = turn_upright(shown, {6: 8, 8: 6}.get(turned, turned))
    if file.mode in ("L", "1"):
        if page.photometric == 0:
            shown = ~shown
        if file.mode == "L" and page.bitspersample < 8:
            shown = shown // np.uint8(255 // (2**page.bitspersample - 1))
    return shown


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
