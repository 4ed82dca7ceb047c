import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from helpers.commands import call
from helpers.training import as_arguments, tiny_recipe
from segue import Labels, create_model, save_checkpoint
from segue.checkpoint import Card
from segue.cli.console import print_table
from segue.data.camvid import CAMVID
from segue.images import read_image, read_mask, write_image
from segue.recipes import Recipe


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "enet", create_model("enet", 11), Card("enet", CAMVID, short_side=40, training={"seed": 7}))
    return tmp_path / "enet"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, size in (("a.jpg", (50, 70)), ("b.png", (81, 63)), ("more/a.jpg", (40, 40))):
        PIL.Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_help_loads_nothing_that_is_slow() -> None:
    slow = "{'torch', 'numba', 'cv2', 'numpy', 'PIL'}"
    code = f"import sys; sys.argv = ['segue', '--help']; import segue.cli; segue.cli.main(); print({slow} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "segue COMMAND" in result.stdout
    assert result.stdout.endswith("set()\n")


def test_the_help_of_a_command_loads_no_torch() -> None:
    code = """
import contextlib, sys
from segue.cli import COMMANDS, main
for name in COMMANDS:
    sys.argv = ["segue", name, "--help"]
    with contextlib.suppress(SystemExit):
        main()
    if "torch" in sys.modules:
        sys.exit(f"{name} loads torch")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_import_segue_loads_neither_lightning_nor_torch() -> None:
    code = "import sys, segue; print(sorted({'torch', 'pytorch_lightning', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_can_be_imported() -> None:
    import segue

    assert all(getattr(segue, name) for name in segue.__all__)
    assert set(segue.__all__) <= set(dir(segue))
    with pytest.raises(AttributeError, match="trian"):
        segue.trian  # noqa: B018


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], 'no command "trian"; did you mean "train"?'),
        (["train", "enet-camvd", "--out", "x"], 'no recipe "enet-camvd"; did you mean "enet-camvid"?'),
        (["models", "resnet"], 'no model matches "resnet"'),
        (["evaluate", "nowhere", "camvid"], "nowhere is no checkpoint"),
        (["predict", "nowhere.jpg"], "nowhere.jpg is neither an image, nor a folder, nor a checkpoint"),
        (["predict"], "there are no images to label"),
        (["train", "enet-streets", "--crop", "4", "5", "--out", "x"], "crop (=(4, 5)) must be at least 8 x 8"),
        (["train", "enet-streets", "--mean", "0", "--std", "1", "--out", "x"], "the images have 3 channels"),
        (["train", "enet-camvid", "--out", "x"], "say where with --root"),
        (["train", "enet-camvid", "--root", "nowhere", "--out", "x"], "there is no folder nowhere/train"),
        (["train", "enet-camvid", "--data", "camvit", "--out", "x"], 'no data set "camvit"; did you mean "camvid"?'),
        (
            ["train", "enet-camvid", "--network", "enett", "--data", "streets", "--out", "x"],
            'no model "enett"; did you mean "enet"?',
        ),
        (["train", "enet-camvid", "--epochs", "0", "--out", "x"], "epochs (=0) must be at least 1"),
        (
            ["train", "segnet-streets", "--options", "width", "big", "--out", "x"],
            "width (='big') of segnet must be a whole number",
        ),
        (["train", "segnet-streets", "--options", "width", "0", "--out", "x"], "width (=0) of segnet must be a whole number"),
        (["train", "gcn-streets", "--options", "kk", "7", "--out", "x"], 'gcn has no option "kk"; did you mean "k"?'),
        (["train", "enet-camvid", "--epoch", "3", "--out", "x"], "--epochs"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(
    args: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *args) == 2
    captured = capsys.readouterr()
    assert message in captured.out + captured.err
    assert "Traceback" not in captured.err
    assert not Path("x").exists()


def test_models_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert call(monkeypatch, "models", "enet") == 0
    out = capsys.readouterr().out
    assert "364,311" in out
    assert "Real-Time Semantic Segmentation" in out


def test_predict_labels_files_and_folders_at_their_own_size(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call(monkeypatch, "predict", checkpoint, photos, "--out", out) == 0
    for name in ("a.jpg", "b.png", "more/a.jpg"):
        image, mask = read_image(photos / name), read_mask((out / name).with_suffix(".png"))
        assert mask.shape == image.shape[:2]
        assert mask.max() < 11
        assert read_image((out / name).with_name(Path(name).stem + "_overlay.jpg")).shape == image.shape
    assert capsys.readouterr().out.count(" -> ") == 3


def test_predict_goes_on_past_a_broken_file_and_says_so(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "aa.jpg").write_bytes((photos / "a.jpg").read_bytes()[:300])
    (photos / "notes.txt").write_text("no image")
    out = tmp_path / "out"
    assert call(monkeypatch, "predict", checkpoint, photos, "--out", out) == 2
    assert {path.name for path in out.glob("*.png")} == {"a.png", "b.png"}
    err = capsys.readouterr().err
    assert "aa.jpg cannot be read" in err
    assert "1 of 4 images could not be labelled" in err
    assert "notes.txt" in err


def test_predict_overwrites_no_photo(
    checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (photos / "b.png").read_bytes()
    assert call(monkeypatch, "predict", checkpoint, photos, "--out", photos) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert (photos / "b.png").read_bytes() == before
    assert not (photos / "a.png").exists()


def test_predict_takes_the_last_of_a_run_that_has_no_best_yet(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text("{}")
    assert call(monkeypatch, "predict", run, photos, "--out", tmp_path / "out") == 2
    assert "is a run without a checkpoint" in capsys.readouterr().err
    checkpoint.rename(run / "last")
    assert call(monkeypatch, "predict", run, photos, "--out", tmp_path / "out") == 0


def test_predict_leaves_its_own_results_out(checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    for _ in range(2):
        assert call(monkeypatch, "predict", checkpoint, ".") == 0
    assert len(list(Path("predictions").rglob("*.png"))) == 3


def test_two_photos_that_would_share_a_result_are_refused(
    checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copy(photos / "a.jpg", photos / "a.bmp")
    assert call(monkeypatch, "predict", checkpoint, photos, "--out", tmp_path / "out") == 2
    assert "would both become" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_predict_needs_no_checkpoint(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "predict", photos / "a.jpg") == 0
    assert read_mask("predictions/a.png").shape == (50, 70)


def test_train_evaluate_and_predict_end_to_end(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert call(monkeypatch, "train", "enet-camvid", *as_arguments(tiny_recipe(camvid)), "--out", run) == 0
    assert "epoch 2/2" in capsys.readouterr().out
    assert call(monkeypatch, "evaluate", run, "camvid", "--root", camvid, "--split", "test") == 0
    assert "pedestrian" in capsys.readouterr().out
    report = run / "report" / "camvid-test"
    scores = json.loads((report / "scores.json").read_text())
    assert scores["images"] == 3
    assert scores["command"] == f"segue evaluate {run} camvid --root {camvid} --split test"
    assert scores["training"]["command"].startswith("segue train enet-camvid")
    assert f"{scores['scores']['mean_iu']:.3f}" in (report / "README.md").read_text()
    assert read_image(report / "sheet.jpg").shape[1] == 1280
    assert call(monkeypatch, "predict", run, camvid / "test", "--out", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_all_is_written_before_anything_is_printed(
    checkpoint: Path, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*given: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("segue.cli.console.print_table", gone)
    folders = "--out", tmp_path / "out", "--report", tmp_path / "page"
    assert call(monkeypatch, "evaluate", checkpoint, "camvid", "--root", camvid, *folders) == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"scores.json", "README.md", "sheet.jpg", "images.npz"}
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["index.html"]


def test_names_of_classes_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([("class", "[/b]"), ("[red]car", "1"), ("road [/x]", ":car:")])
    out = capsys.readouterr().out
    assert all(name in out for name in ("[/b]", "[red]car", "road [/x]", ":car:"))


def test_evaluate_refuses_a_checkpoint_of_other_classes(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tmp_path / "two", create_model("enet", 2), Card("enet", Labels.from_names(["a", "b"])))
    assert call(monkeypatch, "evaluate", tmp_path / "two", "camvid", "--root", camvid) == 2
    assert "knows 2 classes" in capsys.readouterr().err


def test_predict_draws_the_uncertainty_of_bayesian_segnet(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = create_model("bayesian_segnet", 11, width=4)
    save_checkpoint(tmp_path / "bayes", model, Card("bayesian_segnet", CAMVID, options={"width": 4}))
    out = tmp_path / "out"
    assert call(monkeypatch, "predict", tmp_path / "bayes", photos / "a.jpg", "--out", out, "--samples", 5) == 0
    picture = read_image(out / "a_uncertainty.jpg")
    assert picture.shape == read_image(photos / "a.jpg").shape
    assert picture.any()
    assert call(monkeypatch, "predict", photos / "a.jpg", "--out", out, "--samples", 1) == 2
    assert "samples (=1) must be at least 2" in capsys.readouterr().err


def test_predict_with_the_crf_moves_edges_to_those_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that sees at a quarter of the size has blunt edges; on a picture of two colours the CRF makes them sharp."""
    image = np.zeros((60, 80, 3), np.uint8)
    image[:, 37:] = 200
    write_image(tmp_path / "photo.png", image)

    class Blunt(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            small = torch.nn.functional.avg_pool2d(x[:, :1], 20)
            light = torch.nn.functional.interpolate(small, x.shape[-2:], mode="bilinear")
            return torch.cat([0.5 - light, light - 0.5], dim=1)

    card = Card("enet", Labels.from_names(["dark", "light"]))
    monkeypatch.setattr("segue.checkpoint.load_checkpoint", lambda path: (Blunt().eval(), card))
    masks = {}
    for crf in ([], ["--crf"]):
        assert call(monkeypatch, "predict", tmp_path / "photo.png", "--out", tmp_path / "out", *crf) == 0
        masks[bool(crf)] = read_mask(tmp_path / "out" / "photo.png")
    truth = image[..., 0] > 100
    assert (masks[False] != truth).mean() > 0.02
    assert (masks[True] != truth).mean() < 0.002


def test_options_given_are_added_to_those_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text, whole numbers and True or False alike; with another network the recipe's own options fall away."""
    trained: list[Recipe] = []
    monkeypatch.setattr("segue.training.train.train", lambda recipe, out, **_: trained.append(recipe))
    given = ("--options", "backbone", "resnet34", "k", "9")
    assert call(monkeypatch, "train", "gcn-streets", *given, "--out", tmp_path / "a") == 0
    assert call(monkeypatch, "train", "bisenetv1-streets", "--options", "auxiliary", "False", "--out", tmp_path / "b") == 0
    assert call(monkeypatch, "train", "gcn-streets", "--network", "unet", "--out", tmp_path / "c") == 0
    assert [recipe.options for recipe in trained] == [
        {"backbone": "resnet34", "k": 9},
        {"backbone": "xception39", "auxiliary": False},
        {},
    ]


def test_photos_have_no_depth(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = Card("enet", CAMVID, in_channels=4, mean=(0.0,) * 4, std=(1.0,) * 4)
    save_checkpoint(tmp_path / "deep", create_model("enet", 11, 4), card)
    assert call(monkeypatch, "predict", tmp_path / "deep", photos, "--out", tmp_path / "out") == 2
    assert "enet takes 4 channels here, and photos have 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_grey_network_labels_photos(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("unet", 2, 1, width=4)
    card = Card("unet", Labels.from_names(["a", "b"]), in_channels=1, options={"width": 4}, mean=(0.5,), std=(0.5,))
    save_checkpoint(tmp_path / "unet", model, card)
    assert call(monkeypatch, "predict", tmp_path / "unet", photos / "a.jpg", "--out", tmp_path / "out") == 0
    assert read_mask(tmp_path / "out" / "a.png").shape == (50, 70)
