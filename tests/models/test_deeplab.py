"""The four DeepLabs: sizes of their maps, dilations, fields, scales, the early map of v3+, the classifiers' weights."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from segue.models.base import SegmentationModel, resize
from segue.models.deeplabv1 import DeepLabV1
from segue.models.deeplabv2 import DeepLabV2
from segue.models.deeplabv3 import ASPP, DeepLabV3
from segue.models.deeplabv3plus import DeepLabV3Plus, separable_conv


def images(height: int, width: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def sizes_of(model: nn.Module, names: list[str], x: Tensor) -> dict[str, tuple[int, ...]]:
    """The maps, height and width of what the layers give that have these names."""
    sizes: dict[str, tuple[int, ...]] = {}
    for name in names:
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda _, __, y, name=name: sizes.update({name: tuple(y.shape[1:])}))
    model.eval()(x)
    return sizes


def dilations(module: nn.Module) -> list[int]:
    return [layer.dilation[0] for layer in module.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]


@pytest.mark.parametrize(
    ("network", "options", "step"),
    [
        (DeepLabV1, {"width": 4}, 8),
        (DeepLabV2, {"backbone": "resnet18"}, 8),
        (DeepLabV3, {"backbone": "resnet18"}, 16),
        (DeepLabV3, {"backbone": "resnet18", "output_stride": 8}, 8),
        (DeepLabV3Plus, {"backbone": "resnet18"}, 4),
    ],
)
def test_corners_stay_on_corners_and_other_sizes_repeat_the_border(network: Any, options: dict[str, Any], step: int) -> None:
    torch.manual_seed(0)
    model: SegmentationModel = network(3, **options).eval()
    x = images(65, 97)
    with torch.no_grad():
        logits = model(x)
        torch.testing.assert_close(logits[..., ::step, ::step], model.score(x))
        padded = model(F.pad(x[..., :60, :90], (0, 7, 0, 5), mode="replicate"))
        torch.testing.assert_close(model(x[..., :60, :90]), padded[..., :60, :90])


def test_v1_has_the_authors_sizes_for_a_321_pixel_image() -> None:
    with torch.device("meta"):
        model = DeepLabV1(21)
        names = ["vgg.conv1", "vgg.conv2", "vgg.conv3", "vgg.conv4", "vgg.conv5", "fc6", "fc7", "fc8"]
        sizes = sizes_of(model, names, torch.empty(1, 3, 321, 321))
        assert model.supervise(torch.empty(1, 3, 321, 321))["main"].shape == (1, 21, 41, 41)
    maps = (64, 128, 256, 512, 512, 1024, 1024, 21)
    pixels = (321, 161, 81, 41, 41, 41, 41, 41)
    assert list(sizes.values()) == [(number, size, size) for number, size in zip(maps, pixels, strict=True)]


def test_v1_sees_its_large_field_of_view_and_nothing_beyond() -> None:
    """Kernels, dilations and strides of the authors' network; a pixel of the image can be felt just as far as they reach."""
    layers = [(3, 1, 1)] * 2 + [(3, 1, 2)] + [(3, 1, 1)] * 2 + [(3, 1, 2)] + [(3, 1, 1)] * 3 + [(3, 1, 2)]  # conv1 to pool3
    layers += [(3, 1, 1)] * 3 + [(3, 1, 1)] + [(3, 2, 1)] * 3 + [(3, 1, 1)] * 2 + [(3, 12, 1)]  # conv4 to pool5a, fc6
    field, step = 1, 1
    for kernel, dilation, stride in layers:
        field += (kernel - 1) * dilation * step
        step *= stride
    model = DeepLabV1(1, width=2).eval()
    for weight in model.parameters():
        weight.data.abs_()  # so that nothing felt is cancelled or cut off by a ReLU
    x = torch.zeros(1, 3, 481, 481)
    first = 240 - field // 2  # the field of the logit in the middle begins here
    with torch.no_grad():
        before = model.score(x)[0, 0, 30, 30]
        for place, felt in ((first, True), (first - 1, False)):
            lit = x.clone()
            lit[..., place] = 1e6
            assert (model.score(lit)[0, 0, 30, 30] != before) == felt


def test_v1_averages_over_the_zeros_at_the_border_too() -> None:
    model = DeepLabV1(2, width=1)
    seen: list[Tensor] = []
    model.fc6.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.vgg.register_forward_hook(lambda _, __, ___: [torch.ones(1, 8, 5, 5)])
    model.score(torch.empty(1, 3, 33, 33))
    torch.testing.assert_close(seen[0][0, 0, :2, :2], torch.tensor([[4, 6], [6, 9]]) / 9)


def vgg16_weights(fc6: Tensor, fc7: Tensor) -> dict[str, Tensor]:
    """A state dict of torchvision's names and shapes, of which only the fully connected layers are not zero."""
    shapes = {name: tensor.shape for name, tensor in vgg16_on_meta().items()}
    weights = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    bias = torch.arange(4096.0)
    return {
        **weights,
        "classifier.0.weight": fc6,
        "classifier.0.bias": bias,
        "classifier.3.weight": fc7,
        "classifier.3.bias": bias,
    }


def vgg16_on_meta() -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(torchvision.models.vgg16(weights=None, init_weights=False).state_dict())


def test_v1_and_v2_decimate_the_fully_connected_layers_of_vgg16() -> None:
    model = DeepLabV1(2)
    inputs = torch.arange(512 * 49.0)  # each input of fc6 has its own number, which float32 holds exactly
    model.load_classifier(vgg16_weights(inputs.expand(4096, -1), torch.arange(4096.0).expand(4096, -1)))
    assert not model.vgg.conv5[4].weight.any()
    assert torch.equal(model.fc6.weight[7, 3].flatten(), 3 * 49 + torch.tensor([0.0, 3, 6, 21, 24, 27, 42, 45, 48]))
    assert torch.equal(model.fc7.weight[7].flatten(), torch.arange(0.0, 4096, 4))
    outputs = torch.arange(4096.0)[:, None]
    branched = DeepLabV2(2, backbone="vgg16")
    branched.load_classifier(vgg16_weights(outputs.expand(-1, 512 * 49), outputs.expand(-1, 4096)))
    for branch in branched.branches():
        for layer in (branch.fc6, branch.fc7):
            assert torch.equal(layer.weight[:, 5, 0, 0], torch.arange(0.0, 4096, 4))
            assert torch.equal(layer.bias, torch.arange(0.0, 4096, 4))


def test_v1_takes_a_bare_trunk_and_refuses_another_classifier() -> None:
    model = DeepLabV1(2)
    fc6 = model.fc6.weight.clone()
    zeros = vgg16_weights(torch.zeros(()).expand(4096, 25088), torch.zeros(()).expand(4096, 4096))
    model.load_classifier({name: tensor for name, tensor in zeros.items() if name.startswith("features.")})
    assert not model.vgg.conv1[0].weight.any()
    assert torch.equal(model.fc6.weight, fc6)
    with pytest.raises(ValueError, match=r"classifier\.0 is \(4096, 512\).*25088"):
        model.load_classifier({**zeros, "classifier.0.weight": torch.zeros(4096, 512)})


def test_v2_sees_three_scales_and_keeps_the_greatest_sum() -> None:
    torch.manual_seed(0)
    model = DeepLabV2(3, backbone="resnet18").eval()
    x = images(65, 97)
    with torch.no_grad():
        outputs = model.supervise(x)
        for name, height, width in (("scale1", 65, 97), ("scale075", 49, 73), ("scale05", 33, 49)):
            features = model.backbone(F.interpolate(x, (height, width), mode="bilinear", align_corners=True))[-1]
            parts = [
                F.conv2d(features, branch.weight, branch.bias, padding=rate, dilation=rate)  # type: ignore[arg-type]
                for branch, rate in zip(model.aspp, (6, 12, 18, 24), strict=True)
            ]
            logits = parts[0] + parts[1] + parts[2] + parts[3]
            if name == "scale075":  # which the authors enlarge, as its places lie between the image's pixels
                logits = F.interpolate(logits, (9, 13), mode="bilinear", align_corners=True)
            torch.testing.assert_close(outputs[name], logits)
        enlarged = [F.interpolate(outputs[name], (9, 13), mode="bilinear", align_corners=True) for name in outputs]
    main, *scales = enlarged
    assert torch.equal(main, torch.stack(scales).max(0).values)
    assert len({int(number) for number in torch.stack(scales).argmax(0).unique()}) == 3  # each scale wins somewhere


def test_v2_has_the_papers_sizes_and_dilations() -> None:
    with torch.device("meta"):
        model = DeepLabV2(21)
        outputs = model.supervise(torch.empty(2, 3, 321, 321))
        assert {name: output.shape[-1] for name, output in outputs.items()} == {
            "main": 41, "scale1": 41, "scale075": 41, "scale05": 21,
        }  # fmt: skip
        single = DeepLabV2(21, backbone="vgg16").supervise(torch.empty(1, 3, 321, 321))
    assert {name: tuple(output.shape) for name, output in single.items()} == {"main": (1, 21, 41, 41)}
    assert dilations(model.backbone.layer3) == 23 * [2]
    assert dilations(model.backbone.layer4) == 3 * [4]
    assert model.backbone.layer2[0].conv1.stride == (2, 2)
    with pytest.raises(ValueError, match=r'backbone \(="xception65"\) must be vgg16 or one of resnet18'):
        DeepLabV2(2, backbone="xception65")


@pytest.mark.parametrize(
    ("output_stride", "size", "grid", "rates"), [(16, 33, [2, 4, 8], [6, 12, 18]), (8, 65, [4, 8, 16], [12, 24, 36])]
)
def test_v3_has_the_papers_sizes_and_dilations(output_stride: int, size: int, grid: list[int], rates: list[int]) -> None:
    with torch.device("meta"):
        model = DeepLabV3(21, output_stride=output_stride)
        sizes = sizes_of(model, ["backbone.layer4", "aspp.project", "aspp", "logits"], torch.empty(1, 3, 513, 513))
    assert sizes == {
        "backbone.layer4": (2048, size, size), "aspp.project": (256, size, size), "aspp": (256, size, size),
        "logits": (21, size, size),
    }  # fmt: skip
    assert dilations(model.backbone.layer4) == grid
    assert dilations(model.aspp) == rates


def test_v3_sees_the_pooled_image_everywhere() -> None:
    torch.manual_seed(0)
    aspp = ASPP(4, (6, 12, 18)).eval()
    aspp.project[0].weight.data[:, : 4 * 256] = 0  # the other four branches
    with torch.no_grad():
        x = torch.rand(1, 4, 5, 7)
        pooled = aspp(x)
        assert torch.equal(pooled, pooled[..., :1, :1].expand_as(pooled))
        torch.testing.assert_close(pooled, aspp(x.flip(2, 3)))
        x[..., 0, 0] += 1
        assert not torch.allclose(pooled[..., -1, -1], aspp(x)[..., -1, -1])


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "xception65"])
def test_the_output_stride_changes_where_logits_are_computed_and_not_what(backbone: str) -> None:
    """Trained at 16, used at 8: every second logit is the one of output stride 16, but for the mean over the image."""
    torch.manual_seed(0)
    coarse = DeepLabV3(3, backbone=backbone, output_stride=16).eval()
    coarse.aspp.project[0].weight.data[:, 4 * 256 :] = 0  # the pooled image
    fine = DeepLabV3(3, backbone=backbone, output_stride=8).eval()
    fine.load_state_dict(coarse.state_dict())
    x = images(65, 81)
    with torch.no_grad():
        expected = coarse.score(x)
        torch.testing.assert_close(fine.score(x)[..., ::2, ::2], expected, rtol=1e-3, atol=1e-3 * expected.std().item())


@pytest.mark.parametrize("network", [DeepLabV3, DeepLabV3Plus])
def test_v3_and_v3plus_have_two_output_strides(network: Any) -> None:
    with torch.device("meta"):
        coarse, fine = (network(2, backbone="resnet18", output_stride=stride).state_dict() for stride in (16, 8))
    assert {name: tensor.shape for name, tensor in coarse.items()} == {name: tensor.shape for name, tensor in fine.items()}
    with pytest.raises(ValueError, match=r"output_stride \(=32\) must be 16 or 8"):
        network(2, backbone="resnet18", output_stride=32)


@pytest.mark.parametrize("backbone", ["resnet101", "xception65"])
def test_v3plus_has_the_papers_sizes(backbone: str) -> None:
    with torch.device("meta"):
        model = DeepLabV3Plus(21, backbone=backbone)
        sizes = sizes_of(model, ["aspp", "low_level", "decoder.0", "decoder.1", "logits"], torch.empty(1, 3, 513, 513))
        early, *_, last = model.backbone(torch.empty(1, 3, 513, 513))
    assert (early.shape[1:], last.shape[1:]) == ((256, 129, 129), (2048, 33, 33))
    assert sizes == {
        "aspp": (256, 33, 33), "low_level": (48, 129, 129), "decoder.0": (256, 129, 129), "decoder.1": (256, 129, 129),
        "logits": (21, 129, 129),
    }  # fmt: skip


def test_v3plus_joins_the_encoders_map_first_and_the_early_map_behind_it() -> None:
    torch.manual_seed(0)
    model = DeepLabV3Plus(3, backbone="resnet18").eval()
    seen: list[Tensor] = []
    for layer in (model.aspp, model.low_level):
        layer.register_forward_hook(lambda _, __, y: seen.append(y))
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images(33, 49))
    encoded, early, joined = seen
    assert torch.equal(joined[:, :256], resize(encoded, joined.shape[-2:], aligned=True))
    assert torch.equal(joined[:, 256:], early)


def test_v3plus_takes_xceptions_early_map_before_its_relu() -> None:
    torch.manual_seed(0)
    model = DeepLabV3Plus(3, backbone="xception65").eval()
    classifier = timm.create_model("xception65")
    model.load_classifier(classifier.state_dict())
    features = timm.create_model("xception65", features_only=True, output_stride=16).eval()
    features.load_state_dict({name.replace(".", "_", 1): tensor for name, tensor in model.backbone.state_dict().items()})
    with torch.no_grad():
        ours, timms = model.backbone(images(65, 49)), features(images(65, 49))[-4:]
    assert (ours[0] < 0).any()
    for own, other in zip([*(tap.relu() for tap in ours[:3]), ours[3]], timms, strict=True):
        torch.testing.assert_close(own, other)
    assert torch.equal(model.backbone.state_dict()["stem.0.conv.weight"], classifier.state_dict()["stem.0.conv.weight"])


def test_a_separable_convolution_has_relu_between_its_parts() -> None:
    layer = separable_conv(4, 5).eval()
    layer[3].weight.data.fill_(-1)  # less than nothing, if what comes in is not negative
    assert not layer(torch.randn(1, 4, 9, 9)).any()


@pytest.mark.parametrize("network", [DeepLabV3, DeepLabV3Plus])
def test_another_trunk_of_timm_brings_its_weights(network: Any) -> None:
    torch.manual_seed(0)
    model = network(3, backbone="tf_efficientnet_lite0").eval()
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_classifier(classifier.state_dict())
    with torch.no_grad():
        expected = classifier.forward_intermediates(images(65, 97), intermediates_only=True)
        for own, other in zip(model.backbone(images(65, 97))[:3], expected[1:4], strict=True):  # the last is dilated
            torch.testing.assert_close(own, other)
        assert model(images(50, 71)).shape == (1, 3, 50, 71)
