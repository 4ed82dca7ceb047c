import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from helpers.pictures import HEIGHT, WIDTH, assert_same_labels, predictor, smooth, whole
from segue.images import ImageError, open_rows, read_channels, read_image, read_mask
from segue.images.open_rows import open_source
from segue.images.png_rows import write_png
from segue.images.rows import Window, fit, is_large, suffix_for
from segue.inference.tiling import predict_tiled
from segue.prediction import large_images as big
from segue.prediction.large_images import label_file

RANDOM = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was tested before."""
    monkeypatch.setitem(globals(), "RANDOM", np.random.default_rng(5))


def write_filtered(path: Path, rows: np.ndarray, header: tuple[int, ...], chunk: int = 4000, **more: bytes) -> None:
    """A PNG of raw rows (height, bytes), each packed by another of the five filters; step is the bytes of a pixel."""
    depth, colour = header[2:]
    step = max(1, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * depth // 8)
    lines = bytearray()
    above = np.zeros(rows.shape[1], np.int64)
    for number, line in enumerate(rows.astype(np.int64)):
        left, corner = (np.concatenate([np.zeros(step, np.int64), values])[: len(line)] for values in (line, above))
        guess = left + above - corner
        distances = np.stack([abs(guess - other) for other in (left, above, corner)])
        paeth = np.choose(distances.argmin(axis=0), [left, above, corner])
        kind = number % 5
        predicted = [np.zeros_like(line), left, above, (left + above) // 2, paeth][kind]
        lines += bytes([kind]) + ((line - predicted) % 256).astype(np.uint8).tobytes()
        above = line
    packed = zlib.compress(bytes(lines))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)), *((name.encode(), data) for name, data in more.items())]
    chunks += [(b"IDAT", packed[at : at + chunk]) for at in range(0, len(packed), chunk)] + [(b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def test_png_rows_of_every_kind_are_those_of_other_decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.images.png_rows.PIECE", 3000)  # so that pieces end within rows
    path = tmp_path / "a.png"
    palette = RANDOM.integers(0, 256, 16 * 3, dtype=np.uint8).tobytes()
    for colour, depth in [(0, 1), (0, 2), (0, 4), (0, 8), (2, 8), (4, 8), (6, 8), (3, 1), (3, 4), (3, 8)]:
        samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        rows = RANDOM.integers(0, 16 if colour == 3 and depth == 8 else 256, (61, -(-75 * samples * depth // 8)))
        write_filtered(path, rows, (75, 61, depth, colour), **({"PLTE": palette} if colour == 3 else {}))
        expected = read_image(path)
        for first in (0, 17):
            rows_read = np.concatenate(list(fit(open_source(path), 3).rows(first)))
            np.testing.assert_array_equal(rows_read, expected[first:], f"colour type {colour}, {depth} bits")
    for colour in (0, 2, 6):
        samples = {0: 1, 2: 3, 6: 4}[colour]
        write_filtered(path, RANDOM.integers(0, 256, (61, 75 * samples * 2)), (75, 61, 16, colour))
        np.testing.assert_array_equal(whole(path), read_channels(path), f"colour type {colour}, 16 bits")


LAYOUTS: list[dict[str, Any]] = [
    {}, {"compression": "zlib", "predictor": True}, {"tile": (32, 48)}, {"tile": (64, 32), "compression": "zlib"},
    {"rowsperstrip": 7}, {"rowsperstrip": 7, "compression": "zlib"}, {"rowsperstrip": 50},
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_tiff_rows_are_those_of_the_whole(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    for kind, channels, more in [
        (np.uint8, 3, {"photometric": "rgb"}), (np.uint16, 5, {"planarconfig": "separate"}),
        (np.float32, 2, {"planarconfig": "contig"}), (np.uint8, 1, {}),
    ]:  # fmt: skip
        if kind == np.float32 and "predictor" in layout:
            layout = layout | {"predictor": 1}
        image = smooth(channels, kind, 131, 97)
        stored = image[..., 0] if channels == 1 else image.transpose(2, 0, 1) if "separate" in more.values() else image
        tifffile.imwrite(path, stored, **{"photometric": "minisblack", **more, **layout})
        for first in (0, 33):
            np.testing.assert_array_equal(whole(path, first), image[first:])
        np.testing.assert_array_equal(read_channels(path), image)
    with tifffile.TiffWriter(path) as file:  # pages of a channel each
        for channel in image.transpose(2, 0, 1).repeat(4, axis=0):
            file.write(channel, contiguous=False, **layout)
    np.testing.assert_array_equal(whole(path), read_channels(path))


@pytest.mark.parametrize("layout", [{}, {"compression": "zlib"}], ids=str)
def test_a_big_endian_bigtiff_is_read(tmp_path: Path, layout: dict[str, Any]) -> None:
    image = smooth(3, np.uint16, 131, 97)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", bigtiff=True, byteorder=">", **layout)
    rows = whole(tmp_path / "a.tif")
    np.testing.assert_array_equal(rows, image)
    assert rows.dtype == np.uint16


def test_a_tiff_palette_and_white_as_zero_are_seen_as_by_other_readers(tmp_path: Path) -> None:
    numbers = RANDOM.integers(0, 200, (40, 30), dtype=np.uint8)
    colours = RANDOM.integers(0, 256, (3, 256)).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "p.tif", numbers, photometric="palette", colormap=colours)
    tifffile.imwrite(tmp_path / "w.tif", numbers, photometric="miniswhite")
    PIL.Image.fromarray(numbers > 99).save(tmp_path / "1.tif")
    tifffile.imwrite(tmp_path / "0.tif", numbers > 99, photometric="miniswhite")
    for name in ("p.tif", "w.tif", "1.tif", "0.tif"):
        rows = np.concatenate(list(fit(open_source(tmp_path / name), 3).rows(0)))
        np.testing.assert_array_equal(rows, read_image(tmp_path / name))
        np.testing.assert_array_equal(rows, np.broadcast_to(read_channels(tmp_path / name), rows.shape))


def test_a_window_gives_any_rows_that_come_after_each_other(tmp_path: Path) -> None:
    image = smooth(3)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", rowsperstrip=11, compression="zlib")
    window = Window(open_source(tmp_path / "a.tif"), 20, 120)
    for start, stop in [(20, 80), (40, 160), (100, 130), (130, 131), (200, 300)]:
        np.testing.assert_array_equal(window(start, stop), image[start:stop])


@pytest.mark.parametrize(("kind", "channels", "suffix"), [(np.uint8, 3, "png"), (np.uint8, 1, "png"), (np.uint16, 5, "tif")])
def test_a_file_is_labelled_as_its_array(tmp_path: Path, kind: Any, channels: int, suffix: str) -> None:
    image, source = smooth(channels, kind), tmp_path / f"source.{suffix}"
    if suffix == "png":
        PIL.Image.fromarray(image.squeeze()).save(source)
    else:
        tifffile.imwrite(source, image, photometric="minisblack", planarconfig="contig", compression="zlib", tile=(64, 64))
    shares: list[float] = []
    target = tmp_path / f"labels{suffix_for(source)}"
    counts = label_file(predictor(channels), source, target, tile=96, progress=shares.append)
    expected = predictor(channels)(image)
    assert len(set(np.unique(expected))) > 1
    assert_same_labels(read_mask(target), expected)
    np.testing.assert_array_equal(counts, np.bincount(read_mask(target).reshape(-1), minlength=3))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, target.name, "labels_overlay.jpg"])
    with PIL.Image.open(tmp_path / "labels_overlay.jpg") as overlay:
        assert overlay.size == (WIDTH, HEIGHT)


def test_the_overlay_is_small_and_shows_image_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(big, "OVERLAY", 64)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, WIDTH // 2 :] = 255
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    model = predictor()
    label_file(model, tmp_path / "a.png", tmp_path / "b.png", tile=96)
    overlay = read_image(tmp_path / "b_overlay.jpg").astype(int)
    assert overlay.shape == (38, 63, 3)  # an eighth
    labels = read_mask(tmp_path / "b.png")
    for column, colour in ((2, 0), (-3, 255)):
        expected = 0.45 * colour + 0.55 * np.array(model.labels.palette[labels[HEIGHT // 2, column]])
        assert np.abs(overlay[19, column] - expected).max() < 12


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("tile", [96, 0])
def test_what_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr("segue.inference.tiling.SIDES", (64, 64, 128, 128))
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    PIL.Image.fromarray(smooth(3)).save(source)
    model = predictor()
    label_file(model, source, tmp_path / "whole.png", tile=tile)
    seen = []

    def stop(share: float) -> None:
        seen.append(share)
        if share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_file(model, source, target, tile=tile, identity="a", progress=stop)
    assert not target.exists()
    again: list[float] = []
    label_file(model, source, target, tile=tile, identity="a", progress=again.append)
    assert again[0] > 0.2
    assert target.read_bytes() == (tmp_path / "whole.png").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        label_file(model, source, target, tile=tile, identity="a", progress=stop)
    again.clear()
    label_file(model, source, target, tile=tile, identity="another checkpoint", progress=again.append)
    assert again[0] < 0.2


def test_another_source_of_the_same_name_begins_anew(tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    model = predictor()

    def stop(share: float) -> None:
        if share > 0.6:
            raise KeyboardInterrupt

    images = [smooth(3), smooth(3, seed=6)]
    PIL.Image.fromarray(images[0]).save(source)
    with pytest.raises(KeyboardInterrupt):
        label_file(model, source, target, tile=96, progress=stop)
    PIL.Image.fromarray(images[1]).save(source)
    label_file(model, source, target, tile=96)
    assert_same_labels(read_mask(target), model(images[1]))


def test_a_written_png_is_read_by_others(tmp_path: Path) -> None:
    mask = RANDOM.integers(0, 256, (70, 33), dtype=np.uint8)
    write_png(tmp_path / "a.png", 70, 33, [mask[:16], mask[16:64], mask[64:]])
    np.testing.assert_array_equal(np.array(PIL.Image.open(tmp_path / "a.png")), mask)


def cut_png(path: Path) -> None:
    data = png(path)
    path.write_bytes(data[: len(data) // 2])


def png(path: Path) -> bytes:
    write_filtered(path, RANDOM.integers(0, 256, (100, 300)), (100, 100, 8, 2))
    return path.read_bytes()


def flip_byte(path: Path) -> None:
    data = bytearray(png(path))
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def huge_header(path: Path) -> None:
    write_filtered(path, RANDOM.integers(0, 256, (3, 300)), (100, 3, 8, 2))
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 100000, 100000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def fewer_rows(path: Path) -> None:
    write_filtered(path, RANDOM.integers(0, 256, (90, 300)), (100, 100, 8, 2))


def turned_png(path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x112] = 6
    PIL.Image.fromarray(smooth(3)).save(path, exif=exif)


def turned_tiff(path: Path) -> None:
    tifffile.imwrite(path, smooth(3), photometric="rgb", extratags=[(274, "H", 1, 6, True)])


def cut_tiff(path: Path) -> None:
    tifffile.imwrite(path, smooth(3), photometric="rgb")
    path.write_bytes(path.read_bytes()[: HEIGHT * WIDTH])


def damaged_tiff(path: Path) -> None:
    tifffile.imwrite(path, smooth(3), photometric="rgb", compression="zlib", rowsperstrip=10)
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].dataoffsets[15]  # type: ignore[union-attr]
    data = bytearray(path.read_bytes())
    data[at : at + 20] = bytes(20)
    path.write_bytes(data)


def lab_tiff(path: Path) -> None:
    tifffile.imwrite(path, smooth(3), photometric="cielab")


def packed_at_once(path: Path) -> None:
    tifffile.imwrite(path, smooth(3), photometric="rgb", compression="zlib", rowsperstrip=HEIGHT)


def zero_size(path: Path) -> None:
    write_filtered(path, RANDOM.integers(0, 256, (3, 0)), (0, 3, 8, 2))


@pytest.mark.parametrize(("make", "says"), [
    (cut_png, r"cut short: it ends at row \d+ of 100"), (flip_byte, r"damaged at row \d+ of 100"),
    (huge_header, r"100000 x 100000 pixels.*too few"), (fewer_rows, "ends at row 90 of 100"),
    (turned_png, "orientation 6.*upright"), (turned_tiff, "orientation 6.*upright"), (cut_tiff, "ends at row (99|98) of 300"),
    (damaged_tiff, "damaged at row 150 of 300"), (lab_tiff, "Lab.*save it as RGB"),
    (packed_at_once, "pieces of 300 rows.*TILED"), (zero_size, "0 x 3 pixels"),
])  # fmt: skip
def test_what_cannot_be_read_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, says: str
) -> None:
    monkeypatch.setattr("segue.images.tiff_rows.STRIPE", 100_000)
    monkeypatch.setattr("segue.images.png_rows.PIECE", 5000)
    source = tmp_path / ("a.tif" if "tiff" in make.__name__ or make is packed_at_once else "a.png")
    make(source)
    with pytest.raises(ImageError, match=says) as error:
        label_file(predictor(), source, tmp_path / "out.png", tile=96)
    assert str(source) in str(error.value)
    assert not (tmp_path / "out.png").exists()


def test_the_wrong_number_of_channels_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", smooth(5, np.uint16), photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match=r"5 channel.*takes 3"):
        label_file(predictor(), tmp_path / "a.tif", tmp_path / "b.tif")


def test_what_gives_no_rows_is_decoded_whole_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a.jpg"
    PIL.Image.fromarray(smooth(3)).save(source)
    label_file(predictor(), source, tmp_path / "b.png", tile=96)
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png"), predict_tiled(predictor(), read_image(source), 96))
    monkeypatch.setattr(open_rows, "WHOLE", 1000)
    with pytest.raises(ImageError, match=r"500 x 300.*limit; save it as PNG"):
        label_file(predictor(), source, tmp_path / "b.png")


def headers() -> Iterator[tuple[str, bytes]]:
    big_png = io.BytesIO()
    PIL.Image.new("L", (16, 16)).save(big_png, "PNG")
    data = bytearray(big_png.getvalue())
    data[16:24] = struct.pack(">II", 6000, 6000)
    yield "a.png", bytes(data)
    big_tiff = io.BytesIO()
    tifffile.imwrite(big_tiff, np.zeros((6000, 6000), np.uint8), compression="zlib")
    yield "a.tif", big_tiff.getvalue()
    jpeg = io.BytesIO()
    PIL.Image.new("L", (16, 16)).save(jpeg, "JPEG")
    yield "a.jpg", jpeg.getvalue().replace(b"\x08\0\x10\0\x10\x01", b"\x08" + struct.pack(">HH", 60000, 6000) + b"\x01")


@pytest.mark.parametrize(("name", "data"), list(headers()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_large_image_is_told_by_its_header(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert is_large(tmp_path / name)


def test_small_and_unreadable_files_are_not_large(tmp_path: Path) -> None:
    PIL.Image.fromarray(smooth(3)).save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(b"II*\0nonsense")
    assert not is_large(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not is_large(tmp_path / "b.tif")
    assert not is_large(tmp_path / "none.png")
