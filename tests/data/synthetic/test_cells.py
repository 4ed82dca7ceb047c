"""Drawn cells: what they look like to a network, and that they are the same whenever they are drawn."""

import pickle
import random

import cv2
import numpy as np
import pytest

from segue.data import create_dataset
from segue.data.nuclei import separate
from segue.data.synthetic.cells import CELLS, Cells

SMALL = (64, 80)


@pytest.fixture(scope="module")
def pictures():
    return list(Cells(count=16))


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def touching(instances):
    """Whether a pixel has a 4-neighbour of another instance, pixel by pixel."""
    height, width = instances.shape
    found = np.zeros((height, width), bool)
    for y, x in np.argwhere(instances):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < height and 0 <= u < width and instances[v, u] not in (0, instances[y, x]):
                found[y, x] = True
    return found


def test_sample():
    sample = Cells(size=(97, 211))[3]
    assert {key: (array.shape, array.dtype.name) for key, array in sample.items()} == {
        "image": ((97, 211, 1), "uint8"),
        "mask": ((97, 211), "uint8"),
        "instances": ((97, 211), "uint16"),
    }
    assert Cells.labels is CELLS and CELLS.names == ("background", "cell")


def test_by_name():
    assert [len(create_dataset("cells", split=split)) for split in ("train", "val", "test")] == [400, 60, 60]


def test_the_same_whenever_it_is_drawn():
    data = Cells(size=SMALL)
    first = [data[i] for i in range(4)]
    random.seed(1)
    np.random.seed(1)
    cv2.setRNGSeed(1)
    again = pickle.loads(pickle.dumps(Cells(size=SMALL)))  # as a worker process gets it
    assert all(same(first[i], again[i]) for i in (2, 0, 3, 1))
    assert data[0]["image"] is first[0]["image"]  # kept, not drawn again


def test_splits_seeds_and_pictures_differ():
    options = [(split, seed, index) for split in ("train", "val", "test") for seed in (0, 1) for index in (0, 1)]
    images = {Cells(split, size=SMALL, seed=seed)[index]["image"].tobytes() for split, seed, index in options}
    assert len(images) == len(options)


@pytest.mark.parametrize("size", [(32, 32), (33, 300), (300, 33)])
def test_any_size(size):
    for sample in Cells(count=4, size=size):  # type: ignore[attr-defined]
        assert sample["mask"].shape == size
        assert set(np.unique(sample["mask"])) <= {0, 1}


def test_instances_are_whole_cells(pictures):
    for picture in pictures:
        instances = picture["instances"]
        assert np.array_equal(np.unique(instances), np.arange(instances.max() + 1))
        for number in range(1, instances.max() + 1):
            assert cv2.connectedComponents((instances == number).astype(np.uint8), connectivity=4)[0] == 2  # with what is around


def test_touching_cells_are_held_apart_by_background(pictures):
    for picture in pictures:
        instances, mask = picture["instances"], picture["mask"]
        border = touching(instances)
        assert np.array_equal(mask == 1, (instances > 0) & ~border)
        _, parts = cv2.connectedComponents(mask, connectivity=4)
        for part in range(1, parts.max() + 1):
            assert len(np.unique(instances[parts == part])) == 1  # no two cells have grown together
    assert np.mean([touching(picture["instances"]).any() for picture in pictures]) > 0.8


def test_cells_and_background_are_both_common(pictures):
    shares = np.array([picture["mask"].mean() for picture in pictures])
    assert ((shares > 0.1) & (shares < 0.9)).all()
    assert all(picture["instances"].max() >= 4 for picture in pictures)


def test_membranes_are_darker_than_what_they_enclose(pictures):
    for picture in pictures:
        image, mask = picture["image"][..., 0].astype(float), picture["mask"]
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert image[touching(picture["instances"])].mean() < image[depth > 3].mean() - 5


def test_pictures_belong_to_masks(pictures):
    """A picture that is moved against its mask by a few pixels fits it less well."""

    def spread(dx):
        total = 0.0
        for picture in pictures:
            image, mask = picture["image"][:, 8:-8, 0].astype(float), np.roll(picture["mask"], dx, axis=1)[:, 8:-8]
            total += sum(((image[mask == k] - image[mask == k].mean()) ** 2).sum() for k in (0, 1))
        return total

    assert spread(0) < min(spread(-4), spread(4))


def test_separate():
    instances = np.array([[1, 1, 2, 2, 0, 3, 3], [1, 1, 2, 2, 0, 3, 3], [0, 0, 4, 4, 0, 0, 3]], np.uint16)
    assert np.array_equal(separate(instances), [[1, 0, 0, 1, 0, 1, 1], [1, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1]])
    assert separate(np.eye(3, dtype=np.uint16) * np.arange(1, 4, dtype=np.uint16)).sum() == 3  # corners do not count


@pytest.mark.parametrize(
    ("options", "message"),
    [({"split": "trian"}, "train, val, test"), ({"count": 0}, "at least 1"), ({"size": (31, 64)}, "at least 32")],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        Cells(**options)
