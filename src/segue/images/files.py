"""Reading and writing images and masks, with errors that name the file."""

import io
import logging
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from segue.labels import Image, Mask
from segue.machine.replacing import replacing

Raster = NDArray[np.uint8 | np.uint16 | np.float32]
"""(H, W, C), any number of channels; uint8 is 0 to 255, uint16 0 to 65535, float32 without nan or infinite values."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
TYPES = (np.uint8, np.uint16, np.float32)
WHITE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}  # the number that stands for 1 in images of each type
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how a file begins; + is BigTIFF
PNG = b"\x89PNG\r\n\x1a\n"
ROOM = 2**26  # bytes of an image that are taken on trust; beyond, a file must have a 2000th of what its header promises

# tifffile logs what it finds odd in a TIFF's tags, which Python would print on standard error; what matters is raised.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class ImageError(ValueError):
    """The file cannot be read as an image, or is not of the kind that is needed; the message names it."""


def read_image(path: str | Path) -> Image:
    """The image as RGB (H, W, 3), turned upright where its EXIF tag says so; transparency is dropped.

    Grey, palettes and CMYK become RGB; of an animation or of pages the first is taken. ImageError if it cannot be read or has
    more than 8 bits a channel.
    """
    with opened(path) as file:
        reject_deep(path, file)
        return np.array(upright(file).convert("RGB"))


def upright(file: PIL.Image.Image) -> PIL.Image.Image:
    """The image as its EXIF tag says that it is to be seen, without the colours that are transparent."""
    image = PIL.ImageOps.exif_transpose(file)
    image.info.pop("transparency", None)  # about which Pillow would warn
    return image


def to_grey(image: Image) -> Image:
    """The brightness of an RGB image as its only channel, (H, W, 1)."""
    return np.array(PIL.Image.fromarray(image).convert("L"))[..., None]


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


def find_fault(image: NDArray[Any], channels: int = 0) -> str:
    """What keeps an array from being a Raster (of so many channels), to be read after "it has"; nothing if it is one."""
    wrong_shape = image.ndim != 3 or 0 in image.shape or image.shape[2] != (channels or image.shape[2])
    if wrong_shape or image.dtype not in TYPES:
        allowed = f"(H, W, {channels or 'C'}) of uint8, uint16 or float32"
        return f"the shape {image.shape} and the type {image.dtype}; it must be {allowed}"
    if image.dtype == np.float32 and not np.isfinite(image).all():
        wrong = int(np.count_nonzero(~np.isfinite(image)))
        return f"{wrong} values that are nan or infinite; put numbers in their place, such as by numpy.nan_to_num"
    return ""


def white(image: NDArray[Any]) -> float:
    """The number that stands for 1 in images of this type."""
    return WHITE.get(image.dtype.name, 1.0)


def to_planes(image: Raster) -> Raster:
    """A copy of the image as (C, H, W)."""
    import cv2

    planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    if 1 < len(planes) < 5:
        cv2.split(image, list(planes))  # a tenth of the time
    else:
        planes[:] = image.transpose(2, 0, 1)
    return planes


def read_mask(path: str | Path) -> Mask:
    """The numbers stored in a grey, palette or one-bit mask (H, W), as they are.

    ImageError if it cannot be read, or has several channels or more than 8 bits.
    """
    with opened(path) as file:
        if file.mode not in ("L", "P", "1"):
            raise ImageError(
                f"{path} is no mask: it has {len(file.getbands())} channel(s) of the mode {file.mode}; a mask has one channel of "
                "8 bits that holds class numbers, so convert colours to numbers first"
            )
        return np.array(file, dtype=np.uint8)


def check_image(path: str | Path) -> tuple[int, int]:
    """The (width, height) of what read_image would give, or the error that it would raise, in a fraction of its time."""
    with opened(path) as file:
        reject_deep(path, file)
        png = file.format == "PNG"
        if file.format == "TIFF":  # which Pillow turns as it loads
            file.load()
            return file.size
        tagged = not png or "exif" in file.info  # asked for its EXIF tags, a PNG without any is decoded
        turned = tagged and file.getexif().get(PIL.ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        size = (file.height, file.width) if turned else (file.width, file.height)
        if png:
            file.verify()  # checksums
        else:
            file.draft(None, (1, 1))  # JPEG at an eighth of its size
            file.load()
        return size


def photo_channels(path: str | Path) -> int:
    """How many channels a picture of 8 bits has, by its header; 0 for all else: more bits, a TIFF of pages, no picture."""
    try:
        with opened(path) as file:
            stack = file.format == "TIFF" and getattr(file, "n_frames", 1) > 1
            return 0 if stack or is_deep(file) else len(file.getbands())
    except ImageError:
        return 0


def reject_deep(path: str | Path, file: PIL.Image.Image) -> None:
    if is_deep(file):
        raise ImageError(f"{path} has more than 8 bits a channel; save it with 8 bits a channel")


def is_deep(file: PIL.Image.Image) -> bool:
    """Pillow opens 16-bit RGB as RGB, and tells its depth in the decoder's arguments alone."""
    return file.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in getattr(file, "tile", ()))


def read_tiff(path: str | Path) -> NDArray[Any]:
    """The channels of a TIFF's page, or its pages, (H, W) or (H, W, C)."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            pages = usable_pages(path, file)
            first = pages[0]
            if len(pages) == 1 and first.photometric == tifffile.PHOTOMETRIC.PALETTE:
                return read_picture(path)
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
    height, width = pages[0].imagelength, pages[0].imagewidth
    limit = 2 * (PIL.Image.MAX_IMAGE_PIXELS or height * width)
    if height * width > limit:
        raise ImageError(
            f"{path} says it is {width} x {height} pixels (width x height), more than {limit} in all; cut it to tiles"
        )
    ends = (start + length for page in pages for start, length in zip(page.dataoffsets, page.databytecounts, strict=True))
    if 0 in pages[0].shape or max(ends) > size or sum(page.nbytes for page in pages) > ROOM + 2000 * size:
        raise ImageError(f"{path} is cut short or damaged: it has {size} bytes, fewer than its tags say; copy it again")


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


def write_image(path: str | Path, image: Image | Mask) -> None:
    """Write an RGB image (H, W, 3) or a mask (H, W); the suffix gives the format.

    The file appears under its name when it is whole.
    """
    data = encode_image(image, Path(path).suffix.lower())
    with replacing(path) as new:
        new.write_bytes(data)


def encode_image(image: Image | Mask, suffix: str) -> bytes:
    """The image as a file of the format that has this suffix, such as ".png"."""
    if suffix == ".png" and image.ndim == 2 and image.dtype == np.uint8:
        import cv2

        return cv2.imencode(suffix, image)[1].tobytes()  # a label map in a third of Pillow's time, at about the same size
    form = PIL.Image.registered_extensions().get(suffix)
    if form not in PIL.Image.SAVE:
        raise ValueError(f'no image has the suffix "{suffix}"; .png and .jpg do')
    data = io.BytesIO()
    PIL.Image.fromarray(image).save(data, form)
    return data.getvalue()


@contextmanager
def opened(path: str | Path) -> Iterator[PIL.Image.Image]:
    # A file, not its path: Pillow maps plain TIFFs into memory by that, and turns those wrongly.
    with explained(path), Path(path).open("rb") as data, PIL.Image.open(data) as file:
        size = os.fstat(data.fileno()).st_size
        check_promise(path, file.width, file.height, file.width * file.height * len(file.getbands()), size)
        yield file


def check_promise(path: str | Path, width: int, height: int, needed: int, size: int) -> None:
    """ImageError if a file of `size` bytes cannot have the pixels that its header promises, which take `needed` bytes."""
    if needed > ROOM + 2000 * size:
        raise ImageError(
            f"{path} says it is {width} x {height} pixels (width x height), but has {size} bytes, too few for that: it is cut "
            "short or damaged; copy it again"
        )


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turn what goes wrong in reading this file into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder, not an image") from None
    except PIL.UnidentifiedImageError:
        with Path(path).open("rb") as file:
            start = file.read(24)
        if start.startswith(PNG) and 0 in (size := struct.unpack(">II", start[16:].rjust(8, b"?"))):
            raise ImageError(f"{path} says it is {size[0]} x {size[1]} pixels (width x height), so none; copy it again") from None
        raise ImageError(f"{path} cannot be read as an image: it begins like none that is known; {way_out(path)}") from None
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"{path} cannot be read as a whole: {error}; segue predict labels such images in bands") from None
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, struct.error) as error:
        raise ImageError(f"{path} cannot be read as an image: {error}; {way_out(path)}") from None


def way_out(path: str | Path) -> str:
    if Path(path).is_file() and not Path(path).stat().st_size:
        return "the file is empty: copy it again"
    return "if other programs show it, save it anew as PNG or TIFF, else copy it again"
