"""Optimizers and learning rates, as recipes name them."""

import math
from collections.abc import Callable
from typing import Any

import torch

from segue.recipes import Recipe


def make_optimizer(recipe: Recipe, parameters: Any) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=recipe.momentum, weight_decay=decay)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, rate, betas=(recipe.momentum, 0.999), weight_decay=decay)
    return torch.optim.AdamW(parameters, rate, betas=(recipe.momentum, 0.999), weight_decay=decay)


def one_cycle(progress: float) -> float:
    """From 1/25 up to 1 at 15 %, then down to 0, both along a cosine."""
    if progress < 0.15:
        return 1 - (1 - 1 / 25) * (1 + math.cos(math.pi * progress / 0.15)) / 2
    return (1 + math.cos(math.pi * min(1.0, (progress - 0.15) / 0.85))) / 2


# The learning rate as a share of the recipe's, by the share of the training that is done.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "poly": lambda progress: max(0.0, 1 - progress) ** 0.9,
    "one_cycle": one_cycle,
}
