"""Reading and writing images and masks, with errors that name the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from segue.labels import Image, Mask

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class ImageError(ValueError):
    """The file cannot be read as an image, or is not of the kind that is needed; the message names it."""


def read_image(path: str | Path) -> Image:
    """The image as RGB (H, W, 3), turned upright where its EXIF tag says so; transparency is dropped.

    ImageError if it cannot be read or has more than 8 bits a channel.
    """
    with opened(path) as file:
        reject_deep(path, file)
        return np.array(PIL.ImageOps.exif_transpose(file).convert("RGB"))


def to_grey(image: Image) -> Image:
    """The brightness of an RGB image as its only channel, (H, W, 1)."""
    return np.array(PIL.Image.fromarray(image).convert("L"))[..., None]


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
        tagged = not png or "exif" in file.info  # asked for its EXIF tags, a PNG without any is decoded
        turned = tagged and file.getexif().get(PIL.ExifTags.Base.Orientation, 1) >= 5
        size = (file.height, file.width) if turned else (file.width, file.height)
        if png:
            file.verify()  # checksums
        else:
            file.draft(None, (1, 1))  # JPEG at an eighth of its size
            file.load()
        return size


def reject_deep(path: str | Path, file: PIL.Image.Image) -> None:
    """Pillow opens 16-bit RGB as RGB, and tells its depth in the decoder's arguments alone."""
    if file.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in getattr(file, "tile", ())):
        raise ImageError(f"{path} has more than 8 bits a channel; save it with 8 bits a channel")


def write_image(path: str | Path, image: Image | Mask) -> None:
    """Write an RGB image (H, W, 3) or a mask (H, W); the suffix gives the format."""
    PIL.Image.fromarray(image).save(path)


@contextmanager
def opened(path: str | Path) -> Iterator[PIL.Image.Image]:
    try:
        with PIL.Image.open(path) as file:
            yield file
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder, not an image") from None
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be read as an image: {error}") from None
