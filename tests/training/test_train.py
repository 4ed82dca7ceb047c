import csv
import json
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from helpers.commands import call, run_segue, start_segue
from helpers.training import as_arguments, tiny_recipe, write_camvid
from segue import Labels, Predictor, create_dataset, create_model, evaluate, load_checkpoint, save_checkpoint, train
from segue.checkpoint import Card, load_stage
from segue.data import DATASETS
from segue.data.samples import DataError, Samples
from segue.data.synthetic.streets import Streets
from segue.recipes import RECIPES, Recipe, get_recipe
from segue.training.optimizers import SCHEDULES
from segue.training.run_folder import load_recipe

# A training scores the network as it is, the predictor with its norms folded: of 10,000 pixels a few, whose logits nearly tie,
# may get other labels.
NEARLY = 1e-3


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of three epochs, validated after the second and the last."""
    out = tmp_path_factory.mktemp("runs") / "enet"
    return train(tiny_recipe(camvid, epochs=3, validate_every=2), out)


def test_a_run_keeps_its_recipe_its_scores_and_its_checkpoints(run: Path, camvid: Path) -> None:
    assert Recipe.from_json(json.loads((run / "recipe.json").read_text())) == tiny_recipe(camvid, epochs=3, validate_every=2)
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    assert [bool(row["mean_iu"]) for row in rows(run)] == [False, True, True]
    best = max(float(row["mean_iu"]) for row in rows(run)[1:])
    assert load_checkpoint(run / "best")[1].scores["camvid val"]["mean_iu"] == best
    assert load_checkpoint(run)[1].scores == load_checkpoint(run / "best")[1].scores
    training = load_checkpoint(run / "last")[1].training
    assert training["epochs"] == 3
    assert training["seed"] == 0
    assert training["hardware"]


def test_the_score_of_the_training_is_the_score_of_the_checkpoint(run: Path, camvid: Path) -> None:
    matrix = evaluate(Predictor.load(run / "last", device="cpu"), create_dataset("camvid", str(camvid), "val"))
    assert matrix.mean_iu == pytest.approx(float(rows(run)[-1]["mean_iu"]), abs=NEARLY)


def test_tensorboard_shows_the_loss_and_pictures_of_predictions(run: Path) -> None:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert "predictions" in events.Tags()["images"]
    assert {"mean_iu", "loss_epoch"} <= set(events.Tags()["scalars"])


def test_a_folder_that_holds_a_run_is_not_touched(run: Path, camvid: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(ValueError, match=r"holds something already.*--resume"):
        train(tiny_recipe(camvid), run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_an_out_that_cannot_be_written_is_named(camvid: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file.*cannot be written"):
        train(tiny_recipe(camvid), tmp_path / "file" / "run")


def test_a_full_disk_stops_the_run_and_keeps_what_it_had(camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    original = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        saved.append(path)
        if len(saved) > 2:  # last/ and best/ of the first epoch fit
            raise OSError(28, "No space left on device")
        return original(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match=r"No space left.*--resume"):
        train(tiny_recipe(camvid), tmp_path / "run")
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "run" / "last")[1].training["epochs"] == 1
    train(tiny_recipe(camvid), tmp_path / "run", resume=True)
    assert [row["epoch"] for row in rows(tmp_path / "run")] == ["1", "2"]


def wait_for_epochs(process: object, run: Path, count: int) -> None:
    while len(rows(run) if (run / "metrics.csv").exists() else []) < count:
        assert process.poll() is None, process.communicate()  # type: ignore[attr-defined]
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_and_resumed_a_run_ends_with_the_same_weights(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, on one machine with as many threads: the order of arithmetic and all random draws are the run's own."""
    arguments = as_arguments(tiny_recipe(camvid, epochs=8))
    process = start_segue("train", "enet-camvid", *arguments, "--workers", 2, "--out", tmp_path / "killed")
    wait_for_epochs(process, tmp_path / "killed", 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(rows(tmp_path / "killed")) < 8, "the run was over before it was killed"
    assert call(monkeypatch, "train", "--resume", tmp_path / "killed") == 0
    train(tiny_recipe(camvid, epochs=8), tmp_path / "whole")
    expected, got = load_file(tmp_path / "whole/last/model.safetensors"), load_file(tmp_path / "killed/last/model.safetensors")
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    for name in ("epoch", "loss", "mean_iu"):
        assert [row[name] for row in rows(tmp_path / "whole")] == [row[name] for row in rows(tmp_path / "killed")]


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_can_be_resumed(camvid: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_segue("train", "enet-camvid", *as_arguments(tiny_recipe(camvid, epochs=500)), "--out", run)
    wait_for_epochs(process, run, 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"segue train --resume {run}" in out + err
    assert "Traceback" not in err
    assert (run / "resume.ckpt").exists()


@pytest.mark.slow
def test_two_processes_score_as_one(camvid: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = as_arguments(tiny_recipe(camvid, batch_size=10, epochs=1))
    result = run_segue("train", "enet-camvid", *arguments, "--devices", 2, "--out", run)
    assert result.returncode == 0, result.stderr
    matrix = evaluate(Predictor.load(run / "last", device="cpu"), create_dataset("camvid", str(camvid), "val"))
    assert float(rows(run)[0]["mean_iu"]) == pytest.approx(matrix.mean_iu, abs=NEARLY)
    assert float(rows(run)[0]["acc"]) == pytest.approx(matrix.acc, abs=NEARLY)


def test_a_loss_that_is_not_finite_names_the_files(camvid: Path, tmp_path: Path) -> None:
    module = nn.Conv2d(3, 11, 1)
    module.register_forward_hook(lambda module, inputs, logits: logits * torch.nan)
    with pytest.raises(FloatingPointError, match=r"nan in epoch 1 on the batch of (.*train/\d+\.png, ){4}.*train/\d+\.png;"):
        train(tiny_recipe(camvid), tmp_path / "run", model=module)


class OwnData(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Someone's own data: no name, no check, no labels."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        mask = np.zeros((32, 32), np.uint8)
        mask[:, index * 2 + 4 :] = 1
        return {"image": (mask * 200)[..., None].repeat(3, 2), "mask": mask}


def test_data_and_module_of_ones_own(tmp_path: Path) -> None:
    module = nn.Conv2d(3, 2, 3, padding=1)
    recipe = Recipe(network="own", data="own", epochs=20, batch_size=2, learning_rate=0.1, crop=(32, 32), workers=0)
    run = train(
        recipe,
        tmp_path / "run",
        train_data=OwnData(6),
        val_data=OwnData(3),
        labels=Labels.from_names(["left", "right"]),
        model=module,
    )
    assert float(rows(run)[-1]["mean_iu"]) > 0.9
    with pytest.raises(ValueError, match=r"Conv2d.*pass it"):
        load_checkpoint(run)
    same, card = load_checkpoint(run / "last", model=nn.Conv2d(3, 2, 3, padding=1))
    assert torch.equal(same.weight, module.weight)
    assert card.labels.names == ("left", "right")


def test_images_of_different_sizes_are_scored_as_the_predictor_would(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "camvid")
    write_camvid(root, size=(60, 48), train=0, val=2, test=0)  # two of the five validation images
    run = train(tiny_recipe(root, epochs=1), tmp_path / "run")
    matrix = evaluate(Predictor.load(run / "last", device="cpu"), create_dataset("camvid", str(root), "val"))
    assert float(rows(run)[0]["mean_iu"]) == pytest.approx(matrix.mean_iu, abs=NEARLY)


def test_data_without_labels_need_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels="):
        train(tiny_recipe(Path()), tmp_path / "run", train_data=OwnData(6), val_data=OwnData(3))


def test_a_transform_of_ones_own(camvid: Path, tmp_path: Path) -> None:
    seen = []

    def transform(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(image.shape)
        return {"image": image[:32, :32], "mask": mask[:32, :32]}

    train(tiny_recipe(camvid, epochs=1), tmp_path / "run", transform=transform)
    assert set(seen) == {(40, 56, 3)}


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_faulty_mask_is_found_before_the_training(tmp_path: Path, split: str) -> None:
    root = write_camvid(tmp_path / "camvid")
    (root / f"{split}annot" / "003.png").write_bytes((root / f"{split}annot" / "003.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=f"{split}annot/003.png"):
        train(tiny_recipe(root), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_split_is_refused(camvid: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"10 samples.*batch_size"):
        train(tiny_recipe(camvid, batch_size=11), tmp_path / "run")


def test_without_a_compiler_nothing_is_compiled(camvid: Path, tmp_path: Path) -> None:
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(ValueError, match=r"compile \(=True\).*--no-compile"),
    ):
        train(tiny_recipe(camvid, compile=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_of_another_class_count_are_refused(camvid: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "two", create_model("enet", 2), Card("enet", Labels.from_names(["a", "b"])))
    with pytest.raises(ValueError, match=r"fullconv.*\(16, 2, 2, 2\).*\(16, 11, 2, 2\)"):
        train(tiny_recipe(camvid, init=str(tmp_path / "two")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_a_checkpoint_and_tells_so(run: Path, camvid: Path, tmp_path: Path) -> None:
    second = train(tiny_recipe(camvid, epochs=1, learning_rate=0.0, weight_decay=0.0, init=str(run / "last")), tmp_path / "run")
    before, after = load_file(run / "last/model.safetensors"), load_file(second / "last/model.safetensors")
    assert torch.equal(before["fullconv.weight"], after["fullconv.weight"])
    assert load_checkpoint(second / "last")[1].training["started_from"]["epochs"] == 3


def test_a_run_stops_after_its_minutes(camvid: Path, tmp_path: Path) -> None:
    run = train(tiny_recipe(camvid, epochs=100, minutes=1e-6), tmp_path / "run")
    assert len(rows(run)) == 1
    assert rows(run)[0]["mean_iu"]


def test_what_is_no_run_cannot_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "train", "--resume", tmp_path) == 2
    assert "is no run" in capsys.readouterr().err


def test_schedules_begin_and_end_where_they_should() -> None:
    assert SCHEDULES["constant"](0.7) == 1
    assert SCHEDULES["poly"](0) == 1
    assert SCHEDULES["poly"](0.5) == pytest.approx(0.5**0.9)
    assert SCHEDULES["poly"](1) == 0
    assert SCHEDULES["one_cycle"](0) == pytest.approx(1 / 25)
    assert max(SCHEDULES["one_cycle"](step / 1000) for step in range(1001)) == pytest.approx(1, abs=1e-4)
    assert SCHEDULES["one_cycle"](1) == pytest.approx(0)


def test_the_encoder_is_trained_first_and_the_whole_starts_from_it(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENet's two stages, section 5.1. Interrupted in the second, the run goes on without training the first again."""
    monkeypatch.setitem(RECIPES, "enet-camvid-encoder", replace(get_recipe("enet-camvid-encoder"), epochs=1))
    recipe = tiny_recipe(camvid, epochs=1, before="enet-camvid-encoder")
    run, first = tmp_path / "enet", tmp_path / "enet-enet-camvid-encoder"
    train(recipe, run)
    weights = load_file(first / "best" / "model.safetensors")
    assert "encoder_head.weight" in weights
    assert "fullconv.weight" not in weights
    assert load_checkpoint(run)[1].training["started_from"]["epochs"] == 1
    assert json.loads((first / "recipe.json").read_text())["root"] == str(camvid)
    metrics, result = (first / "metrics.csv").read_text(), load_file(run / "last" / "model.safetensors")
    (run / "resume.ckpt").unlink()
    train(load_recipe(run), run, resume=True)
    assert (first / "metrics.csv").read_text() == metrics
    again = load_file(run / "last" / "model.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in result.items())


def test_stages_open_check_count_and_decode_their_data_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FCN-8s is trained in three stages, of two epochs each here."""
    done = Counter[tuple[str, str, int]]()
    opened = []

    class Counted(Samples):
        labels = Streets("train", 1).labels

        def __init__(self, root: str, split: str) -> None:
            self.split, self.samples = split, Streets(split, 4, (32, 40))
            opened.append(split)

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, index: int) -> dict[str, np.ndarray]:
            done["read", self.split, index] += 1
            return self.samples[index]

        def mask(self, index: int) -> np.ndarray:
            done["counted", self.split, index] += 1
            return self.samples.mask(index)

        def check(self, index: int) -> None:
            done["checked", self.split, index] += 1

    monkeypatch.setitem(DATASETS, "counted", Counted)
    monkeypatch.setattr("segue.data.batches.cache.probe", lambda samples: [100_000])  # else it reads some, to tell their size
    for name in ("fcn32s-voc", "fcn16s-voc"):
        monkeypatch.setitem(RECIPES, name, replace(get_recipe(name), epochs=2, class_weights="enet"))
    recipe = replace(
        get_recipe("fcn8s-voc"), data="counted", root="none", split="train", options={"width": 4}, classifier="", epochs=2,
        batch_size=2, crop=(32, 32), workers=0, memory_format="channels_first", class_weights="enet", learning_rate=1e-9,
    )  # fmt: skip
    run = train(recipe, tmp_path / "run")
    assert {len(rows(folder)) for folder in tmp_path.iterdir()} == {2}
    assert len(list(tmp_path.iterdir())) == 3
    assert load_checkpoint(run)[1].network == "fcn8s"
    assert opened == ["train", "val"]
    assert {(what, split): done[what, split, 2] for what, split, _ in done} == {
        ("checked", "train"): 1,
        ("checked", "val"): 1,
        ("counted", "train"): 1,
        ("read", "train"): 1,
        ("read", "val"): 6,
    }


def test_what_does_not_fit_the_stage_before_is_found_before_it_is_trained(camvid: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="enet-camvid-encoder do not fit UNet"):
        train(tiny_recipe(camvid, before="enet-camvid-encoder", network="unet"), tmp_path / "run")
    with pytest.raises(ValueError, match='no recipe "enet-camvid-encode"'):
        train(tiny_recipe(camvid, before="enet-camvid-encode"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_stage_starts_from_the_weights_before_it(tmp_path: Path) -> None:
    encoder = create_model("enet", 3, encoder_only=True)
    whole = create_model("enet", 3)
    fresh = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    load_stage(whole, encoder.state_dict(), "the encoder")
    for name, tensor in whole.state_dict().items():
        expected = encoder.state_dict().get(name, fresh[name])
        assert torch.equal(tensor, expected), name
    with pytest.raises(ValueError, match="names missing"):
        load_stage(create_model("unet", 3), encoder.state_dict(), "the encoder")


def test_depth_is_trained_with_and_scored(tmp_path: Path) -> None:
    """Where the recipe normalises one channel more than the images have, depth is that channel: here the one that tells."""

    class Depths(Samples):
        labels = Labels.from_names(["near", "far"])

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> dict[str, np.ndarray]:
            random = np.random.default_rng(index)
            mask = np.zeros((32, 32), np.uint8)
            mask[:, random.integers(8, 24) :] = 1
            image = random.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            return {"image": image, "mask": mask, "depth": np.where(mask, 9, 2).astype(np.float32)}

    recipe = Recipe(
        network="none", data="streets", epochs=10, batch_size=4, learning_rate=0.1, crop=(32, 32), workers=0,
        mean=(0.5, 0.5, 0.5, 5.0), std=(0.3, 0.3, 0.3, 4.0), validate_every=10,
    )  # fmt: skip
    run = train(recipe, tmp_path / "run", train_data=Depths(), val_data=Depths(), model=nn.Conv2d(4, 2, 1))
    model, card = load_checkpoint(run, model=nn.Conv2d(4, 2, 1))
    matrix = evaluate(Predictor.of(model, card, device="cpu"), Depths())
    assert matrix.mean_iu == pytest.approx(float(rows(run)[-1]["mean_iu"]), abs=NEARLY)
    assert matrix.mean_iu > 0.95


def test_borders_between_touching_cells_need_instances(camvid: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"border_weights.*instances.*--no-border-weights"):
        train(tiny_recipe(camvid, border_weights=True), tmp_path / "run")


def test_a_classifier_must_fit(camvid: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ENet"):
        train(tiny_recipe(camvid, classifier="imagenet"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_frozen_norms_stay_so_through_validation_and_resume(camvid: Path, tmp_path: Path) -> None:
    """Their statistics, scales and shifts at the end are those of the checkpoint that the run started from."""
    train(tiny_recipe(camvid, epochs=1), tmp_path / "first")
    recipe = tiny_recipe(camvid, epochs=2, init=str(tmp_path / "first"), freeze_norms=True)
    train(recipe, tmp_path / "frozen")
    before = load_file(tmp_path / "first" / "best" / "model.safetensors")
    after = load_file(tmp_path / "frozen" / "last" / "model.safetensors")
    norms = [name.removesuffix("running_mean") for name in before if name.endswith("running_mean")]
    for norm in norms:
        for kind in ("running_mean", "running_var", "weight", "bias"):
            assert torch.equal(before[norm + kind], after[norm + kind])
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_resumed_run_needs_nothing_but_its_own_folder(camvid: Path, tmp_path: Path) -> None:
    train(tiny_recipe(camvid, epochs=1), tmp_path / "first")
    recipe = tiny_recipe(camvid, epochs=1, init=str(tmp_path / "first"))
    train(recipe, tmp_path / "run")
    started_from = load_checkpoint(tmp_path / "run")[1].training["started_from"]
    shutil.rmtree(tmp_path / "first")
    longer = replace(load_recipe(tmp_path / "run"), epochs=2)
    train(longer, tmp_path / "run", resume=True)
    assert load_checkpoint(tmp_path / "run" / "last")[1].training["started_from"] == started_from
    assert rows(tmp_path / "run")[-1]["epoch"] == "2"


def test_a_module_in_evaluation_mode_is_trained_in_training_mode(camvid: Path, tmp_path: Path) -> None:
    model = create_model("enet", 11).eval()
    before = model.initial.norm.running_mean.clone()  # type: ignore[operator, union-attr]
    train(tiny_recipe(camvid, epochs=1), tmp_path / "run", model=model)
    assert not torch.equal(before, load_file(tmp_path / "run" / "last" / "model.safetensors")["initial.norm.running_mean"])


def test_a_batch_of_one_says_what_to_do(tmp_path: Path) -> None:
    recipe = replace(
        get_recipe("dfn-streets"), options={"backbone": "resnet18", "width": 8}, batch_size=1, crop=(32, 32), workers=0
    )
    streets = Streets("train", 2, (32, 32))
    with pytest.raises(ValueError, match=r"batch_size \(=1\) must be at least 2 on each device: dfn"):
        train(recipe, tmp_path / "run", train_data=streets, val_data=streets)


def test_the_short_side_of_the_recipe_is_that_of_the_predictions(camvid: Path, tmp_path: Path) -> None:
    run = train(tiny_recipe(camvid, epochs=1, short_side=80), tmp_path / "run")
    assert load_checkpoint(run)[1].short_side == 80
    matrix = evaluate(Predictor.load(run / "last", device="cpu"), create_dataset("camvid", str(camvid), "val"))
    assert matrix.mean_iu == pytest.approx(float(rows(run)[-1]["mean_iu"]), abs=NEARLY)
