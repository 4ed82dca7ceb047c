"""What the files of a folder call nodata is not seen, 255 in the truth, and left out of what is measured."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from numpy.typing import NDArray

from segue.data import create_dataset
from segue.data.samples import DataError
from segue.training.checks import measured

SIZE = (20, 30)
EMPTY = np.zeros(SIZE, bool)
EMPTY[:, :8] = True
LABELS = (np.arange(600).reshape(SIZE) % 2).astype(np.uint8)
EXPECTED = np.where(EMPTY, 255, LABELS).astype(np.uint8)


def nodata(value: str) -> dict[str, Any]:
    return {"extratags": [(42113, "s", 0, value, True)]}


def write(root: Path, image: Callable[[Path], object], entries: str = "", mask: Callable[[Path], object] | None = None) -> None:
    """A folder of two samples."""
    (root / "segue.yaml").write_text(f"names: [field, water]\n{entries}\n")
    for split in ("train", "val"):
        for kind, save in (("images", image), ("masks", mask or (lambda path: PIL.Image.fromarray(LABELS).save(path, "PNG")))):
            (root / split / kind).mkdir(parents=True)
            save(root / split / kind / "a")
            for path in (root / split / kind).glob("a"):
                form = "tif" if path.read_bytes()[:2] == b"II" else "png"
                path.rename(path.with_suffix(f".{form}"))


def tiff(array: NDArray[Any], **settings: Any) -> Callable[[Path], object]:
    more = {"photometric": "minisblack", "planarconfig": "contig"} if array.ndim == 3 else {}
    return lambda path: tifffile.imwrite(path, array, **{"metadata": None, **more, **settings})


def png(array: NDArray[Any]) -> Callable[[Path], object]:
    return lambda path: PIL.Image.fromarray(array).save(path, "PNG")


def bands(count: int, kind: Any, value: float) -> NDArray[Any]:
    image = np.random.default_rng(0).uniform(0.1, 0.3, (*SIZE, count))
    image = image.astype(kind) if np.dtype(kind).kind == "f" else (10000 * image).astype(kind)
    image[EMPTY] = value
    return image


WIDE = {
    "-9999": (tiff(bands(2, np.float32, -9999), **nodata("-9999")), 2),
    "float64": (tiff(bands(2, np.float64, -9999), **nodata("-9999.0")), 2),
    "nan": (tiff(bands(2, np.float32, np.nan), **nodata("nan")), 2),
    "nan, not said": (tiff(bands(2, np.float32, np.nan)), 2),
    "int16": (tiff(bands(2, np.int16, -9999), **nodata("-9999")), 2),
    "uint16": (tiff(bands(2, np.uint16, 65535), **nodata("65535")), 2),
    "planes": (tiff(bands(2, np.float32, -1).transpose(2, 0, 1), planarconfig="separate", **nodata("-1")), 2),
    "alpha": (
        tiff(
            np.dstack([bands(4, np.uint16, 5), 65535 * ~EMPTY]).astype(np.uint16),
            extrasamples=["unspecified"] * 3 + ["unassalpha"],
        ),
        4,
    ),
}


@pytest.mark.parametrize("name", WIDE)
def test_pixels_without_data_are_void(name: str, tmp_path: Path) -> None:
    image, channels = WIDE[name]
    write(tmp_path, image, f"channels: {channels}")
    samples = create_dataset("folder", str(tmp_path), "train")
    sample = samples[0]
    assert np.array_equal(sample["mask"], EXPECTED)
    assert np.array_equal(samples.mask(0), EXPECTED)
    assert sample["image"].shape == (*SIZE, channels)
    assert np.isfinite(sample["image"]).all()
    if "int" not in name and name != "alpha":
        assert not sample["image"][EMPTY].any()
    samples.check(0)
    inner = sample["image"][~EMPTY] / (65535 if sample["image"].dtype == np.uint16 else 1)
    numbers = [float(x) for x in re.findall(r"[0-9.]+", measured(samples))]
    np.testing.assert_allclose(numbers, [*inner.mean(0), *inner.std(0)], rtol=1e-3)


def test_a_band_without_data_is_not_seen(tmp_path: Path) -> None:
    image = bands(2, np.float32, 0.5)
    image[EMPTY, 0] = -9999
    write(tmp_path, tiff(image, **nodata("-9999")), "channels: 2")
    sample = create_dataset("folder", str(tmp_path), "train")[0]
    assert not sample["image"][EMPTY, 0].any()
    assert np.array_equal(sample["mask"], LABELS)


COLOURS = np.random.default_rng(1).integers(1, 255, (*SIZE, 3)).astype(np.uint8)
TRANSPARENT = np.dstack([COLOURS, np.where(EMPTY, 0, 255).astype(np.uint8)])


@pytest.mark.parametrize(
    "image",
    [
        png(TRANSPARENT),
        tiff(TRANSPARENT, photometric="rgb", extrasamples=["unassalpha"]),
        tiff(np.where(EMPTY[..., None], 0, COLOURS).astype(np.uint8), photometric="rgb", **nodata("0")),
    ],
)
def test_photos_that_show_nothing_in_places(image: Callable[[Path], object], tmp_path: Path) -> None:
    write(tmp_path, image)
    samples = create_dataset("folder", str(tmp_path), "train")
    assert np.array_equal(samples[0]["mask"], EXPECTED)
    assert np.array_equal(samples.mask(0), EXPECTED)
    assert np.array_equal(samples[0]["image"][~EMPTY], COLOURS[~EMPTY])


def test_pages_are_channels_or_no_photo(tmp_path: Path) -> None:
    (tmp_path / "three").mkdir()
    write(tmp_path / "three", tiff(COLOURS.transpose(2, 0, 1), photometric="minisblack", planarconfig=None))
    samples = create_dataset("folder", str(tmp_path / "three"), "train")
    assert np.array_equal(samples[0]["image"], COLOURS)
    samples.check(0)
    (tmp_path / "five").mkdir()
    write(tmp_path / "five", tiff(np.stack([COLOURS[..., 0]] * 5), photometric="minisblack", planarconfig=None))
    samples = create_dataset("folder", str(tmp_path / "five"), "train")
    for use in (samples.__getitem__, samples.check):
        with pytest.raises(DataError, match=r"a\.tif has .* 5 of uint8; add channels: 5 to segue\.yaml"):
            use(0)


class TestMasks:
    def masks(self, root: Path, array: NDArray[Any], entries: str, **settings: Any) -> NDArray[np.uint8]:
        write(root, png(COLOURS), entries, tiff(array, **settings))
        samples = create_dataset("folder", str(root), "train")
        samples.check(0)
        assert np.array_equal(samples.mask(0), samples[0]["mask"])
        return samples.mask(0)

    @pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64, np.float32])
    def test_numbers_below_0_can_be_mapped(self, kind: Any, tmp_path: Path) -> None:
        stored = np.where(EMPTY, -1, 1000 * LABELS.astype(np.int64)).astype(kind)
        assert np.array_equal(self.masks(tmp_path, stored, "mapping: {-1: ignore, 0: field, 1000: water}"), EXPECTED)

    def test_numbers_can_be_ignored(self, tmp_path: Path) -> None:
        stored = np.where(EMPTY, np.int16(-9999), LABELS)
        assert np.array_equal(self.masks(tmp_path, stored, "ignore: [-9999]"), EXPECTED)

    def test_what_the_user_says_counts_more_than_the_file(self, tmp_path: Path) -> None:
        for name, entries, expected in (
            ("said", "mapping: {0: field, 1: water}", LABELS),
            ("not-said", "", np.where(LABELS == 0, 255, 1)),
        ):
            (tmp_path / name).mkdir()
            assert np.array_equal(self.masks(tmp_path / name, LABELS, entries, **nodata("0")), expected)

    def test_nodata_beside_255_as_a_class(self, tmp_path: Path) -> None:
        stored = np.where(EMPTY, np.int16(-1), np.int16(255) * LABELS)
        assert np.array_equal(self.masks(tmp_path, stored, "mapping: {0: field, 255: water}", **nodata("-1")), EXPECTED)

    def test_a_byte_does_not_stand_for_what_it_is_not(self, tmp_path: Path) -> None:
        stored = np.where(EMPTY, 1, 1000 * LABELS.astype(np.int64)).astype(np.int16)
        with pytest.raises(DataError, match=r"a\.tif has the label 1; allowed are 0, 255, 1000; correct"):
            self.masks(tmp_path, stored, "mapping: {0: field, 1000: water}")

    def test_other_numbers_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"a\.tif has the label -1; allowed are 0 to 1, 255; correct"):
            self.masks(tmp_path, np.where(EMPTY, np.int16(-1), LABELS), "")
