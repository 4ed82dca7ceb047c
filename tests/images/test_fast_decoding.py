"""Fast decoding: the same pixels as Pillow's to the last bit, and everything else left to it, errors included."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
from numpy.typing import NDArray

from segue import images
from segue.images import fast_decoding as decoding

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was tested before."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


MODES = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,)}


def picture(size: tuple[int, int], mode: str) -> PIL.Image.Image:
    """Smooth, with some noise, so that an encoder takes all of PNG's filters."""
    y, x = np.indices(size)
    shape = (*size, *MODES.get(mode, ()))
    pixels = (np.sin(y / 7) * 60 + x * 2 + RNG.integers(0, 9, size)).astype(np.uint8).reshape(*size, *[1] * (len(shape) - 2))
    array = np.broadcast_to(pixels, shape) + RNG.integers(0, 3, shape).astype(np.uint8)
    return PIL.Image.fromarray(array, mode if mode in MODES else None)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def fails(*_: Any) -> Any:
    raise AssertionError("left to Pillow")


@pytest.mark.parametrize("size", [(40, 57), (1, 1), (1, 30), (33, 1)])
@pytest.mark.parametrize("mode", MODES)
def test_png_is_read_as_pillow_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, size: tuple[int, int]
) -> None:
    path = tmp_path / "image.png"
    picture(size, mode).save(path)
    expected = images.read_image(path)
    monkeypatch.setattr(images, "read_image", fails)
    assert np.array_equal(decoding.read_image(path), expected)


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_filter_is_undone(tmp_path: Path, kind: int, channels: int) -> None:
    """Against Pillow, on files all of whose rows have one filter, over bytes that overflow."""
    height, width = 9, 11
    rows = RNG.integers(0, 256, (height, 1 + width * channels), np.uint8)
    rows[:, 0] = kind
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    data = decoding.PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b"")  # type: ignore[attr-defined]
    found = decoding.decode_png(data)
    assert found is not None
    expected = np.array(PIL.Image.open(io.BytesIO(data))).reshape(height, width, channels)
    assert np.array_equal(found[0], expected)


def test_palettes_are_colours_in_an_image_and_numbers_in_a_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "palette.png"
    numbers = RNG.integers(0, 200, (20, 30)).astype(np.uint8)
    palette = PIL.Image.fromarray(numbers, "L").convert("P")
    palette.putpalette(RNG.integers(0, 256, 768).astype(np.uint8).tobytes())
    palette.save(path)
    expected = images.read_image(path), images.read_mask(path)
    monkeypatch.setattr(images, "read_image", fails)
    monkeypatch.setattr(images, "read_mask", fails)
    assert np.array_equal(decoding.read_image(path), expected[0])
    assert np.array_equal(decoding.read_mask(path), expected[1])


@pytest.mark.parametrize("size", [(40, 57), (1, 1), (17, 3)])
@pytest.mark.parametrize("settings", [{"subsampling": 0}, {"subsampling": 2}, {"restart_marker_rows": 1}, {"quality": 30}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_read_as_pillow_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, settings: dict[str, Any], size: tuple[int, int]
) -> None:
    path = tmp_path / "image.jpg"
    picture(size, mode).save(path, **settings)
    expected = images.read_image(path)
    monkeypatch.setattr(images, "read_image", fails)
    assert np.array_equal(decoding.read_image(path), expected)


def test_a_jpeg_with_a_marker_among_its_pixels_is_left_to_pillow(tmp_path: Path) -> None:
    """Where OpenCV gives grey for what is lost, and Pillow may refuse."""
    for settings in ({}, {"optimize": True}, {"restart_marker_rows": 1}):
        file = io.BytesIO()
        picture((64, 96), "RGB").save(file, "jpeg", quality=90, **settings)
        whole = file.getvalue()
        begin = whole.index(b"\xff\xda") + 14
        assert decoding.plain_jpeg(whole) is not None
        assert decoding.plain_jpeg(whole + b"\0\0") is not None
        for marker in (b"\xff\xd9", b"\xff\xc4", b"\xff\xda", b"\xff\xff", b"\xff\x01"):
            for place in (begin, (begin + len(whole)) // 2, len(whole) - 4):
                path = tmp_path / "damaged.jpg"
                path.write_bytes(whole[:place] + marker + whole[place + 2 :])
                assert decoding.plain_jpeg(path.read_bytes()) is None
                assert np.array_equal(told(decoding.read_image, path), told(images.read_image, path))


def test_a_jpeg_is_turned_wherever_its_tags_are(tmp_path: Path) -> None:
    """EXIF tags may stand behind the size."""
    exif, file, path = PIL.Image.Exif(), io.BytesIO(), tmp_path / "turned.jpg"
    exif[274] = 6
    picture((24, 36), "RGB").save(file, "jpeg", exif=exif)
    data = file.getvalue()
    start = data.index(b"\xff\xe1")
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    scan = data.index(b"\xff\xda", end)
    path.write_bytes(data[:start] + data[end:scan] + data[start:end] + data[scan:])
    assert np.array_equal(decoding.read_image(path), images.read_image(path))
    assert decoding.read_image(path).shape == (36, 24, 3)


def odd_files(folder: Path) -> list[Path]:
    """Files that are not plain, by what is odd about them."""
    rgb, exif = picture((24, 36), "RGB"), PIL.Image.Exif()
    exif[274] = 6
    text = PIL.PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    rgb.save(folder / "turned.jpg", exif=exif)
    rgb.save(folder / "turned.png", exif=exif)
    rgb.save(folder / "turned_by_xmp.png", pnginfo=text)
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.save(folder / "progressive.jpg", progressive=True)
    rgb.convert("1").save(folder / "bits.png")
    rgb.convert("P", palette=PIL.Image.Palette.ADAPTIVE, colors=4).save(folder / "four.png")
    PIL.Image.fromarray(RNG.integers(0, 2**16, (24, 36)).astype(np.uint16)).save(folder / "deep.png")
    rgb.save(folder / "image.bmp")
    rgb.save(folder / "several.png", save_all=True, append_images=[picture((24, 36), "RGB")])
    whole = {"png": io.BytesIO(), "jpeg": io.BytesIO()}
    for suffix, file in whole.items():
        rgb.save(file, suffix)
        data = file.getvalue()
        for cut in (0, 3, 20, len(data) // 2, len(data) - 8):
            (folder / f"cut{cut}.{suffix}").write_bytes(data[:cut])
        middle = len(data) // 2
        (folder / f"damaged.{suffix}").write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])
    png = whole["png"].getvalue()
    (folder / "header.png").write_bytes(png[:17] + b"\1" + png[18:])
    for name, header in {
        "interlaced": png[16:28] + b"\1",
        "huge": struct.pack(">I", 2**30) + png[20:29],
        "empty": struct.pack(">I", 0) + png[20:29],
    }.items():
        (folder / f"{name}.png").write_bytes(decoding.PNG + chunk(b"IHDR", header) + png[33:])  # type: ignore[attr-defined]
    return sorted(folder.iterdir())


def told(reader: Any, path: Path) -> NDArray[Any] | str:
    try:
        return reader(path)  # type: ignore[no-any-return]
    except images.ImageError as error:
        return str(error)


def test_all_else_ends_as_it_does_with_pillow(tmp_path: Path) -> None:
    for path in [*odd_files(tmp_path), tmp_path, tmp_path / "nowhere.png"]:
        for fast, slow in ((decoding.read_image, images.read_image), (decoding.read_mask, images.read_mask)):
            found, expected = told(fast, path), told(slow, path)
            assert np.array_equal(found, expected), path
