"""Optimizers and learning rates, by their names in recipes."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)  # of batch norms all kinds, those synchronised over devices too


def make_optimizer(
    network: nn.Module, learning_rate: float, *, optimizer: Literal["sgd", "adam", "adamw"] = "adam", momentum: float = 0.9,
    weight_decay: float = 0.0, decay: Literal["all", "weights"] = "all", new_layers: float = 1.0, bias_rate: float = 1.0,
) -> torch.optim.Optimizer:  # fmt: skip
    """The optimizer of all parameters of the network that are not frozen.

    momentum: of sgd; the first beta of the others. weight_decay: added to the gradient in sgd and adam, decoupled in adamw.
    decay: which parameters decay; weights leaves out biases and norms. new_layers: the learning rate of the layers that are not
    in the network's `trunk()`, as a multiple. bias_rate: that of biases, norms aside, as a multiple.
    """
    groups = parameter_groups(network, learning_rate, weight_decay, decay, new_layers, bias_rate)
    if optimizer == "sgd":
        return torch.optim.SGD(groups, learning_rate, momentum=momentum)
    if optimizer == "adam":
        return torch.optim.Adam(groups, learning_rate, betas=(momentum, 0.999))
    if optimizer == "adamw":
        return torch.optim.AdamW(groups, learning_rate, betas=(momentum, 0.999))
    raise ValueError(f"optimizer (={optimizer!r}) must be 'sgd', 'adam' or 'adamw'")


def parameter_groups(
    network: Any, learning_rate: float, weight_decay: float, decay: str, new_layers: float, bias_rate: float
) -> list[dict[str, Any]]:
    """The parameters that are trained, in groups of one learning rate and one weight decay; see `make_optimizer`."""
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
            rate = learning_rate * (1.0 if id(parameter) in trunk or not trunk else new_layers)
            rate *= bias_rate if bias and not norm else 1.0
            share = 0.0 if decay == "weights" and (norm or bias) else weight_decay
            group = groups.setdefault((rate, share), {"params": [], "lr": rate, "weight_decay": share})
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


# The learning rate as a share of the largest, by the share of the training that is done.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "poly": lambda progress: max(0.0, 1 - progress) ** 0.9,
    "one_cycle": one_cycle,
}


def learning_rate_share(
    step: int, steps: int, *, schedule: Literal["constant", "poly", "one_cycle", "step"] = "constant", warmup: int = 0,
    epochs: int = 1, step_epochs: int = 1, step_factor: float = 0.1,
) -> float:  # fmt: skip
    """The learning rate of step 0 to steps - 1 as a share of the largest one.

    schedule: a name in SCHEDULES, by the share of the steps that is done; or "step": of `epochs` in all, after every
    `step_epochs`, times `step_factor`. warmup: steps at the start in which the rate rises evenly from nothing.
    """
    if schedule == "step":
        share = step_factor ** (step * epochs // steps // step_epochs)
    elif schedule in SCHEDULES:
        share = SCHEDULES[schedule](step / steps)
    else:
        raise ValueError(f"schedule (={schedule!r}) must be one of {', '.join([*SCHEDULES, 'step'])}")
    return share * min(1.0, (step + 1) / warmup) if warmup else share
