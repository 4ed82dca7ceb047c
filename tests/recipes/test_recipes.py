"""The recipes: each trains its network with its loss, and its values are those of its stages."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.networks import NETWORKS
from segue import create_model, list_models, load_checkpoint, train
from segue.data import DATASETS
from segue.data.synthetic.cells import Cells
from segue.data.synthetic.streets import Streets
from segue.recipes import RECIPES
from segue.training.train import SHARED

NARROW = {"fanet34": {}, **dict(reversed(NETWORKS))}
STAGED = [name for name, recipe in RECIPES.items() if recipe.before]
# Of recipes that take a network through its training in the same way, one.
WAYS = ("network", "loss", "class_weights", "border_weights", "auxiliary", "freeze_norms", "objects", "elastic", "schedule")
DIFFERENT = list({tuple(getattr(recipe, way) for way in WAYS): name for name, recipe in RECIPES.items()}.values())


def test_every_network_has_a_recipe_and_every_recipe_can_be_built() -> None:
    assert {recipe.network for recipe in RECIPES.values()} == set(list_models())
    for recipe in RECIPES.values():
        with torch.device("meta"):
            model = create_model(recipe.network, 3, len(recipe.mean), **recipe.options)
        assert recipe.data in DATASETS
        assert min(recipe.crop) >= model.min_size
        assert recipe.classifier == "" or model.classifier


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENT)
def test_it_trains_its_network_with_its_loss(name: str, tmp_path: Path) -> None:
    """One epoch of two batches, narrow and small, through everything that a training goes through."""
    recipe = RECIPES[name]
    cells = recipe.objects or recipe.data == "cells"
    data, channels = (Cells, 1) if cells else (Streets, 4 if len(recipe.mean) == 4 else 3)
    recipe = replace(
        recipe, before="", classifier="", epochs=1, batch_size=2, learning_rate=1e-4, crop=(64, 64), workers=0,
        options={**NARROW[recipe.network], **recipe.options}, mean=(0.5,) * channels, std=(0.3,) * channels,  # type: ignore[dict-item]
        memory_format="channels_first",  # or both are timed, which takes longer than the training
    )  # fmt: skip
    size = (64, 64)
    run = train(recipe, tmp_path / "run", train_data=data("train", 4, size), val_data=data("val", 1, size))
    _, card = load_checkpoint(run / "last")
    (scores,) = card.scores.values()
    assert math.isfinite(scores["mean_iu"])


@pytest.mark.parametrize("name", STAGED)
def test_a_stage_is_what_its_own_recipe_says(name: str) -> None:
    """What a recipe shares with the stage before it, it has in common with that stage's recipe."""
    recipe, first = RECIPES[name], RECIPES[RECIPES[name].before]
    assert [field for field in SHARED if getattr(recipe, field) != getattr(first, field)] == []
    assert {**recipe.options, **first.options} == first.options


def test_rednets_depth_is_normalised_by_the_numbers_of_its_code() -> None:
    """19050 and 9650, of which a millimetre has 8."""
    recipe = RECIPES["rednet-sunrgbd"]
    assert (recipe.mean[-1], recipe.std[-1]) == (19050 / 8000, 9650 / 8000)
