"""Label maps in files: matched, read and scored as the predictions of a network are."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from helpers.commands import call
from helpers.extras import needed
from helpers.pictures import save
from helpers.training import write_camvid
from segue import create_model, save_checkpoint
from segue.checkpoint import Card
from segue.data.camvid import CAMVID
from segue.data.cityscapes import CLASS_IDS, Cityscapes
from segue.data.samples import DataError
from segue.evaluation import Scorer, create_scorers, evaluate_files
from segue.evaluation.label_maps import LabelMaps
from segue.metrics import ImageMatrices

SIZE = (24, 40)
FRAMES = ("aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "ulm/ulm_000002_000019", "ulm/ulm_000003_000019")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Cityscapes' layout, with all labels and a few cars and persons."""
    random = np.random.default_rng(2)
    for frame in FRAMES:
        truth = random.integers(0, 34, (6, 10)).repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8)
        numbers = 1000 * truth.astype(np.uint16) + random.integers(1, 4, (6, 10)).repeat(4, axis=0).repeat(4, axis=1).astype(
            np.uint16
        )
        save(tmp_path / "data/leftImg8bit/val" / f"{frame}_leftImg8bit.png", np.zeros((*SIZE, 3), np.uint8))
        save(tmp_path / "data/gtFine/val" / f"{frame}_gtFine_labelIds.png", truth)
        save(
            tmp_path / "data/gtFine/val" / f"{frame}_gtFine_instanceIds.png",
            np.where(truth >= 24, numbers, truth).astype(np.uint16),
        )
    return tmp_path / "data"


def write_predictions(root: Path, folder: Path, name: str = "{}_pred_labelIds.png", *, ids: str = "label") -> Path:
    """Half right, half any of the classes."""
    random = np.random.default_rng(3)
    samples = Cityscapes(root, "val")
    for index, frame in enumerate(FRAMES):
        classes = random.integers(0, 19, SIZE).astype(np.uint8)
        right = (samples.mask(index) < 19) & (random.random(SIZE) < 0.5)
        classes[right] = samples.mask(index)[right]
        save(folder / name.format(frame), CLASS_IDS[classes] if ids == "label" else classes)
    return folder


def scored(root: Path, found: Any, ids: str = "") -> tuple[ImageMatrices, list[Scorer]]:
    samples = Cityscapes(root, "val")
    scorers = create_scorers("cityscapes", samples)
    return evaluate_files(found, samples, scorers=scorers, ids=ids, root=root), scorers


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_the_scores_are_the_official_evaluators(root: Path, tmp_path: Path, threads: None) -> None:
    folder = write_predictions(root, tmp_path / "out")
    _, (scorer,) = scored(root, folder)
    with pytest.MonkeyPatch.context() as patch:
        if not hasattr(np, "in1d"):
            patch.setattr(np, "in1d", np.isin, raising=False)  # which the evaluator calls, and NumPy 2.4 no longer has
        official: Any = needed("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
        args = copy.copy(official.args)
        args.JSONOutput, args.quiet, args.predictionPath, args.predictionWalk = False, True, str(folder), None
        truths = [str(root / "gtFine/val" / f"{frame}_gtFine_labelIds.png") for frame in FRAMES]
        theirs = official.evaluateImgLists([official.getPrediction(args, truth) for truth in truths], truths, args)
    names = ("averageScoreClasses", "averageScoreInstClasses", "averageScoreCategories", "averageScoreInstCategories")
    assert [*scorer.scores().values()] == pytest.approx([theirs[name] for name in names], rel=1e-14)
    assert 0.1 < scorer.scores()["iiou_class"] < 0.9


@pytest.mark.parametrize(
    ("name", "written", "ids"),
    [
        ("{}_pred_labelIds.png", "label", ""),
        ("{}_leftImg8bit.png", "train", "train"),  # as segue predict calls them
        ("{}_leftImg8bit.png", "label", "label"),
        ("{}.png", "label", "label"),
        ("{}_gtFine_labelTrainIds.png", "train", ""),
        ("deep/down/{}_x.TIF", "train", "train"),
    ],
)
def test_names_and_numbers_of_others_give_the_same(name: str, written: str, ids: str, root: Path, tmp_path: Path) -> None:
    whole, (scorer,) = scored(root, write_predictions(root, tmp_path / "whole"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/readme.txt").write_text("")
    (tmp_path / "other/aachen_000000_000019_overlay.jpg").write_text("")
    other, (others,) = scored(root, write_predictions(root, tmp_path / "other", name, ids=written), ids)
    assert sorted(whole) == sorted(other) == [f"leftImg8bit/val/{frame}_leftImg8bit.png" for frame in FRAMES]
    assert (whole.total.counts == other.total.counts).all()
    assert scorer.table() == others.table()


def test_numbers_that_may_be_either_are_asked_for(root: Path, tmp_path: Path) -> None:
    folder = write_predictions(root, tmp_path / "out", "{}.png")
    with pytest.raises(
        DataError, match=r"aachen_000000_000019\.png does not tell .* --ids train for class numbers, 0 to 18.* label"
    ):
        scored(root, folder)
    with pytest.raises(DataError, match=r"ids \(='ids'\) must be one of train, label"):
        scored(root, folder, "ids")
    with pytest.raises(ValueError, match=r"aachen_000000_000019\.png: prediction has the label .* say --ids label"):
        scored(root, folder, "train")


def test_a_label_that_is_not_scored_may_be_predicted_where_nothing_is(root: Path, tmp_path: Path) -> None:
    folder = write_predictions(root, tmp_path / "out")
    before, (scorer,) = scored(root, folder)
    path = folder / f"{FRAMES[1]}_pred_labelIds.png"
    void = Cityscapes(root, "val").mask(1) == 255
    prediction = np.array(PIL.Image.open(path))
    save(path, np.where(void, 4, prediction).astype(np.uint8))
    after, (others,) = scored(root, folder)
    assert (before.total.counts == after.total.counts).all()
    assert scorer.table() == others.table()
    save(path, np.full(SIZE, 4, np.uint8))
    with pytest.raises(ValueError, match=rf"{path} has the label 4, which is not scored, .*LabelIdScores.* --ids train"):
        scored(root, folder)


def test_label_maps_beside_scores_of_another_program_are_read(root: Path, tmp_path: Path) -> None:
    folder = write_predictions(root, tmp_path / "out")
    before, _ = scored(root, folder)
    for place in (folder, folder / "ulm"):
        (place / "scores.json").write_text("{}")
        save(place / "comparison.png", np.zeros((2, 2), np.uint8))
    assert (before.total.counts == scored(root, folder)[0].total.counts).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (f"{FRAMES[2]}_pred_labelIds.png", None, r"1 of 4 images have no label map in .*ulm_000002_000019\.png"),
        ("bonn_000000_000019_labelIds.png", np.zeros(SIZE, np.uint8), r"bonn.*\.png is of no image .*; move it away"),
        ("ulm_000002_000019_labelIds.png", np.zeros(SIZE, np.uint8), r"_pred_labelIds\.png and .* are both of .*; keep"),
        (f"{FRAMES[0]}_pred_labelIds.png", np.zeros((12, 20), np.uint8), "aachen_000000.* is 20 x 12 pixels .* is 40 x 24"),
        (f"{FRAMES[0]}_pred_labelIds.png", np.zeros((*SIZE, 3), np.uint8), "aachen_000000.* mode RGB"),
        (f"{FRAMES[0]}_pred_labelIds.png", np.full(SIZE, 300, np.uint16), "aachen_000000.*300"),
        (f"{FRAMES[3]}_pred_labelIds.png", np.full(SIZE, 34, np.uint8), "ulm_000003.* has the label 34"),
        (f"{FRAMES[3]}_pred_labelIds.png", b"\x89PNG", "ulm_000003.* cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    name: str, content: Any, message: str, root: Path, tmp_path: Path, threads: None
) -> None:  # fmt: skip
    folder = write_predictions(root, tmp_path / "out")
    (folder / name).unlink(missing_ok=True)
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    elif content is not None:
        save(folder / name, content)
    with pytest.raises(ValueError, match=message):
        scored(root, folder)


def test_a_folder_without_label_maps_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        scored(root, tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="neither a checkpoint nor label maps"):
        scored(root, tmp_path / "out")


def test_files_may_be_given_in_their_order(root: Path, tmp_path: Path) -> None:
    folder = write_predictions(root, tmp_path / "out", ids="train")
    paths = sorted(folder.rglob("*.png"))
    whole, _ = scored(root, paths, "train")
    assert (whole.total.counts == scored(root, folder, "train")[0].total.counts).all()
    with pytest.raises(ValueError, match="there are 3 files for 4 samples"):
        scored(root, paths[:3], "train")


def test_images_with_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    class Films(Cityscapes):
        def __init__(self) -> None:
            self.pairs = [(tmp_path / "a/1.png", tmp_path), (tmp_path / "b/1.png", tmp_path), (tmp_path / "b/2.png", tmp_path)]

    for name in ("x/b/1.png", "x/a/1.png", "2.png"):
        save(tmp_path / "out" / name, np.zeros((2, 2), np.uint8))
    maps = LabelMaps(tmp_path / "out", Films(), "train")
    assert [str(path.relative_to(tmp_path / "out")) for path in maps.paths] == ["x/a/1.png", "x/b/1.png", "2.png"]
    (tmp_path / "out/x/a/1.png").rename(tmp_path / "out/1.png")
    with pytest.raises(DataError, match=r"out/1\.png may be of any of 2 images, such as .*a/1\.png; put it in a folder"):
        LabelMaps(tmp_path / "out", Films(), "train")


# ---- the command


def test_what_predict_writes_scores_as_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_camvid(tmp_path / "camvid", train=0, test=0)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "enet", create_model("enet", 11), Card("enet", CAMVID, short_side=40))
    assert call(monkeypatch, "evaluate", tmp_path / "enet", "camvid", "--root", root, "--out", tmp_path / "a") == 0
    assert call(monkeypatch, "predict", tmp_path / "enet", root / "val", "--out", tmp_path / "maps") == 0
    before = capsys.readouterr().out
    for _ in range(2):  # the record in the folder is no label map
        assert call(monkeypatch, "evaluate", tmp_path / "maps", "camvid", "--root", root) == 0
        save(tmp_path / "maps/report/camvid-val/comparison.png", np.zeros((2, 2), np.uint8))
    out, record = capsys.readouterr().out, tmp_path / "maps/report/camvid-val"
    assert out.splitlines()[2:17] == before.splitlines()[2:17]
    assert (record / "images.npz").read_bytes() == (tmp_path / "a/images.npz").read_bytes()
    files, network = (json.loads((folder / "scores.json").read_text()) for folder in (record, tmp_path / "a"))
    assert {*network} - {"processes"} == {*files} - {"label_maps", "ids"}
    for same in ("data", "split", "images", "rule", "scores", "iu", "scorers", "confusion"):
        assert files[same] == network[same]
    assert (files["network"], files["ids"]) == (f"label maps in {tmp_path / 'maps'}", "train")
    assert (record / "sheet.jpg").exists()
    assert call(monkeypatch, "compare", tmp_path / "a", tmp_path / "maps", "--out", tmp_path / "c.png") == 0
    assert "No difference can be shown" in capsys.readouterr().out


def test_label_ids_are_scored_by_the_command(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_predictions(root, tmp_path / "out", "{}.png")
    _, (scorer,) = scored(root, folder, "label")
    args = "evaluate", folder, "cityscapes", "--root", root
    assert call(monkeypatch, *args) == 2
    assert "say --ids train" in capsys.readouterr().err
    assert call(monkeypatch, *args, "--ids", "label") == 0
    scores = json.loads((folder / "report/cityscapes-val/scores.json").read_text())
    assert scores["scorers"][scorer.title] == pytest.approx(scorer.scores())
    assert scores["ids"] == "label"
    assert "mean of the categories" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--report", "page"], "--report asks how likely"),
        (["--split", "train"], "there is no folder"),
        (["--out", "out"], "--out (=out) is the folder of the label maps"),
        (["--out", f"out/{FRAMES[0]}_pred_labelIds.png"], "is a file, so no scores can be written"),
        (["--out", f"out/{FRAMES[0]}_pred_labelIds.png/scores"], "is a file, so no scores can be written"),
    ],
)
def test_what_label_maps_cannot_give_is_refused(
    args: list[str], message: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_predictions(root, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "evaluate", folder, "cityscapes", "--root", root, *args) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "report").exists()


def test_a_name_of_nothing_may_be_meant_for_label_maps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "evaluate", "nowhere", "camvid") == 2
    assert "nor is there a folder of label maps of that name" in capsys.readouterr().err


def test_ids_are_not_for_checkpoints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "evaluate", "enet-camvid", "camvid", "--ids", "train") == 2
    assert "--ids (=train) is for label maps, and enet-camvid is no folder of these" in capsys.readouterr().err
