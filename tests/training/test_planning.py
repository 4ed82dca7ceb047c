"""The plan of a training: counts are exact, memory grows with the batch, and nothing is written."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.training import tiny_recipe
from segue import create_dataset, create_model
from segue import train as train_model
from segue.cli.train import train
from segue.recipes import Recipe
from segue.training.planning import Allocations, Plan, evaluate_image, peak_bytes, plan, plan_table
from segue.training.trial_step import Step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def planned(camvid: Path) -> Plan:
    return plan(tiny_recipe(camvid, batch_size=4, memory_format="auto"))


def test_counts(planned: Plan, camvid: Path) -> None:
    network = create_model("enet", 11)
    assert planned.parameters == planned.trained == sum(parameter.numel() for parameter in network.parameters())
    assert planned.images == 10
    assert planned.evaluated == 5
    assert planned.passes == 2
    assert planned.image_adds > planned.crop_adds > 0  # 40 x 56 pixels, 32 x 40
    assert planned.is_cached
    assert planned.cache.size == 10 * 40 * 56 * 4


def test_the_disk_that_it_takes_is_what_a_run_takes(camvid: Path, tmp_path: Path, planned: Plan) -> None:
    run = train_model(tiny_recipe(camvid, batch_size=4), tmp_path / "run")
    kept = ("best/model.safetensors", "last/model.safetensors", "resume.ckpt")
    assert sum((run / name).stat().st_size for name in kept) < planned.disk * 1.2 + 2**20
    assert planned.disk < 3 * sum((run / name).stat().st_size for name in kept)


def test_memory_of_a_convolution_is_what_its_maps_take() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    x, net = torch.rand(2, 3, 64, 64), One()
    with Allocations() as made:
        y = net(x)
    assert y.shape == (2, 8, 64, 64)
    assert made.most == made.now == 2 * 8 * 64 * 64 * 4
    with Allocations() as made:
        y = x * 2
        y.add_(1)
        del y
        (x * 3).sum()
    assert made.most == x.nbytes + 4


@pytest.mark.parametrize("network", ["enet", "fanet18"])
def test_twice_the_images_take_about_twice_the_memory(camvid: Path, network: str) -> None:
    recipe = tiny_recipe(camvid, crop=(128, 160), network=network)
    model = create_model(network, 11)
    found = []
    for images in (2, 4, 8):
        step = Step(recipe, model, 11, images, CPU)
        step()
        found.append(peak_bytes(step, 0))
    assert found[2] - found[1] == pytest.approx(2 * (found[1] - found[0]), rel=0.05)
    assert found[0] < found[1] < 2 * found[0]


def test_what_is_frozen_is_not_trained(camvid: Path) -> None:
    frozen = plan(tiny_recipe(camvid, batch_size=4, freeze_norms=True, epochs=1))
    assert frozen.trained < frozen.parameters
    given = Step(frozen.recipe, create_model("enet", 11), 11, 2, CPU).optimizer.param_groups
    assert frozen.trained == sum(parameter.numel() for group in given for parameter in group["params"])


def test_times_follow_from_what_was_measured(planned: Plan) -> None:
    slow = replace(planned, pass_seconds=3.0, image_seconds=0.5, evaluation_seconds=0.1)
    alone, two = (replace(slow, recipe=replace(slow.recipe, workers=workers, epochs=10)) for workers in (0, 2))
    assert alone.epoch_seconds == pytest.approx(2 * (3 + 4 * 0.5))
    assert two.epoch_seconds == pytest.approx(2 * 3)
    assert two.seconds == pytest.approx(10 * 6 + 10 * 5 * 0.1)
    loading = replace(two, image_seconds=5.0)
    assert loading.epoch_seconds == pytest.approx(2 * 4 * 5 / 2)
    passes = replace(two, recipe=replace(two.recipe, accumulate=2))
    assert passes.pass_images == 2
    assert passes.passes == 4
    assert passes.peak < two.peak


def test_the_table_says_all_of_it(planned: Plan) -> None:
    table = dict(plan_table(planned))
    assert table["parameters"] == f"{planned.parameters:,} trained of {planned.parameters:,}"
    assert "steps of 2 and 4 images" in table["measured"]
    assert table["largest pass that fits"] == f"{planned.largest} images"
    assert dict(plan_table(replace(planned, largest=0)))["largest pass that fits"].startswith("none")


def test_the_command_writes_nothing_and_needs_no_out(camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe: Recipe = tiny_recipe(camvid)
    arguments = ["--root", recipe.root, "--batch-size", "2", "--crop", "32", "40", "--workers", "0"]
    train(["enet-camvid", *arguments, "--plan", "--out", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert "multiply-adds of a crop" in said
    assert f"{tmp_path / 'run'} is left alone" in said
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="--out FOLDER"):
        train(["enet-camvid", *arguments])


def test_what_train_refuses_is_refused(camvid: Path) -> None:
    with pytest.raises(ValueError, match=r"crop .* must be at least"):
        plan(tiny_recipe(camvid, crop=(4, 4)))
    with pytest.raises(ValueError, match=r"batch_size \(=5\) must be a multiple of 2 devices"):
        plan(tiny_recipe(camvid), devices=2)
    with pytest.raises(ValueError, match=r"10 samples, fewer than batch_size \(=11\)"):
        plan(tiny_recipe(camvid, batch_size=11))
    with pytest.raises(ValueError, match=r"devices \(=-5\)"):
        plan(tiny_recipe(camvid), devices=-5)
    with pytest.raises(ValueError, match=r"devices \(=-1\)"):
        train(["enet-camvid", "--root", str(camvid), "--plan", "--devices", "-1"])


def test_where_few_images_fit_fewer_are_measured(camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe(camvid)

    def with_room(most: int) -> None:
        def measure(recipe: Recipe, network: nn.Module, num_classes: int, images: int, *_: object) -> tuple[int, float, int]:
            if images > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return 1000 + 100 * images, 1.0 + images, 0

        monkeypatch.setattr("segue.training.planning.measure_step", measure)

    for most, measured, fixed, per_image in ((4, (2, 4), 1000, 100), (3, (1, 2), 1000, 100), (1, (1,), 0, 1100)):
        with_room(most)
        found = plan(recipe)
        assert (found.measured, found.fixed, found.per_image) == (measured, fixed, per_image)
        assert found.pass_seconds == (6.0 if most > 1 else 10.0)  # of 5 images
        assert "steps of " + " and ".join(map(str, measured)) in dict(plan_table(found))["measured"]
    with_room(0)
    with pytest.raises(ValueError, match=r"one image does not fit .* crop \(=\(32, 40\)\)"):
        plan(recipe)


def test_an_evaluation_image_that_does_not_fit_is_named(camvid: Path) -> None:
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ValueError, match=r"evaluation image of 40 x 56 does not fit .* short_side"):
        evaluate_image(tiny_recipe(camvid), Large(), create_dataset("camvid", str(camvid), "val"), CPU)


def test_the_stage_before_is_named(planned: Plan) -> None:
    staged = replace(planned, recipe=replace(planned.recipe, before="enet-camvid-encoder"))
    assert "segue train enet-camvid-encoder --plan" in dict(plan_table(staged))["trained first, not in this plan"]
    assert "trained first, not in this plan" not in dict(plan_table(planned))
    started = replace(staged, recipe=replace(staged.recipe, init="runs/encoder"))
    assert "trained first, not in this plan" not in dict(plan_table(started))
