"""Reading the plain PNG and JPEG files of data sets in less time than Pillow takes, with the same result to the last bit.

Whatever is not plain (more than 8 bits, interlaced, progressive, EXIF tags, CMYK, damaged) is left to segue.images, errors too.
"""

import io
import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from segue.images import masks, photos
from segue.images.masks import StoredMask
from segue.images.png import COLOR, GREY, HEADER, PALETTE, PNG, SAMPLES, find_chunks, read_chunk
from segue.labels import Image, Mask
from segue.machine.compiled import compile_loop

Bytes = NDArray[np.uint8]

HARMLESS = (b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"hIST", b"pHYs", b"tIME")  # to the pixels' numbers
TURNING = (b"Raw profile", b"XML:")  # how a text begins that may say how the picture is turned
SIZES = (0xC0, 0xC1)  # JPEG's markers before the size of a picture that is coded in one pass
SCAN, END = 0xDA, 0xD9  # those before its pixels and after them
WITHIN = (0x00, *range(0xD0, 0xD8))  # what may follow FF among its pixels


def read_image(path: str | Path) -> Image:
    """What segue.images.read_image gives or raises."""
    data = contents(path)
    image = plain_jpeg(data)
    if image is None:
        image = plain_png(data)
    return photos.read_image(path) if image is None else image


def read_stored(path: str | Path) -> StoredMask:
    """What segue.images.masks.read_stored gives or raises."""
    found = decode_png(contents(path))
    return StoredMask(found[0][..., 0]) if found and found[1] in (GREY, PALETTE) else masks.read_stored(path)


def read_mask(path: str | Path) -> Mask:
    """What segue.images.read_mask gives or raises."""
    found = decode_png(contents(path))
    return found[0][..., 0] if found and found[1] in (GREY, PALETTE) else masks.read_mask(path)


def contents(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def plain_jpeg(data: bytes) -> Image | None:
    """The RGB image of a JPEG file; None if the file is not plain and whole, as far as its markers tell."""
    markers = dict(jpeg_markers(data))
    sizes = [markers[marker] for marker in SIZES if marker in markers]
    if len(sizes) != 1 or SCAN not in markers or 0xE1 in markers:  # EXIF or XMP
        return None
    bits, height, width, channels = struct.unpack_from(">BHHB", data, sizes[0] + 4)
    if bits != 8 or channels not in (1, 3) or not is_trusted(height, width) or not is_whole(data, markers[SCAN]):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else convert(image, cv2.COLOR_BGR2RGB)


def jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers of a JPEG file and their places, up to that of its pixels, the last one, or to what is no marker."""
    place = 2
    while data.startswith(b"\xff\xd8") and place + 10 <= len(data) and data[place] == 0xFF:
        yield data[place + 1], place
        if data[place + 1] == SCAN:
            return
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")


def is_whole(data: bytes, place: int) -> bool:
    """Whether the pixels behind the marker at this place end where the file does, without another marker among them."""
    scan = np.frombuffer(data.rstrip(b"\0"), np.uint8)[place + 2 :]
    after = np.bincount(scan[1:][scan[:-1] == 0xFF], minlength=256)  # by what follows FF
    return scan[-2:].tolist() == [0xFF, END] and after[END] == 1 and after.sum() == 1 + after[list(WITHIN)].sum()


def plain_png(data: bytes) -> Image | None:
    """The RGB image of a PNG file without its transparency; None if the file is not plain."""
    found = decode_png(data)
    if found is None:
        return None
    pixels, kind, palette = found
    if kind == PALETTE:
        return palette[pixels[..., 0]] if pixels.max() < len(palette) else None
    if pixels.shape[2] < 3:
        return convert(pixels[..., 0], cv2.COLOR_GRAY2RGB)
    return pixels if kind == COLOR else convert(pixels, cv2.COLOR_RGBA2RGB)


def convert(pixels: NDArray[Any], code: int) -> Bytes:
    return cv2.cvtColor(pixels, code).astype(np.uint8, copy=False)


def decode_png(data: bytes) -> tuple[Bytes, int, Bytes] | None:
    """Pixels (H, W, channels), PNG's colour type and the palette (colours, 3); None if the file is not plain and whole."""
    header, palette, packed = b"", b"", []
    try:
        for name, chunk in png_chunks(data):
            if name == b"IHDR":
                header = chunk
            elif name == b"PLTE":
                palette = chunk
            elif name == b"IDAT":
                packed.append(chunk)
            elif not (name in HARMLESS or (name == b"tEXt" and not chunk.startswith(TURNING))):
                return None
        width, height, bits, kind, *methods = HEADER.unpack(header)
        if bits != 8 or any(methods) or kind not in SAMPLES or len(palette) % 3 or not is_trusted(height, width):
            return None
        row = width * SAMPLES[kind]
        filtered = unpack(packed[0] if len(packed) == 1 else b"".join(packed), height * (row + 1))
    except (ValueError, IndexError, struct.error, zlib_ng.error):  # type: ignore[misc]
        return None
    if filtered is None:
        return None
    pixels = np.empty((height, row), np.uint8)
    if not compiled_unfilter()(np.frombuffer(filtered, np.uint8).reshape(height, row + 1), pixels, SAMPLES[kind]):
        return None
    return pixels.reshape(height, width, -1), kind, np.frombuffer(palette, np.uint8).reshape(-1, 3)


def unpack(packed: bytes, size: int) -> bytes | None:
    """The `size` bytes of a zlib stream; None if it has more or fewer. zlib_ng.error if it is damaged."""
    stream = zlib_ng.decompressobj()
    data = stream.decompress(packed, size + 1)
    return data if len(data) == size and stream.eof else None


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of a PNG's chunks up to its end; ValueError if there is none, or a checksum is wrong."""
    if not data.startswith(PNG):
        raise ValueError
    file = io.BytesIO(data)
    for kind, at, length in find_chunks(file):
        if kind == b"IEND":
            return
        # What is packed ends in a checksum of its own.
        chunk = data[at + 8 : at + 8 + length] if kind == b"IDAT" else read_chunk(file, at, length)
        if chunk is None:
            raise ValueError
        yield kind, chunk
    raise ValueError


def is_trusted(height: int, width: int) -> bool:
    """Whether there is something, and not more than Pillow takes without a warning."""
    return 0 < height * width <= (PIL.Image.MAX_IMAGE_PIXELS or 2**26)


def unfilter(filtered: Bytes, pixels: Bytes, step: int) -> bool:
    """Undo PNG's filters of rows whose pixels have `step` bytes (PNG specification, section 9); False for an unknown filter.

    filtered: (H, 1 + W * step), each row behind the number of its filter; the result goes to `pixels`, (H, W * step).
    """

    def nearest(left: Any, above: Any, before: Any) -> Any:
        """Paeth's predictor: which is nearest to left + above - before; by minima and maxima, since branches take longer."""
        twice = 3 * before - (left + above)
        low, high = min(left, above), max(left, above)
        inner = low if high <= twice else before
        return high if twice <= low else inner

    above = np.zeros(pixels.shape[1], np.uint8)
    for y in range(len(pixels)):
        kind, row, line = filtered[y, 0], filtered[y, 1:], pixels[y]
        if kind > 4:
            return False
        if kind == 0:
            line[:] = row
        elif kind == 2:
            for i in range(len(line)):
                line[i] = row[i] + above[i]
        elif kind == 4 and step == 3:  # the usual one of photographs: three chains at once
            r = g = b = r_before = g_before = b_before = np.int32(0)
            for i in range(0, len(line), 3):
                r_above, g_above, b_above = np.int32(above[i]), np.int32(above[i + 1]), np.int32(above[i + 2])
                r = (row[i] + nearest(r, r_above, r_before)) & 255
                g = (row[i + 1] + nearest(g, g_above, g_before)) & 255
                b = (row[i + 2] + nearest(b, b_above, b_before)) & 255
                line[i], line[i + 1], line[i + 2] = r, g, b
                r_before, g_before, b_before = r_above, g_above, b_above
        else:
            for first in range(step):
                left = before = np.int32(0)
                for i in range(first, len(line), step):
                    if kind == 1:
                        left = (row[i] + left) & 255
                    elif kind == 3:
                        left = (row[i] + (left + above[i]) // 2) & 255
                    else:
                        left = (row[i] + nearest(left, np.int32(above[i]), before)) & 255
                        before = np.int32(above[i])
                    line[i] = left
        above = line
    return True


@cache
def compiled_unfilter() -> Callable[[Bytes, Bytes, int], bool]:
    import numba

    filtered, pixels = (numba.types.Array(numba.uint8, 2, "C", readonly=readonly) for readonly in (True, False))
    return compile_loop(unfilter, numba.boolean(filtered, pixels, numba.int64))
