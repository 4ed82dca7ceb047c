"""A step of a training: its memory format, its precision, its passes, and that measuring leaves no trace."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.training import tiny_recipe
from segue import create_model, evaluate, load_checkpoint, train
from segue.data.camvid import CamVid
from segue.inference import Predictor
from segue.training.run_folder import load_recipe
from segue.training.trial_step import Step, faster_format, float32_products, time_formats

CPU = torch.device("cpu")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "last" / "model.safetensors")


def losses(run: Path) -> list[float]:
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    return [float(row[rows[0].index("loss")]) for row in rows[1:]]


def test_measuring_changes_neither_the_network_nor_the_random_numbers(camvid: Path) -> None:
    network = create_model("enet", 11)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    seconds = time_formats(tiny_recipe(camvid), network, 11, 2, CPU)
    assert set(seconds) == {"channels_first", "channels_last"}
    assert min(seconds.values()) > 0
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_channels_last_must_be_clearly_faster() -> None:
    assert faster_format({"channels_first": 1.0, "channels_last": 0.5}) == "channels_last"
    assert faster_format({"channels_first": 1.0, "channels_last": 0.99}) == "channels_first"
    assert faster_format({"channels_first": 1.0, "channels_last": 2.0}) == "channels_first"


def test_a_format_without_room_is_not_taken(camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(step: Step) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Step, "seconds", seconds)
    assert faster_format(time_formats(tiny_recipe(camvid), create_model("enet", 11), 11, 2, CPU)) == "channels_first"
    assert faster_format({"channels_first": 1.0, "channels_last": float("inf")}) == "channels_first"


def test_a_run_from_before_there_were_formats_had_the_first(camvid: Path, tmp_path: Path) -> None:
    fields = tiny_recipe(camvid).to_json()
    del fields["memory_format"]
    (tmp_path / "recipe.json").write_text(json.dumps(fields))
    assert load_recipe(tmp_path).memory_format == "channels_first"
    (tmp_path / "recipe.json").write_text(json.dumps(tiny_recipe(camvid, memory_format="auto").to_json()))
    assert load_recipe(tmp_path).memory_format == "auto"


def test_the_format_that_was_chosen_is_kept_for_a_resume(camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed where another would be chosen, a run ends with the weights of one that was never interrupted."""
    recipe = tiny_recipe(camvid, memory_format="auto", epochs=3)
    monkeypatch.setattr("segue.training.task.time_formats", lambda *_: {"channels_first": 2.0, "channels_last": 1.0})
    train(recipe, tmp_path / "whole")
    train(tiny_recipe(camvid, memory_format="auto", epochs=3, minutes=1e-6), tmp_path / "cut")
    monkeypatch.setattr("segue.training.task.time_formats", lambda *_: {"channels_first": 1.0, "channels_last": 2.0})
    assert load_recipe(tmp_path / "cut").memory_format == "channels_last"
    train(recipe, tmp_path / "cut", resume=True)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    assert load_checkpoint(tmp_path / "cut")[1].training["memory_format"] == "channels_last"


def test_what_is_trained_in_channels_last_scores_as_it_is_predicted(camvid: Path, tmp_path: Path) -> None:
    run = train(tiny_recipe(camvid, memory_format="channels_last"), tmp_path / "run")
    _, card = load_checkpoint(run / "last")
    matrix = evaluate(Predictor.load(run / "last", device="cpu"), CamVid(camvid, "val"))
    assert matrix.mean_iu == pytest.approx(card.scores["camvid val"]["mean_iu"], abs=1e-3)  # but for logits that nearly tie
    other = train(tiny_recipe(camvid, memory_format="channels_first"), tmp_path / "other")
    assert losses(run) == pytest.approx(losses(other), rel=1e-2)  # of other kernels, whose rounding grows from step to step


@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_accumulated_passes_are_the_batch(camvid: Path, tmp_path: Path, loss: str) -> None:
    """A network without norms and dropout, on masks without void: two passes of half a batch give the same weights."""

    class NoVoid(CamVid):
        def __getitem__(self, index: int) -> dict[str, object]:  # type: ignore[override]
            sample = super().__getitem__(index)
            return {**sample, "mask": sample["mask"] % 11}

    runs = {}
    for passes in (1, 2):
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, 11, 3, padding=1)
        recipe = tiny_recipe(
            camvid, batch_size=4, accumulate=passes, loss=loss, class_weights="none", optimizer="sgd", weight_decay=0.0,
            learning_rate=1e-2 if loss == "mean" else 1e-5,
        )  # fmt: skip
        data = NoVoid(camvid, "train")
        runs[passes] = train(recipe, tmp_path / str(passes), model=model, train_data=data, val_data=CamVid(camvid, "val"))
    one, two = (weights(runs[passes]) for passes in (1, 2))
    assert all(torch.allclose(tensor, two[name], rtol=1e-4, atol=1e-6) for name, tensor in one.items())
    steps = [(runs[passes] / "metrics.csv").read_text().splitlines()[-1].split(",")[:2] for passes in (1, 2)]
    assert steps[0] == steps[1] == ["2", "4"]
    assert losses(runs[1]) == pytest.approx(losses(runs[2]), rel=1e-3)


def test_passes_must_divide_the_batch(camvid: Path) -> None:
    with pytest.raises(ValueError, match=r"accumulate \(=2\) must divide batch_size \(=5\)"):
        tiny_recipe(camvid, accumulate=2)
    with pytest.raises(ValueError, match=r"accumulate \(=0\)"):
        tiny_recipe(camvid, accumulate=0)


def test_tf32_is_set_for_the_training_alone() -> None:
    def now() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = now()
    for wanted in (True, False):
        with pytest.raises(KeyError), float32_products(wanted):  # noqa: PT012  # what raises is within
            assert now() == (wanted, wanted)
            raise KeyError
        assert now() == before


def test_bf16_is_trained_with_and_kept_in_float32(camvid: Path, tmp_path: Path) -> None:
    seen = []
    model = create_model("enet", 11)
    model.initial.conv.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))  # type: ignore[union-attr]
    run = train(tiny_recipe(camvid, precision="bf16-mixed", epochs=1), tmp_path / "run", model=model)
    assert torch.bfloat16 in seen
    assert {tensor.dtype for name, tensor in weights(run).items() if name.endswith("weight")} == {torch.float32}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("network", ["enet", "dfn", "bisenetv1"])
def test_a_step_uses_all_that_the_recipe_asks_for(camvid: Path, network: str, precision: str) -> None:
    options = {"backbone": "resnet18", "width": 8} if network == "dfn" else {}
    model = create_model(network, 11, **options)
    step = Step(tiny_recipe(camvid, precision=precision, network=network, crop=(64, 64)), model, 11, 2, CPU)
    step()
    assert all("exp_avg" in step.optimizer.state[p] for group in step.optimizer.param_groups for p in group["params"])


def test_the_recipe_of_a_run_names_its_memory_format(camvid: Path, tmp_path: Path) -> None:
    run = train(tiny_recipe(camvid, memory_format="auto", epochs=1), tmp_path / "run")
    assert json.loads((run / "recipe.json").read_text())["memory_format"] in ("channels_first", "channels_last")
