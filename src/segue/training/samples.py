"""The samples of a training, with all that its loss and its network ask for."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from segue.data.batches.loading import PixelMap, TrainingSamples
from segue.data.batches.transforms import Augment, ObjectCrop, Transform
from segue.data.samples import takes_depth
from segue.recipes import Recipe
from segue.training.border_weights import sample_borders, sample_edges


def fields_of(recipe: Recipe, sample: dict[str, Any]) -> tuple[str, ...]:
    """The arrays that are an input of the network beside the image: the depth, where the recipe normalises one channel more."""
    return ("depth",) if takes_depth(len(recipe.mean), sample) else ()


def training_samples(
    recipe: Recipe, network: nn.Module, samples: Dataset[Any], num_classes: int, fields: Sequence[str] = (),
    transform: Transform | None = None,
) -> TrainingSamples:  # fmt: skip
    """The samples as the recipe augments them, or as `transform` does, with all that its loss and this network ask for."""
    fields, maps = list(fields), dict[str, PixelMap]()
    if recipe.border_weights:
        fields.append("instances")
        maps["border_weights"] = sample_borders
    if getattr(network, "draws_borders", False):
        maps["edges"] = sample_edges
    if transform is None:
        augment = Augment(recipe.crop, recipe.scale, recipe.flip, recipe.jitter, recipe.rotate, recipe.elastic, recipe.short_side)
        transform = ObjectCrop(augment) if recipe.objects else augment
    return TrainingSamples(samples, transform, num_classes, recipe.seed, fields, maps)
