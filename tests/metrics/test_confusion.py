"""The matrix against its plain definition, the scores against the formulas of Long et al., and the ways to count wrongly."""

import json
import warnings

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.metrics import ConfusionMatrix, confusion

LAYOUTS = {
    "contiguous": lambda labels: labels,
    "transposed": lambda labels: labels.T.copy().T,
    "backwards": lambda labels: np.flip(np.flip(labels).copy()),
    "every other": lambda labels: np.repeat(labels[..., None], 2, axis=-1)[..., 0],
    "read-only": lambda labels: np.frombuffer(labels.tobytes(), labels.dtype).reshape(labels.shape),
}
FORMS = st.tuples(st.sampled_from(["u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i2", ">u4"]), st.sampled_from(sorted(LAYOUTS)))


def matrix_of(classes, *maps):
    matrix = ConfusionMatrix([f"class {i}" for i in range(classes)])
    for truth, prediction in maps:
        matrix.update(truth, prediction)
    return matrix


def plain_counts(truth, prediction, classes):
    """n_ij, the number of pixels of class i predicted to belong to class j."""
    n = np.zeros((classes, classes), int)
    for i, j in zip(truth.flat, prediction.flat, strict=True):
        if i != 255:
            n[i, j] += 1
    return n


def draw_maps(seed, classes, shape, run=1, ignored=0.2):
    """Stretches of `run` equal labels, some of them ignored; where the truth is, the prediction is anything at all."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))

    def stretches(values):
        return np.repeat(values, run)[:size].reshape(shape).astype(np.uint8)

    truth, prediction = (stretches(rng.integers(0, classes, size // run + 1)) for _ in range(2))
    void = stretches(rng.random(size // run + 1) < ignored) > 0
    truth = np.where(void, 255, truth).astype(np.uint8)
    prediction = np.where(void, rng.integers(0, 256, shape), prediction).astype(np.uint8)
    return truth, prediction


@settings(deadline=None, max_examples=120, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 12) | st.sampled_from([19, 64, 254, 255]),
    shape=st.lists(st.integers(0, 20), max_size=3),
    run=st.sampled_from([1, 3, 64, 100, 1000]),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    truth_form=FORMS,
    prediction_form=FORMS,
)
def test_counts_are_those_of_the_plain_definition(seed, classes, shape, run, ignored, truth_form, prediction_form):
    maps = draw_maps(seed, classes, tuple(shape), run, ignored)
    forms = [
        LAYOUTS[layout](labels.astype(dtype)) for labels, (dtype, layout) in zip(maps, (truth_form, prediction_form), strict=True)
    ]
    matrix = matrix_of(classes, forms)
    assert (matrix.counts == plain_counts(*maps, classes)).all()
    assert matrix.counts.dtype == np.int64


@settings(deadline=None, max_examples=60, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 9), size=st.integers(1, 60), shown=st.integers(1, 9))
def test_scores_are_the_formulas_of_the_paper(seed, classes, size, shown):
    """Section 5 of Long et al. as its authors compute them: of what is 0 / 0, nothing is in a mean."""
    matrix = matrix_of(classes, draw_maps(seed, min(shown, classes), (size,), ignored=0.1))
    n = matrix.counts
    t = n.sum(axis=1)
    with np.errstate(invalid="ignore"):
        accuracy, iu = np.diag(n) / t, np.diag(n) / (t + n.sum(axis=0) - np.diag(n))
        share = t / t.sum()
        expected = {"acc": np.diag(n).sum() / t.sum(), "fw_iu": (share[share > 0] * iu[share > 0]).sum()}
    np.testing.assert_allclose(matrix.acc_per_class, accuracy)
    np.testing.assert_allclose(matrix.iu, iu)
    if n.any():
        expected |= {"acc_cls": np.nanmean(accuracy), "mean_iu": np.nanmean(iu)}
        assert matrix.scores() == pytest.approx(expected)


def test_a_class_in_neither_truth_nor_prediction_is_left_out_and_one_wrongly_predicted_is_not():
    """Five classes, of which 3 and 4 are not in the truth; B is A but for 20 pixels wrongly called class 4."""
    truth, a = draw_maps(0, 3, (40, 50), run=7)
    b = a.copy()
    b[tuple(np.argwhere((truth == a) & (truth == 0))[:20].T)] = 4
    a, b = matrix_of(5, (truth, a)), matrix_of(5, (truth, b))
    assert np.isnan(a.iu[3:]).all()
    assert a.mean_iu == pytest.approx(a.iu[:3].sum() / 3)
    assert np.isnan(b.iu[3]) and b.iu[4] == 0
    assert b.mean_iu == pytest.approx(b.iu[:3].sum() / 4)
    assert b.iu[0] < a.iu[0] and (b.iu[1:3] == a.iu[1:3]).all()
    assert np.isnan(b.acc_per_class[3:]).all()
    assert b.acc_cls == pytest.approx(b.acc_per_class[:3].mean())


def test_an_empty_matrix_has_no_scores_and_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for matrix in (matrix_of(3), matrix_of(3, (np.full((4, 4), 255, np.uint8), np.zeros((4, 4), np.uint8)))):
            assert all(np.isnan(score) for score in matrix.scores().values())
            assert np.isnan(matrix.iu).all() and np.isnan(matrix.acc_per_class).all()


@pytest.mark.parametrize("what", ["truth", "prediction"])
@pytest.mark.parametrize(
    ("dtype", "wrong"),
    [("u1", 3), ("u1", 254), ("i1", -1), ("i1", 127), ("i2", 256), ("i4", -253), ("i8", 259), ("i8", -(2**40)), ("u8", 2**63)],
)
def test_a_label_that_is_no_class_is_named_and_nothing_is_counted(what, dtype, wrong):
    maps = {name: np.tile(np.arange(3, dtype=dtype), 100).reshape(20, 15) for name in ("truth", "prediction")}
    matrix = matrix_of(3, (maps["truth"], maps["prediction"]))
    before = matrix.counts.copy()
    maps[what][7, 3:5] = wrong
    with pytest.raises(ValueError, match=rf"^{what} has the label {wrong} \(2 pixels\), but there are 3 classes, 0 to 2;"):
        matrix.update(maps["truth"], maps["prediction"])
    assert (matrix.counts == before).all()


def test_255_is_no_class_in_a_prediction():
    with pytest.raises(ValueError, match=r"^prediction has the label 255 \(1 pixels\)"):
        matrix_of(255, (np.uint8([0, 254, 255]), np.uint8([0, 255, 255])))


def test_what_is_predicted_where_the_truth_is_ignored_does_not_matter():
    truth = np.array([0, 255, 255, 255, 1])
    matrix = matrix_of(2, (truth, np.array([0, -1, 300, 7, 0])))
    assert matrix.counts.tolist() == [[1, 0], [1, 0]]


def test_a_binary_mask_may_be_bool_and_maps_may_be_tensors_or_lists():
    truth, prediction = [[0, 1, 1], [0, 0, 1]], [[False, True, False], [True, False, True]]
    for make in (list, np.array, torch.tensor):
        assert matrix_of(2, (make(truth), make(prediction))).counts.tolist() == [[2, 1], [1, 2]]
    with pytest.raises(ValueError, match=r"prediction has the label True \(3 pixels\), but there are 1 classes"):
        matrix_of(1, (np.zeros((2, 3), int), prediction))


def test_maps_of_different_shapes_and_scores_instead_of_labels_are_refused():
    labels = np.zeros((4, 6), np.uint8)
    with pytest.raises(ValueError, match=r"truth has the shape \(4, 6\), but prediction \(6, 4\)"):
        matrix_of(2, (labels, labels.T))
    for floats in (labels.astype(np.float32), torch.zeros(4, 6)):
        with pytest.raises(ValueError, match="prediction has the type float32; label maps are of integers"):
            matrix_of(2, (labels, floats))
        with pytest.raises(ValueError, match="truth has the type float32; label maps are of integers"):
            matrix_of(2, (floats, labels))


@pytest.mark.parametrize("classes", [0, 256])
def test_there_are_as_many_classes_as_labels(classes):
    with pytest.raises(ValueError, match=rf"names \(={classes} of them\) must be 1 to 255"):
        matrix_of(classes)


def test_counting_in_parts_and_adding_is_counting_at_once():
    first, second = draw_maps(1, 4, (30, 40), run=9), draw_maps(2, 4, (17, 5))
    total = matrix_of(4, first) + matrix_of(4, second)
    assert (total.counts == matrix_of(4, first, second).counts).all()
    assert total.counts.sum() > 0
    with pytest.raises(ValueError, match="matrices of different classes: class 0, class 1 and class 0, class 1, class 2"):
        matrix_of(2) + matrix_of(3)


def test_adding_leaves_both_parts_as_they_were():
    part, nothing = matrix_of(4, draw_maps(1, 4, (30, 40))), matrix_of(4)
    total = part + nothing
    total.update(*draw_maps(2, 4, (30, 40)))
    assert (part.counts == matrix_of(4, draw_maps(1, 4, (30, 40))).counts).all()
    assert not nothing.counts.any()


def test_a_matrix_comes_back_from_its_file(tmp_path):
    matrix = matrix_of(4, draw_maps(1, 4, (30, 40)))
    matrix.counts *= 10**12  # more pixels than fit 32 bits
    matrix_of(3).save(tmp_path / "matrix.json")
    matrix.save(tmp_path / "matrix.json")
    loaded = ConfusionMatrix.load(tmp_path / "matrix.json")
    assert loaded.names == matrix.names
    assert loaded.counts.dtype == np.int64 and (loaded.counts == matrix.counts).all()
    assert [path.name for path in tmp_path.iterdir()] == ["matrix.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"names": ["a", "b"], "counts": [[1, 2], [3',
        "[]",
        '{"names": ["a", "b"]}',
        '{"counts": [[1, 2], [3, 4]]}',
        json.dumps({"names": ["a", "b"], "counts": [[1, 2]]}),
        json.dumps({"names": ["a", "b"], "counts": [[1, 2], [3]]}),
        json.dumps({"names": ["a", "b"], "counts": [[1, 2], [3, -4]]}),
        json.dumps({"names": ["a", "b"], "counts": [[1, 2], [3, 4.5]]}),
        json.dumps({"names": ["a", "b"], "counts": [[1, 2], [3, 2**64]]}),
        json.dumps({"names": 2, "counts": [[1, 2], [3, 4]]}),
        json.dumps({"names": [], "counts": []}),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text):
    path = tmp_path / "matrix.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"matrix\.json holds no confusion matrix"):
        ConfusionMatrix.load(path)


def test_it_counts_where_no_machine_code_can_be_kept(monkeypatch):
    """In an image with a read-only file system numba finds no folder for its cache, and refuses `cache=True`."""
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    confusion.compiled_count.cache_clear()
    maps = draw_maps(3, 5, (50, 60), run=30)
    try:
        assert (matrix_of(5, maps).counts == plain_counts(*maps, 5)).all()
    finally:
        confusion.compiled_count.cache_clear()
