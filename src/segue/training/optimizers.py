"""Optimizers and learning rates, as recipes name them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segue.recipes import Recipe

NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)  # of batch norms all kinds, those synchronised over devices too


def make_optimizer(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    groups, rate = parameter_groups(recipe, network), recipe.learning_rate
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, rate, momentum=recipe.momentum)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, rate, betas=(recipe.momentum, 0.999))
    return torch.optim.AdamW(groups, rate, betas=(recipe.momentum, 0.999))


def parameter_groups(recipe: Recipe, network: Any) -> list[dict[str, Any]]:
    """The parameters that are trained, in groups of one learning rate and one weight decay."""
    layers: list[nn.Module] = network.trunk() if hasattr(network, "trunk") else []
    trunk = {id(parameter) for layer in layers for parameter in layer.parameters()}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    seen = set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            norm, bias = isinstance(module, NORMS), name == "bias"
            rate = recipe.learning_rate * (1.0 if id(parameter) in trunk or not trunk else recipe.new_layers)
            rate *= recipe.bias_rate if bias and not norm else 1.0
            decay = 0.0 if recipe.decay == "weights" and (norm or bias) else recipe.weight_decay
            group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
            group["params"].append(parameter)
    return list(groups.values())


def freeze_norms(network: nn.Module) -> None:
    """Batch norms use the statistics that they have, and neither those nor their scales and shifts change."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval().requires_grad_(False)


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


def learning_rate_share(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of step 0 to steps - 1 as a share of the recipe's."""
    if recipe.schedule == "step":
        share = recipe.step_factor ** (step * recipe.epochs // steps // recipe.step_epochs)
    else:
        share = SCHEDULES[recipe.schedule](step / steps)
    return share * min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else share
