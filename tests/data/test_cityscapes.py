"""Cityscapes' scores against the official evaluator, over the same files."""

import copy
import json
import math
import pickle
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from helpers.commands import call
from helpers.extras import needed
from helpers.pictures import save
from segue.checkpoint import Card
from segue.data.cityscapes import CITYSCAPES, CLASS_IDS, LABEL_IDS, Cityscapes
from segue.evaluation import evaluate
from segue.images import read_image, read_mask
from segue.inference import Predictor
from segue.labels import IGNORE, Labels
from segue.metrics.cityscapes import AVERAGE_SIZE, CityscapesScorer, LabelIdScores

SIZE = (40, 60)
ROAD, PERSON, CAR = 7, 24, 26
PLACES = ("aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "zurich/zurich_000121_000019")
Array = NDArray[Any]


@pytest.fixture(scope="module")
def official() -> Any:
    """The official evaluator."""
    with pytest.MonkeyPatch.context() as patch:
        if not hasattr(np, "in1d"):
            patch.setattr(np, "in1d", np.isin, raising=False)  # which the evaluator calls, and NumPy 2.4 no longer has
        yield needed("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


def judge(official: Any, predictions: Iterable[Path], truths: Iterable[Path], quiet: bool = True) -> dict[str, Any]:
    """What the official evaluator says of the files."""
    args = copy.copy(official.args)
    args.JSONOutput, args.quiet, args.colorized, args.bold, args.nocol = False, quiet, False, "", ""
    return official.evaluateImgLists([str(path) for path in predictions], [str(path) for path in truths], args)


def save_case(root: Path, truth: Any, prediction: Any, instances: Any, name: str = "a") -> tuple[Path, Path]:
    """One image's files; gives those of the prediction and of the truth."""
    save(root / f"{name}_gtFine_instanceIds.png", np.atleast_2d(instances).astype(np.uint16))
    save(root / f"{name}_gtFine_labelIds.png", np.atleast_2d(truth).astype(np.uint8))
    save(root / f"{name}_pred.png", np.atleast_2d(prediction).astype(np.uint8))
    return root / f"{name}_pred.png", root / f"{name}_gtFine_labelIds.png"


def draw(random: np.random.Generator, ids: Iterable[int], size: tuple[int, int] = SIZE) -> tuple[Array, Array]:
    """Labels and instances, in rectangles of many sizes of each of the ids; some road users are a group."""
    labels, instances = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
    for running, label in enumerate(random.permutation([*ids] * 3).tolist()):
        top, left = (int(random.integers(0, side)) for side in size)
        height, width = random.integers(1, 16, 2)
        place = slice(top, top + height), slice(left, left + width)
        labels[place] = label
        instances[place] = 1000 * label + running if label >= PERSON and random.random() < 0.8 else label
    return labels, instances


def count(truth: Any, prediction: Any, instances: Any = None) -> LabelIdScores:
    scores = LabelIdScores(LABEL_IDS)
    scores.update(*map(np.atleast_2d, (truth, prediction)), None if instances is None else np.atleast_2d(instances))
    return scores


def assert_equal(ours: LabelIdScores, theirs: dict[str, Any]) -> None:
    """Every score to the last bit; one that segue does not give is officially nan."""
    for mine, field in (
        (ours.class_iou, "classScores"),
        (ours.class_iiou, "classInstScores"),
        (ours.category_iou, "categoryScores"),
        (ours.category_iiou, "categoryInstScores"),
    ):
        assert {*mine} <= {*theirs[field]}
        for name, score in theirs[field].items():
            assert mine.get(name, math.nan) == pytest.approx(score, rel=1e-15, abs=0, nan_ok=True), (field, name)


def score_files(pairs: Iterable[tuple[Path, Path]]) -> LabelIdScores:
    scores = LabelIdScores(LABEL_IDS)
    for prediction, truth in pairs:
        instances = np.array(PIL.Image.open(str(truth).replace("labelIds", "instanceIds")))
        scores.update(read_mask(truth), read_mask(prediction), instances)
    return scores


class TestAgainstTheOfficialEvaluator:
    def test_the_tables_are_the_same(self, official: Any) -> None:
        scored = {label.id: (label.name, label.trainId, label.category) for label in official.labels if not label.ignoreInEval}
        assert {label: (name, number, where) for label, name, number, where in LABEL_IDS if number != IGNORE} == scored
        assert {label: (name, where) for label, name, _, where in LABEL_IDS} == {
            label.id: (label.name, label.category) for label in official.labels
        }
        assert {name: official.args.avgClassSize[name] for name in AVERAGE_SIZE} == AVERAGE_SIZE

    @pytest.mark.parametrize("predicted", [CLASS_IDS.tolist(), range(34)], ids=["the 19 classes", "all 34 labels"])
    @pytest.mark.parametrize("true", [CLASS_IDS.tolist(), range(34), [0, 3, 7, 11, 24, 26, 29]])
    def test_images_with_instances_groups_and_ignored_labels(
        self, official: Any, true: Iterable[int], predicted: Iterable[int], tmp_path: Path
    ) -> None:
        random = np.random.default_rng(0)
        pairs = []
        for i in range(6):
            truth, instances = draw(random, true)
            prediction = np.where(random.random(SIZE) < 0.6, truth, draw(random, predicted)[0])
            prediction = np.where(np.isin(prediction, predicted), prediction, ROAD)
            pairs.append(save_case(tmp_path, truth, prediction, instances, str(i)))
        ours = score_files(pairs)
        assert_equal(ours, judge(official, *zip(*pairs, strict=True)))
        assert 0 < ours.category_iiou["vehicle"] < 1

    @pytest.mark.parametrize(
        ("truth", "prediction", "instances"),
        [
            pytest.param([7, 7, 23], [7, 23, 23], [7, 7, 23], id="seventeen classes are absent"),
            pytest.param([0, 1, 4, 29], [7, 7, 26, 33], [0, 1, 4, 29001], id="the truth is void alone"),
            pytest.param([7, 7, 7], [26, 26, 7], [7, 7, 7], id="a class is predicted that is not there"),
            pytest.param([26, 26, 7], [26, 7, 26], [26, 26, 7], id="cars in a group alone"),
            pytest.param([26, 26, 26, 26, 7], [26, 7, 26, 26, 7], [26001, 26002, 26002, 26, 7], id="a car of one pixel"),
            pytest.param([26, 26, 7], [29, 30, 29], [26000, 26000, 7], id="caravans are a hit of the vehicles' iIoU"),
            pytest.param([29, 29, 7], [29, 26, 26], [29001, 29002, 7], id="instances that are not scored"),
            pytest.param([26, 26, 26], [9, 0, 26], [26001, 26001, 26001], id="misses by labels that are not scored"),
            pytest.param([24, 24, 7], [25, 24, 7], [24001, 25001, 7], id="the instances have another label"),
            pytest.param([0, 1, 7], [0, 0, 7], [1000, 1001, 5002], id="numbers of a thousand and of void"),
            pytest.param([24, 25], [25, 24], [24000, 25000], id="riders for persons"),
        ],
    )
    def test_case(self, official: Any, truth: Any, prediction: Any, instances: Any, tmp_path: Path) -> None:
        pair = save_case(tmp_path, truth, prediction, instances)
        assert_equal(count(truth, prediction, instances), judge(official, pair[:1], pair[1:]))

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_any_maps(self, official: Any, tmp_path: Path, data: st.DataObject) -> None:
        shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
        ids = st.integers(0, 33)
        truth, prediction = (data.draw(arrays(np.uint8, shape, elements=ids, fill=ids)) for _ in range(2))
        numbers = st.sampled_from([*range(34), 1000, *(1000 * label + i for label in range(24, 34) for i in (0, 1, 999))])
        instances = data.draw(arrays(np.uint16, shape, elements=numbers, fill=numbers))
        pair = save_case(tmp_path, truth, prediction, instances)
        assert_equal(count(truth, prediction, instances), judge(official, pair[:1], pair[1:]))

    @pytest.mark.parametrize("label", [34, 128, 255])
    def test_both_refuse_labels_out_of_range(self, official: Any, label: int, tmp_path: Path) -> None:
        """In the truth and predicted, even where the truth is void."""
        for name, truth, prediction in (("truth", [label, 7], [7, 7]), ("prediction", [0, 7], [label, 7])):
            pair = save_case(tmp_path, truth, prediction, [0, 7])
            with pytest.raises((SystemExit, IndexError)):
                judge(official, pair[:1], pair[1:])
            with pytest.raises(ValueError, match=f"{name} has the label {label}"):
                count(truth, prediction, [0, 7])

    @pytest.mark.parametrize(
        ("number", "message"), [(34001, "number 34001, but the largest id is 33"), (7001, "id 7, road; only person, rider, car")]
    )
    def test_both_refuse_instances_of_what_has_none(self, official: Any, number: int, message: str, tmp_path: Path) -> None:
        pair = save_case(tmp_path, [7, 7], [7, 7], [7, number])
        with pytest.raises(KeyError):
            judge(official, pair[:1], pair[1:])
        scores = count([7, 23], [7, 7], [7, 23])
        before = pickle.dumps(scores)
        with pytest.raises(ValueError, match=message):
            scores.update([[7, 7]], [[7, 7]], [[7, number]])
        assert pickle.dumps(scores) == before


def test_instances_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"instances have the shape \(1, 3\), but truth \(1, 2\)"):
        count([7, 7], [7, 7], [7, 7, 7])


def test_an_instance_weighs_as_much_as_an_average_one() -> None:
    """By hand: a car of 1 pixel that is found, one of 3 pixels that is not, 1 pixel of road taken for a car: A / (2 A + 1)."""
    scores = count([26, 26, 26, 26, 7, 7], [26, 7, 7, 7, 26, 7], [26001, 26002, 26002, 26002, 7, 7])
    size = AVERAGE_SIZE["car"]
    assert scores.class_iiou["car"] == pytest.approx(size / (2 * size + 1), rel=1e-12)
    assert scores.class_iou["car"] == 1 / 5


class Reader(torch.nn.Module):
    """A network that predicts class k where the red of a pixel is 10 k."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -((25.5 * x[:, :1] - torch.arange(19.0).view(1, -1, 1, 1)) ** 2)


CARD = Card("enet", CITYSCAPES, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Predictor:
    for read in ("segue.checkpoint.load_checkpoint", "segue.evaluation.run.read_checkpoint"):
        monkeypatch.setattr(read, lambda path: (Reader().eval(), CARD))
    return Predictor.of(Reader(), CARD, "cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The layout of the archives, with every label in the masks."""
    random = np.random.default_rng(1)
    for place in PLACES:
        truth, instances = draw(random, range(34))
        red = np.where(random.random(SIZE) < 0.7, np.searchsorted(CLASS_IDS, truth) % 19, random.integers(0, 19, SIZE))
        image = np.stack([10 * red, *random.integers(0, 256, (2, *SIZE))], axis=-1).astype(np.uint8)
        save(tmp_path / "leftImg8bit" / "val" / f"{place}_leftImg8bit.png", image)
        save(tmp_path / "gtFine" / "val" / f"{place}_gtFine_labelIds.png", truth)
        save(tmp_path / "gtFine" / "val" / f"{place}_gtFine_instanceIds.png", instances)
    return tmp_path


def printed_rows(text: str) -> list[tuple[str, str, str]]:
    """The rows of the two tables that the official evaluator prints."""
    return re.findall(r"^([a-zA-Z ]+?) *: +([\d.]+|nan) +([\d.]+|nan) *$", text, re.MULTILINE)


def scored(predictor: Predictor, root: Path) -> CityscapesScorer:
    samples = Cityscapes(root, "val")
    scorer = CityscapesScorer(samples)
    evaluate(predictor, samples, scorers=[scorer])
    return scorer


def test_a_submission_scores_officially_what_segue_reports(
    reader: Predictor, root: Path, official: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the last printed digit, through the files that `segue predict` writes, found by their names."""
    scorer, out = scored(reader, root), root / "out"
    assert call(monkeypatch, "predict", root / "leftImg8bit", "--out", out, "--cityscapes-submission") == 0
    assert {path.name for path in out.iterdir()} == {f"{Path(place).name}_pred_labelIds.png" for place in PLACES}
    truths = [root / "gtFine" / "val" / f"{place}_gtFine_labelIds.png" for place in PLACES]
    args = copy.copy(official.args)
    args.predictionPath = str(out)
    capsys.readouterr()
    theirs = judge(official, [official.getPrediction(args, str(truth)) for truth in truths], truths, quiet=False)
    printed = printed_rows(capsys.readouterr().out)
    assert len(printed) == 19 + 1 + 7 + 1
    ours = [(name.removeprefix("category "), *(x.replace("-", "nan") for x in row)) for name, *row in scorer.table()[1:]]
    assert [row[1:] for row in ours] == [row[1:] for row in printed]
    assert [row[0] for row in ours if "mean" not in row[0]] == [row[0] for row in printed if row[0] != "Score Average"]
    averages = ("averageScoreClasses", "averageScoreInstClasses", "averageScoreCategories", "averageScoreInstCategories")
    assert [*scorer.scores().values()] == pytest.approx([theirs[name] for name in averages], rel=1e-15)
    assert 0.2 < scorer.scores()["iou_class"] < 0.9


def test_the_mean_iou_is_that_of_the_confusion_matrix(reader: Predictor, root: Path) -> None:
    samples = Cityscapes(root, "val")
    scorer = CityscapesScorer(samples)
    matrix = evaluate(reader, samples, scorers=[scorer])
    assert scorer.scores()["iou_class"] == pytest.approx(matrix.mean_iu, rel=1e-12)


def test_parts_add_up_to_the_whole(reader: Predictor, root: Path) -> None:
    samples = Cityscapes(root, "val")
    whole, parts = scored(reader, root), [CityscapesScorer(samples) for _ in range(3)]
    for index, part in enumerate(parts):
        sample = samples[index]
        part.update(index, sample, reader(sample["image"]))
    total = pickle.loads(pickle.dumps(parts[0]))
    for part in parts[1:]:
        total.merge(pickle.loads(pickle.dumps(part)))
    assert total.scores() == pytest.approx(whole.scores(), rel=1e-12)
    assert total.table() == whole.table()


def test_without_files_of_instances_there_is_no_iiou(reader: Predictor, root: Path) -> None:
    before = scored(reader, root)
    (root / "gtFine" / "val" / f"{PLACES[1]}_gtFine_instanceIds.png").unlink()
    after = scored(reader, root)
    assert {name for name, score in after.scores().items() if math.isnan(score)} == {"iiou_class", "iiou_category"}
    assert [row[:2] for row in after.table()[:-1]] == [row[:2] for row in before.table()]
    assert {row[2] for row in after.table()[1:-1]} == {"-"}
    assert after.table()[-1] == ("no iIoU: 1 images lack their *_instanceIds.png", "", "")


def test_a_licence_plate_is_void(reader: Predictor, root: Path) -> None:
    """Its -1 would be 255 in a file; the official files have none, and the official evaluator stops at it."""
    before = scored(reader, root)
    for place in PLACES:
        path = root / "gtFine" / "val" / f"{place}_gtFine_labelIds.png"
        truth = read_mask(path)
        assert (truth == 0).any()
        save(path, np.where(truth == 0, IGNORE, truth).astype(np.uint8))
    assert scored(reader, root).table() == before.table()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: save(path, np.zeros((4, 5), np.uint16)), r"aachen_000001.*instances have the shape \(4, 5\)"),
        (lambda path: save(path, np.zeros((*SIZE, 3), np.uint8)), "aachen_000001.*instanceIds.png has the mode RGB"),
        (lambda path: path.write_bytes(path.read_bytes()[:90]), "aachen_000001.*instanceIds.png cannot be read"),
    ],
)
def test_instances_that_do_not_fit_are_named(reader: Predictor, root: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(root / "gtFine" / "val" / f"{PLACES[1]}_gtFine_instanceIds.png")
    with pytest.raises(ValueError, match=message):
        scored(reader, root)


def test_a_prediction_that_is_no_class_is_refused(root: Path) -> None:
    samples = Cityscapes(root, "val")
    with pytest.raises(ValueError, match="prediction has the label 19, but there are 19 classes, 0 to 18"):
        CityscapesScorer(samples).update(0, samples[0], np.full(SIZE, 19, np.uint8))


class TestEvaluateCommand:
    def test_prints_and_records_the_benchmark(
        self, reader: Predictor, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scorer, out = scored(reader, root), root / "report"
        assert call(monkeypatch, "evaluate", "enet-camvid", "cityscapes", "--root", root, "--out", out) == 0
        printed = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
        assert all([*row] in printed for row in scorer.table())
        scores = json.loads((out / "scores.json").read_text())["scorers"][scorer.title]
        assert scores == pytest.approx(scorer.scores())
        assert "| mean of the categories |" in (out / "README.md").read_text()


class TestSubmission:
    def test_holds_ids_at_the_images_own_size(
        self, reader: Predictor, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        photo = root / "leftImg8bit" / "val" / f"{PLACES[0]}_leftImg8bit.png"
        assert call(monkeypatch, "predict", photo, "--out", root / "out", "--cityscapes-submission") == 0
        written = PIL.Image.open(root / "out" / "aachen_000000_000019_pred_labelIds.png")
        assert (written.mode, written.size) == ("L", SIZE[::-1])
        assert np.array_equal(np.array(written), CLASS_IDS[read_image(photo)[..., 0] // 10])
        captured = capsys.readouterr()
        assert f"{photo} is 60 x 40 pixels; the server takes 2048 x 1024 alone" in captured.err
        assert f"zip -j submission.zip {root / 'out'}/*_pred_labelIds.png" in captured.out

    def test_of_the_full_size_is_not_complained_about(
        self, reader: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(Predictor, "__call__", lambda *_: np.full((1024, 2048), 13, np.uint8))
        photo = save(tmp_path / "berlin_000000_000019_leftImg8bit.png", np.zeros((*SIZE, 3), np.uint8))
        assert call(monkeypatch, "predict", photo, "--out", tmp_path / "out", "--cityscapes-submission") == 0
        assert capsys.readouterr().err == ""
        written = read_mask(tmp_path / "out" / "berlin_000000_000019_pred_labelIds.png")
        assert (written.shape, {*written.reshape(-1)}) == ((1024, 2048), {CAR})

    @pytest.mark.parametrize(
        "name", ["photo.png", "berlin_0_19.png", "berlin_000000_0000190.png", "_000000_000019_leftImg8bit.png"]
    )
    def test_needs_names_of_cityscapes(
        self, reader: Predictor, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        save(tmp_path / "in" / name, np.zeros((*SIZE, 3), np.uint8))
        assert call(monkeypatch, "predict", tmp_path / "in", "--out", tmp_path / "out", "--cityscapes-submission") == 2
        assert f"{name} has no name of Cityscapes' kind, such as berlin_000000_000019" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_has_one_file_a_frame(
        self, reader: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The server refuses two."""
        for name in ("ulm_000000_000019_leftImg8bit.png", "ulm_000000_000019_blurred.png"):
            save(tmp_path / name, np.zeros((*SIZE, 3), np.uint8))
        assert call(monkeypatch, "predict", tmp_path, "--out", tmp_path / "out", "--cityscapes-submission") == 2
        assert "would both become" in capsys.readouterr().err

    def test_needs_the_classes_of_cityscapes(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for names in (["road", "sky"], [*CITYSCAPES.names[::-1]]):
            card = Card("enet", Labels.from_names(names), mean=(0.0,) * 3, std=(1.0,) * 3)
            monkeypatch.setattr("segue.checkpoint.load_checkpoint", lambda path, card=card: (Reader().eval(), card))
            arguments = ("predict", root / "leftImg8bit", "--out", root / "out", "--cityscapes-submission")
            assert call(monkeypatch, *arguments) == 2
            assert "not the 19 of Cityscapes in their order" in capsys.readouterr().err
            assert not (root / "out").exists()
