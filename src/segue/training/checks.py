"""What must fit before a training starts."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from segue.data.batches.cache import estimate
from segue.data.batches.loading import EpochSampler
from segue.data.samples import Samples
from segue.images import white
from segue.labels import Labels
from segue.recipes import Recipe
from segue.training.samples import fields_of


def check_fit(recipe: Recipe, network: nn.Module, train_data: Dataset[Any]) -> None:
    """ValueError if the images have other channels than the recipe, its crops are too small for the network, there are fewer
    images than a batch has, or this machine cannot do what it asks for."""
    sample = train_data[0]
    channels = np.shape(sample["image"])[-1] + ("depth" in fields_of(recipe, sample))
    if channels != len(recipe.mean):
        raise ValueError(
            f"the images have {channels} channels, but mean (={recipe.mean}) and std have {len(recipe.mean)} numbers; "
            f"give them one for each channel, such as those of some images here: {measured(train_data)}"
        )
    names = getattr(train_data, "labels", Labels.from_names(["background"])).names
    if recipe.objects and names[0] != "background":
        raise ValueError(f"objects (=True) needs data whose class 0 is the background, and here it is {names[0]}")
    if recipe.border_weights and recipe.loss in ("ohem", "absolute"):
        raise ValueError(f'border_weights (=True) are for cross entropy; with loss (="{recipe.loss}") take --no-border-weights')
    if recipe.border_weights and "instances" not in sample:
        raise ValueError("border_weights (=True) needs data with instances, such as cells or nuclei; take --no-border-weights")
    smallest = getattr(network, "min_size", 1)
    if min(recipe.crop) < smallest:
        raise ValueError(f"crop (={recipe.crop}) must be at least {smallest} x {smallest} for {recipe.network}; use larger crops")
    EpochSampler(len(train_data), recipe.batch_size, recipe.seed)  # type: ignore[arg-type]
    if recipe.cache == "memory":
        estimate(train_data).check()
    if recipe.compile:
        check_compiler(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def check_compiler(device: torch.device) -> None:
    """ValueError if torch.compile cannot compile anything here."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(8, device=device))
    except RuntimeError as error:
        raise ValueError(
            f"compile (=True): torch.compile does not work here ({str(error).strip().splitlines()[0]:.200}); install a C++ "
            "compiler, such as g++, or take --no-compile"
        ) from None


def measured(samples: Dataset[Any], count: int = 16) -> str:
    """The mean and the standard deviation of each channel over some of the images, as arguments of segue train.

    Pixels that show nothing are left out.
    """
    length = len(samples)  # type: ignore[arg-type]
    chosen = np.linspace(0, length - 1, min(count, length)).round().astype(int)
    moments = []
    for index in chosen:
        image = np.asarray(samples[int(index)]["image"])
        void = samples.void(int(index)) if isinstance(samples, Samples) else None
        pixels = image.reshape(-1, image.shape[2]) if void is None else image[~void]
        if len(pixels):
            mean, std = (moment(0, dtype=np.float64) / white(image) for moment in (pixels.mean, pixels.std))
            moments.append((mean, std**2 + mean**2))
    if not moments:
        raise ValueError(f"none of {len(chosen)} images shows anything: all their pixels are what their files call nodata")
    mean, square = np.mean(moments, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    std[std == 0] = 1  # a channel that is the same everywhere
    return " ".join(["--mean", *(f"{x:.4g}" for x in mean), "--std", *(f"{x:.4g}" for x in std)])
