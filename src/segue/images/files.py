"""Reading and writing images and masks, with errors that name the file."""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from segue.images.png import png_size
from segue.labels import Image, Mask
from segue.machine.replacing import replacing

Raster = NDArray[np.uint8 | np.uint16 | np.float32]
"""(H, W, C), any number of channels; uint8 is 0 to 255, uint16 0 to 65535, float32 without nan or infinite values."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
TYPES = (np.uint8, np.uint16, np.float32)
WHITE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}  # the number that stands for 1 in images of each type
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how a file begins; + is BigTIFF
FAR = 300  # metres; a depth of which half is beyond this is in another unit
ROOM = 2**26  # bytes of an image that are taken on trust; beyond, a file must have a 2000th of what its header promises


class ImageError(ValueError):
    """The file cannot be read as an image, or is not of the kind that is needed; the message names it."""


class DamagedImageError(ImageError):
    """The file is not there, cut short, or no image at all: no other way of reading it would help."""


def upright(file: PIL.Image.Image) -> PIL.Image.Image:
    """The image as its EXIF tag says that it is to be seen, without the colours that are transparent."""
    image = PIL.ImageOps.exif_transpose(file)
    image.info.pop("transparency", None)  # about which Pillow would warn
    return image


def to_grey(image: Image) -> Image:
    """The brightness of an RGB image as its only channel, (H, W, 1)."""
    return np.array(PIL.Image.fromarray(image).convert("L"))[..., None]


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


def find_depth_fault(depth: NDArray[Any], size: tuple[int, ...]) -> str:
    """What keeps an array from being the depth of an image of this (height, width), to be read after "it has"; else nothing."""
    if depth.shape != size or depth.dtype.kind != "f":
        return f"the shape {depth.shape} and the type {depth.dtype}; it must be {size} of float32, in metres"
    if not np.isfinite(depth).all():
        wrong = int(np.count_nonzero(~np.isfinite(depth)))
        return f"{wrong} values that are nan or infinite; put numbers in their place, such as 0 where nothing was measured"
    some = depth[::8, ::8]  # enough to tell the unit by
    known = some[some > 0]
    if known.size and np.median(known) > FAR:
        return f"a median of {np.median(known):g}, which looks like millimetres; it must be in metres"
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


def reject_deep(path: str | Path, file: PIL.Image.Image) -> None:
    if is_deep(file):
        raise ImageError(f"{path} has more than 8 bits a channel; save it with 8 bits a channel")


def is_deep(file: PIL.Image.Image) -> bool:
    """Pillow opens 16-bit RGB as RGB, and tells its depth in the decoder's arguments alone."""
    return file.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in getattr(file, "tile", ()))


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
        raise DamagedImageError(
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
        raise DamagedImageError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise DamagedImageError(f"{path} is a folder, not an image") from None
    except PIL.UnidentifiedImageError:
        with Path(path).open("rb") as file:
            size = png_size(file.read(24))
        if size and 0 in size:
            raise DamagedImageError(
                f"{path} says it is {size[0]} x {size[1]} pixels (width x height), so none; copy it again"
            ) from None
        raise DamagedImageError(
            f"{path} cannot be read as an image: it begins like none that is known; {way_out(path)}"
        ) from None
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"{path} cannot be read as a whole: {error}; segue predict labels such images in bands") from None
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, struct.error) as error:
        raise DamagedImageError(f"{path} cannot be read as an image: {error}; {way_out(path)}") from None


def way_out(path: str | Path) -> str:
    if Path(path).is_file() and not Path(path).stat().st_size:
        return "the file is empty: copy it again"
    return "if other programs show it, save it anew as PNG or TIFF, else copy it again"
