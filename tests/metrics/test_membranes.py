"""The scores of ISBI-2012 against counts done by hand, and against slow programs that follow the definitions word by word."""

import math
import pickle
from collections import Counter
from itertools import combinations, product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.em import EM
from segue.labels import Labels
from segue.metrics import membranes
from segue.metrics.instances import components
from segue.metrics.membranes import (
    THRESHOLDS,
    MembraneScorer,
    pixel_error,
    rand_error,
    v_info,
    v_rand,
    warping_error,
    whole_warping_error,
)

SCORES = (warping_error, whole_warping_error, rand_error, pixel_error, v_rand, v_info)


def cells(*rows):
    """A map drawn with # for membrane."""
    return np.array([[character != "#" for character in row] for row in rows])


TWO = cells(
    "...#...",
    "...#...",
    "...#...",
    "...#...",
    "...#...",
)
GAP = cells(
    "...#...",
    "...#...",
    ".......",
    "...#...",
    "...#...",
)
SPLIT = cells(
    "...#...",
    "...#...",
    "####...",
    "...#...",
    "...#...",
)


def approx(*values):
    return pytest.approx(values, abs=1e-12)


def scores(truth, prediction):
    return tuple(score(truth, prediction) for score in SCORES)


@pytest.mark.parametrize("truth", [TWO, GAP, SPLIT])
def test_what_is_right_has_no_error(truth):
    assert scores(truth, truth) == scores(truth, 0.2 + 0.7 * truth) == approx(0, 0, 0, 0, 1, 1)


def test_a_gap_of_one_pixel_merges_two_cells():
    # 35 pixels, cells of 15. One pixel too many: F of pixels is 2 * 30 / (30 + 31). Of the pairs of the 30 pixels in cells, the
    # truth has 2 * 15 * 14 / 2 = 210 in one cell, the prediction all, 30 * 29 / 2 = 435: F = 2 * 210 / (210 + 435). With each
    # pixel and itself, in order: 2 * 15^2 = 450 and 30^2 = 900. Nothing is learned from one segment: the information is 0.
    expected = (1 / 35, 1 / 35, 1 - 420 / 645, 1 - 60 / 61, 900 / 1350, 0)
    assert scores(TWO, GAP) == approx(*expected)


def test_a_membrane_too_many_splits_a_cell():
    # Three pixels of one cell of 15 are membrane, with 6 on each side. Pairs in both: 105 + 15 + 15, in the truth 210, in the
    # prediction 135. After thinning the line stays, as both halves reach it at once: 3 segments of one pixel. Squares:
    # 225 + 36 + 36 + 3, in the truth 450. Warping takes two pixels of the line, until one more would part the cell.
    halves, single = 6 / 30, 1 / 30
    entropy = -0.5 * math.log(0.5) - 2 * halves * math.log(halves) - 3 * single * math.log(single)
    expected = (1 / 35, 1 / 35, 1 - 270 / 345, 1 - 54 / 57, 600 / 750, 2 * math.log(2) / (math.log(2) + entropy))
    assert scores(TWO, SPLIT) == approx(*expected)


def test_a_membrane_that_is_moved_or_wide_is_no_error_of_warping():
    moved = cells(*["....#.."] * 5)
    wide = cells(*["..###.."] * 5)
    assert warping_error(TWO, moved) == warping_error(TWO, wide) == whole_warping_error(TWO, moved) == 0
    assert pixel_error(TWO, moved) == pytest.approx(5 / 30)
    assert pixel_error(TWO, wide) == pytest.approx(1 - 40 / 50)
    # Thinning fills the cells again up to the middle: what is wide loses nothing.
    assert rand_error(TWO, wide) == pytest.approx(1 - 2 * 90 / (210 + 90))
    assert (v_rand(TWO, wide), v_info(TWO, wide)) == approx(1, 1)


def test_a_gap_in_a_thick_membrane_costs_warping_one_line():
    truth = cells(*[".....###....."] * 6)
    gap = cells(*[".....###....."] * 2, *["............."] * 2, *[".....###....."] * 2)
    assert warping_error(truth, gap) == whole_warping_error(truth, gap) == pytest.approx(2 / 78)


def test_a_cell_that_is_lost_is_no_split_and_a_hole_no_merger():
    hole = cells(".......", ".......", "...#...", ".......", ".......")
    whole = np.ones((5, 7), bool)
    assert (warping_error(whole, hole), whole_warping_error(whole, hole)) == approx(0, 1 / 35)
    assert (warping_error(hole, whole), whole_warping_error(hole, whole)) == approx(0, 1 / 35)
    island = cells("#######", "#.###.#", "#.###.#", "#######", "#######")
    lost = cells("#######", "#.#####", "#.#####", "#######", "#######")
    assert (warping_error(island, lost), whole_warping_error(island, lost)) == approx(0, 1 / 35)
    assert (warping_error(lost, island), whole_warping_error(lost, island)) == approx(0, 2 / 35)  # each of the two makes one
    assert warping_error(TWO, np.zeros((5, 7))) == 0  # as the documentation warns
    assert whole_warping_error(TWO, np.zeros((5, 7))) == pytest.approx(2 / 35)


def test_without_cells():
    nothing = np.zeros((4, 5), bool)
    assert pixel_error(nothing, nothing) == 0
    assert pixel_error(nothing, ~nothing) == 1
    assert all(
        math.isnan(score(nothing, prediction)) for score in (rand_error, v_rand, v_info) for prediction in (nothing, ~nothing)
    )
    assert pixel_error(~nothing, nothing) == 1
    assert rand_error(~nothing, nothing) == 1  # 20 segments of one pixel: no pair
    assert v_rand(~nothing, nothing) == pytest.approx(2 * 20 / (20 + 400))
    assert (rand_error(~nothing, ~nothing), v_rand(~nothing, ~nothing), v_info(~nothing, ~nothing)) == approx(0, 1, 1)


def test_the_best_threshold_counts():
    probability = np.where(TWO, 0.75, 0.65)  # right above 0.65 and below 0.75
    probability[0, 0] = 0.1
    assert pixel_error(TWO, probability) == pytest.approx(1 - 58 / 59)
    assert pixel_error(TWO, np.where(TWO, 0.78, 0.72)) == pytest.approx(5 / 65)  # between the thresholds: all cell, 2 * 30 / 65
    assert warping_error(TWO, probability) == 0


@pytest.mark.parametrize(
    ("truth", "probability", "message"),
    [
        (TWO, TWO[1:], r"truth \(shape \(5, 7\)\) and probability \(shape \(4, 7\)\) must be of one height and width"),
        (TWO[None], TWO[None], "must be of one height and width"),
        (TWO[:0], TWO[:0], "must be of one height and width"),
        (TWO * 255, TWO, r"truth \(=\[  0 255\].*\) must be 1 on cells"),
        (TWO, TWO * 255, r"probability \(=0.0 to 255.0\) must be from 0 to 1"),
        (TWO, np.full(TWO.shape, np.nan), r"probability \(=nan to nan\) must be from 0 to 1"),
    ],
)
@pytest.mark.parametrize("score", SCORES)
def test_bad_arguments_are_named(score, truth, probability, message):
    with pytest.raises(ValueError, match=message):
        score(truth, probability)


# The definitions, word by word, on maps small enough.

small_maps = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.6, 0.8]))


def draw(height, width, seed, share):
    chance = np.random.default_rng(seed)
    return chance.random((height, width)) < share, chance.integers(0, 11, (height, width)) / 10


def flood(inside, eight=False):
    """Each pixel's part, as the set of its pixels."""
    parts = {}
    for start in zip(*np.nonzero(inside), strict=True):
        if start in parts:
            continue
        part, front = {start}, [start]
        while front:
            y, x = front.pop()
            for dy, dx in product((-1, 0, 1), repeat=2):
                near = (y + dy, x + dx)
                fits = 0 <= near[0] < inside.shape[0] and 0 <= near[1] < inside.shape[1]
                if (eight or 0 in (dy, dx)) and fits and inside[near] and near not in part:
                    part.add(near)
                    front.append(near)
        parts |= dict.fromkeys(part, frozenset(part))
    return parts


def thin(inside):
    """The part of each pixel after thinning, or the pixel itself where it stays membrane."""
    segment, border = dict(flood(inside)), set()
    while True:
        reached = {}
        for y, x in set(np.ndindex(inside.shape)) - segment.keys() - border:
            beside = {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)}
            parts = {segment[pixel] for pixel in beside & segment.keys()}
            if parts or beside & border:
                reached[y, x] = parts
        if not reached:
            return {pixel: segment.get(pixel, pixel) for pixel in np.ndindex(inside.shape)}
        segment |= {pixel: next(iter(parts)) for pixel, parts in reached.items() if len(parts) == 1}
        border |= {pixel for pixel, parts in reached.items() if len(parts) != 1}


@settings(max_examples=60, deadline=None)
@given(small_maps)
def test_rand_error_is_that_of_all_pairs(drawn):
    truth, probability = draw(*drawn)
    parts = flood(truth)
    best = 0
    for threshold in THRESHOLDS:
        found = flood(probability > threshold)
        together = Counter()
        for one, other in combinations(parts, 2):
            true = parts[one] == parts[other]
            predicted = one in found and found[one] == found.get(other)
            together += Counter({"both": true and predicted, "true": true, "predicted": predicted})
        total = together["true"] + together["predicted"]
        best = max(best, 2 * together["both"] / total if total else 1)  # type: ignore[assignment]
    expected = 1 - best if truth.any() else math.nan
    assert rand_error(truth, probability) == pytest.approx(expected, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(small_maps)
def test_v_scores_are_those_of_shares_after_thinning(drawn):
    truth, probability = draw(*drawn)
    parts, pixels = flood(truth), max(1, int(truth.sum()))
    rand, info = [], []
    for threshold in THRESHOLDS:
        thinned = thin(probability > threshold)
        segment = {pixel: thinned[pixel] for pixel in parts}
        s, t = ([share / pixels for share in Counter(which.values()).values()] for which in (segment, parts))
        p = [share / pixels for share in Counter((segment[pixel], parts[pixel]) for pixel in parts).values()]
        if parts:
            rand.append(sum(x * x for x in p) / (0.5 * sum(x * x for x in s) + 0.5 * sum(x * x for x in t)))
            h_s, h_t, h_p = (-sum(x * math.log(x) for x in shares) for shares in (s, t, p))
            info.append((h_s + h_t - h_p) / (0.5 * h_s + 0.5 * h_t) if h_s + h_t else 1)
    expected = (max(rand), max(info)) if parts else (math.nan, math.nan)
    assert (v_rand(truth, probability), v_info(truth, probability)) == pytest.approx(expected, nan_ok=True)


def topology(warped):
    """Cells and membranes, of a map with its rim."""
    return len(set(flood(warped == 1).values())), len(set(flood(warped == 0, eight=True).values()))


def is_simple(warped, y, x):
    """By the two topological numbers of Bertrand and Malandain (1994)."""
    around = warped[y - 1 : y + 2, x - 1 : x + 2].copy()
    around[1, 1] = 2
    crosses = {(0, 1), (1, 0), (1, 2), (2, 1)}
    cells_near = {part for part in flood(around == 1).values() if part & crosses}
    return len(cells_near) == len(set(flood(around == 0, eight=True).values())) == 1


def test_a_pixel_is_flipped_if_it_is_simple():
    ring = np.array([y * 3 + x for y, x in membranes.RING])
    for bits in product((0, 1), repeat=9):
        around = np.array(bits, np.uint8)
        flipped = around.copy()
        left = membranes.flip_simple(flipped, np.array([4]), ring + 0)
        simple = is_simple(around.reshape(3, 3), 1, 1)
        assert (left == 0) == simple == (flipped[4] != around[4])


@settings(max_examples=60, deadline=None)
@given(small_maps)
def test_warping_keeps_cells_and_membranes_and_goes_as_far_as_it_can(drawn):
    truth, probability = draw(*drawn)
    for threshold in (0.2, 0.5):
        warped, left = membranes.warp(truth, probability, threshold)
        target = np.pad(probability > threshold, 1)
        assert topology(warped) == topology(np.pad(truth, 1))
        assert sorted(left) == np.flatnonzero(warped != target).tolist()
        places = [divmod(int(place), warped.shape[1]) for place in left]
        assert not any(is_simple(warped, y, x) for y, x in places)
        wrong = 0
        for y, x in places:
            before, flipped = flood(warped == 1), warped.copy()
            flipped[y, x] ^= 1
            beside = {before.get((y + dy, x + dx)) for dy, dx in product((-1, 0, 1), repeat=2) if dy or dx} - {None}
            parted = warped[y, x] == 1 and topology(flipped)[0] > topology(warped)[0]
            wrong += len(beside) > 1 or parted
        assert membranes.count_topology(truth, probability, threshold) == (wrong, len(left))


@pytest.mark.parametrize(("sure", "unsure"), [(3, 4), (4, 3)])
def test_the_surest_pixels_are_flipped_first(sure, unsure):
    truth = cells("...##...")
    probability = np.full(truth.shape, 0.95)
    probability[0, sure], probability[0, unsure] = 0.9, 0.6
    warped, left = membranes.warp(truth, probability, 0.5)
    assert np.flatnonzero(warped[1, 1:-1] == 0).tolist() == [unsure]
    assert left.tolist() == [warped.shape[1] + 1 + unsure]


def test_compiled_and_plain_programs_agree():
    truth, probability = draw(12, 13, 5, 0.7)
    grown = np.pad(components(probability > 0.7), 1, constant_values=-1)
    places = np.flatnonzero(grown > 0)
    queue, numbers = np.zeros((2, truth.size), np.int64)
    queue[: len(places)] = places
    membranes.grow(grown.reshape(-1), grown.shape[1], queue, len(places), numbers)
    np.testing.assert_array_equal(np.maximum(grown[1:-1, 1:-1], 0), membranes.thin(components(probability > 0.7)))


# The scorer.


def samples(labels=EM):
    return SimpleNamespace(labels=labels)


def update(scorer, truth, probability, swap=False):
    """Feed a scorer with a probability of cell as an evaluation does: a class and its confidence."""
    membrane = (probability <= 0.5) if not swap else (probability > 0.5)
    mask = truth if swap else ~truth
    confidence = np.maximum(probability, 1 - probability).astype(np.float32)
    scorer.update(
        0, {"image": np.zeros((*truth.shape, 1), np.uint8), "mask": mask.astype(np.uint8)}, membrane.astype(np.uint8), confidence
    )


def slices():
    chance = np.random.default_rng(3)
    for _ in range(3):
        yield chance.random((9, 8)) < 0.7, (chance.integers(0, 32, (9, 8)) * 2 + 1) / 64  # nothing on a threshold


def test_a_scorer_of_one_slice_gives_what_the_functions_give():
    for truth, probability in slices():
        for labels, swap in ((EM, False), (Labels(EM.names[::-1], EM.palette), True)):
            scorer = MembraneScorer(samples(labels))
            update(scorer, truth, probability, swap)
            assert scorer.scores() == pytest.approx({score.__name__: score(truth, probability) for score in SCORES})


def test_a_scorer_sums_over_slices_at_each_threshold():
    scorer = MembraneScorer(samples())
    empty = np.zeros((4, 4), bool)
    pixels, pairs, info = np.zeros((10, 3)), np.zeros((10, 3)), np.zeros((10, 3))
    for number, (truth, probability) in enumerate(slices()):
        update(scorer, truth, probability)
        for i, threshold in enumerate(THRESHOLDS):
            found = probability > threshold
            pixels[i] += membranes.count_pixels(truth, found)
            pairs[i] += membranes.count_pairs(membranes.segments(components(truth), components(found)))
            thinned = membranes.thin(components(found))
            info[i, number] = membranes.information(membranes.segments(components(truth), thinned))
    assert scorer.scores()["v_info"] == pytest.approx(info.mean(axis=1).max())
    update(scorer, empty, empty + 0.03)  # has no cell to be right about, but 16 pixels of cell above 0
    pixels[0, 2] += 16
    result = scorer.scores()
    assert result["pixel_error"] == pytest.approx(1 - (2 * pixels[:, 0] / pixels[:, 1:].sum(axis=1)).max())
    assert result["rand_error"] == pytest.approx(1 - (2 * pairs[:, 0] / pairs[:, 1:].sum(axis=1)).max())
    assert result["v_info"] == pytest.approx(info.mean(axis=1).max())
    assert scorer.size == 3 * 72 + 16


def test_scorers_of_parts_add_up_to_one_of_all():
    whole, first, second = (MembraneScorer(samples()) for _ in range(3))
    for number, (truth, probability) in enumerate(slices()):
        update(whole, truth, probability)
        update(first if number % 2 else second, truth, probability)
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.scores() == pytest.approx(whole.scores())
    assert first.table() == whole.table()


def test_the_table_names_the_scores_and_the_best_thresholds():
    scorer = MembraneScorer(samples())
    update(scorer, TWO, np.where(TWO, 0.75, 0.67))
    table = scorer.table()
    assert table[0] == ("score", "value", "at the threshold")
    assert {name: (value, at) for name, value, at in table[1:]}["pixel error"] == ("0.000000", "0.7")
    assert scorer.needs_confidence and "ISBI" in scorer.title


def test_a_scorer_without_slices_gives_nan():
    scorer = MembraneScorer(samples())
    assert all(math.isnan(score) for score in scorer.scores().values())
    assert len(scorer.table()) == 7


def test_other_data_are_refused():
    with pytest.raises(ValueError, match="the data have the classes a, b; membranes are scored where"):
        MembraneScorer(samples(Labels(("a", "b"), EM.palette)))
    scorer = MembraneScorer(samples())
    mask = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="the confidence of each pixel is needed"):
        scorer.update(0, {"mask": mask}, mask, None)
    with pytest.raises(ValueError, match=r"the mask has pixels to ignore \(255\)"):
        scorer.update(0, {"mask": mask + 255}, mask, np.ones((2, 2), np.float32))
