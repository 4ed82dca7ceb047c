"""Objects found, merged and split: each event on a map drawn by hand, and all of them against sets of pixels."""

import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.camvid import CAMVID
from segue.data.nuclei import NUCLEI, separate
from segue.data.synthetic.cells import Cells
from segue.evaluation.objects import COLOURS, HEAD, outlines
from segue.images.pictures import GAP
from segue.metrics.instances import InstanceScorer, Overlaps, components, data_science_bowl, match, touching


def draw(*rows):
    """A map of numbers, with . for none."""
    return np.array([[0 if character == "." else int(character) for character in row] for row in rows], np.uint16)


PAIR = draw(
    "1111.2222",
    "1111.2222",
    "1111.2222",
)


def fates(truth, predicted):
    return match(truth, predicted).fates.tolist()


def test_objects_are_4_connected_parts():
    parts = components(draw("11..1", "11.1.", "..1.."))
    assert parts.max() == 4  # corners do not join
    assert parts[0, 0] == parts[1, 1] != parts[0, 4]
    assert components(np.zeros((2, 3))).max() == 0


def test_found_are_those_that_are_there():
    assert fates(PAIR, PAIR) == ["found", "found"]
    assert fates(PAIR * 300, PAIR) == ["found", "found"]


def test_two_in_one_are_merged():
    result = match(PAIR, draw("111111111", "111111111", "1111.1111"))
    assert result.fates.tolist() == ["merged", "merged"]
    assert (result.merging.tolist(), result.spurious.tolist()) == ([True], [False])


def test_a_bite_of_a_neighbour_merges_nothing():
    bite = draw("111111122", "111111122", "1111.2222")  # 4 of the second one's 12 pixels
    assert fates(PAIR, bite) == ["found", "found"]
    half = draw("1111111..", "1111111..", "1111111..")[:, :9].copy()
    half[:, 6] = 0  # 6 of 12: half is not more than half
    assert fates(PAIR, half) == ["found", "missed"]


def test_one_in_two_parts_is_split():
    result = match(PAIR, draw("11.3.2222", "11.3.2222", "11.3.2222"))
    assert result.fates.tolist() == ["split", "found"]
    assert (result.splitting.tolist(), result.spurious.tolist()) == ([True, False, True], [False] * 3)


def test_a_speck_inside_splits_nothing_and_one_outside_is_spurious():
    truth = draw("1" * 12, *["1" * 12] * 2, "." * 12)
    inside = truth.copy()
    inside[:, 9] = 0
    inside[:, 10:] = 0
    inside[0, 11] = 2  # 1 of 36
    inside[3, 4] = 3
    result = match(truth, inside)
    assert result.fates.tolist() == ["found"]
    assert result.spurious.tolist() == [False, False, True]
    inside[:, 10:][:3] = 2  # 6 of 36
    assert fates(truth, inside) == ["split"]


def test_missed_are_those_that_nothing_fits():
    assert fates(PAIR, PAIR * 0) == ["missed", "missed"]
    small = draw("11.......", "1....2222", ".....2222")
    assert fates(PAIR, small) == ["missed", "found"]  # 3 of 12 pixels
    large = np.ones((3, 9), np.uint8)
    large[:, 5:] = 0
    assert fates(PAIR[:, :5], large[:, :5]) == ["found"]  # 12 of 15
    assert fates(draw("1........"), draw("111111111")) == ["missed"]  # an IoU of 1/9


def test_merged_comes_before_split_and_found():
    truth = draw("1111111122", "1111111122")
    assert fates(truth, np.ones_like(truth)) == ["merged", "merged"]  # though the first has an IoU of 0.8
    overlaps = match(truth, np.ones_like(truth)).overlaps
    assert overlaps.hits(0.5) == 1
    assert overlaps.iou.tolist() == [0.8, 0.2]


def test_objects_touch_at_edges_and_corners():
    truth = draw(
        "11.33.4",
        "11.33..",
        "..2...5",
        "......5",
        "7......",
        "7.99...",
    )
    assert touching(truth).tolist() == [True, True, True, False, False, False, False]
    assert (
        touching(draw("12")).tolist() == touching(draw("1", "2")).tolist() == touching(draw(".1", "2.")).tolist() == [True, True]
    )
    assert touching(draw("1.2")).tolist() == [False, False]
    assert touching(draw("...")).tolist() == []


def test_the_data_science_bowl_by_hand():
    # One of two is right; the other has an IoU of 9/12 and counts up to 0.7, at 0.5, 0.55, 0.6, 0.65 and 0.7.
    predicted = PAIR.copy()
    predicted[:, 8] = 0
    assert data_science_bowl(Overlaps.of(PAIR, predicted)) == pytest.approx((5 * 1 + 5 * 1 / 3) / 10)
    assert data_science_bowl(Overlaps.of(PAIR, PAIR * 0)) == 0
    assert data_science_bowl(Overlaps.of(PAIR * 0, PAIR)) == 0
    assert data_science_bowl(Overlaps.of(PAIR * 0, PAIR * 0)) == 1


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_fates_are_those_of_sets_of_pixels(height, width, seed):
    chance = np.random.default_rng(seed)
    truth, predicted = (chance.choice([0, 0, 2, 3, 7, 60000], (height, width)).astype(np.uint16) for _ in range(2))
    predicted = np.where(chance.random((height, width)) < 0.7, truth, predicted)
    true, found = (
        {number: set(zip(*np.nonzero(which == number), strict=True)) for number in np.unique(which[which > 0])}
        for which in (truth, predicted)
    )
    lies_in = {t: {p for p in found if len(true[t] & found[p]) > len(true[t]) / 2} for t in true}
    expected = []
    for number, pixels in true.items():
        merged = any(p in lies_in[other] for p in lies_in[number] for other in true if other != number)
        parts = [p for p in found.values() if len(p & pixels) > len(p) / 2 and len(p & pixels) >= 0.1 * len(pixels)]
        hit = any(len(p & pixels) / len(p | pixels) > 0.5 for p in found.values())
        expected.append("merged" if merged else "split" if len(parts) > 1 else "found" if hit else "missed")
    result = match(truth, predicted)
    assert result.fates.tolist() == expected
    spurious = [not any(p in lies_in[t] or len(pixels & true[t]) > len(pixels) / 2 for t in true) for p, pixels in found.items()]
    assert result.spurious.tolist() == spurious
    ious = sorted(len(t & p) / len(t | p) for t in true.values() for p in found.values() if t & p)
    assert sorted(result.overlaps.iou) == pytest.approx(ious)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (PAIR, PAIR[1:], r"truth has the shape \(3, 9\), but predicted \(2, 9\)"),
        (PAIR[None], PAIR[None], r"truth \(shape \(1, 3, 9\) of uint16\) must be \(height, width\) of whole numbers"),
        (PAIR, PAIR / 2, r"predicted \(shape \(3, 9\) of float64\) must be \(height, width\) of whole numbers"),
    ],
)
def test_maps_that_do_not_fit_are_named(truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        match(truth, predicted)


# The scorer.

BESIDE = draw("1122.3", "1122.3", "1122..")


def scorer():
    return InstanceScorer(SimpleNamespace(labels=NUCLEI))


def feed(scorer, instances, prediction):
    scorer.update(0, {"image": None, "mask": None, "instances": instances}, prediction.astype(np.uint8), None)


def test_a_scorer_counts_all_and_those_that_touch():
    judge = scorer()
    feed(judge, BESIDE, BESIDE > 0)  # the first two are one part now
    feed(judge, PAIR, PAIR == 2)
    scores = judge.scores()
    assert scores == {
        "objects": 5, "found": 2, "merged": 2, "split": 0, "missed": 1, "spurious": 0,
        "f1": pytest.approx(2 * 2 / (5 + 3)), "dsb": pytest.approx((1 / 4 + 1 / 2) / 2),
        "touching": 2, "touching_found": 0, "touching_merged": 2, "touching_split": 0, "touching_missed": 0,
    }  # fmt: skip
    table = {row[0]: row[1:] for row in judge.table()}
    assert table["objects"] == ("5", "2")
    assert table["merged"] == ("2 (40.0%)", "2 (100.0%)")
    assert table["spurious"] == ("0 of 3 predicted", "")
    assert judge.title == "objects of the class nucleus" and not judge.needs_confidence


def test_scorers_of_parts_add_up_to_one_of_all():
    whole, first, second = scorer(), scorer(), scorer()
    chance = np.random.default_rng(0)
    for number in range(4):
        instances = chance.integers(0, 4, (6, 6)).astype(np.uint16)
        for judge in (whole, (first, second)[number % 2]):
            feed(judge, instances, instances > 1)
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.scores() == pytest.approx(whole.scores())
    assert first.table() == whole.table()


def test_a_scorer_without_images_and_one_without_objects():
    assert math.isnan(scorer().scores()["f1"]) and math.isnan(scorer().scores()["dsb"])
    judge = scorer()
    feed(judge, BESIDE * 0, BESIDE * 0)
    assert math.isnan(judge.scores()["f1"]) and judge.scores()["dsb"] == 1
    assert len(judge.table()) == 9


def test_other_data_are_refused():
    with pytest.raises(ValueError, match=r"the data have 11 classes \(sky, .*objects are counted where there are two"):
        InstanceScorer(SimpleNamespace(labels=CAMVID))
    with pytest.raises(ValueError, match="the sample has no instances"):
        scorer().update(0, {"mask": BESIDE}, BESIDE.astype(np.uint8), None)


def test_masks_that_hold_cells_apart_merge_none():
    apart, together = scorer(), scorer()
    for sample in (Cells("val", count=4)[index] for index in range(4)):
        feed(apart, sample["instances"], separate(sample["instances"]))
        feed(together, sample["instances"], sample["instances"] > 0)
    assert apart.scores()["merged"] == 0
    assert apart.scores()["touching"] > 20
    assert together.scores()["touching_merged"] > 0.9 * together.scores()["touching"]


def test_the_picture_has_each_object_in_the_colour_of_its_fate():
    truth, predicted = np.zeros((2, 30, 60), np.uint16)
    truth[2:10, 2:10], truth[2:10, 12:20] = 5, 9  # merged
    predicted[2:10, 2:20] = 1
    truth[2:10, 30:50] = 11  # split
    predicted[2:10, 30:39], predicted[2:10, 41:50] = 2, 3
    truth[16:28, 2:14] = predicted[16:28, 2:14] = 12  # found
    truth[16:28, 20:30] = 13  # missed
    predicted[16:28, 40:50] = 14  # spurious
    for channels in (1, 3):
        picture = outlines(np.full((30, 60, channels), 90, np.uint8), truth, predicted, width=240)
        assert picture.shape[1] == 2 * 240 + GAP and picture.dtype == np.uint8
        panels = [picture[HEAD : HEAD + 120, left : left + 240] for left in (0, 240 + GAP)]
        for panel, places in zip(
            panels,
            (
                {(2, 2): "merged", (2, 12): "merged", (2, 30): "split", (16, 2): "found", (16, 20): "missed"},
                {(2, 2): "merged", (2, 30): "split", (2, 41): "split", (16, 2): "found", (16, 40): "spurious"},
            ),
            strict=True,
        ):
            assert (panel[4 * 12, 4 * 25] == 90).all() and (panel[4 * 22, 4 * 8] == 90).all()  # outside, and well inside
            assert {place: tuple(panel[4 * place[0] + 1, 4 * place[1] + 1]) for place in places} == {
                place: COLOURS[kind] for place, kind in places.items()
            }
