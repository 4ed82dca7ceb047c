"""Masks are read as numbers, as their files store them, and not as pictures: nothing is inverted, scaled or looked up."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segue.images.channels import decode_elsewhere, is_tiff, read_picture, reading, turn_upright
from segue.images.files import ImageError, explained, is_deep, opened
from segue.images.png import GREY, HEADER, PNG
from segue.images.tiff import find_void, has_alpha, mask_page, void_value
from segue.labels import IGNORE, Mask

LARGEST = 2**53  # up to here a float64 tells whole numbers apart


class ColourError(ImageError):
    """The file holds colours, or several channels of another kind, and so no numbers."""

    def __init__(self, path: str | Path, channels: int, mode: str) -> None:
        super().__init__(
            f"{path} is no mask: it has {channels} channel(s) of the mode {mode}; a mask has one channel of 8 bits that holds "
            "class numbers, so convert colours to numbers first"
        )
        self.mode = mode


class StoredMask(NamedTuple):
    """The numbers in a mask."""

    numbers: NDArray[np.uint8] | NDArray[np.int64]
    """(H, W); uint8 if all fit into that, void pixels aside."""
    void: NDArray[np.bool_] | None = None
    """(H, W), where the file has no number, if that is anywhere: it is transparent or masked there, or holds nan."""
    nodata: int | None = None
    """The number that means so by GDAL's tag, if it is one that a mask can hold; void does not count it."""


def read_mask(path: str | Path) -> Mask:
    """The numbers stored in a mask (H, W): grey, palette or single bits, of any type; 255 where the file says there are none.

    ImageError if it cannot be read, has several channels, or holds numbers that are not 0 to 255.
    """
    numbers, void, nodata = read_stored(path)
    if nodata is not None:
        void = numbers == nodata if void is None else void | (numbers == nodata)
    if void is not None:
        numbers = np.where(void, numbers.dtype.type(IGNORE), numbers)
    low, high = numbers.min(initial=0), numbers.max(initial=0)
    if low < 0 or high > 255:
        raise ImageError(
            f"{path} is no mask: it holds the numbers {low} to {high}; a mask holds class numbers of 0 to 254, and 255 for what "
            "is ignored, which fit into 8 bits"
        )
    return numbers.astype(np.uint8)


def read_stored(path: str | Path) -> StoredMask:
    """The numbers in a mask of any type; ImageError if it cannot be read, holds fractions, or has several channels."""
    with explained(path):
        return (tiff_numbers if is_tiff(path) else picture_numbers)(path)


def tiff_numbers(path: str | Path) -> StoredMask:
    import tifffile

    with reading(path) as (file, pages):
        first = pages[0]
        if len(pages) > 1:
            raise ImageError(f"{path} is no mask: it has {len(pages)} pages; a mask is one, so save each as a file")
        alpha = has_alpha(first) and first.samplesperpixel == 2
        if first.samplesperpixel > 1 and not alpha:
            raise ColourError(path, first.samplesperpixel, tifffile.PHOTOMETRIC(first.photometric).name)
        try:
            array = first.asarray()
        except (ValueError, NotImplementedError, ImportError) as error:  # of a compression that tifffile leaves to imagecodecs
            pixels = decode_elsewhere(path, first)
            if pixels is None:
                raise error
            array = pixels
        mask = mask_page(file)
        hidden = False if mask is None else mask.asarray() == 0
        value, turn = void_value(first), first.tags.valueof("Orientation", 1)
    if first.axes == "SYX":
        array = array.transpose(1, 2, 0)
    pixels = array if array.ndim == 3 else array[..., None]
    void = find_void(pixels, None, alpha)[..., 0] | hidden | (alpha and pixels[..., -1] == 0)
    return as_numbers(turn_upright(pixels[..., 0], turn), turn_upright(void, turn), value, path)


def picture_numbers(path: str | Path) -> StoredMask:
    """Of a PNG, or whatever else Pillow reads."""
    with opened(path) as file:
        if file.mode not in ("L", "P", "1", "LA") and not file.mode.startswith(("I", "F")):
            raise ColourError(path, len(file.getbands()), file.mode)
        if is_deep(file) and file.mode == "LA":
            file.verify()
            pixels = read_picture(path)[..., [0, -1]]
        else:
            pixels = np.array(file)
        alpha = file.mode == "LA"
    numbers = pixels[..., 0] if alpha else pixels
    return as_numbers(
        numbers // spread(path) if spread(path) > 1 else numbers, pixels[..., -1] == 0 if alpha else None, None, path
    )


def spread(path: str | Path) -> int:
    """By how much Pillow multiplies the numbers of a PNG of 2 or 4 bits, to make white of the largest."""
    with Path(path).open("rb") as file:
        start = file.read(len(PNG) + 8 + HEADER.size)
    if not start.startswith(PNG):
        return 1
    _, _, bits, colour, *_ = HEADER.unpack(start[len(PNG) + 8 :])
    return 255 // (2**bits - 1) if colour == GREY and bits in (2, 4) else 1


def as_numbers(array: NDArray[Any], void: NDArray[np.bool_] | None, nodata: Any, path: str | Path) -> StoredMask:
    """An array of any type as numbers, void ones set to 0; nodata: the value that stands for none."""
    void = None if void is None or not void.any() else void
    if array.dtype == np.uint8 or array.dtype == np.bool_:
        return StoredMask(np.ascontiguousarray(array, np.uint8), void, None if nodata is None else int(nodata))
    if array.dtype.kind not in "iuf":
        raise ImageError(f"{path} is no mask: it holds {array.dtype}; a mask holds whole numbers")
    if nodata is not None and not (nodata == nodata and abs(float(nodata)) < LARGEST and float(nodata).is_integer()):
        missing = array == nodata
        void = (missing if void is None else void | missing) if missing.any() else void
        nodata = None
    if void is not None:
        array = np.where(void, array.dtype.type(0), array)
    low, high = array.min(initial=0), array.max(initial=0)
    if not -LARGEST < low <= high < LARGEST or (array.dtype.kind == "f" and (np.trunc(array) != array).any()):
        worst = array[np.trunc(array) != array][0] if -LARGEST < low <= high < LARGEST else max(high, -low, key=float)
        raise ImageError(f"{path} is no mask: it holds {worst:g}; a mask holds whole numbers, which stand for classes")
    kind = np.uint8 if low >= 0 and high <= 255 else np.int64
    return StoredMask(np.ascontiguousarray(array.astype(kind)), void, None if nodata is None else int(nodata))
