"""U-Net's border weights against their plain definition: one distance transform for each cell."""

import cv2
import numpy as np
import pytest

from segue.training.border_weights import border_weights


def plain_border_weights(instances, w0=10.0, sigma=5.0):
    d1, d2 = np.full((2, *instances.shape), np.inf)
    for cell in np.unique(instances[instances > 0]):
        distance = cv2.distanceTransform((instances != cell).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        d1, d2 = np.minimum(d1, distance), np.minimum(d2, np.maximum(d1, distance))
    return np.where(instances == 0, w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)), 0)


def draw_cells(count, height, width, radii=(3, 9)):
    """Discs at random places, later ones over earlier ones."""
    random = np.random.default_rng(count)
    instances = np.zeros((height, width), np.uint16)
    for cell in range(1, count + 1):
        centre = (int(random.integers(width)), int(random.integers(height)))
        cv2.circle(instances, centre, int(random.integers(*radii)), cell, cv2.FILLED)
    return instances


@pytest.mark.parametrize(("count", "height", "width"), [(5, 40, 60), (6, 1, 80), (12, 64, 33), (60, 120, 160), (500, 320, 384)])
def test_weights_are_those_of_the_plain_definition(count, height, width):
    instances = draw_cells(count, height, width)
    weights = border_weights(instances)
    assert weights.dtype == np.float32
    assert weights.shape == (height, width)
    np.testing.assert_allclose(weights, plain_border_weights(instances), rtol=0, atol=1e-5)
    assert weights.max() > 0.1


@pytest.mark.parametrize(("w0", "sigma"), [(10, 1), (10, 20), (1e5, 5), (0.01, 8), (10, 1e6), (0, 5)])
def test_weights_are_exact_for_any_strength_and_reach(w0, sigma):
    instances = draw_cells(8, 70, 90)
    expected = plain_border_weights(instances, w0, sigma)
    np.testing.assert_allclose(border_weights(instances, w0, sigma), expected, rtol=1e-5, atol=1e-5)


def test_two_cells_with_two_pixels_between_weigh_what_a_hand_works_out():
    weights = border_weights(np.array([[7, 0, 0, 300]], np.uint16))
    np.testing.assert_allclose(weights, [[0, 10 * np.exp(-9 / 50), 10 * np.exp(-9 / 50), 0]], rtol=1e-6)  # d1 + d2 = 1 + 2


def test_fewer_than_two_cells_weigh_nothing():
    one = np.zeros((40, 50), np.uint16)
    assert not border_weights(one).any()
    one[5:9, 5:9] = one[20:30, 20:30] = 4  # one cell in two parts
    assert not border_weights(one).any()
    assert not border_weights(np.full((6, 7), 3)).any()


def test_weights_do_not_depend_on_how_cells_are_numbered_or_turned():
    instances = draw_cells(30, 80, 100)
    numbers = np.concatenate([[0], 1 + np.random.default_rng(0).permutation(2**31 - 2 - np.arange(30))])
    np.testing.assert_array_equal(border_weights(numbers[instances]), border_weights(instances))
    np.testing.assert_allclose(border_weights(instances.T), border_weights(instances).T, atol=1e-6)


def test_what_is_no_map_of_cells_is_refused():
    with pytest.raises(ValueError, match=r"instances \(shape \(4, 4\) of float32\) must be .* of integers"):
        border_weights(np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match="0 for background"):
        border_weights(np.full((4, 4), -1))
    for settings in ({"sigma": 0}, {"sigma": np.nan}, {"sigma": np.inf}, {"w0": np.nan}, {"w0": np.inf}, {"w0": -1}):
        ((name, value),) = settings.items()
        with pytest.raises(ValueError, match=rf"{name} \(={value}\) must (not be negative|be above 0).*both finite"):
            border_weights(np.zeros((4, 4), np.uint16), **settings)
