"""Opening an image of any format for reading by rows."""

from pathlib import Path

import PIL.Image

from segue.images import files
from segue.images.channels import read_with_void
from segue.images.files import ImageError
from segue.images.photos import photo_channels
from segue.images.png import PNG
from segue.images.png_rows import open_png
from segue.images.rows import Source, size_of
from segue.images.tiff_rows import open_tiff

WHOLE = 2**26  # pixels of an image that must be decoded whole, at most


def open_source(path: str | Path) -> Source:
    """The image as it is stored. ImageError if it cannot be read in bands, and is too large to be read whole."""
    path = Path(path)
    with files.explained(path):
        with path.open("rb") as file:
            start = file.read(8)
        if start[:4] in files.TIFF:
            return open_tiff(path)
        return (open_png(path) if start == PNG else None) or open_whole(path)


def open_whole(path: Path) -> Source:
    """An image whose format gives no rows in order, decoded at once."""
    try:
        height, width = size_of(path)
        size = f"is {width} x {height} pixels (width x height)" if height * width > WHOLE else ""
    except PIL.Image.DecompressionBombError:
        size = "is an image"
    if size:
        raise ImageError(
            f"{path} {size} of a format that can only be decoded whole, for which {WHOLE} pixels is the limit; save it as PNG "
            "without interlacing, or as TIFF in tiles"
        )
    image, _, alpha = read_with_void(path)
    height, width, channels = image.shape
    photo = photo_channels(path) > 0
    return Source(path, height, width, channels, image.dtype, lambda first: iter([image[first:]]), photo, alpha)
