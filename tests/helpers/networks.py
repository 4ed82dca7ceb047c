"""Every network, narrow enough for a quick test."""

import pytest
import torch
from torch import Tensor, nn

from segue import create_model
from segue.models.base import SegmentationModel

Options = dict[str, object]

NETWORKS: list[tuple[str, Options]] = [
    ("bayesian_segnet", {"width": 8}),
    ("bisenetv1", {"backbone": "xception39"}),
    ("bisenetv2", {}),
    ("deconvnet", {"width": 8}),
    ("deeplabv1", {"width": 16}),
    ("deeplabv2", {"backbone": "resnet18"}),
    ("deeplabv3", {"backbone": "resnet18"}),
    ("deeplabv3plus", {"backbone": "tf_efficientnet_lite0"}),
    ("dfn", {"backbone": "resnet18", "width": 32}),
    ("enet", {}),
    ("enet", {"encoder_only": True}),
    ("fanet18", {}),
    ("fcn16s", {"width": 4}),
    ("fcn32s", {"width": 4}),
    ("fcn32s_alexnet", {"width": 8}),
    ("fcn32s_googlenet", {"width": 16}),
    ("fcn8s", {"width": 4}),
    ("fcn8s_atonce", {"width": 4}),
    ("fusionnet", {"width": 4}),
    ("fusionnet", {"width": 4, "variant": "paper"}),
    ("gcn", {"backbone": "resnet18", "k": 7}),
    ("rednet", {"backbone": "resnet18"}),
    ("segnet", {"width": 8}),
    ("segnet_basic", {"width": 8}),
    ("unet", {"width": 8}),
    ("unet", {"width": 8, "padding": "same", "batch_norm": True}),
    ("unet", {"backbone": "resnet18"}),
]
every_network = pytest.mark.parametrize(("name", "options"), NETWORKS, ids=lambda value: str(value))


def small_model(name: str, options: Options, num_classes: int = 3, in_channels: int = 3) -> SegmentationModel:
    """With numbers in place of zeros, from which some papers start the last layers."""
    torch.manual_seed(0)
    model = create_model(name, num_classes, in_channels, **options)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def images(model: SegmentationModel, height: int = 40, width: int = 56, count: int = 2) -> Tensor:
    return torch.rand(count, model.in_channels, height, width, generator=torch.Generator().manual_seed(0))


def randomize_norms(model: nn.Module) -> None:
    """So that folding a batch norm does something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.1, 0.1)
