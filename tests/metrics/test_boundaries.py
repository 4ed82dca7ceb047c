import math
import pickle

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.labels import Mask
from segue.metrics.boundaries import Boundaries, boundary_map, near_any, reach, tolerance

CLASSES = 3
NAMES = ("a", "b", "c")


def boundary_pixels(labels: Mask, number: int) -> list[tuple[int, int]]:
    """Pixels of the class with a neighbour on one of four sides that is of another class and not void."""
    height, width = labels.shape
    found = []
    for y, x in np.argwhere(labels == number).tolist():
        sides = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        beside = [labels[v, u] for v, u in sides if 0 <= v < height and 0 <= u < width]
        if any(label not in (number, 255) for label in beside):
            found.append((y, x))
    return found


def share_near(these: list[tuple[int, int]], those: list[tuple[int, int]], within: float) -> float:
    if not these or not those:
        return 0.0
    apart = np.array(these)[:, None] - np.array(those)[None]  # (n, m, 2)
    return float((np.hypot(*apart.transpose(2, 0, 1)).min(axis=1) < within).mean())


def plain_f1(truth: Mask, prediction: Mask, number: int) -> float:
    """BF of one class in one image from its definition."""
    within = 0.0075 * math.hypot(*truth.shape)
    predicted = prediction.copy()
    predicted[truth == 255] = 255
    true, found = boundary_pixels(truth, number), boundary_pixels(predicted, number)
    if not true:
        return math.nan
    precision, recall = share_near(found, true, within), share_near(true, found, within)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@st.composite
def blocks(draw: st.DrawFn) -> tuple[Mask, Mask]:
    """Truth and prediction in 3 x 4 blocks of 84 pixels, one moved by a few pixels; the tolerance is 3.15 pixels."""
    labels = st.sampled_from([0, 1, 2, 255])
    coarse = draw(arrays.arrays(np.uint8, (3, 4), elements=labels)), draw(arrays.arrays(np.uint8, (3, 4), elements=labels))
    truth, prediction = (labels.repeat(84, axis=0).repeat(84, axis=1) for labels in coarse)
    prediction[prediction == 255] = 0
    shift = draw(st.integers(-5, 5)), draw(st.integers(-5, 5))
    return truth, np.roll(prediction, shift, (0, 1))


@settings(max_examples=25, deadline=None)
@given(
    arrays.arrays(np.uint8, (9, 11), elements=st.sampled_from([0, 1, 2, 255])),
    arrays.arrays(np.uint8, (9, 11), elements=st.integers(0, 2)),
)
def test_it_is_the_definition_on_maps_where_only_exact_matches_count(truth: Mask, prediction: Mask) -> None:
    expected = [plain_f1(truth, prediction, number) for number in range(CLASSES)]
    np.testing.assert_allclose(Boundaries(NAMES).update(truth, prediction), expected)


@settings(max_examples=6, deadline=None)
@given(blocks())
def test_it_is_the_definition_where_neighbours_match(maps: tuple[Mask, Mask]) -> None:
    expected = [plain_f1(*maps, number) for number in range(CLASSES)]
    np.testing.assert_allclose(Boundaries(NAMES).update(*maps), expected)


def test_a_perfect_prediction_has_the_bf_1_and_one_that_misses_a_class_0() -> None:
    truth = np.zeros((40, 60), np.uint8)
    truth[10:30, 20:40] = 1
    boundaries = Boundaries(NAMES)
    np.testing.assert_equal(boundaries.update(truth, truth), [1, 1, np.nan])
    np.testing.assert_equal(boundaries.update(truth, np.zeros_like(truth)), [0, 0, np.nan])
    assert boundaries.bf == 0.5
    np.testing.assert_equal(boundaries.bf_per_class, [0.5, 0.5, np.nan])


def test_bf_is_a_mean_over_images_of_means_over_classes() -> None:
    boundaries = Boundaries(NAMES)
    two = np.repeat(np.array([[0, 1]], np.uint8), 20, axis=0).repeat(20, axis=1)
    three = np.repeat(np.array([[0, 1, 2]], np.uint8), 20, axis=0).repeat(20, axis=1)
    prediction = three.copy()
    prediction[three == 2] = 1  # 0 is met exactly, 1 in half of its boundary, 2 not at all
    boundaries.update(two, two)
    f1 = boundaries.update(three, prediction)
    np.testing.assert_allclose(f1, [1, 2 / 3, 0])
    assert boundaries.bf == pytest.approx((1 + f1.mean()) / 2)


def test_the_tolerance_is_a_share_of_the_diagonal_and_excludes_itself() -> None:
    assert tolerance(360, 480) == pytest.approx(4.5)
    assert math.sqrt(20) < reach(360, 480) < math.sqrt(21)  # 4.5 is between
    assert tolerance(480, 640) == pytest.approx(6)
    assert math.sqrt(35) < reach(480, 640) < 6  # 6 itself is too far


def test_void_and_the_border_are_no_boundary() -> None:
    truth = np.zeros((30, 30), np.uint8)
    truth[:, 14:17] = 255
    truth[:, 17:] = 1
    assert (boundary_map(truth) == 255).all()
    boundaries = Boundaries(NAMES)
    boundaries.update(truth, np.zeros_like(truth))
    assert math.isnan(boundaries.bf)
    assert boundaries.near.counts.sum() == 0
    assert boundaries.interior.counts.sum() == (truth != 255).sum()


@settings(max_examples=10, deadline=None)
@given(blocks())
def test_each_counted_pixel_is_either_near_a_boundary_or_not(maps: tuple[Mask, Mask]) -> None:
    truth, prediction = maps
    boundary = np.argwhere(boundary_map(truth) != 255)
    near = near_any(boundary_map(truth))
    for y, x in np.argwhere(truth != 255)[::97].tolist():
        nearest = np.hypot(*(boundary - (y, x)).T).min() if len(boundary) else np.inf
        assert near[y, x] == (nearest < tolerance(*truth.shape))
    boundaries = Boundaries(NAMES)
    boundaries.update(truth, prediction)
    assert boundaries.near.counts.sum() == (near & (truth != 255)).sum()
    assert boundaries.interior.counts.sum() == (~near & (truth != 255)).sum()


def test_parts_merge_to_the_whole_and_can_be_sent_between_processes() -> None:
    random = np.random.default_rng(0)
    maps = [tuple(random.integers(0, 3, (2, 30, 40), np.uint8).repeat(4, 1).repeat(4, 2)) for _ in range(3)]
    whole, first, second = Boundaries(NAMES), Boundaries(NAMES), Boundaries(NAMES)
    for number, (truth, prediction) in enumerate(maps):
        whole.update(truth, prediction)
        (first if number else second).update(truth, prediction)
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.bf == pytest.approx(whole.bf)
    np.testing.assert_allclose(first.bf_per_class, whole.bf_per_class)
    np.testing.assert_array_equal(first.near.counts, whole.near.counts)
    np.testing.assert_array_equal(first.interior.counts, whole.interior.counts)
