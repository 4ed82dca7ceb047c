"""The table of networks. A new one joins by a line in MODELS."""

import inspect
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

from segue.models.base import SegmentationModel
from segue.models.bisenetv1 import BiSeNetV1
from segue.models.bisenetv2 import BiSeNetV2
from segue.models.deconvnet import DeconvNet
from segue.models.deeplabv1 import DeepLabV1
from segue.models.deeplabv2 import DeepLabV2
from segue.models.deeplabv3 import DeepLabV3
from segue.models.deeplabv3plus import DeepLabV3Plus
from segue.models.dfn import DFN
from segue.models.enet import ENet
from segue.models.fanet import FANet18, FANet34
from segue.models.fcn import FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from segue.models.fcn_alexnet import FCN32sAlexNet
from segue.models.fcn_googlenet import FCN32sGoogLeNet
from segue.models.fusionnet import FusionNet
from segue.models.gcn import GCN
from segue.models.rednet import RedNet
from segue.models.segnet import BayesianSegNet, SegNet, SegNetBasic
from segue.models.unet import unet
from segue.suggest import did_you_mean

MODELS: dict[str, Callable[..., SegmentationModel]] = {
    "bayesian_segnet": BayesianSegNet,
    "bisenetv1": BiSeNetV1,
    "bisenetv2": BiSeNetV2,
    "deconvnet": DeconvNet,
    "deeplabv1": DeepLabV1,
    "deeplabv2": DeepLabV2,
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "dfn": DFN,
    "enet": ENet,
    "fanet18": FANet18,
    "fanet34": FANet34,
    "fcn16s": FCN16s,
    "fcn32s": FCN32s,
    "fcn32s_alexnet": FCN32sAlexNet,
    "fcn32s_googlenet": FCN32sGoogLeNet,
    "fcn8s": FCN8s,
    "fcn8s_atonce": FCN8sAtOnce,
    "fusionnet": FusionNet,
    "gcn": GCN,
    "rednet": RedNet,
    "segnet": SegNet,
    "segnet_basic": SegNetBasic,
    "unet": unet,
}


def list_models(pattern: str = "*") -> list[str]:
    """The names of the networks that match a pattern such as "*net*", in alphabetical order."""
    return sorted(name for name in MODELS if fnmatch(name, pattern))


def create_model(name: str, num_classes: int, in_channels: int | None = None, **options: Any) -> SegmentationModel:
    """The network of that name, freshly initialised.

    in_channels: 3 unless given, for RedNet 4, of which the last is depth. options: those of the network's class. ValueError for a
    name or an option that does not exist, or a value that the option cannot have.
    """
    if name not in MODELS:
        raise ValueError(f'no model "{name}"{did_you_mean(name, list_models())}')
    parameters = dict(inspect.signature(MODELS[name]).parameters)
    channels = parameters.pop("in_channels").default if in_channels is None else in_channels
    known = [option for option in parameters if option != "num_classes"]
    for option, value in options.items():
        if option not in known:
            raise ValueError(f'{name} has no option "{option}"{did_you_mean(option, known)}')
        wanted = type(parameters[option].default)
        if type(value) is not wanted or (wanted is int and value < 1):
            allowed = {int: "a whole number of at least 1", bool: "True or False", str: "a name"}[wanted]
            raise ValueError(f"{option} (={value!r}) of {name} must be {allowed}, such as {parameters[option].default!r}")
    return MODELS[name](num_classes, channels, **options)
