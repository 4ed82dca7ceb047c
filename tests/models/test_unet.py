"""U-Net's Figure 1 and its overlap-tile strategy, and U-Net over a classifier's trunk."""

import pytest
import torch
import torchvision
from torch import nn

from segue.models.unet import UNet, UNetTrunk, unet


def test_crops_and_sizes_are_those_of_figure_1() -> None:
    with torch.device("meta"):
        model = UNet(2, 1)
        sizes: dict[str, torch.Size] = {}
        for key in ("down1", "down2", "down3", "down4", "bottom", "up4", "up3", "up2", "up1"):
            getattr(model, key).register_forward_hook(lambda _, __, y, key=key: sizes.update({key: y.shape[1:]}))
        assert model.network(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    figure = {"down1": (64, 568), "down2": (128, 280), "down3": (256, 136), "down4": (512, 64), "bottom": (1024, 28)}
    figure |= {"up4": (512, 52), "up3": (256, 100), "up2": (128, 196), "up1": (64, 388)}
    assert sizes == {key: (maps, size, size) for key, (maps, size) in figure.items()}


def test_the_border_is_seen_mirrored() -> None:
    """The overlap-tile strategy: a prediction equals that of the valid network on an image mirrored by hand."""
    torch.manual_seed(0)
    model = UNet(3, width=8).eval()
    image = torch.rand(1, 3, 196, 212)  # 16 k + 60 - 184 each
    by_hand = nn.functional.pad(image, (92, 92, 92, 92), mode="reflect")
    with torch.no_grad():
        torch.testing.assert_close(model(image), model.network(by_hand), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"padding": "same", "batch_norm": True}])
def test_width_scales_every_map(options: dict[str, object]) -> None:
    with torch.device("meta"):
        whole, half = (UNet(5, 3, width=width, **options).state_dict() for width in (64, 32))
    assert list(whole) == list(half)
    for key, tensor in whole.items():
        expected = [size if size in (1, 2, 3, 5) else size // 2 for size in tensor.shape]
        assert list(half[key].shape) == expected


def test_with_a_trunk_each_level_gets_the_map_of_its_own_size() -> None:
    model = unet(4, 3, backbone="resnet18").eval()
    sizes: dict[str, tuple[int, ...]] = {}
    for name in ("down1", "up5", "up4", "up3", "up2", "up1"):
        getattr(model, name).register_forward_hook(lambda _, __, y, name=name: sizes.update({name: tuple(y.shape[1:])}))
    skips: dict[str, tuple[int, ...]] = {}
    for name in ("up5", "up4", "up3", "up1"):
        getattr(model, name).register_forward_pre_hook(lambda _, x, name=name: skips.update({name: tuple(x[1].shape[1:])}))
    with torch.no_grad():
        assert model(torch.rand(1, 3, 60, 90)).shape == (1, 4, 60, 90)
    assert sizes == {
        "down1": (16, 64, 96),
        **{"up5": (256, 4, 6), "up4": (128, 8, 12), "up3": (64, 16, 24), "up2": (32, 32, 48), "up1": (16, 64, 96)},
    }
    assert skips == {"up5": (256, 4, 6), "up4": (128, 8, 12), "up3": (64, 16, 24), "up1": (16, 64, 96)}


def test_the_trunk_takes_a_classifiers_weights_and_leaves_the_rest() -> None:
    torch.manual_seed(0)
    model = UNetTrunk(2, 4, "resnet18")
    new = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("backbone.")}
    torch.manual_seed(1)
    weights = torchvision.models.resnet18(weights=None).state_dict()
    model.load_classifier(weights)
    state = model.state_dict()
    assert model.classifier == "torchvision/resnet18"
    assert torch.equal(state["backbone.layer4.1.conv2.weight"], weights["layer4.1.conv2.weight"])
    assert torch.equal(state["backbone.conv1.weight"][:, :3], weights["conv1.weight"])
    torch.testing.assert_close(state["backbone.conv1.weight"][:, 3], weights["conv1.weight"].mean(1))
    assert all(torch.equal(state[name], tensor) for name, tensor in new.items())
    trunk = {id(p) for module in model.trunk() for p in module.parameters()}
    assert [name for name, p in model.named_parameters() if id(p) not in trunk] == [
        name for name, _ in model.named_parameters() if not name.startswith("backbone.")
    ]


def test_any_feature_network_of_timm_can_be_the_trunk() -> None:
    model = unet(2, 1, backbone="efficientnet_lite0").eval()
    assert model.classifier == "timm/efficientnet_lite0"
    with torch.no_grad():
        assert model(torch.rand(1, 1, 33, 64)).shape == (1, 2, 33, 64)


def test_options_that_do_not_go_with_a_trunk_are_refused() -> None:
    for options in ({"padding": "same"}, {"batch_norm": True}, {"width": 32}):
        with pytest.raises(ValueError, match=r'leave them out beside backbone \(="resnet18"\)'):
            unet(2, backbone="resnet18", **options)
    with pytest.raises(ValueError, match="no-such-net"):
        unet(2, backbone="no-such-net")
    assert isinstance(unet(2, width=4), UNet)
