import math
import pickle

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from segue.metrics.calibration import BINS, Calibration


def as_map(*values: float) -> NDArray[np.float32]:
    return np.array([values], np.float32)


def labels(*values: int) -> NDArray[np.uint8]:
    return np.array([values], np.uint8)


def test_the_error_of_a_case_done_by_hand() -> None:
    calibration = Calibration()
    # above 0.8 (13th bin): says 0.85 on average, is right in 1 of 2; the last bin: says 0.95, right in 2 of 2
    calibration.update(labels(0, 0, 1, 1), labels(0, 1, 1, 1), as_map(0.84, 0.86, 0.94, 0.96))
    assert calibration.pixels.tolist() == [0] * 12 + [2, 0, 2]
    assert calibration.ece == pytest.approx((2 * 0.35 + 2 * 0.05) / 4)
    assert calibration.overconfidence == pytest.approx(0.9 - 0.75)


def test_right_as_often_as_it_says_is_no_error() -> None:
    calibration = Calibration()
    calibration.update(labels(0, 0, 0, 0), labels(0, 0, 0, 1), as_map(0.75, 0.75, 0.75, 0.75))
    assert calibration.ece == pytest.approx(0)


def test_the_edges_belong_to_the_bin_below_and_both_ends_are_counted() -> None:
    calibration = Calibration()
    calibration.update(labels(0, 0, 0), labels(0, 0, 0), as_map(0, 1, 1.000001))
    assert calibration.pixels.tolist() == [1] + [0] * 13 + [2]
    calibration.update(labels(0), labels(0), np.array([[3 / 15]]))
    assert calibration.pixels[2] == 1


def test_void_is_not_counted_and_nothing_counted_is_nan() -> None:
    calibration = Calibration()
    calibration.update(labels(255, 255), labels(0, 1), as_map(0.5, math.nan))
    assert math.isnan(calibration.ece)
    assert math.isnan(calibration.overconfidence)


@given(
    arrays.arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 1, 255])),
    arrays.arrays(np.uint8, (5, 7), elements=st.integers(0, 1)),
    arrays.arrays(np.float32, (5, 7), elements=st.floats(0, 1, width=32)),
)
def test_it_is_the_definition(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], confidence: NDArray[np.float32]) -> None:
    calibration = Calibration()
    calibration.update(truth, prediction, confidence)
    counted = truth != 255
    right, certain = (truth == prediction)[counted], confidence[counted].astype(np.float64)
    error = 0.0
    for number in range(BINS):
        within = (certain > number / BINS) & (certain <= (number + 1) / BINS) | (certain == 0) & (number == 0)
        if within.any():
            error += abs(right[within].mean() - certain[within].mean()) * within.sum() / counted.sum()
    if counted.any():
        assert calibration.ece == pytest.approx(error)


def test_what_is_no_probability_is_refused_and_not_counted() -> None:
    calibration = Calibration()
    for wrong in (as_map(0.5, 1.5), as_map(-0.1, 0.5), as_map(math.nan, 0.5)):
        with pytest.raises(ValueError, match="confidence must be 0 to 1"):
            calibration.update(labels(0, 1), labels(0, 1), wrong)
    with pytest.raises(ValueError, match="they must be equal"):
        calibration.update(labels(0, 1), labels(0, 1), as_map(0.5))
    assert calibration.pixels.sum() == 0


def test_parts_merge_to_the_whole() -> None:
    random = np.random.default_rng(0)
    truth, prediction = random.integers(0, 2, (2, 20, 30), np.uint8)
    confidence = random.random((20, 30), np.float32)
    whole, top, rest = Calibration(), Calibration(), Calibration()
    whole.update(truth, prediction, confidence)
    top.update(truth[:7], prediction[:7], confidence[:7])
    rest.update(truth[7:], prediction[7:], confidence[7:])
    top.merge(pickle.loads(pickle.dumps(rest)))
    assert top.ece == pytest.approx(whole.ece)
    np.testing.assert_array_equal(top.right, whole.right)
