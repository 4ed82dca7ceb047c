"""Every network gives the logits that its authors' definition gave for the same weights and the same image.

tests/models/golden.npz holds them: the definitions were run or restated once, outside of this repository, with the weights of
helpers.golden carried over; the page of each network says which definition. A dilation, an alignment or an order that changes
later changes these logits. The keys of OWN are of networks without a definition that can be run: their logits are segue's.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.golden import image, sample, with_named_weights
from helpers.networks import Options
from segue import create_model, list_models

CASES: list[tuple[str, Options, tuple[int, int, int]]] = [  # network, options, channels, height and width
    ("bayesian_segnet", {"width": 8}, (3, 45, 61)),
    ("bisenetv1", {}, (3, 64, 96)),
    ("bisenetv1", {"backbone": "xception39"}, (3, 64, 96)),
    ("bisenetv1", {"backbone": "resnet101"}, (3, 64, 96)),
    ("bisenetv2", {}, (3, 64, 96)),
    ("deconvnet", {"width": 8}, (3, 224, 224)),
    ("deeplabv1", {"width": 16}, (3, 65, 97)),
    ("deeplabv2", {}, (3, 65, 97)),
    ("deeplabv2", {"backbone": "vgg16"}, (3, 65, 97)),
    ("deeplabv3", {}, (3, 65, 97)),
    ("deeplabv3", {"output_stride": 8}, (3, 65, 97)),
    ("deeplabv3plus", {}, (3, 65, 97)),
    ("deeplabv3plus", {"output_stride": 8}, (3, 65, 97)),
    ("deeplabv3plus", {"backbone": "xception65"}, (3, 65, 97)),
    ("dfn", {}, (3, 64, 96)),
    ("enet", {}, (3, 64, 96)),
    ("enet", {"encoder_only": True}, (3, 64, 96)),
    ("fanet18", {}, (3, 97, 131)),
    ("fanet34", {}, (3, 97, 131)),
    ("fcn16s", {"width": 8}, (3, 33, 47)),
    ("fcn32s", {"width": 8}, (3, 33, 47)),
    ("fcn32s_alexnet", {"width": 8}, (3, 33, 47)),
    ("fcn32s_googlenet", {"width": 16}, (3, 64, 97)),
    ("fcn8s", {"width": 8}, (3, 33, 47)),
    ("fcn8s_atonce", {"width": 8}, (3, 33, 47)),
    ("fusionnet", {"width": 8}, (1, 64, 96)),
    ("fusionnet", {"width": 8, "variant": "paper"}, (1, 64, 96)),
    ("gcn", {}, (3, 64, 96)),
    ("rednet", {}, (4, 64, 96)),
    ("segnet", {"width": 8}, (3, 45, 61)),
    ("segnet_basic", {"width": 8}, (3, 45, 61)),
    ("unet", {"width": 8}, (1, 93, 200)),
    ("unet", {"width": 8, "padding": "same", "batch_norm": True}, (3, 64, 96)),
    ("unet", {"backbone": "resnet34"}, (3, 64, 96)),
]
OWN = {"fusionnet width=8 variant=paper", "unet width=8 padding=same batch_norm=True", "unet backbone=resnet34"}
GOLDEN = np.load(Path(__file__).with_name("golden.npz"))


class Mark(nn.Module):
    """In place of a dropout, so that its place shows in the logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2 + 1


def case_name(name: str, options: Options) -> str:
    return " ".join([name, *(f"{option}={value}" for option, value in options.items())])


def outputs_of(name: str, options: Options, size: tuple[int, int, int], supervised: bool) -> dict[str, Tensor]:
    """The logits of a network of three classes, and what it gives in training if that is wanted."""
    model = with_named_weights(create_model(name, 3, size[0], **options))
    if name == "bayesian_segnet":
        model.dropout = Mark()
    x = image(*size)
    with torch.no_grad():
        outputs = {"logits": model(x)}
        return {**outputs, **model.supervise(x)} if supervised else outputs  # type: ignore[operator]


@pytest.mark.parametrize(("name", "options", "size"), CASES, ids=[case_name(*case[:2]) for case in CASES])
def test_logits_are_those_of_the_definition(name: str, options: Options, size: tuple[int, int, int]) -> None:
    case = case_name(name, options)
    expected = {key.partition("/")[2]: GOLDEN[key] for key in GOLDEN.files if key.partition("/")[0] == case}
    assert expected
    outputs = outputs_of(name, options, size, supervised=list(expected) != ["logits"])
    for output, values in expected.items():
        assert values.std() > 0
        np.testing.assert_allclose(sample(outputs[output]), values, rtol=0, atol=1e-9 * np.abs(values).max())


def test_every_network_has_its_logits() -> None:
    assert {name for name, _, _ in CASES} == set(list_models())
    assert {key.partition("/")[0] for key in GOLDEN.files} == {case_name(name, options) for name, options, _ in CASES}
