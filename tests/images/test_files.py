"""What becomes of each kind of image file: the table of docs/predict.md."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest
import tifffile
from numpy.typing import NDArray

from segue.images import ImageError, check_image, read_channels, read_image, read_mask, write_image
from segue.images.channels import turn_upright

Array = NDArray[Any]

COLORS = np.zeros((16, 48, 3), np.uint8)
COLORS[:, :16], COLORS[:, 16:32], COLORS[:4, 32:], COLORS[4:, 32:] = (200, 30, 30), (30, 180, 40), (20, 40, 210), (250, 250, 250)
GREY = COLORS[..., 0]
PICTURE = PIL.Image.fromarray(COLORS)


def save(path: Path, picture: PIL.Image.Image, **settings: Any) -> Path:
    picture.save(path, **settings)
    return path


def turned(orientation: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    return exif


def ycck(path: Path) -> Path:
    """A JPEG as Adobe's programs write it: four inverted inks of which three are stored as brightness and colour."""
    brightness = np.array(PIL.Image.fromarray(255 - COLORS).convert("YCbCr"))  # of the inks
    stored = np.dstack([brightness, np.full(GREY.shape, 255, np.uint8)])
    save(path, PIL.Image.fromarray(255 - stored, "CMYK"), quality=100)  # Pillow inverts what it writes
    data = bytearray(path.read_bytes())
    data[data.index(b"Adobe") + 11] = 2
    path.write_bytes(data)
    return path


def palette(path: Path, **settings: Any) -> Path:
    return save(path, PICTURE.quantize(8), **settings)


KINDS: dict[str, tuple[Callable[[Path], Path], Array, Array]] = {
    # How such a file is made, what read_image gives, what read_channels gives.
    "grey.png": (lambda path: save(path, PIL.Image.fromarray(GREY)), np.dstack([GREY] * 3), GREY[..., None]),
    "grey-alpha.png": (
        lambda path: save(path, PIL.Image.fromarray(np.dstack([GREY, 255 - GREY]), "LA")),
        np.dstack([GREY] * 3),
        np.dstack([GREY, 255 - GREY]),
    ),
    "alpha.png": (
        lambda path: save(path, PIL.Image.fromarray(np.dstack([COLORS, GREY]))),
        COLORS,
        np.dstack([COLORS, GREY]),
    ),
    "palette.png": (palette, COLORS, COLORS),
    "palette-one-transparent.png": (lambda path: palette(path, transparency=0), COLORS, COLORS),
    "palette-transparent.png": (lambda path: palette(path, transparency=b"\0\x80\xff"), COLORS, COLORS),
    "palette.gif": (palette, COLORS, COLORS),
    "bits.png": (
        lambda path: save(path, PIL.Image.fromarray(GREY > 100)),
        np.dstack([np.where(GREY > 100, np.uint8(255), np.uint8(0))] * 3),
        np.where(GREY > 100, np.uint8(255), np.uint8(0))[..., None],
    ),
    "cmyk.jpg": (lambda path: save(path, PICTURE.convert("CMYK"), quality=100, subsampling=0), COLORS, COLORS),
    "ycck.jpg": (ycck, COLORS, COLORS),
    "cmyk.tif": (
        lambda path: save(path, PICTURE.convert("CMYK")),
        COLORS,
        np.array(PICTURE.convert("CMYK")),
    ),
    "animated.gif": (lambda path: palette(path, save_all=True, append_images=[PICTURE.rotate(180)]), COLORS, COLORS),
    "animated.png": (lambda path: save(path, PICTURE, save_all=True, append_images=[PICTURE.rotate(180)]), COLORS, COLORS),
    "animated.webp": (
        lambda path: save(path, PICTURE, lossless=True, save_all=True, append_images=[PICTURE.rotate(180)]),
        COLORS,
        np.dstack([COLORS, np.full(GREY.shape, 255, np.uint8)]),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_images(name: str, tmp_path: Path) -> None:
    make, shown, channels = KINDS[name]
    path = make(tmp_path / name)
    tolerance = 4 if name.endswith(".jpg") else 0
    for read, wanted in ((read_image, shown), (read_channels, channels)):
        got = read(path)
        assert got.shape == wanted.shape
        assert got.dtype == np.uint8
        inside = np.s_[8:, 4:12] if tolerance else np.s_[:]  # a JPEG is blurred at edges
        assert np.abs(got[inside].astype(int) - wanted[inside]).max() <= tolerance
    if tolerance:
        assert np.abs(got.astype(int) - channels).mean() < 3
    assert check_image(path) == (48, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "packed.tif", "grey.tif", "grey.png"])
def test_images_are_turned_upright(name: str, orientation: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"a.jpg": {"quality": 100}, "a.webp": {"lossless": True}}.get(name, {})  # type: ignore[assignment]
    if name == "packed.tif":
        settings = {"compression": "tiff_deflate"}
    stored = GREY if name.startswith("grey") else COLORS
    path = save(tmp_path / name, PIL.Image.fromarray(stored), exif=turned(orientation), **settings)
    upright = turn_upright(stored, orientation)
    assert check_image(path) == upright.shape[1::-1]
    shown, channels = read_image(path), read_channels(path)
    wanted = np.dstack([upright] * 3) if upright.ndim == 2 else upright
    assert shown.shape == wanted.shape
    assert np.abs(shown.astype(int) - wanted).mean() < (3 if name == "a.jpg" else 1e-9)
    assert np.array_equal(channels, shown[..., : channels.shape[2]])


@pytest.mark.parametrize("name", ["grey.png", "color.png", "grey.tif", "color.tif"])
def test_16_bits_are_read_as_channels_and_not_cut_to_8(name: str, tmp_path: Path) -> None:
    stored = (GREY if name.startswith("grey") else COLORS).astype(np.uint16) * 257
    path = tmp_path / name
    if name.endswith(".tif"):
        tifffile.imwrite(path, stored)
    else:
        path.write_bytes(cv2.imencode(".png", stored if stored.ndim == 2 else stored[..., ::-1])[1].tobytes())
    assert np.array_equal(read_channels(path).squeeze(), stored)
    for read in (read_image, check_image):
        with pytest.raises(ImageError, match=f"{name} has more than 8 bits a channel; save it with 8 bits"):
            read(path)


def encoded(form: str, **settings: Any) -> bytes:
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(data, form, **settings)
    return data.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def huge_jpeg() -> bytes:
    data = bytearray(encoded("JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", 12000, 12000)
    return bytes(data)


def huge_bmp() -> bytes:
    data = bytearray(encoded("BMP"))
    data[18:26] = struct.pack("<ii", 9000, 9000)
    return bytes(data)


DAMAGED = {
    "empty.jpg": b"",
    "empty.png": b"",
    "text.png": b"this is no picture",
    "cut.jpg": encoded("JPEG")[:1500],
    "cut.png": encoded("PNG")[:1500],
    "cut.webp": encoded("WEBP")[:1500],
    "cut.gif": encoded("GIF")[:900],
    "cut.bmp": encoded("BMP")[:1500],
    "cut.tif": encoded("TIFF")[:1500],
    "no-pixels.png": png_header(0, 0),
    "no-width.png": png_header(0, 9),
    "huge.png": png_header(9000, 9000),
    "more-huge.png": png_header(60000, 60000),
    "huge.jpg": huge_jpeg(),
    "huge.bmp": huge_bmp(),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_files_are_named_with_a_way_out_and_take_no_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(DAMAGED[name])
    for read in (read_image, read_channels, check_image, read_mask):
        tracemalloc.start()
        try:
            with pytest.raises(ImageError) as caught:
                read(path)
            assert tracemalloc.get_traced_memory()[1] < 2**25
        finally:
            tracemalloc.stop()
        assert str(caught.value).startswith(str(path))
        assert any(way in str(caught.value) for way in ("copy it again", "save it", "in bands", "cut it to tiles", "convert"))


def test_an_image_without_pixels_is_told_with_its_size(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(DAMAGED["no-width.png"])
    for read in (read_image, read_channels, read_mask):
        with pytest.raises(ImageError, match=r"a\.png says it is 0 x 9 pixels"):
            read(tmp_path / "a.png")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for read in (read_image, read_channels, check_image):
        with pytest.raises(ImageError, match=r"none\.png does not exist"):
            read(tmp_path / "none.png")
        with pytest.raises(ImageError, match="is a folder, not an image"):
            read(tmp_path)


class TestWriting:
    def test_label_maps_come_back(self, tmp_path: Path) -> None:
        mask = np.random.default_rng(0).integers(0, 256, (33, 21), dtype=np.uint8)
        write_image(tmp_path / "a.png", mask)
        assert np.array_equal(read_mask(tmp_path / "a.png"), mask)

    def test_a_file_is_there_when_it_is_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_image(tmp_path / "a.png", COLORS)

        def full(path: Path, data: bytes) -> None:
            with path.open("wb") as file:
                file.write(data[:10])
            raise OSError("no space left")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="no space left"):
            write_image(tmp_path / "a.png", 255 - COLORS)
        assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
        assert np.array_equal(read_image(tmp_path / "a.png"), COLORS)

    def test_a_suffix_of_no_format_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r'no image has the suffix ".txt"'):
            write_image(tmp_path / "a.txt", COLORS)
