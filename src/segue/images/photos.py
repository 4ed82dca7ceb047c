"""Reading images as RGB of 8 bits, as programs show them."""

from pathlib import Path

import numpy as np
import PIL.ExifTags
from numpy.typing import NDArray

from segue.images.channels import decode_elsewhere, is_tiff, read_channels, read_with_void, reading, turn_upright
from segue.images.files import TIFF, DamagedImageError, ImageError, explained, is_deep, opened, reject_deep, upright
from segue.images.png import COLOR_ALPHA, GREY_ALPHA, HEADER, PNG
from segue.images.tiff import PackedImageError, find_void, has_alpha, is_sparse, mask_page, void_value
from segue.labels import Image

JPEG = b"\xff\xd8"


def read_image(path: str | Path) -> Image:
    """The image as RGB (H, W, 3), turned upright where its EXIF tag says so; transparency is dropped.

    Grey, palettes and CMYK become RGB; of an animation the first picture is taken; the pages of a TIFF are its channels.
    ImageError if it cannot be read or has more than 8 bits a channel.
    """
    if is_in_pieces(path):
        return read_pieces(path)
    with opened(path) as file:
        reject_deep(path, file)
        return np.array(upright(file).convert("RGB"))


def read_pieces(path: str | Path) -> Image:
    """The RGB image of a TIFF in pages, or with pieces that were never written."""
    image = read_channels(path)
    if image.dtype != np.uint8 or image.shape[2] > 4:
        raise ImageError(f"{path} has {image.shape[2]} channel(s) of {image.dtype}, which are no photo; save it as RGB of 8 bits")
    return np.array(image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, axis=2), np.uint8)


def is_in_pieces(path: str | Path) -> bool:
    """Whether a picture is a TIFF that Pillow does not show as it is: it takes the first of several pages for the image, and
    other bytes of the file for the pixels of pieces that were never written."""
    with explained(path):
        if not is_tiff(path):
            return False
    try:
        with reading(path) as (_, pages):
            return len(pages) > 1 or is_sparse(pages[0])
    except DamagedImageError:
        return False  # who reads it tells


def check_image(path: str | Path) -> tuple[int, int]:
    """The (width, height) of what read_image would give, or the error that it would raise, in a fraction of its time."""
    if is_in_pieces(path):
        height, width, _ = read_pieces(path).shape
        return width, height
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
        stack = False
        with opened(path) as file:
            if file.format == "TIFF":
                with reading(path) as (_, pages):
                    stack = len(pages) > 1
            return 0 if stack or is_deep(file) else len(file.getbands())
    except ImageError:
        return 0


def read_void(path: str | Path) -> NDArray[np.bool_] | None:
    """Which pixels of a photo show nothing, (H, W), by transparency, a TIFF's nodata value or its mask; None if none do."""
    with explained(path), Path(path).open("rb") as file:
        start = file.read(len(PNG) + 8 + HEADER.size)
    if start.startswith(JPEG) or (
        start.startswith(PNG) and HEADER.unpack(start[len(PNG) + 8 :])[3] not in (GREY_ALPHA, COLOR_ALPHA)
    ):
        return None
    if start[:4] not in TIFF:
        return read_with_void(path).without_alpha().void
    with reading(path) as (file, pages):
        first = pages[0]
        value, alpha, mask = void_value(first), has_alpha(first), mask_page(file)
        turn = first.tags.valueof("Orientation", 1)
        if value is None and not alpha and mask is None:
            return None
        hidden = False if mask is None else mask.asarray() == 0
    try:
        return read_with_void(path).without_alpha().void
    except PackedImageError:
        pixels = decode_elsewhere(path, first)
        if pixels is None:
            raise
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    void = find_void(pixels, value, alpha)[..., 0] | hidden | (alpha and pixels[..., -1] == 0)
    return turn_upright(void, turn)
