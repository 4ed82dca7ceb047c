"""Augmentation: what moves together stays together, and nothing is invented."""

import math
import random
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from segue.data.batches.transforms import Augment, ObjectCrop, bent_places

Sample = dict[str, NDArray[Any]]


def draw(augment: Augment, seed: int, **sample: NDArray[Any]) -> Sample:
    random.seed(seed)
    return augment(**sample)


def numbered(height: int, width: int, channels: int = 3) -> Sample:
    """A sample whose every array tells the pixels apart."""
    place = np.arange(height * width).reshape(height, width)
    image = np.random.default_rng(0).integers(1, 256, (height, width, channels), np.uint8)
    return {
        "image": image,
        "mask": (place % 19).astype(np.uint8),
        "depth": (place + 1).astype(np.float32) / 7,
        "instances": (place + 1).astype(np.uint16),
    }


def blobs(height: int, width: int) -> NDArray[np.uint8]:
    """A mask of large round regions of the classes 1 to 9 on class 0, which keeps the border."""
    mask = np.zeros((height, width), np.uint8)
    rng = np.random.default_rng(0)
    for label in range(1, 10):
        y, x = rng.integers(20, (height - 20, width - 20))
        cv2.circle(mask, (int(x), int(y)), 15, label, cv2.FILLED)
    return mask


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_nothing_to_do_changes_nothing(channels: int) -> None:
    sample = numbered(20, 30, channels)
    result = draw(Augment((20, 30), flip=False), 0, **sample)
    assert result.keys() == sample.keys()
    for name, array in sample.items():
        assert result[name].dtype == array.dtype
        assert np.array_equal(result[name], array)


def test_flip_mirrors_exactly_half_of_the_time() -> None:
    sample = numbered(20, 31)
    flips = 0
    for seed in range(200):
        result = draw(Augment((20, 31)), seed, **sample)
        flipped = not np.array_equal(result["image"], sample["image"])
        flips += flipped
        for name, array in sample.items():
            assert np.array_equal(result[name], array[:, ::-1] if flipped else array)
    assert 70 < flips < 130


def test_crops_come_from_everywhere() -> None:
    sample = numbered(8, 10)
    corners = set()
    for seed in range(400):
        result = draw(Augment((5, 6), flip=False), seed, **sample)
        top, left = divmod(int(result["instances"][0, 0]) - 1, 10)
        corners.add((top, left))
        for name, array in sample.items():
            assert np.array_equal(result[name], array[top : top + 5, left : left + 6])
    assert corners == {(top, left) for top in range(4) for left in range(5)}


def test_padding_is_ignored() -> None:
    sample = numbered(8, 10)
    places = set()
    for seed in range(50):
        result = draw(Augment((12, 16), flip=False), seed, **sample)
        rows, columns = np.nonzero(result["instances"])
        top, left = rows.min(), columns.min()
        places.add((top, left))
        inside = np.zeros((12, 16), bool)
        inside[top : top + 8, left : left + 10] = True
        assert np.array_equal(result["mask"][inside], sample["mask"].reshape(-1))
        assert np.all(result["mask"][~inside] == 255)
        for name in ("image", "depth", "instances"):
            assert np.array_equal(result[name][inside].reshape(sample[name].shape), sample[name])
            assert not result[name][~inside].any()
    assert len(places) > 10


@pytest.mark.parametrize("axis", [0, 1])
def test_scale_2_shows_half_the_field(axis: int) -> None:
    place = np.indices((40, 60), np.uint8)[axis]
    length = place.shape[axis]
    firsts = set()
    for seed in range(200):
        result = draw(Augment((40, 60), scale=(2, 2), flip=False), seed, image=place[..., None], mask=place)
        places, counts = np.unique(result["mask"].take(20, 1 - axis), return_counts=True)
        assert np.array_equal(places, np.arange(places[0], places[0] + len(places)))
        assert len(places) in (length // 2, length // 2 + 1)
        assert np.all(counts[1:-1] == 2)
        firsts.add(int(places[0]))
    assert {min(firsts), max(firsts)} == {0, length // 2}  # to both ends, and not beyond


def test_scale_below_1_shows_more() -> None:
    sample = numbered(40, 60)
    result = draw(Augment((20, 30), scale=(0.5, 0.5), flip=False), 0, **sample)
    assert np.all(result["mask"] != 255)
    assert np.ptp(result["instances"] % 60) >= 58


def test_scale_is_drawn_from_the_whole_range() -> None:
    place = np.tile(np.arange(200, dtype=np.uint8), (20, 1))
    augment = Augment((10, 100), scale=(0.5, 2), flip=False)
    factors = []
    for seed in range(300):
        row = draw(augment, seed, image=place[..., None], mask=place)["mask"][5].astype(int)
        factors.append(99 / (row[-1] - row[0]))
    assert min(factors) == pytest.approx(0.5, abs=0.02)
    assert max(factors) == pytest.approx(2, abs=0.06)
    assert np.mean(np.array(factors) < 1) == pytest.approx(0.5, abs=0.1)  # as often smaller as larger


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_image_and_mask_stay_aligned(channels: int) -> None:
    mask = blobs(120, 160)
    image = np.repeat(mask[..., None] * 25, channels, axis=2)
    for seed in range(20):
        result = draw(Augment((90, 130), scale=(0.5, 2)), seed, image=image, mask=mask)
        assert result["image"].shape == (90, 130, channels)
        assert result["image"].dtype == np.uint8
        moved = result["mask"]
        shown = np.where(moved == 255, 0, moved)
        inner = cv2.erode(shown, np.ones((5, 5))) == cv2.dilate(shown, np.ones((5, 5)))
        inner[:2] = inner[-2:] = inner[:, :2] = inner[:, -2:] = False
        assert inner.mean() > 0.5
        assert np.array_equal(result["image"][inner], np.repeat(shown[..., None] * 25, channels, axis=2)[inner])


@pytest.mark.parametrize("axis", [0, 1])
def test_image_and_mask_have_their_edges_at_the_same_place(axis: int) -> None:
    mask = np.zeros((120, 160), np.uint8)
    stripes = mask if axis == 0 else mask.T
    for start in (10, 31, 50, 77):
        stripes[start : start + 9] = 1
    for seed in range(20):
        result = draw(Augment((260, 330), scale=(0.5, 2)), seed, image=mask[..., None] * 200, mask=mask)
        middle = result["image"][..., 0].max(axis=1 - axis).astype(int)
        found = (result["mask"] == 1).any(axis=1 - axis)
        clear = np.abs(middle - 100) > 7  # a 32th of a pixel from the edge, OpenCV's grid
        assert clear.mean() > 0.9
        assert np.array_equal((middle > 100)[clear], found[clear])
        assert found.any()


def test_no_class_is_invented() -> None:
    mask = np.where(blobs(60, 80) > 0, 7, 3).astype(np.uint8)
    mask[:10] = 255
    seen: set[int] = set()
    for seed in range(50):
        result = draw(Augment((70, 90), scale=(0.5, 2), jitter=0.5), seed, image=np.zeros((60, 80, 3), np.uint8), mask=mask)
        seen |= {*np.unique(result["mask"]).tolist()}
    assert seen == {3, 7, 255}


def test_large_instance_numbers_are_kept() -> None:
    instances = np.array([[0, 300], [40000, 65535]], np.uint16).repeat(20, 0).repeat(20, 1)
    image, mask = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    result = draw(Augment((40, 40), scale=(1.3, 1.3)), 0, image=image, mask=mask, instances=instances)
    assert result["instances"].dtype == np.uint16
    assert {*np.unique(result["instances"])} == {0, 300, 40000, 65535}


def test_draws_are_those_of_pythons_random() -> None:
    sample = numbered(30, 40)
    augment = Augment((20, 20), scale=(0.5, 2), jitter=0.4)
    for seed in range(10):
        first, again, other = (draw(augment, number, **sample) for number in (seed, seed, seed + 1))
        assert all(np.array_equal(first[name], again[name]) for name in sample)
        assert not np.array_equal(first["image"], other["image"])


class TestJitter:
    def test_changes_the_image_alone(self) -> None:
        sample = numbered(20, 30)
        result = draw(Augment((20, 30), flip=False, jitter=0.4), 1, **sample)
        assert not np.array_equal(result["image"], sample["image"])
        for name in ("mask", "depth", "instances"):
            assert np.array_equal(result[name], sample[name])

    def test_grey_stays_grey(self) -> None:
        image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
        for seed in range(20):
            result = draw(Augment((16, 16), flip=False, jitter=0.5), seed, image=image, mask=image[..., 0])["image"].astype(int)
            assert np.ptp(result, axis=2).max() <= 1

    @pytest.mark.parametrize("channels", [1, 3, 4, 6])
    def test_keeps_within_its_amount(self, channels: int) -> None:
        flat = np.full((4, 4, channels), 100, np.uint8)
        results = [draw(Augment((4, 4), jitter=0.2), seed, image=flat, mask=flat[..., 0])["image"] for seed in range(200)]
        assert results[0].shape == flat.shape
        assert results[0].dtype == np.uint8
        assert 80 <= np.min(results) <= 83
        assert 117 <= np.max(results) <= 120

    def test_saturation_fades_and_strengthens_colors(self) -> None:
        # Contrast and brightness scale the difference of two greys and that of two channels alike; saturation only the latter.
        image = np.array([[(80, 80, 80), (140, 140, 140), (140, 100, 80)]], np.uint8)
        saturations = []
        for seed in range(100):
            dark, light, color = draw(Augment((1, 3), flip=False, jitter=0.3), seed, image=image, mask=image[..., 0])["image"][0]
            saturations.append(np.ptp(color) / (light[0] - dark[0]))
        assert 0.65 < min(saturations) < 0.75
        assert 1.25 < max(saturations) < 1.35


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": (0, 5)}, r"crop \(=\(0, 5\)\)"),
        ({"crop": (5, 5), "scale": (2, 1)}, r"scale \(=\(2, 1\)\)"),
        ({"crop": (5, 5), "scale": (0, 1)}, r"scale \(=\(0, 1\)\)"),
        ({"crop": (5, 5), "jitter": 1}, r"jitter \(=1\)"),
        ({"crop": (5, 5), "scale": (1, math.inf)}, r"scale \(=\(1, inf\)\)"),
        ({"crop": (5, 5), "elastic": math.inf}, r"elastic \(=inf\) must be a finite number"),
        ({"crop": (5, 5), "elastic": math.nan}, r"elastic \(=nan\)"),
        ({"crop": (5, 5), "rotate": math.inf}, r"rotate \(=inf\)"),
        ({"crop": (5, 5), "rotate": -1}, r"rotate \(=-1\)"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augment(**settings)


def test_unknown_array() -> None:
    with pytest.raises(ValueError, match="a sample has weights, but Augment knows image, mask"):
        Augment((20, 30))(**numbered(20, 30), weights=np.zeros((20, 30)))


def test_rotation_turns_about_the_centre() -> None:
    """A white dot left of the centre moves along a circle, by at most the angle; image and mask alike."""
    random.seed(0)
    image, mask = np.zeros((81, 81, 1), np.uint8), np.zeros((81, 81), np.uint8)
    cv2.circle(image, (20, 40), 3, 255, -1)
    cv2.circle(mask, (20, 40), 3, 1, -1)
    angles = []
    for _ in range(30):
        turned = Augment((81, 81), flip=False, rotate=30)(image=image, mask=mask)
        for where in (turned["image"][..., 0] > 128, turned["mask"] == 1):
            y, x = np.argwhere(where).mean(axis=0) - 40
            assert np.hypot(x, y) == pytest.approx(20, abs=0.7)
            angles.append(np.degrees(np.arctan2(y, -x)))
    assert np.abs(angles).max() < 32
    assert np.ptp(angles) > 30


def test_bending_moves_all_arrays_alike_and_by_its_deviation() -> None:
    random.seed(0)
    x = np.arange(128, dtype=np.uint8)
    ramp = np.broadcast_to(x, (128, 128))
    sample = {"image": np.repeat(ramp[..., None], 3, axis=2), "mask": ramp, "instances": ramp.astype(np.uint16)}
    shifts = []
    for _ in range(40):
        bent = Augment((128, 128), flip=False, elastic=10)(**sample)
        image, mask, instances = (bent[name][44:84, 44:84].astype(int) for name in ("image", "mask", "instances"))
        assert (np.abs(mask - image[..., 0]) <= 1).all()
        assert (mask == instances).all()
        shifts.append(bent["image"][64, 64, 0] - 64.0)  # a node of the grid: its own shift
    assert np.std(shifts) == pytest.approx(10, rel=0.3)


def test_bending_is_smooth() -> None:
    random.seed(1)
    ramp = np.broadcast_to(np.arange(128, dtype=np.uint8), (128, 128))
    bent = Augment((64, 64), flip=False, elastic=4)(image=np.repeat(ramp[..., None], 3, axis=2), mask=ramp)
    steps = np.diff(bent["image"][..., 0].astype(int), axis=1)
    assert np.abs(steps - 1).max() <= 1


@pytest.mark.parametrize("size", [(512, 512), (1, 7)])
def test_bending_is_cubic_at_every_pixel(size: tuple[int, int]) -> None:
    """Against the convolution written out: a node's kernel at each of the four nodes about a place, the outer ones repeated."""

    def kernel(far: float) -> float:
        if far <= 1:
            return 1.25 * far**3 - 2.25 * far**2 + 1
        return -0.75 * far**3 + 3.75 * far**2 - 6 * far + 3 if far < 2 else 0

    def along(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        result = np.zeros((count, *values.shape[1:]))
        for i in range(count):
            place = 2 * i / max(count - 1, 1)
            for node in range(int(place) - 1, int(place) + 3):
                result[i] += kernel(abs(place - node)) * values[min(max(node, 0), 2)]
        return result

    random.seed(3)
    x, y = bent_places(np.array([[1.0, 0, 0], [0, 1, 0]]), size, 10)
    random.seed(3)
    nodes = np.array([[[random.gauss(0, 10) for _ in range(3)] for _ in range(3)] for _ in range(2)])
    by_hand = [along(along(grid, size[0]).T, size[1]).T for grid in nodes]
    rows, columns = np.indices(size)
    assert np.abs(x - columns - by_hand[0]).max() < 1e-3
    assert np.abs(y - rows - by_hand[1]).max() < 1e-3


def test_what_is_too_long_to_bend_says_so() -> None:
    image = np.zeros((4, 2**15, 3), np.uint8)
    with pytest.raises(ValueError, match=r"elastic \(=10\) .* below 32767 pixels.* 32768 x 4 .*cut it to tiles"):
        Augment((4, 4), elastic=10)(image=image, mask=image[..., 0])
    image = image[:, : 2**15 - 2]
    assert Augment((4, 4), elastic=10)(image=image, mask=image[..., 0])["image"].shape == (4, 4, 3)


def test_an_object_crop_holds_one_object_in_the_middle_and_background() -> None:
    random.seed(0)
    mask = np.zeros((100, 160), np.uint8)
    mask[20:40, 30:60], mask[60:90, 100:110], mask[50:52, 0:160] = 3, 7, 255
    image = np.repeat(mask[..., None], 3, axis=2)
    seen = set()
    for _ in range(20):
        sample = ObjectCrop(Augment((112, 112)))(image=image, mask=mask)
        (label,) = set(np.unique(sample["mask"])) - {0, 255}
        seen.add(int(label))
        rows, columns = np.nonzero(sample["mask"] == label)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        longer = max(height, width) / (112 * 250 / 224)
        assert longer == pytest.approx(1 / 1.2, abs=0.02)
        assert height / width == pytest.approx(20 / 30 if label == 3 else 30 / 10, rel=0.05)
        assert abs(rows.mean() - 55.5) < 10
        assert abs(columns.mean() - 55.5) < 10
    assert seen == {3, 7}


def test_pictures_of_any_size_are_brought_to_one() -> None:
    """The shorter side becomes as long as the crop, so that the whole width of a square picture is seen."""
    for size in (30, 60, 240):
        ramp = np.linspace(0, 250, size).astype(np.uint8)
        image = np.broadcast_to(ramp[None, :, None], (size, size, 3)).copy()
        seen = Augment((60, 60), flip=False, short_side=60)(image=image, mask=image[..., 0].copy())
        assert np.abs(seen["mask"][0].astype(int) - np.linspace(0, 250, 60)).max() < 10


def test_saturation_keeps_the_brightness() -> None:
    """A grey and a colour that are equally bright (ITU-R BT.601) stay so."""
    red, green, blue = 0.299, 0.587, 0.114
    image = np.array([[(0.4, 0.4, 0.4), (0.6, 0.4 - 0.2 * red / green, 0.4)]], np.float32)
    for seed in range(10):
        random.seed(seed)
        grey, colour = Augment((1, 2), flip=False, jitter=0.3)(image=image, mask=np.zeros((1, 2), np.uint8))["image"][0]
        assert abs(grey[0] - colour @ (red, green, blue)) < 1e-5
