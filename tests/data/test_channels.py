"""Images of any number of channels, of 16 bits or floats, from the file to the label map."""

import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from helpers.commands import call
from segue import Labels, Predictor, create_model, evaluate, save_checkpoint, train
from segue.checkpoint import Card, load_checkpoint
from segue.data.batches.loading import TrainingSamples, training_loader
from segue.data.batches.transforms import Augment
from segue.data.contract import check_samples
from segue.data.folder import Folder
from segue.data.samples import DataError
from segue.images import ImageError, read_channels, read_mask, write_image
from segue.images.pictures import Row, contact_sheet, overlay, to_rgb
from segue.inference import Normalize
from segue.recipes import Recipe

Array = NDArray[Any]
SIZE = (20, 30)
CONTIG = {"photometric": "minisblack", "planarconfig": "contig"}
PLANES = {"photometric": "minisblack", "planarconfig": "separate"}


def scene(channels: int, dtype: Any = np.uint16, size: tuple[int, int] = SIZE, seed: int = 0) -> Array:
    """Smooth noise over the whole range of the type, or 0 to 1 for floats; no two channels alike."""
    noise = np.random.default_rng(seed).random((*size, channels)).astype(np.float32)
    parts = [cv2.GaussianBlur(noise[..., i], (0, 0), 2) for i in range(channels)]
    values = np.dstack([(part - part.min()) / np.ptp(part) for part in parts])
    return values if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


def planes(image: Array) -> Array:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def write_tiff(path: Path, image: Array, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, **settings)
    return path


def write_deep_png(path: Path, image: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    return path


class TestReading:
    @pytest.mark.parametrize(
        ("settings", "by_planes"),
        [
            (CONTIG, False),
            ({**CONTIG, "byteorder": ">"}, False),
            ({**CONTIG, "bigtiff": True}, False),
            ({**CONTIG, "compression": "zlib", "predictor": True}, False),
            ({**CONTIG, "tile": (16, 16)}, False),
            (PLANES, True),
            ({}, True),  # a page for each channel
            ({"metadata": None}, True),
            ({"imagej": True}, True),
            ({"ome": True, "metadata": {"axes": "CYX"}}, True),
        ],
    )
    def test_a_tiff_has_its_channels_in_pixels_planes_or_pages(
        self, settings: dict[str, Any], by_planes: bool, tmp_path: Path
    ) -> None:
        image = scene(6)
        got = read_channels(write_tiff(tmp_path / "a.tif", planes(image) if by_planes else image, **settings))
        assert got.dtype == np.uint16
        assert got.dtype.isnative
        assert np.array_equal(got, image)

    def test_smaller_copies_of_a_tiff_are_passed_over(self, tmp_path: Path) -> None:
        image = scene(5)
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(image, **CONTIG, metadata=None)
            file.write(image[::2, ::2].copy(), **CONTIG, metadata=None, subfiletype=1)
        assert np.array_equal(read_channels(tmp_path / "a.tif"), image)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    @pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
    def test_types_and_channels_are_kept(self, channels: int, dtype: Any, tmp_path: Path) -> None:
        image = scene(channels, dtype)
        path = write_tiff(tmp_path / "a.tif", image[..., 0]) if channels == 1 else write_tiff(tmp_path / "a.tif", image, **CONTIG)
        got = read_channels(path)
        assert got.dtype == dtype
        assert np.array_equal(got, image)

    def test_other_numbers_are_taken_where_none_is_lost(self, tmp_path: Path) -> None:
        image = scene(2) >> 1
        got = read_channels(write_tiff(tmp_path / "a.tif", image.astype(np.int16), **CONTIG))
        assert got.dtype == np.uint16
        assert np.array_equal(got, image)
        halves = scene(2, np.float32).astype(np.float64)
        assert np.array_equal(read_channels(write_tiff(tmp_path / "a.tif", halves, **CONTIG)), halves)

    def test_pngs_of_16_bits(self, tmp_path: Path) -> None:
        color = scene(3)
        assert np.array_equal(read_channels(write_deep_png(tmp_path / "a.png", color)), color)
        grey = scene(1)
        PIL.Image.fromarray(grey[..., 0]).save(tmp_path / "a.png")
        assert np.array_equal(read_channels(tmp_path / "a.png"), grey)

    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    def test_pngs_of_8_bits(self, channels: int, tmp_path: Path) -> None:
        image = scene(channels, np.uint8)
        PIL.Image.fromarray(image.squeeze()).save(tmp_path / "a.png")
        assert np.array_equal(read_channels(tmp_path / "a.png"), image)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_images_are_turned_upright_as_pillow_does(self, orientation: int, tmp_path: Path) -> None:
        grey = scene(1, np.uint8)[..., 0]
        exif = PIL.Image.Exif()
        exif[PIL.ExifTags.Base.Orientation] = orientation
        PIL.Image.fromarray(grey).save(tmp_path / "a.tif", exif=exif)
        shown = PIL.Image.fromarray(grey)
        shown.getexif()[PIL.ExifTags.Base.Orientation] = orientation
        assert np.array_equal(read_channels(tmp_path / "a.tif")[..., 0], np.array(PIL.ImageOps.exif_transpose(shown)))


def missing(path: Path) -> None:
    pass


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("II*\0 this is no picture")


def cut_pixels(path: Path) -> None:
    data = write_tiff(path, scene(6), **CONTIG).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def cut_strips(path: Path) -> None:
    data = write_tiff(path, scene(6), **CONTIG, compression="zlib", rowsperstrip=4).read_bytes()
    path.write_bytes(data[:-200])


def cut_pages(path: Path) -> None:
    data = write_tiff(path, planes(scene(6)), metadata=None).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def cut_png(path: Path) -> None:
    data = write_deep_png(path, scene(3)).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def huge(path: Path) -> None:
    """A header of 60000 x 60000 pixels."""
    write_tiff(path, scene(1)[..., 0], metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(60000)


def promising(path: Path) -> None:
    """Few bytes that promise gigabytes: 12000 x 12000 pixels of 20 channels."""
    write_tiff(path, scene(20), **CONTIG, metadata=None, compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(12000)


def uneven_pages(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(scene(1)[..., 0])
        file.write(scene(1)[:9, :9, 0])


def color_pages(path: Path) -> None:
    write_tiff(path, np.stack([scene(3)] * 2), photometric="rgb")


def negative(path: Path) -> None:
    write_tiff(path, scene(2).astype(np.int32).astype(np.int16) - np.int16(9), **CONTIG)


def long(path: Path) -> None:
    write_tiff(path, scene(2).astype(np.uint32), **CONTIG)


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (missing, "does not exist"),
        (empty, "cannot be read as an image"),
        (text, "cannot be read as an image"),
        (cut_pixels, "is cut short"),
        (cut_strips, "is cut short"),
        (cut_pages, "is cut short"),
        (cut_png, "cannot be read as an image"),
        (huge, r"60000 x 60000 pixels \(width x height\).*tiles"),
        (promising, "too few for that"),
        (uneven_pages, r"pages of \(20, 30\) uint16, \(9, 9\) uint16 .* alike"),
        (color_pages, r"pages of \(20, 30, 3\)"),
        (negative, "holds int16 below 0; save it as uint8, uint16 or float32"),
        (long, "holds uint32; save it as"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_read_is_named(plant: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    plant(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=f"^{re.escape(str(tmp_path / 'a.tif'))} .*{message}"):
        read_channels(tmp_path / "a.tif")


def test_a_packed_tiff_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    PIL.Image.fromarray(scene(1)[..., 0]).save(path, compression="tiff_lzw")
    without = "import sys; sys.modules['imagecodecs'] = None; from segue.images import read_channels; read_channels(sys.argv[1])"
    process = subprocess.run([sys.executable, "-c", without, path], capture_output=True, text=True, check=False)
    assert re.search(r"ImageError: \S+a\.tif .*LZW.*pip install imagecodecs", process.stderr), process.stderr


def write_folder(root: Path, images: dict[str, list[Array]], entries: str = "channels: 5", **settings: Any) -> Path:
    """A data folder whose masks are 1 where the last channel is bright, else 0."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "segue.yaml").write_text(f"names: [dark, bright]\n{entries}\n")
    for split, arrays in images.items():
        (root / split / "masks").mkdir(parents=True)
        for number, image in enumerate(arrays):
            write_tiff(root / split / "images" / f"{number}.tif", image, **(settings or CONTIG))
            last = image[..., -1]
            write_image(root / split / "masks" / f"{number}.png", (last > np.median(last)).astype(np.uint8))
    return root


class TestFolder:
    def test_images_have_all_their_channels(self, tmp_path: Path) -> None:
        images = [scene(5, seed=seed) for seed in range(2)]
        samples = Folder(write_folder(tmp_path, {"train": images}))
        check_samples(samples, "train")
        for index, image in enumerate(images):
            assert np.array_equal(samples[index]["image"], image)

    def test_without_the_entry_photos_are_as_before(self, tmp_path: Path) -> None:
        image = scene(3, np.uint8)
        samples = Folder(write_folder(tmp_path, {"train": [image]}, entries="", photometric="rgb"))
        assert np.array_equal(samples[0]["image"], image)

    @pytest.mark.parametrize(
        ("image", "says"), [(scene(3), "3 of uint16; add channels: 3"), (scene(5, np.uint8), "5 of uint8; add channels: 5")]
    )
    def test_without_the_entry_other_images_name_it(self, image: Array, says: str, tmp_path: Path) -> None:
        samples = Folder(write_folder(tmp_path, {"train": [image]}, entries=""))
        for use in (samples.check, samples.__getitem__):
            with pytest.raises(DataError, match=rf"0\.tif has more than 8 bits or other .*{says} to segue\.yaml"):
                use(0)

    def test_a_wrong_number_of_channels(self, tmp_path: Path) -> None:
        samples = Folder(write_folder(tmp_path, {"train": [scene(5), scene(4)]}))
        for use in (samples.check, samples.__getitem__):
            use(0)
            with pytest.raises(DataError, match=r"1\.tif has 4 channel\(s\) .* says channels: 5; correct the entry"):
                use(1)

    def test_channels_that_were_written_as_pixels(self, tmp_path: Path) -> None:
        samples = Folder(write_folder(tmp_path, {"train": [scene(5)]}, metadata=None))
        with pytest.raises(DataError, match=r"0\.tif has 20 channel\(s\) of 5 x 30 pixels .*planarconfig='contig'"):
            samples.check(0)

    def test_images_of_two_types(self, tmp_path: Path) -> None:
        samples = Folder(write_folder(tmp_path, {"train": [scene(5), scene(5, np.uint8)]}))
        with pytest.raises(DataError, match=r"1\.tif is of uint8, but \S+0\.tif is of uint16"):
            check_samples(samples, "train")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_floats_that_are_no_numbers(self, value: float, tmp_path: Path) -> None:
        image = scene(5, np.float32)
        image[3, 4, 1] = value
        samples = Folder(write_folder(tmp_path, {"train": [image]}))
        with pytest.raises(DataError, match=r"0\.tif has 1 values that are nan or infinite; put numbers"):
            samples.check(0)

    @pytest.mark.parametrize("entry", ["0", "-1", "true", "3.5", "rgb"])
    def test_a_wrong_entry(self, entry: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"segue\.yaml: channels \(=.*must be how many channels"):
            Folder(write_folder(tmp_path, {"train": [scene(5)]}, entries=f"channels: {entry}"))

    def test_a_mask_of_another_size(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path, {"train": [scene(5)]})
        write_image(root / "train" / "masks" / "0.png", np.zeros((9, 9), np.uint8))
        with pytest.raises(DataError, match=r"30 x 20 pixels \(width x height\).*9 x 9"):
            Folder(root).check(0)


def augmented(image: Array, seed: int, **settings: Any) -> Array:
    random.seed(seed)
    return Augment((32, 40), **settings)(image=image, mask=np.zeros(image.shape[:2], np.uint8))["image"]


GEOMETRY = ({"scale": (0.5, 2), "rotate": 20}, {"scale": (0.5, 2), "elastic": 4})


class TestAugment:
    @pytest.mark.parametrize("settings", GEOMETRY)
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_each_channel_is_moved_as_it_is_alone(self, dtype: Any, settings: dict[str, Any]) -> None:
        for channels in (2, 4, 5, 6, 11):
            image = scene(channels, dtype, (50, 60))
            moved = augmented(image, 3, **settings)
            assert moved.dtype == dtype
            assert moved.shape == (32, 40, channels)
            for part in (slice(0, 3), slice(channels - 1, channels)):
                assert np.array_equal(moved[..., part], augmented(image[..., part].copy(), 3, **settings))

    @pytest.mark.parametrize("settings", [*GEOMETRY, {"jitter": 0.3}])
    def test_16_bits_are_as_exact_as_floats(self, settings: dict[str, Any]) -> None:
        for channels in (3, 5):
            image = scene(channels, np.uint16, (50, 60))
            for seed in range(5):
                exact = augmented(image.astype(np.float32), seed, **settings)
                assert np.abs(augmented(image, seed, **settings) - exact.clip(0, 65535)).max() <= 1

    @pytest.mark.parametrize("channels", [1, 3, 5])
    def test_floats_are_not_clipped(self, channels: int) -> None:
        image = np.linspace(-900, 900, 32 * 40 * channels, dtype=np.float32).reshape(32, 40, channels)
        widest = max(augmented(image, seed, jitter=0.5).max() for seed in range(30))
        assert widest > 1000


class TestBatches:
    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("dtype", [np.uint16, np.float32])
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
    def test_keep_their_type(self, dtype: Any, workers: int) -> None:
        data = [{"image": scene(5, dtype, seed=i), "mask": np.zeros(SIZE, np.uint8)} for i in range(4)]
        (batch,) = training_loader(TrainingSamples(data, None, 2, seed=0), 4, workers)  # type: ignore[arg-type]
        for image, index in zip(batch["image"], batch["index"], strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), data[int(index)]["image"])
            assert image.numpy().dtype == dtype

    def test_of_two_types_are_refused(self) -> None:
        data = [{"image": scene(5, dtype), "mask": np.zeros(SIZE, np.uint8)} for dtype in (np.uint16, np.float32)]
        with pytest.raises(DataError, match=r"samples \d and \d differ in their type"):
            list(training_loader(TrainingSamples(data, None, 2, seed=0), 2, 0))  # type: ignore[arg-type]

    def test_of_other_types_or_without_numbers_are_refused(self) -> None:
        mask = np.zeros(SIZE, np.uint8)
        for image, says in (
            (scene(5).astype(np.float64), "float64; it must be .* float32"),
            (scene(5).astype(">u2"), ">u2; it must be"),
            (np.full((*SIZE, 2), np.nan, np.float32), "1200 values that are nan"),
        ):
            with pytest.raises(DataError, match=f"sample 0: the image has .*{says}"):
                TrainingSamples([{"image": image, "mask": mask}], None, 2, seed=0)[0, 0]  # type: ignore[arg-type]


class TestNormalize:
    @pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
    def test_is_in_the_units_of_the_type(self, dtype: Any, white: float) -> None:
        image = scene(2, dtype)
        mean, std = np.array([0.1, 0.5]), np.array([2.0, 0.25])
        expected = (image / white - mean) / std
        x = torch.from_numpy(planes(image))[None]
        got = Normalize(tuple(mean), tuple(std))(x)
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got[0].permute(1, 2, 0), expected, atol=1e-5)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_depth_is_in_metres_beside_any_type(self, dtype: Any) -> None:
        x = torch.from_numpy(planes(scene(3, dtype)))[None]
        depth = torch.full((1, 1, *SIZE), 10.0)
        got = Normalize((0.0, 0.0, 0.0, 2.0), (1.0, 1.0, 1.0, 4.0))(x, depth)
        torch.testing.assert_close(got[:, 3:], torch.full_like(depth, 2))


class TestPictures:
    def test_photos_are_shown_as_they_are(self) -> None:
        image = scene(3, np.uint8)
        assert np.array_equal(to_rgb(image), image)
        assert np.array_equal(to_rgb(scene(6, np.uint8)), scene(6, np.uint8)[..., :3])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    @pytest.mark.parametrize("channels", [1, 2, 3, 6])
    def test_any_image_has_a_picture(self, channels: int, dtype: Any) -> None:
        image = scene(channels, dtype)
        picture = to_rgb(image)
        assert picture.shape == (*SIZE, 3)
        assert picture.dtype == np.uint8
        if channels < 3:
            assert np.ptp(picture, axis=2).max() == 0
        mask, labels = np.zeros(SIZE, np.uint8), Labels.from_names(["a", "b"])
        assert overlay(image, mask, labels).shape == (*SIZE, 3)
        assert contact_sheet([Row(image, mask, mask)], labels, "title").shape[1] == 1280

    def test_dark_images_of_16_bits_are_stretched_without_their_outliers(self) -> None:
        image = scene(3) // 100
        image[0, 0] = 65535
        picture = to_rgb(image)
        assert picture.min() == 0
        assert 110 < picture.mean() < 150

    def test_a_flat_image_is_no_error(self) -> None:
        assert to_rgb(np.full((*SIZE, 3), 7.5, np.float32)).max() == 0


RECIPE = Recipe(
    "fusionnet", "folder", epochs=2, batch_size=4, learning_rate=0.02, options={"width": 4}, crop=(32, 32),
    jitter=0.1, scale=(0.8, 1.2), mean=(0.5,) * 5, std=(0.2,) * 5, workers=0, memory_format="channels_first",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"train": range(8), "val": range(8, 10)}
    images = {split: [scene(5, size=(32, 40), seed=seed) for seed in seeds] for split, seeds in counts.items()}
    return write_folder(tmp_path_factory.mktemp("wide"), images)


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(replace(RECIPE, root=str(root), epochs=6), tmp_path_factory.mktemp("runs") / "wide")


class TestTraining:
    def test_learns_from_a_channel_that_photos_do_not_have(self, run: Path, root: Path) -> None:
        matrix = evaluate(Predictor.load(run, device="cpu"), Folder(root, "val"))
        assert matrix.mean_iu > 0.5  # one class everywhere has 0.25
        scores = load_checkpoint(run / "best")[1].scores["folder val"]
        assert scores["mean_iu"] == pytest.approx(matrix.mean_iu, abs=1e-3)  # other batches, so other kernels

    def test_resumed_it_ends_with_the_same_weights(self, root: Path, tmp_path: Path) -> None:
        recipe = replace(RECIPE, root=str(root))
        train(recipe, tmp_path / "whole")
        train(replace(recipe, minutes=1e-6), tmp_path / "parts")  # an epoch
        train(replace(recipe, minutes=1e-6), tmp_path / "parts", resume=True)
        whole, parts = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("whole", "parts"))
        assert all(torch.equal(whole[name], parts[name]) for name in whole)

    def test_wrong_mean_and_std_are_answered_with_right_ones(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ("train", "unet-cells", "--data", "folder", "--root", root, "--out", tmp_path / "run")
        assert call(monkeypatch, *arguments, "--mean", 0, 0, 0, "--std", 1, 1, 1) == 2
        said = capsys.readouterr().err
        assert "the images have 5 channels" in said
        proposed = shlex.split(said[said.index("--mean") :])
        images = np.stack([read_channels(path) for path in sorted((root / "train" / "images").iterdir())]) / 65535
        values = [float(value) for value in proposed if not value.startswith("--")]
        np.testing.assert_allclose(values, [*images.mean((0, 1, 2)), *images.std((0, 1, 2))], rtol=1e-3)
        trained: list[Recipe] = []
        monkeypatch.setattr("segue.training.train.train", lambda recipe, out, **_: trained.append(recipe))
        assert call(monkeypatch, *arguments, *proposed) == 0
        assert [*trained[0].mean, *trained[0].std] == values


class TestPredict:
    def test_labels_files_of_the_networks_channels(
        self, run: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = root / "val" / "images"
        assert call(monkeypatch, "predict", run, folder, "--out", tmp_path / "out") == 0
        sample = Folder(root, "val")[0]
        mask = read_mask(tmp_path / "out" / "0.png")
        assert np.array_equal(mask, Predictor.load(run, device="cpu")(sample["image"]))
        assert (tmp_path / "out" / "0_overlay.jpg").exists()
        other = write_tiff(tmp_path / "a.tif", scene(4, size=(32, 40)), **CONTIG)
        assert call(monkeypatch, "predict", run, other, folder / "0.tif", "--crf", "--out", tmp_path / "more") == 2
        assert "a.tif has 4 channel(s) of uint16, but the network takes 5" in capsys.readouterr().err
        assert (tmp_path / "more" / "0.png").exists()

    def test_a_photo_of_16_bits_is_seen_by_a_network_of_photos(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        network = create_model("enet", 2)
        save_checkpoint(tmp_path / "enet", network, Card("enet", Labels.from_names(["a", "b"])))
        shallow = scene(3, np.uint8)
        deep = write_deep_png(tmp_path / "deep" / "a.png", shallow.astype(np.uint16) * 257)  # 255 becomes 65535
        PIL.Image.fromarray(shallow).save(tmp_path / "a.png")
        for path in (tmp_path / "a.png", deep):
            assert call(monkeypatch, "predict", tmp_path / "enet", path, "--out", tmp_path / f"out-{path.parent.name}") == 0
        first, second = (read_mask(tmp_path / f"out-{name}" / "a.png") for name in (tmp_path.name, "deep"))
        assert (first == second).mean() > 0.99

    def test_a_predictor_says_what_it_takes(self) -> None:
        model = Predictor(create_model("enet", 2, 5), Labels.from_names(["a", "b"]), (0.5,) * 5, (0.2,) * 5)
        with pytest.raises(
            ValueError, match=r"image has the shape \(20, 30, 4\) .* must be \(H, W, 5\) of uint8, uint16 or float32"
        ):
            model(scene(4))
        with pytest.raises(ValueError, match="image has 3000 values that are nan"):
            model(np.full((*SIZE, 5), np.nan, np.float32))
