"""RedNet: two streams and their sums, the decoder of Table 1, the side outputs, and the weights of both branches."""

import pytest
import torch
import torchvision
from torch import Tensor

from segue.models.rednet import RedNet


def small_rednet(in_channels: int = 4) -> RedNet:
    torch.manual_seed(0)
    return RedNet(3, in_channels, backbone="resnet18")


def image(height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(2, 4, height, width, generator=torch.Generator().manual_seed(0))


def test_stages_are_those_of_table_1() -> None:
    with torch.device("meta"):
        model = RedNet(37)
        x = torch.empty(1, 4, 480, 640)
        fused = model.encode(x)
        assert [tuple(y.shape[1:]) for y in fused] == [
            (64, 240, 320), (256, 120, 160), (512, 60, 80), (1024, 30, 40), (2048, 15, 20),
        ]  # fmt: skip
        assert [tuple(y.shape[1:]) for y in model.decode(fused)] == [
            (256, 30, 40), (128, 60, 80), (64, 120, 160), (64, 240, 320), (64, 240, 320),
        ]  # fmt: skip
        outputs = model.supervise(x)
    units = [len(trans) for trans in (model.trans1, model.trans2, model.trans3, model.trans4, model.trans5)]
    assert units == [6, 4, 3, 3, 3]
    assert {name: tuple(logits.shape[1:]) for name, logits in outputs.items()} == {
        "main": (37, 480, 640), "out1": (37, 30, 40), "out2": (37, 60, 80), "out3": (37, 120, 160), "out4": (37, 240, 320),
    }  # fmt: skip


def test_the_side_outputs_have_the_authors_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in RedNet(37).side_convs.parameters()) == 19_092


def test_fusion_is_a_sum_and_depth_goes_on_unfused() -> None:
    model = small_rednet().eval()
    x = image()
    with torch.no_grad():
        fused = model.encode(x)
        depth = model.depth(x[:, 3:])  # the depth branch by itself
        torch.testing.assert_close(fused[0], model.rgb.stem(x[:, :3]) + model.depth.stem(x[:, 3:]))
        torch.testing.assert_close(fused[1], model.rgb.layer1(model.rgb.maxpool(fused[0])) + depth[0])
        torch.testing.assert_close(fused[2], model.rgb.layer2(fused[1]) + depth[1])
        torch.testing.assert_close(fused[3], model.rgb.layer3(fused[2]) + depth[2])
        torch.testing.assert_close(fused[4], model.rgb.layer4(fused[3]) + depth[3])


def test_the_last_channel_is_depth_and_every_output_uses_it() -> None:
    model = small_rednet()
    for name, logits in model.supervise(image()).items():
        model.zero_grad()
        logits.square().mean().backward(retain_graph=True)
        assert model.rgb.conv1.weight.shape[1] == 3
        grads = [model.depth.conv1.weight.grad, *(p.grad for p in model.depth.layer4.parameters())]
        assert all(grad is not None and grad.any() for grad in grads), name


def test_side_outputs_are_not_computed_in_prediction() -> None:
    model = small_rednet()
    calls: list[str] = []
    for conv in model.side_convs:
        conv.register_forward_hook(lambda *_: calls.append("side"))
    model(image())
    assert calls == []
    assert model.supervise(image(33, 50))["out1"].shape == (2, 3, 3, 4)
    assert len(calls) == 4


def test_skips_join_behind_the_side_outputs() -> None:
    """So that out1 is of the deepest map alone."""
    model = small_rednet().eval()
    with torch.no_grad():
        fused = model.encode(image())
        before = model.decode(fused)
        changed = model.decode([*fused[:3], fused[3] + 1, fused[4]])
    assert torch.equal(changed[0], before[0])
    assert not torch.equal(changed[1], before[1])


def test_a_narrow_rednet_has_no_agents_and_no_skip_from_the_first_convolution() -> None:
    """Section 3.1, of ResNet-34."""
    model = small_rednet().eval()
    assert list(model.agents.parameters()) == []
    with torch.no_grad():
        fused = model.encode(image())
        before = model.decode(fused)
        after = model.decode([fused[0] + 1, *fused[1:]])
    assert torch.equal(before[4], after[4])


def test_both_branches_take_the_classifier_and_depth_the_mean_over_rgb() -> None:
    model = small_rednet()
    weights = torchvision.models.resnet18().state_dict()
    model.load_classifier(weights)
    assert model.classifier == "torchvision/resnet18"
    assert torch.equal(model.rgb.conv1.weight, weights["conv1.weight"])
    assert model.depth.conv1.weight.shape == (64, 1, 7, 7)
    by_hand = (weights["conv1.weight"][:, 0] + weights["conv1.weight"][:, 1] + weights["conv1.weight"][:, 2]) / 3
    torch.testing.assert_close(model.depth.conv1.weight[:, 0], by_hand)
    for branch in (model.rgb, model.depth):
        assert torch.equal(branch.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])
    assert model.trunk() == [model.rgb, model.depth]
    with pytest.raises(ValueError, match=r"no conv1\.weight"):
        model.load_classifier({})


def test_images_without_depth_and_other_trunks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in_channels \(=1\).*last is depth"):
        small_rednet(1)
    with pytest.raises(ValueError, match=r'backbone \(="resnet51"\) must be one of resnet18'):
        RedNet(3, backbone="resnet51")
