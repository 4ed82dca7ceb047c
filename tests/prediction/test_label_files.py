"""segue predict and label_files: what goes in, what comes out, and what is refused."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from torch import Tensor

from helpers.commands import call as call_segue
from helpers.pictures import Bright
from segue import Labels, Predictor, create_model, load_checkpoint, save_checkpoint
from segue.checkpoint import Card
from segue.images import read_image, read_mask
from segue.images.pictures import overlay
from segue.prediction.images import label_files

LABELS = Labels(("dark", "light"), ((255, 0, 0), (0, 0, 255)))


def predictor(network: torch.nn.Module | None = None) -> Predictor:
    return Predictor(network or Bright(), LABELS, (0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Twelve photos, each with a bright stripe at another place."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        image = np.zeros((24 + number, 40, 3), np.uint8)
        image[:, 3 * number : 3 * number + 5] = 255
        PIL.Image.fromarray(image).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """segue predict in this process, with a small ENet named enet; gives its exit status."""
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "enet", create_model("enet", 2), Card("enet", LABELS))
    monkeypatch.chdir(tmp_path)

    return partial(call_segue, monkeypatch, "predict", "enet")


class TestLabelFiles:
    def test_each_image_gets_its_own_labels_in_order(self, photos: list[Path], tmp_path: Path) -> None:
        targets = {photo: tmp_path / "out" / photo.name for photo in photos}
        results = list(label_files(predictor(), targets))
        assert [result.source for result in results] == photos
        for photo, result in zip(photos, results, strict=True):
            image, mask = read_image(photo), read_mask(result.target)
            assert np.array_equal(mask, image[..., 0] > 100)
            assert result.shape == mask.shape
            assert result.shares == pytest.approx(((mask == 0).mean(), (mask == 1).mean()))
            shown = read_image(result.target.with_name(f"{photo.stem}_overlay.jpg")).astype(int)
            assert np.abs(shown - overlay(image, mask, LABELS)).mean() < 8

    def test_an_image_that_cannot_be_read_or_labelled_is_told_in_its_turn(self, photos: list[Path], tmp_path: Path) -> None:
        class Choosy(Bright):
            def forward(self, x: Tensor) -> Tensor:
                if x.shape[-2] == 30:
                    raise ValueError("not this one")
                return super().forward(x)

        photos[2].write_bytes(b"")
        results = list(label_files(predictor(Choosy()), {photo: tmp_path / photo.name for photo in photos}))
        assert [number for number, result in enumerate(results) if result.error] == [2, 6]
        assert results[2].error.startswith(f"{photos[2]} cannot be read as an image")
        assert results[6].error == f"{photos[6]}: not this one"
        assert len(list(tmp_path.glob("*_overlay.jpg"))) == 10

    def test_stopping_leaves_whole_files_alone(self, photos: list[Path], tmp_path: Path) -> None:
        class Stopped(Bright):
            def forward(self, x: Tensor) -> Tensor:
                if x.shape[-2] == 30:
                    raise KeyboardInterrupt
                return super().forward(x)

        with pytest.raises(KeyboardInterrupt):
            list(label_files(predictor(Stopped()), {photo: tmp_path / "out" / photo.name for photo in photos}))
        written = list((tmp_path / "out").iterdir())
        assert not [path for path in written if path.suffix == ".new"]
        assert {path.stem.removesuffix("_overlay") for path in written} <= {photo.stem for photo in photos[:6]}
        for path in written:
            read_image(path)

    def test_a_full_disk_is_no_fault_of_an_image(
        self, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(path: Path, data: bytes) -> None:
            raise OSError("no space left")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="no space left"):
            list(label_files(predictor(), {photo: tmp_path / photo.name for photo in photos}))

    def test_no_image_is_overwritten_and_no_folder_in_the_way(self, photos: list[Path], tmp_path: Path) -> None:
        before = photos[1].read_bytes()
        with pytest.raises(ValueError, match=r"01\.png is one of the images"):
            list(label_files(predictor(), {photos[0]: tmp_path / "a.png", photos[1]: photos[1]}))
        assert photos[1].read_bytes() == before
        (tmp_path / "b_overlay.jpg").mkdir()
        with pytest.raises(ValueError, match=r"b_overlay\.jpg is a folder"):
            list(label_files(predictor(), {photos[0]: tmp_path / "a.png", photos[1]: tmp_path / "b.png"}))
        assert not (tmp_path / "a.png").exists()

    def test_pixels_without_data_get_no_class(self, tmp_path: Path) -> None:
        image = np.ones((24, 40, 3), np.float32)
        image[:6], image[6, :20] = np.nan, 0
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
        (result,) = label_files(predictor(), {tmp_path / "a.tif": tmp_path / "a.png"})
        mask = read_mask(tmp_path / "a.png")
        assert (mask[:6] == 255).all() and (mask[6:] < 2).all()
        assert result.error == "" and sum(result.shares) == pytest.approx(1)

    def test_an_infinite_value_is_an_error_and_no_warning(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.full((24, 40, 3), np.inf, np.float32), photometric="rgb")
        (result,) = label_files(predictor(), {tmp_path / "a.tif": tmp_path / "a.png"})
        assert result.error.startswith(f"{tmp_path / 'a.tif'} has 2880 values that are nan or infinite")

    def test_a_view_that_is_too_large_leaves_an_image_out(self, photos: list[Path], tmp_path: Path) -> None:
        model = Predictor(Bright(), LABELS, (0.0,) * 3, (1.0,) * 3, scales=(1, 1e4))
        (result,) = label_files(model, {photos[0]: tmp_path / "a.png"})
        assert "40 x 24 pixels (width x height) times scale 10000, more than 67108864" in result.error
        assert "take smaller scales" in result.error


def test_scales_and_flip_are_the_same_by_the_command_and_in_python(call: Callable[..., int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(12, axis=0).repeat(12, axis=1)
    PIL.Image.fromarray(noise).save("noise.png")
    model, card = load_checkpoint("enet-camvid")
    save_checkpoint("enet", model, replace(card, short_side=0))
    model, card = load_checkpoint("enet")
    masks = []
    for scales, flip in (((1.0,), False), ((0.5, 1.0, 1.25), False), ((0.5, 1.0, 1.25), True)):
        assert call("noise.png", "--device", "cpu", "--scales", *scales, *["--flip"][:flip]) == 0
        masks.append(read_mask("predictions/noise.png"))
        assert np.array_equal(masks[-1], Predictor.of(model, card, "cpu", scales=scales, flip=flip)(noise))
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[1], masks[2])


def test_the_crf_takes_several_scales(call: Callable[..., int], photos: list[Path]) -> None:
    assert call(photos[0], "--scales", 0.5, 1, "--crf") == 0
    assert read_mask("predictions/00.png").shape == (24, 40)


def test_tiles_give_the_same_labels_in_files_of_the_same_names_and_a_tiff_for_a_tiff(
    call: Callable[..., int], photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8))
    image.save("tile.tif")
    assert call("tile.tif", photos[0], "--out", "whole") == 0
    assert call("tile.tif", photos[0], "--out", "tiled", "--tiles") == 0
    captured = capsys.readouterr()
    assert captured.err.count("is labelled in tiles") == 2
    assert {path.name for path in Path("tiled").iterdir()} == {"tile.tif", "tile_overlay.jpg", "00.png", "00_overlay.jpg"}
    assert np.array_equal(read_mask("tiled/tile.tif"), read_mask("whole/tile.png"))
    assert np.array_equal(read_mask("tiled/00.png"), read_mask("whole/00.png"))
    whole, tiled = (
        [line.split(": ")[1] for line in captured.out.splitlines() if f"-> {out}" in line] for out in ("whole", "tiled")
    )
    assert whole == tiled


def test_large_images_are_labelled_in_tiles_by_themselves(
    call: Callable[..., int], photos: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("segue.images.rows.LARGE", 30 * 40)
    assert call(photos[0].parent, "--out", "out") == 0
    assert capsys.readouterr().err.count("is labelled in tiles") == 5
    assert len(list(Path("out").glob("*.png"))) == 12
    assert call(photos[0].parent, "--out", "crf", "--crf") == 2
    assert "11.png: an image of this size is labelled in tiles, without --crf" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["file", "file/sub"])
def test_results_do_not_go_into_a_file(
    call: Callable[..., int], photos: list[Path], capsys: pytest.CaptureFixture[str], out: str
) -> None:
    Path("file").write_text("")
    assert call(photos[0], "--out", out) == 2
    assert "file is a file; choose a folder as --out" in capsys.readouterr().err


def test_in_tiles_another_resolution_than_that_of_training_is_said(
    call: Callable[..., int], photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, card = load_checkpoint("enet")
    for side, told in ((0, 0), (24, 0), (16, 1)):
        save_checkpoint("enet", model, replace(card, short_side=side))
        assert call(photos[0], "--tiles") == 0
        err = capsys.readouterr().err
        assert err.count(f"was trained with a shorter side of {side} pixels") == told


def test_tiles_overwrite_no_tiff(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    PIL.Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save("a.tif")
    before = Path("a.tif").read_bytes()
    assert call("a.tif", "--out", ".", "--tiles") == 2
    assert "a.tif is one of the images, and would be overwritten" in capsys.readouterr().err
    assert Path("a.tif").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--engine", "openvino", "--samples", 5], "--samples keeps dropout on, and other engines than torch leave it out"),
        (["--samples", 5, "--flip"], "--samples sees an image as it is"),
        (["--samples", 5, "--scales", 0.5, 1], "--samples sees an image as it is"),
        (["--tiles", "--crf"], "--tiles goes with none of --scales --flip --crf --samples"),
        (["--tiles", "--scales", 2], "--tiles goes with none of --scales --flip --crf --samples"),
        (["--tiles", "--cityscapes-submission"], "the server's images need no --tiles"),
        (["--frames", 3], "--frames is for videos and cameras"),
        (["--scales", 0], "scales (=(0.0,)) must be multiples of the image's size above 0"),
        (["--scales", "nan"], "scales (=(nan,)) must be multiples of the image's size above 0"),
        (["--engine", "tensorrt"], "invalid choice"),
        (["--cityscapes-submission"], "has no name of Cityscapes' kind"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    call: Callable[..., int], photos: list[Path], args: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(photos[0], *args) == 2
    captured = capsys.readouterr()
    assert message in " ".join((captured.out + captured.err).replace("│", " ").split())
    assert not Path("predictions").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card")
def test_a_graphics_card_that_is_not_there_is_said(
    call: Callable[..., int], photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(photos[0], "--device", "cuda") == 2
    assert "take --device cpu" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_that_is_not_installed_is_named_with_the_command_that_installs_it(
    engine: str, call: Callable[..., int], photos: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    assert call(photos[0], "--engine", engine) == 2
    assert 'pip install "segue[export]"' in capsys.readouterr().err
    assert not Path("predictions").exists()


def test_all_kinds_of_images_are_labelled_and_broken_ones_named(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("photos")
    folder.mkdir()
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8))
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = 6
    image.save(folder / "turned.jpg", exif=exif)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("L").save(folder / "grey.png")
    image.convert("LA").save(folder / "grey-alpha.png")
    image.quantize(16).save(folder / "palette.png", transparency=b"\0\1\2")
    image.save(folder / "animated.webp", save_all=True, append_images=[image.rotate(180)])
    image.save(folder / "moving.png", save_all=True, append_images=[image.rotate(180)])
    image.quantize(16).save("waving.gif", save_all=True, append_images=[image.rotate(180)])
    (folder / "cut.jpg").write_bytes((folder / "turned.jpg").read_bytes()[:700])
    (folder / "empty.png").write_bytes(b"")
    grey16 = PIL.Image.fromarray(np.full((24, 40), 999, np.uint16))
    grey16.save(folder / "deep.png")
    assert call(folder, "waving.gif", "--out", "out") == 2
    shapes = {path.name: read_mask(path).shape for path in Path("out").glob("*.png")}
    upright = {f"{name}.png": (24, 40) for name in ("cmyk", "grey", "grey-alpha", "palette", "animated", "moving", "waving")}
    assert shapes.pop("turned.png") == (40, 24)
    assert shapes == upright
    err = capsys.readouterr().err
    assert "left out: photos/cut.jpg cannot be read as an image" in err
    assert "left out: photos/empty.png cannot be read as an image" in err
    assert "photos/deep.png has 1 channel(s) of uint16, but the network takes 3" in err
    assert "3 of 11 images could not be labelled" in err


def test_a_folder_is_labelled_as_image_after_image_would_be(
    call: Callable[..., int], photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(photos[0].parent, "--out", "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" -> ")[0] for line in lines[:12]] == list(map(str, photos))
    assert lines[12].startswith("12 images in ")
    assert lines[12].endswith(" images/s")
    one_by_one = Predictor.of(*load_checkpoint(tmp_path / "enet"), "cpu")
    for photo in photos:
        assert np.array_equal(read_mask(tmp_path / "out" / photo.name), one_by_one(read_image(photo)))
