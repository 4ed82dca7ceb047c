"""Class weights against the formulas of the papers, and against the list that SegNet's authors published."""

import numpy as np
import pytest

from helpers.extras import real_data
from segue.data import create_dataset
from segue.training.class_weights import count_labels, enet_weights, median_frequency_weights

# Class 3 occurs nowhere, class 2 in one image only, void in two of three; the images have 8, 4 and 6 pixels.
MASKS = [
    np.uint8([[0, 0, 0, 1], [0, 0, 255, 255]]),
    np.uint8([[0, 1], [1, 1]]),
    np.uint8([[0, 0, 2], [2, 255, 255]]),
]
CLASSES = 4


class Listed:
    """The least that a data set must be: samples by number."""

    def __init__(self, masks):
        self.masks = masks

    def __len__(self):
        return len(self.masks)

    def __getitem__(self, index):
        return {"image": np.zeros((*self.masks[index].shape, 3), np.uint8), "mask": self.masks[index]}


def test_median_frequency_weights_are_those_of_eigen_and_fergus():
    weights = median_frequency_weights(count_labels(Listed(MASKS), CLASSES))
    frequency = {0: 8 / (8 + 4 + 6), 1: 4 / (8 + 4), 2: 2 / 6, 255: 4 / (8 + 6)}
    median = np.median(list(frequency.values()))
    np.testing.assert_allclose(weights, [median / frequency[0], median / frequency[1], median / frequency[2], 0], rtol=1e-6)


def test_enet_weights_are_those_of_the_paper():
    counts = count_labels(Listed(MASKS), CLASSES)
    share = np.array([8, 4, 2]) / 18  # of all pixels, void or not
    np.testing.assert_allclose(enet_weights(counts), [*1 / np.log(1.02 + share), 0], rtol=1e-6)
    np.testing.assert_allclose(enet_weights(counts, c=1.2), [*1 / np.log(1.2 + share), 0], rtol=1e-6)
    with pytest.raises(ValueError, match=r"c \(=1.0\) must be above 1"):
        enet_weights(counts, c=1.0)


def test_weights_are_finite_where_all_is_void():
    counts = count_labels(Listed([np.full((2, 3), 255, np.uint8)]), CLASSES)
    assert median_frequency_weights(counts).tolist() == enet_weights(counts).tolist() == [0, 0, 0, 0]


def test_a_label_that_is_no_class_is_named_with_its_sample():
    with pytest.raises(ValueError, match=r"sample 2 has the label 2, but there are 2 classes, 0 to 1; map other labels"):
        count_labels(Listed(MASKS), 2)


def test_counting_goes_once_through_the_samples_and_says_how_far_it_is():
    seen = []

    def progress(numbers):
        for number in numbers:
            yield number
            seen.append(number)

    counts = count_labels(Listed(MASKS), CLASSES, progress)
    assert seen == [0, 1, 2]
    assert counts.pixels.tolist() == [8, 4, 2, 0, 4]


def test_camvid_as_released_gives_the_weights_of_segnet_but_for_the_signs():
    """Which of SegNet's published weights the released training labels give.

    By the definition of Eigen and Fergus with void as a twelfth label, all but one come out to within 11 %; with the median of
    eleven all would be 9 % higher. Signs have 9.64 there and 3.53 here, and no definition moves one class alone: the list must
    have been made from other labels than the released ones, which are those counted here (as in issue 37 of caffe-segnet).
    """
    counts = count_labels(create_dataset("camvid", str(real_data("camvid")), "train"), 11)
    assert counts.pixels.tolist() == [
        10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967, 2503995,
    ]  # fmt: skip
    images = [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201, 367]
    assert counts.pixels_where_present.tolist() == [number * 480 * 360 for number in images]
    weights = median_frequency_weights(counts)
    published = np.array([0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614])
    off = np.abs(weights / published - 1)
    assert np.delete(off, 6).max() < 0.11
    assert weights[6] == pytest.approx(3.533, abs=1e-3)
