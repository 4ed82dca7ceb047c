"""TIFF, strip by strip or tile by tile, through tifffile."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from segue.images.channels import to_raster
from segue.images.files import DamagedImageError, ImageError, Raster
from segue.images.rows import Source
from segue.images.tiff import (
    check_codec,
    check_extent,
    find_void,
    has_alpha,
    mask_page,
    segments,
    stripe_height,
    usable_pages,
    void_value,
    without_void,
)
from segue.labels import Mask

GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)  # GeoTIFF: scale, tie points, transformation, keys and their values
STRIPE = 2**28  # bytes of pixels that can only be decoded together, at most
PIECE = 2**22  # bytes of uncompressed rows that are read at a time
LAB = (8, 9, 10)  # photometric
GREY_OR_COLOUR = (0, 1, 2, 3, 6)  # photometric: white is zero, black is zero, RGB, palette, YCbCr


def open_tiff(path: Path) -> Source:
    """The image in rows: its one page, or pages of one channel each. ImageError for what `images.read_channels` refuses too."""
    with tifffile.TiffFile(path) as file:
        pages = usable_pages(path, file)
        first = pages[0]
        height, width = first.imagelength, first.imagewidth
        channels = len(pages) * first.samplesperpixel
        orientation = first.tags.valueof("Orientation", 1)
        if orientation in range(2, 9):
            raise ImageError(
                f"{path} is to be turned by its tag (orientation {orientation}), which bands cannot: save it upright"
            )
        if first.photometric in LAB:
            raise ImageError(f"{path} has Lab colours, which bands cannot convert: save it as RGB")
        check_extent(path, file.filehandle.size, pages)
        check_pieces(path, pages)
        tags = tuple((tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in first.tags if tag.code in GEOREFERENCE)
        void, alpha = void_value(first), has_alpha(first)
        palette = first.photometric == tifffile.PHOTOMETRIC.PALETTE and len(pages) == 1
        kind = next(read_rows(path, height - 1)).dtype  # also tells whether it can be decoded
        masked = void is not None or kind == np.float32 or mask_page(file) is not None
    photo = kind == np.uint8 and len(pages) == 1 and channels <= 4 and first.photometric in GREY_OR_COLOUR
    return Source(
        path, height, width, 3 if palette else channels, kind, partial(read_rows, path), photo, alpha, tags,
        void=partial(read_void, path) if masked else None,
    )  # fmt: skip


def check_pieces(path: Path, pages: list[Any]) -> None:
    """ImageError if the pages must be decoded in pieces that are too large."""
    for page in pages:
        if not page.is_contiguous and stripe_height(page) * page.nbytes // page.imagelength > STRIPE:
            raise ImageError(
                f"{path} is packed in pieces of {stripe_height(page)} rows, more than can be unpacked at once; save it in tiles, "
                "such as by gdal_translate -co TILED=YES -co COMPRESS=DEFLATE"
            )


def read_rows(path: Path, first: int) -> Iterator[Raster]:
    """The rows from `first` on, (rows, W, C), as they are seen; of floats and signed integers, void pixels are 0."""
    for rows, void, page in read_stored(path, first):
        rows = without_void(rows, void, void_value(page))
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and rows.shape[2] == 1:
            rows = (page.colormap.T >> 8).astype(np.uint8)[rows[..., 0]]  # type: ignore[union-attr]
        rows = to_raster(rows, path)
        yield 255 - rows if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and rows.dtype == np.uint8 else rows


def read_void(path: Path, first: int) -> Iterator[NDArray[np.bool_]]:
    """Of the rows from `first` on, which pixels show nothing, (rows, W, 1)."""
    return (void for _, void, _ in read_stored(path, first))


def read_stored(path: Path, first: int) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_], tifffile.TiffPage]]:
    """The rows from `first` on as the file has them, (rows, W, C), which show nothing, (rows, W, 1), and its first page."""
    with tifffile.TiffFile(path) as file:
        pages = usable_pages(path, file)
        value, alpha, mask = void_value(pages[0]), has_alpha(pages[0]), mask_page(file)
        shown = None if mask is None else page_stripes(path, [mask], first)
        rest = np.empty((0, pages[0].imagewidth, 1), bool)  # rows of the mask that are read before their turn
        for rows in page_stripes(path, pages, first):
            void = find_void(rows, value, alpha)
            if shown is not None:
                while len(rest) < len(rows):
                    rest = np.concatenate([rest, next(shown) == 0])
                void, rest = void | rest[: len(rows)], rest[len(rows) :]
            yield rows, void, pages[0]


def page_stripes(path: Path, pages: Sequence[tifffile.TiffPage], first: int) -> Iterator[NDArray[Any]]:
    """The rows from `first` on of pages that are alike, (rows, W, C), as many at a time as are packed together."""
    height = pages[0].imagelength
    step = max(1, PIECE * height // pages[0].nbytes) if pages[0].is_contiguous else stripe_height(pages[0])
    for top in range(first // step * step, height, step):
        stop = min(top + step, height)
        try:
            parts = [page_rows(page, top, stop) for page in pages]
        except Exception as error:  # a damaged TIFF can raise anything
            check_codec(path, error)
            raise DamagedImageError(f"{path} is damaged at row {top} of {height}: {error}; copy it again") from None
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        yield rows[max(0, first - top) :]


def page_rows(page: tifffile.TiffPage, top: int, stop: int) -> NDArray[Any]:
    """Rows of a page, (rows, W, samples); where it is packed, those of a stripe of segments, or the rest of the last one."""
    file, samples, width = page.parent.filehandle, page.samplesperpixel, page.imagewidth
    separate = page.planarconfig == 2 and samples > 1
    kind = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    if page.is_contiguous:
        line = width * kind.itemsize * (1 if separate else samples)
        planes = []
        for plane in range(samples if separate else 1):
            file.seek(page.dataoffsets[0] + (plane * page.imagelength + top) * line)
            planes.append(np.frombuffer(file.read((stop - top) * line), kind).reshape(stop - top, width, -1))
        return np.concatenate(planes, axis=2) if separate else planes[0]
    across, down = segments(page)
    rows = np.zeros((stop - top, width, samples), kind)
    for plane in range(samples if separate else 1):
        for column in range(across):
            number = (plane * down + top // stripe_height(page)) * across + column
            file.seek(page.dataoffsets[number])
            data = file.read(page.databytecounts[number]) or None
            tables = {"jpegtables": page.jpegtables} if page.jpegtables else {}
            pixels, (_, _, _, left, _), _ = page.decode(data, number, **tables)
            if pixels is None:
                rows[:, left : left + page.tilewidth or width] = page.nodata
                continue
            pixels = pixels[0, : stop - top, : width - left]
            rows[: len(pixels), left : left + pixels.shape[1], plane if separate else slice(None)] = (
                pixels[..., 0] if separate else pixels
            )
    return rows


def write_tiff(path: Path, height: int, width: int, bands: Iterable[Mask], step: int, tags: tuple[Any, ...]) -> None:
    """Write labels in tiles of `step` rows, which is a multiple of 16 and the height of the bands, with a source's tags."""
    side = min(512, -(-width // 16) * 16)

    def tiles() -> Iterator[Mask]:
        for band in bands:
            padded = np.pad(band, ((0, step - len(band)), (0, -width % side)))
            yield from (padded[:, left : left + side] for left in range(0, width, side))

    with tifffile.TiffWriter(path, bigtiff=height * width > 2**31) as file:
        file.write(
            tiles(), shape=(height, width), dtype=np.uint8, tile=(step, side), compression="zlib", photometric="minisblack",
            metadata=None, software="segue", extratags=tags,
        )  # fmt: skip
