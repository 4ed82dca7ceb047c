"""The table of networks. A new one joins by a line in MODELS."""

import inspect
from fnmatch import fnmatch
from typing import Any

from segue.layers import SegmentationModel
from segue.models.enet import ENet
from segue.models.unet import UNet
from segue.suggest import did_you_mean

MODELS: dict[str, type[SegmentationModel]] = {
    "enet": ENet,
    "unet": UNet,
}


def list_models(pattern: str = "*") -> list[str]:
    """The names of the networks that match a pattern such as "*net*", in alphabetical order."""
    return sorted(name for name in MODELS if fnmatch(name, pattern))


def create_model(name: str, num_classes: int, in_channels: int = 3, **options: Any) -> SegmentationModel:
    """The network of that name, freshly initialised.

    `options` are those of the network's class. ValueError for a name or an option that does not exist.
    """
    if name not in MODELS:
        raise ValueError(f'no model "{name}"{did_you_mean(name, list_models())}')
    known = [option for option in inspect.signature(MODELS[name]).parameters if option not in ("num_classes", "in_channels")]
    for option in options:
        if option not in known:
            raise ValueError(f'{name} has no option "{option}"{did_you_mean(option, known)}')
    return MODELS[name](num_classes, in_channels, **options)
