"""Labelling big images: what is written, what is void, and what is refused before any work."""

import logging
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from helpers.pictures import HEIGHT, WIDTH, predictor, smooth, whole
from segue.images import read_channels, read_image, read_mask
from segue.prediction import large_images as big
from segue.prediction.large_images import label_file


def test_a_full_disk_keeps_what_is_done_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    PIL.Image.fromarray(smooth(3)).save(source)
    add = big.Work.add

    def full(work: big.Work, labels: np.ndarray, top: int) -> None:
        if top > 150:
            raise OSError(28, "No space left on device")
        add(work, labels, top)

    monkeypatch.setattr(big.Work, "add", full)
    with pytest.raises(ValueError, match=r"b\.png could not be written: .*No space left.*same command goes on"):
        label_file(predictor(), source, target, tile=96)
    monkeypatch.undo()
    again: list[float] = []
    label_file(predictor(), source, target, tile=96, progress=again.append)
    assert again[0] > 0.2


GEO = [
    (33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 400000.0, 5600000.0, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), True), (34737, "s", 0, "WGS 84|", True), (42113, "s", 0, "7", True),
]  # fmt: skip


def test_georeference_is_kept_and_pixels_without_data_are_void(tmp_path: Path) -> None:
    image = smooth(4, np.uint16)
    image[:50, :70] = 7
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extratags=GEO)
    counts = label_file(predictor(4), tmp_path / "a.tif", tmp_path / "b.tif", tile=96)
    expected = predictor(4)(image)
    expected[(image == 7).all(axis=2)] = 255
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        np.testing.assert_array_equal(file.asarray(), expected)
        assert file.pages[0].is_tiled
        assert file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        for code, _, _, value, _ in GEO[:-1]:
            assert file.pages[0].tags[code].value == value
        assert file.pages[0].tags[42113].value == "255"
    assert counts.sum() == HEIGHT * WIDTH - 50 * 70


def nodata(value: str) -> dict[str, Any]:
    return {"extratags": [(42113, "s", 0, value, True)]}


@pytest.mark.parametrize("photometric", ["palette", "miniswhite", "rgba"])
def test_pixels_without_data_are_told_by_what_is_stored(tmp_path: Path, photometric: str) -> None:
    image = np.full((40, 64), 5, np.uint8)
    image[:10] = 0
    more: dict[str, Any] = {"photometric": photometric}
    if photometric == "palette":
        more["colormap"] = np.arange(255, -1, -1, dtype=np.uint16)[None].repeat(3, axis=0) * 257
    if photometric == "rgba":
        more = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
        image = np.dstack([image] * 3 + [np.full_like(image, 255)])
    tifffile.imwrite(tmp_path / "a.tif", image, **more, **nodata("0"))
    label_file(predictor(), tmp_path / "a.tif", tmp_path / "b.tif", overlay=False)
    void = tifffile.imread(tmp_path / "b.tif") == 255
    assert void[:10].all()
    assert not void[10:].any()


@pytest.mark.parametrize(("kind", "value"), [(np.float32, "nan"), (np.float32, "-3.4028234663852886e+38"), (np.int16, "-9999")])
def test_what_a_network_cannot_see_is_void_where_the_file_says_so(tmp_path: Path, kind: Any, value: str) -> None:
    image = smooth(3, np.float32) if kind == np.float32 else smooth(3, np.uint8).astype(np.int16) * 99
    image[:40, :64] = 0
    expected = predictor()(image if kind == np.float32 else image.astype(np.uint16))
    expected[:40, :64] = 255
    image[:40, :64] = float(value)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", **nodata(value))
    label_file(predictor(), tmp_path / "a.tif", tmp_path / "b.tif", tile=96)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), expected)


def test_nan_in_all_channels_is_void_whatever_the_file_says(tmp_path: Path) -> None:
    image = smooth(3, np.float32)
    image[3, 4] = np.nan
    for more in (nodata("-1"), {}):
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", **more)
        label_file(predictor(), tmp_path / "a.tif", tmp_path / "b.tif", overlay=False)
        void = tifffile.imread(tmp_path / "b.tif") == 255
        assert void[3, 4]
        assert void.sum() == 1


def test_nan_in_a_channel_is_refused(tmp_path: Path) -> None:
    image = smooth(3, np.float32)
    image[3, 4] = np.nan
    image[3, 4, 0] = 0
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", **nodata("nan"))
    with pytest.raises(ValueError, match="2 values that are nan"):
        label_file(predictor(), tmp_path / "a.tif", tmp_path / "b.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("value", ["nan", "inf", "-9999", "1e3", "0.5", "none"])
def test_nodata_that_no_pixel_can_have_changes_nothing(tmp_path: Path, value: str) -> None:
    image = smooth(3)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", **nodata(value))
    label_file(predictor(), tmp_path / "a.tif", tmp_path / "b.tif", tile=96)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        np.testing.assert_array_equal(file.asarray(), predictor()(image))
        assert 42113 not in file.pages[0].tags


def test_an_image_is_never_overwritten_by_its_labels(tmp_path: Path) -> None:
    for name, target in (("a.png", "a.png"), ("b_overlay.jpg", "b.png")):
        source = tmp_path / name
        PIL.Image.fromarray(smooth(3)).save(source)
        before = source.read_bytes()
        with pytest.raises(ValueError, match=f"{name} is the image itself"):
            label_file(predictor(), source, tmp_path / target)
        assert source.read_bytes() == before
    label_file(predictor(), source, tmp_path / "b.png", overlay=False)


@pytest.mark.parametrize("name", ["b.png", "b_overlay.jpg", "b.png.part"])
def test_a_folder_in_the_way_is_named_before_any_work(tmp_path: Path, name: str) -> None:
    PIL.Image.fromarray(smooth(3)).save(tmp_path / "a.png")
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"folder|b\.png cannot be written.*directory") as error:
        label_file(predictor(), tmp_path / "a.png", tmp_path / "b.png", progress=lambda share: pytest.fail("it began"))
    assert name in str(error.value)


def test_only_a_full_disk_asks_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PIL.Image.fromarray(smooth(3)).save(tmp_path / "a.png")

    def fail(*args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(big.Work, "add", fail)
    with pytest.raises(ValueError, match=r"Input/output error.*remove the cause"):
        label_file(predictor(), tmp_path / "a.png", tmp_path / "b.png")
    monkeypatch.setattr(big.Work, "add", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ValueError, match=r"No space left.*make room"):
        label_file(predictor(), tmp_path / "a.png", tmp_path / "b.png")


@pytest.mark.skipif(sys.platform == "win32", reason="has no fcntl")
def test_two_runs_do_not_share_their_work(tmp_path: Path) -> None:
    PIL.Image.fromarray(smooth(3)).save(tmp_path / "a.png")
    refused: list[object] = []

    def again(share: float) -> None:
        if not refused:
            with pytest.raises(ValueError, match=r"b\.png is being made by another run, which has .*b\.png\.part") as error:
                label_file(predictor(), tmp_path / "a.png", tmp_path / "b.png", tile=96)
            refused.append(error)

    label_file(predictor(), tmp_path / "a.png", tmp_path / "b.png", tile=96, progress=again)
    assert refused
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png"), predictor()(read_image(tmp_path / "a.png")))
    label_file(predictor(), tmp_path / "a.png", tmp_path / "b.png", tile=96)


def test_odd_tags_of_a_tiff_print_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger("tifffile"), "propagate", False)  # past pytest's own handlers
    tifffile.imwrite(tmp_path / "a.tif", smooth(3), photometric="rgb", extratags=[(33432, "B", 5, b"abc\xff\0", True)])
    data = bytearray((tmp_path / "a.tif").read_bytes())
    place = data.index(struct.pack("<HH", 33432, 1))
    data[place + 2 : place + 4] = struct.pack("<H", 99)  # a type that there is not
    (tmp_path / "a.tif").write_bytes(data)
    whole(tmp_path / "a.tif")
    read_channels(tmp_path / "a.tif")
    assert capsys.readouterr().err == ""
