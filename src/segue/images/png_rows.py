"""PNG, row by row: no library here decodes or encodes it so. PNG Specification (Third Edition), W3C 2025."""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from segue.images.fast_decoding import compiled_unfilter
from segue.images.files import ImageError, check_promise
from segue.images.png import (
    COLOR_ALPHA,
    GREY,
    GREY_ALPHA,
    HEADER,
    PALETTE,
    PNG,
    SAMPLES,
    find_chunks,
    pack_chunk,
    read_chunk,
)
from segue.images.rows import Source
from segue.labels import Mask

PIECE = 2**20  # bytes that are inflated or deflated at a time
ORIENTATION = 0x112


def open_png(path: Path) -> Source | None:
    """The image in rows, or None if it is interlaced. ImageError if it is damaged, or turned by its EXIF tag."""
    with path.open("rb") as file:
        chunks = {kind: (at, length) for kind, at, length in reversed(list(find_chunks(file)))}  # the first of each kind
        if not {b"IHDR", b"IDAT"} <= chunks.keys():
            raise ImageError(f"{path} is cut short or damaged: it has no header or no pixels; copy it again")
        width, height, depth, colour, packed, filtered, interlaced = HEADER.unpack(contents(file, chunks, b"IHDR"))
        depths = (1, 2, 4, 8, 16) if colour in (GREY, PALETTE) else (8, 16)
        known = colour in SAMPLES and depth in depths and not packed | filtered
        if not known or not height * width or (colour == PALETTE and (depth == 16 or b"PLTE" not in chunks)):
            raise ImageError(
                f"{path} is damaged, or no PNG that is known: {width} x {height} pixels of depth {depth} and colour type "
                f"{colour}; copy it again"
            )
        line = -(-width * SAMPLES[colour] * depth // 8)  # bytes of a row
        check_promise(path, width, height, height * (line + 1), path.stat().st_size)
        if interlaced:
            return None
        exif = PIL.Image.Exif()
        if b"eXIf" in chunks:
            exif.load(contents(file, chunks, b"eXIf"))
        turned = exif.get(ORIENTATION, 1)
        if turned in range(2, 9):
            raise ImageError(
                f"{path} is to be turned by its EXIF tag (orientation {turned}), which bands cannot do; save it upright"
            )
        palette = np.zeros((256, 3), np.uint8)
        if colour == PALETTE:
            stored = np.frombuffer(contents(file, chunks, b"PLTE"), np.uint8)
            palette[: len(stored) // 3] = stored[: len(stored) // 3 * 3].reshape(-1, 3)
        if b"IEND" not in chunks:
            rows = sum(map(len, until_damage(inflate(path, chunks[b"IDAT"][0])))) // (line + 1)
            raise ImageError(f"{path} is cut short: it ends at row {rows} of {height}; copy it again")
    kind = np.dtype(np.uint16 if depth == 16 else np.uint8)
    shape = height, width, depth, SAMPLES[colour], palette if colour == PALETTE else None
    channels = 3 if colour == PALETTE else SAMPLES[colour]
    rows_from = partial(read_rows, path, chunks[b"IDAT"][0], *shape)
    return Source(path, height, width, channels, kind, rows_from, photo=depth <= 8, alpha=colour in (GREY_ALPHA, COLOR_ALPHA))


def contents(file: BinaryIO, chunks: Mapping[bytes, tuple[int, int]], kind: bytes) -> bytes:
    """What the chunk of this kind holds; ImageError if its checksum is another. chunks: their places and lengths."""
    data = read_chunk(file, *chunks[kind])
    if data is None:
        raise ImageError(f"{file.name} is damaged: the checksum of {kind!r} is wrong; copy it again")
    return data


def inflate(path: Path, at: int) -> Iterator[bytes]:
    """The rows as they are filtered, in pieces, from the IDAT chunks that begin at `at`."""
    unpack = zlib.decompressobj()
    with path.open("rb") as file:
        file.seek(at)
        while len(head := file.read(8)) == 8 and head[4:] == b"IDAT":
            left, check = int.from_bytes(head[:4], "big"), zlib.crc32(b"IDAT")
            while left:
                data = file.read(min(left, PIECE))
                if not data:
                    raise ImageError("the file ends")
                left, check = left - len(data), zlib.crc32(data, check)
                while data:
                    yield unpack.decompress(data, PIECE)
                    data = unpack.unconsumed_tail
            if file.read(4) != struct.pack(">I", check):
                raise ImageError("a checksum is wrong")
    if not unpack.eof:
        raise ImageError("its pixels end")


def until_damage(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except (ImageError, zlib.error):
        return


def read_rows(
    path: Path, at: int, height: int, width: int, depth: int, samples: int, palette: NDArray[np.uint8] | None, first: int
) -> Iterator[NDArray[Any]]:
    """The rows from `first` on, (rows, W, C)."""
    line = -(-width * samples * depth // 8)
    step = max(1, samples * depth // 8)  # bytes between a byte and the one of the pixel to its left
    unfilter, row, data = compiled_unfilter(), 0, bytearray(line + 1)  # filters see the row above, which is zeros at first
    try:
        for piece in inflate(path, at):
            data += piece
            count = min(len(data) // (line + 1) - 1, height - row)
            if not count or (count * (line + 1) < 4 * PIECE and row + count < height):
                continue
            filtered = np.frombuffer(bytes(data[: (count + 1) * (line + 1)]), np.uint8).reshape(count + 1, line + 1)
            lines = np.empty((count + 1, line), np.uint8)
            if not unfilter(filtered, lines, step):
                raise ImageError("a row has no known filter")
            data[: (count + 1) * (line + 1)] = b"\0" + lines[-1].tobytes()
            row += count
            if row > first:
                yield to_pixels(lines[1 + max(0, first - (row - count)) :], width, depth, samples, palette)
    except (ImageError, zlib.error) as error:
        held = row + len(data) // (line + 1) - 1
        raise ImageError(f"{path} is damaged at row {held} of {height}: {error}; copy it again") from None
    if row < height:
        held = row + len(data) // (line + 1) - 1
        raise ImageError(f"{path} is cut short: it ends at row {held} of {height}; copy it again")


def to_pixels(lines: NDArray[np.uint8], width: int, depth: int, samples: int, palette: NDArray[np.uint8] | None) -> NDArray[Any]:
    """The bytes of rows as pixels (rows, W, C); grey of fewer than 8 bits is spread over 0 to 255."""
    lines = np.ascontiguousarray(lines)
    if depth == 16:
        return lines.view(">u2").reshape(len(lines), width, samples).astype(np.uint16)
    if depth < 8:
        bits = np.unpackbits(lines, axis=1)[:, : width * depth].reshape(len(lines), width, depth)
        lines = (bits << np.arange(depth - 1, -1, -1, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
        if palette is None:
            lines *= 255 // (2**depth - 1)
    return lines.reshape(len(lines), width, samples) if palette is None else palette[lines]


def write_png(path: Path, height: int, width: int, bands: Iterable[Mask]) -> None:
    """Write 8-bit grey rows, each as its difference from the one above, which packs label maps well."""
    pack, above = zlib.compressobj(6), np.zeros((1, width), np.uint8)
    with path.open("wb") as file:
        file.write(PNG)
        file.write(pack_chunk(b"IHDR", HEADER.pack(width, height, 8, GREY, 0, 0, 0)))
        for band in bands:
            lines = np.full((len(band), width + 1), 2, np.uint8)
            np.subtract(band, np.concatenate([above, band[:-1]]), out=lines[:, 1:])
            above = band[-1:].copy()
            if packed := pack.compress(lines.data):
                file.write(pack_chunk(b"IDAT", packed))
        file.write(pack_chunk(b"IDAT", pack.flush()))
        file.write(pack_chunk(b"IEND", b""))
