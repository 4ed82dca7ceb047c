"""Masks give the numbers that their files store, whatever these do to show them, and 255 where they say there are none."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from numpy.typing import NDArray

from segue.images import ImageError, fast_decoding, read_channels, read_mask
from segue.images.masks import read_stored
from segue.images.photos import read_void

LABELS = (np.arange(48).reshape(6, 8) % 4).astype(np.uint8)
VOID = np.where(LABELS == 3, 255, LABELS).astype(np.uint8)


def nodata(value: str) -> dict[str, Any]:
    return {"extratags": [(42113, "s", 0, value, True)]}


def tiff(array: NDArray[Any], **settings: Any) -> Callable[[Path], object]:
    return lambda path: tifffile.imwrite(path, array, **{"metadata": None, "photometric": "minisblack", **settings})


def picture(array: NDArray[Any], mode: str | None = None, **settings: Any) -> Callable[[Path], object]:
    return lambda path: PIL.Image.fromarray(array, mode).save(path, **settings)


def packed(bits: int) -> NDArray[np.uint8]:
    """LABELS in so few bits, row by row."""
    places = np.arange(8 // bits)
    return ((LABELS & (2**bits - 1)).reshape(6, -1, 8 // bits) << (8 - bits * (places + 1))).sum(axis=2).astype(np.uint8)


def small_png(bits: int) -> Callable[[Path], object]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in packed(bits))
    header = struct.pack(">IIBBBBB", 8, 6, bits, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return lambda path: path.write_bytes(data) and None


def small_tiff(bits: int, photometric: int, sparse: bool = False) -> Callable[[Path], object]:
    data = packed(bits).tobytes()
    row, offsets, counts = len(data) // 6, [8 + i * (len(data) // 6) for i in range(6)], [len(data) // 6] * 6
    if sparse:
        offsets[0] = counts[0] = 0
    arrays = 8 + len(data)
    tags = [(256, 3, 1, 8), (257, 3, 1, 6), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric), (273, 4, 6, arrays)]
    tags += [(277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 6, arrays + 24)]
    file = b"II*\0" + struct.pack("<I", arrays + 48) + data + struct.pack("<12I", *offsets, *counts)
    file += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    assert row * 6 == len(data)
    return lambda path: path.write_bytes(file) and None


def with_mask_page(path: Path) -> None:
    """A TIFF whose second page is the mask of the first."""
    with tifffile.TiffWriter(path) as file:
        file.write(LABELS, photometric="minisblack", metadata=None)
        file.write((LABELS != 3).astype(np.uint8), photometric="minisblack", subfiletype=1, metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        at = file.pages[1].tags["NewSubfileType"].valueoffset  # type: ignore[union-attr]
    data[at : at + 4] = (4).to_bytes(4, "little")
    path.write_bytes(data)


def with_overview(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(LABELS, photometric="minisblack", metadata=None)
        file.write(LABELS[::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)


PALETTE = np.arange(255, -1, -1, dtype=np.uint16)[None].repeat(3, axis=0) * 257
FLOATS = np.where(LABELS == 3, np.float32(np.nan), LABELS.astype(np.float32))

STORED: dict[str, tuple[Callable[[Path], object], NDArray[Any]]] = {
    "white-is-zero.tif": (tiff(LABELS, photometric="miniswhite"), LABELS),
    "white-is-zero-lzw.tif": (picture(255 - LABELS, compression="tiff_lzw", tiffinfo={262: 0}), LABELS),
    "bits.tif": (tiff(LABELS == 3), LABELS == 3),
    "bits-white-is-zero.tif": (tiff(LABELS == 3, photometric="miniswhite"), LABELS == 3),
    "fax.tif": (picture(LABELS == 3, compression="group4"), LABELS == 3),
    "palette.tif": (tiff(LABELS, photometric="palette", colormap=PALETTE), LABELS),
    "lzw.tif": (picture(LABELS, compression="tiff_lzw"), LABELS),
    "zstd.tif": (picture(LABELS, compression="zstd"), LABELS),
    "lzw-16.tif": (picture(LABELS.astype(np.uint16), compression="tiff_lzw"), LABELS),
    "lzw-32.tif": (picture(LABELS.astype(np.int32), compression="tiff_lzw"), LABELS),
    "turned.tif": (tiff(LABELS, extratags=[(274, "H", 1, 6, True)]), np.rot90(LABELS, -1)),
    "turned-lzw.tif": (picture(LABELS, compression="tiff_lzw", tiffinfo={274: 6}), np.rot90(LABELS, -1)),
    **{f"{kind}.tif": (tiff(LABELS.astype(kind)), LABELS) for kind in ("int8", "int16", "uint16", "int32", "uint64", "float64")},
    "tiles.tif": (tiff(np.pad(LABELS, ((0, 10), (0, 8))), tile=(16, 16)), np.pad(LABELS, ((0, 10), (0, 8)))),
    "overview.tif": (with_overview, LABELS),
    "2-bits.tif": (small_tiff(2, 1), LABELS),
    "4-bits.tif": (small_tiff(4, 1), LABELS),
    "4-bits-white-is-zero.tif": (small_tiff(4, 0), LABELS),
    "sparse.tif": (small_tiff(8, 1, sparse=True), np.concatenate([0 * LABELS[:1], LABELS[1:]])),
    "bits.png": (small_png(1), LABELS & 1),
    "2-bits.png": (small_png(2), LABELS),
    "4-bits.png": (small_png(4), LABELS),
    "16-bits.png": (picture(LABELS.astype(np.uint16)), LABELS),
    "opaque.png": (picture(np.dstack([LABELS, np.full_like(LABELS, 9)]), "LA"), LABELS),
    # What a file says is none is 255.
    "nodata.tif": (tiff(LABELS, **nodata("3")), VOID),
    "nodata-int16.tif": (tiff(np.where(LABELS == 3, np.int16(-9999), LABELS), **nodata("-9999")), VOID),
    "nodata-float.tif": (tiff(np.where(LABELS == 3, -3.4e38, LABELS).astype(np.float32), **nodata("-3.4e+38")), VOID),
    "nodata-of-no-byte.tif": (tiff(LABELS, **nodata("-9999")), LABELS),
    "nan.tif": (tiff(FLOATS), VOID),
    "nan-nodata.tif": (tiff(FLOATS, **nodata("nan")), VOID),
    "alpha.tif": (tiff(np.dstack([LABELS, (LABELS != 3) * np.uint8(255)]), extrasamples=["unassalpha"]), VOID),
    "mask.tif": (with_mask_page, VOID),
    "alpha.png": (picture(np.dstack([LABELS, (LABELS != 3) * np.uint8(255)]), "LA"), VOID),
}


@pytest.mark.parametrize("name", STORED)
@pytest.mark.filterwarnings("ignore:.*mode.*deprecated:DeprecationWarning")
def test_the_stored_numbers_are_read(name: str, tmp_path: Path) -> None:
    make, expected = STORED[name]
    path = tmp_path / name
    make(path)
    for read in (read_mask, fast_decoding.read_mask):
        got = read(path)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (tiff(LABELS.astype(np.int16) - 1), r"holds the numbers -1 to 2; a mask holds class numbers"),
        (tiff(LABELS.astype(np.uint16) * 100), r"holds the numbers 0 to 300"),
        (tiff(LABELS / 2), r"holds 0\.5; a mask holds whole numbers"),
        (tiff(np.full((6, 8), np.inf)), r"holds inf; a mask"),
        (tiff(np.stack([LABELS, LABELS])), r"has 2 pages; a mask is one, so save each as a file"),
        (tiff(np.dstack([LABELS] * 3), photometric="rgb"), r"has 3 channel\(s\) of the mode RGB"),
        (tiff(LABELS.astype(np.complex64)), r"holds complex64"),
    ],
)
def test_what_is_no_mask_is_named(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    make(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=rf"a\.tif is no mask: it {message}"):
        read_mask(tmp_path / "a.tif")


def test_nan_in_lerc_is_refused_rather_than_0(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tiff(FLOATS, **nodata("nan"))(path)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].tags["Compression"].valueoffset  # type: ignore[union-attr]
    data[at : at + 2] = (34887).to_bytes(2, "little")
    path.write_bytes(data)
    for read in (read_mask, read_channels):
        with pytest.raises(ImageError, match=r"LERC with nan .* save it with deflate"):
            read(path)


def test_numbers_that_are_no_bytes_are_kept(tmp_path: Path) -> None:
    wide = LABELS.astype(np.int32) * 100000 - 5
    tiff(wide, **nodata("-5"))(tmp_path / "a.tif")
    numbers, void, missing = read_stored(tmp_path / "a.tif")
    np.testing.assert_array_equal(numbers, wide)
    assert void is None
    assert missing == -5


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("nodata.tif", tiff(np.dstack([LABELS] * 3), photometric="rgb", **nodata("3"))),
        ("white-is-zero.tif", tiff(LABELS, photometric="miniswhite", **nodata("3"))),
        ("lzw.tif", picture(LABELS, compression="tiff_lzw", tiffinfo={42113: "3"})),
        ("mask.tif", with_mask_page),
        (
            "alpha.tif",
            tiff(np.dstack([LABELS] * 3 + [LABELS != 3]).astype(np.uint8), photometric="rgb", extrasamples=["unassalpha"]),
        ),
        ("alpha.png", picture(np.dstack([LABELS] * 3 + [LABELS != 3]).astype(np.uint8))),
        ("alpha.webp", picture(np.dstack([LABELS] * 3 + [LABELS != 3]).astype(np.uint8), lossless=True)),
    ],
)
def test_pixels_of_a_photo_that_show_nothing(name: str, make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / name)
    void = read_void(tmp_path / name)
    assert void is not None
    np.testing.assert_array_equal(void, LABELS == 3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_a_photo_that_shows_all(name: str, tmp_path: Path) -> None:
    PIL.Image.fromarray(np.dstack([LABELS] * 3)).save(tmp_path / name)
    assert read_void(tmp_path / name) is None
