"""What a PNG is made of: its signature, its chunks, and the kinds of its pixels. PNG Specification (Third Edition), W3C 2025."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from zlib_ng import zlib_ng

PNG = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")  # width, height, depth, colour type, and how it is packed, filtered and interlaced
GREY, COLOR, PALETTE, GREY_ALPHA, COLOR_ALPHA = 0, 2, 3, 4, 6  # colour types
SAMPLES = {GREY: 1, COLOR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOR_ALPHA: 4}  # of a pixel


def png_size(start: bytes) -> tuple[int, int] | None:
    """The width and height that a file names in its first 24 bytes; None if it is no PNG, or has fewer."""
    if not start.startswith(PNG) or len(start) < 24:
        return None
    width, height = struct.unpack(">II", start[16:24])
    return width, height


def find_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place and length of each chunk that is there to its end, and of pixels that are not."""
    at, end = len(PNG), file.seek(0, 2)
    while at + 12 <= end:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if at + 12 + length <= end or kind == b"IDAT":
            yield kind, at, length
        at += 12 + length


def read_chunk(file: BinaryIO, at: int, length: int) -> bytes | None:
    """What the chunk at this place holds; None if its checksum is another."""
    file.seek(at + 4)
    data = file.read(4 + length)
    return data[4:] if file.read(4) == checksum(data) else None


def pack_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + checksum(kind + data)


def checksum(data: bytes) -> bytes:
    """Of a chunk's kind and what it holds."""
    return struct.pack(">I", zlib_ng.crc32(data))
