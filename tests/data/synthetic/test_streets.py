import hashlib
import pickle
import random
import subprocess
import sys
from itertools import islice

import cv2
import numpy as np
import pytest

from segue.data.synthetic.streets import STREETS, Streets
from segue.labels import IGNORE

ROAD, SKY, CAR, PERSON = (STREETS.names.index(name) for name in ("road", "sky", "car", "person"))
SMALL = (72, 96)


@pytest.fixture(scope="module")
def scenes():
    return list(Streets(count=40, size=(144, 192)))


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def test_sample():
    sample = Streets(size=(97, 211))[3]
    assert {key: (array.shape, array.dtype.name) for key, array in sample.items()} == {
        "image": ((97, 211, 3), "uint8"),
        "mask": ((97, 211), "uint8"),
        "depth": ((97, 211), "float32"),
        "instances": ((97, 211), "uint16"),
    }


def test_the_same_whenever_it_is_drawn():
    data = Streets(size=SMALL)
    first = [data[i] for i in range(4)]
    random.seed(1)
    np.random.seed(1)
    cv2.setRNGSeed(1)
    again = pickle.loads(pickle.dumps(data))  # as a worker process gets it
    assert all(same(first[i], again[i]) for i in (2, 0, 3, 1))


def digests(sample):
    return [hashlib.sha256(sample[key].tobytes()).hexdigest() for key in sorted(sample)]


def test_the_same_in_another_process():
    code = (
        "import hashlib; from segue.data.synthetic.streets import Streets; s = Streets(size=(72, 96))[5];"
        "print(*(hashlib.sha256(s[key].tobytes()).hexdigest() for key in sorted(s)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == digests(Streets(size=SMALL)[5])


def test_splits_seeds_and_scenes_differ():
    options = [(split, seed, index) for split in ("train", "val", "test") for seed in (0, 1) for index in (0, 1)]
    images = {Streets(split, size=SMALL, seed=seed)[index]["image"].tobytes() for split, seed, index in options}
    assert len(images) == len(options)


def test_count_does_not_change_scenes():
    assert same(Streets(count=1, size=SMALL)[0], Streets(count=9, size=SMALL)[0])


@pytest.mark.parametrize("size", [(32, 32), (33, 500), (500, 33), (97, 211)])
def test_any_size(size):
    for sample in Streets(count=3, size=size):  # type: ignore[attr-defined]
        assert sample["mask"].shape == size
        assert set(np.unique(sample["mask"])) <= {*range(9), IGNORE}
        assert np.isfinite(sample["depth"]).all() and sample["depth"].min() > 0
        assert (sample["image"].max(axis=2) > 0).mean() > 0.95  # nothing is left unpainted


def test_labels_in_masks(scenes):
    assert len(STREETS) == 9
    assert Streets.labels is STREETS
    assert set(np.unique([scene["mask"] for scene in scenes])) == {*range(9), IGNORE}


def test_every_class_is_common(scenes):
    for label, name in enumerate(STREETS.names):
        present = np.mean([(scene["mask"] == label).sum() >= 20 for scene in scenes])
        assert present >= 0.7, name


def test_void_is_a_thin_border(scenes):
    assert 0.02 < np.mean([(scene["mask"] == IGNORE).mean() for scene in scenes]) < 0.06


def test_depth_grows_to_the_horizon(scenes):
    for scene in scenes:
        road = np.where(scene["mask"] == ROAD, scene["depth"], np.nan)
        rows = np.nanmean(road[(scene["mask"] == ROAD).any(axis=1)], axis=1)
        assert (np.diff(rows) < 0).all()  # from the top of the road down to the camera
        assert rows[-1] < 8 and rows[0] > 2 * rows[-1]


def test_depth_of_the_sky_is_the_greatest(scenes):
    for scene in scenes:
        assert (scene["depth"][scene["mask"] == SKY] == 256).all()
        assert scene["depth"].max() <= 256
        assert scene["depth"].min() > 0.5


def test_a_car_is_at_one_distance(scenes):
    for scene in scenes:
        for number in range(1, scene["instances"].max() + 1):
            assert np.ptp(scene["depth"][scene["instances"] == number]) == 0


def test_instances(scenes):
    for scene in scenes:
        instances = scene["instances"]
        assert np.array_equal(np.unique(instances[instances > 0]), np.arange(1, instances.max() + 1))
        assert set(np.unique(scene["mask"][instances > 0])) <= {CAR, PERSON, IGNORE}
        assert (instances[np.isin(scene["mask"], (CAR, PERSON))] > 0).all()
        for number in range(1, instances.max() + 1):
            labels = set(np.unique(scene["mask"][instances == number])) - {IGNORE}
            assert len(labels) <= 1  # a car or a person, never some of both


def test_the_same_scene_at_another_size(scenes):
    large = Streets(size=(288, 384))
    for i in range(6):
        mask = cv2.resize(large[i]["mask"], (192, 144), interpolation=cv2.INTER_NEAREST)
        assert (mask == scenes[i]["mask"]).mean() > 0.93
        image = cv2.resize(large[i]["image"], (192, 144), interpolation=cv2.INTER_AREA)
        assert np.abs(image.astype(float) - scenes[i]["image"]).mean() < 16


def test_colours_belong_to_labels(scenes):
    """A picture that is moved against its mask by a few pixels fits it less well."""

    def spread(dx):
        total = 0.0
        for scene in scenes[:12]:
            image, mask = scene["image"][:, 8:-8].astype(float), np.roll(scene["mask"], dx, axis=1)[:, 8:-8]
            total += sum(((image[mask == k] - image[mask == k].mean(axis=0)) ** 2).sum() for k in np.unique(mask) if k != IGNORE)
        return total

    assert spread(0) < min(spread(-4), spread(4))


def test_length_iteration_and_name():
    assert [len(Streets(split)) for split in ("train", "val", "test")] == [400, 60, 60]
    data = Streets("val", count=3, size=SMALL)
    assert len(list(islice(data, 10))) == len(data) == 3
    assert data.name(2) == "streets/val scene 2"
    for index in (3, -1):
        with pytest.raises(IndexError, match="index"):
            data[index]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "trian"}, "train, val, test"),
        ({"count": 0}, "at least 1"),
        ({"size": (31, 64)}, "at least 32"),
        ({"size": (64,)}, "height, width"),
        ({"seed": -1}, "at least 0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        Streets(**options)
