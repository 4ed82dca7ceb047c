"""Reading and writing images and masks, with errors that name the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from segue.labels import Image, Mask

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_image(path: str | Path) -> Image:
    """The image as RGB (H, W, 3), turned upright where its EXIF tag says so; transparency is dropped.

    ValueError if it cannot be read or has more than 8 bits a channel.
    """
    with opened(path) as file:
        if file.mode.startswith(("I", "F")):
            raise ValueError(f"{path} has more than 8 bits a channel (mode {file.mode}); save it with 8 bits a channel")
        return np.array(PIL.ImageOps.exif_transpose(file).convert("RGB"))


def read_mask(path: str | Path) -> Mask:
    """The numbers stored in a grey, palette or one-bit mask (H, W), as they are.

    ValueError if it cannot be read, or has several channels or more than 8 bits.
    """
    with opened(path) as file:
        if file.mode not in ("L", "P", "1"):
            raise ValueError(
                f"{path} is no mask: it has {len(file.getbands())} channel(s) of the mode {file.mode}; a mask has one channel of "
                "8 bits that holds class numbers, so convert colours to numbers first"
            )
        return np.array(file, dtype=np.uint8)


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) as the header says, upright; the pixels are not read."""
    with opened(path) as file:
        turned = file.getexif().get(0x0112, 1) >= 5
        return (file.height, file.width) if turned else file.size


def write_image(path: str | Path, image: Image | Mask) -> None:
    """Write an RGB image (H, W, 3) or a mask (H, W); the suffix gives the format."""
    PIL.Image.fromarray(image).save(path)


@contextmanager
def opened(path: str | Path) -> Iterator[PIL.Image.Image]:
    try:
        with PIL.Image.open(path) as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder, not an image") from None
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from None
