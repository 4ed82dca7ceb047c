"""DFN: the smooth and the border network, their blocks, and what prediction leaves out."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from segue.models.dfn import CAB, DFN, RRB, head


def small_dfn(num_classes: int = 3) -> DFN:
    torch.manual_seed(0)
    return DFN(num_classes, backbone="resnet18", width=16)


def image(height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_stages_have_the_sizes_of_figure_2() -> None:
    with torch.device("meta"):
        model = DFN(19)
        features = model.backbone(torch.empty(2, 3, 512, 512))
        assert [tuple(x.shape[1:]) for x in features] == [(256, 128, 128), (512, 64, 64), (1024, 32, 32), (2048, 16, 16)]
        assert [tuple(x.shape[1:]) for x in model.smooth(features)] == [(512, size, size) for size in (16, 32, 64, 128)]
        assert [tuple(x.shape[1:]) for x in model.border(features)] == 4 * [(21, 128, 128)]
        assert model.score(torch.empty(2, 3, 512, 512)).shape == (2, 19, 128, 128)


def test_the_parameters_are_the_authors_less_the_refinement_that_they_never_use() -> None:
    with torch.device("meta"):
        unused = sum(p.numel() for p in RRB(21, 21).parameters())
        assert sum(p.numel() for p in DFN(21).parameters()) == 90_724_344 - unused
        assert sum(p.numel() for p in DFN(19).parameters()) == 90_217_888 - unused


def test_supervise_gives_four_scores_and_four_borders_of_the_size_of_the_image() -> None:
    model = small_dfn().eval()
    x = image(50, 71)
    outputs = model.supervise(x)
    assert {name: logits.shape[1] for name, logits in outputs.items()} == {
        "main": 3, "smooth1": 3, "smooth2": 3, "smooth3": 3, "border1": 1, "border2": 1, "border3": 1, "border4": 1,
    }  # fmt: skip
    assert all(logits.shape[2:] == (50, 71) for logits in outputs.values())
    torch.testing.assert_close(outputs["main"], model(x))


def test_every_interpolation_aligns_the_corners_as_in_the_authors_code() -> None:
    model = small_dfn().eval()
    x = image(64, 96)
    with torch.no_grad():
        features = model.backbone(x)
        first, second, *_ = model.smooth(features)
        doubled = F.interpolate(first, (4, 6), mode="bilinear", align_corners=True)
        stage = model.smooth_stages[1]
        torch.testing.assert_close(second, stage.post(stage.cab(stage.pre(features[2]), doubled)))
        border = model.border_pre[0](features[0])
        deeper = F.interpolate(model.border_pre[1](features[1]), (16, 24), mode="bilinear", align_corners=True)
        torch.testing.assert_close(model.border(features)[1], model.border_post[0](border + deeper))
        for name, logits in (("main", model.score(x)), ("smooth1", model.smooth_heads[0](first))):
            enlarged = F.interpolate(logits, (64, 96), mode="bilinear", align_corners=True)
            torch.testing.assert_close(model.supervise(x)[name], enlarged)
        torch.testing.assert_close(model(x), model.supervise(x)["main"])


@pytest.mark.parametrize("train", [True, False])
def test_prediction_computes_no_border_and_only_the_last_head(train: bool) -> None:
    model = small_dfn().train(train)
    called: set[nn.Module] = set()
    auxiliary = [*model.border_pre, *model.border_post, *model.border_heads, *model.smooth_heads[:3]]
    for module in auxiliary:
        module.register_forward_hook(lambda module, _, __: called.add(module))
    model(image())
    assert called == set()
    model.supervise(image())
    assert called == set(auxiliary)


def test_each_border_is_of_a_deeper_stage_and_leaves_the_smooth_network_alone() -> None:
    model = small_dfn()
    stages = [model.backbone.layer1, model.backbone.layer2, model.backbone.layer3, model.backbone.layer4]
    for number in range(1, 5):
        model.zero_grad()
        model.supervise(image())[f"border{number}"].square().mean().backward()
        reached = [any(p.grad is not None and bool(p.grad.any()) for p in stage.parameters()) for stage in stages]
        assert reached == [stage < number for stage in range(4)]
        assert all(p.grad is None for p in (*model.smooth_stages.parameters(), *model.smooth_heads.parameters()))


def test_the_smooth_network_starts_from_the_mean_over_the_image() -> None:
    model = small_dfn().eval()
    starts: list[Tensor] = []
    model.smooth_stages[0].register_forward_pre_hook(lambda _, inputs: starts.append(inputs[1]))
    features = model.backbone(image())
    model.smooth(features)
    model.smooth([*features[:3], features[3].flip(2)])  # the mean does not know where a feature was
    model.smooth([*features[:3], features[3] + torch.eye(2)])  # only one corner and its opposite change
    assert starts[0].shape == (2, 16, 1, 1)
    torch.testing.assert_close(starts[0], starts[1])
    assert not torch.allclose(starts[0], starts[2])


def test_channel_attention_weighs_the_lower_map_by_both() -> None:
    cab = CAB(8)
    low, high = 1 + torch.rand(2, 8, 5, 6), torch.rand(2, 8, 5, 6)

    def weights(low: Tensor, high: Tensor) -> Tensor:
        alpha = (cab(low, high) - high) / low
        torch.testing.assert_close(alpha, alpha[..., :1, :1].expand_as(alpha))  # one number for each channel
        return alpha[..., 0, 0].detach()

    alpha = weights(low, high)
    assert 0 < alpha.min() < alpha.max() < 1
    assert not torch.allclose(weights(low + 1, high), alpha)
    assert not torch.allclose(weights(low, high + 1), alpha)


def test_heads_end_without_an_activation() -> None:
    block, x = RRB(6, 4), torch.randn(2, 6, 7, 7)
    x1 = block.conv1x1(x)
    torch.testing.assert_close(block(x), torch.relu(x1 + block.residual(x1)))
    rrb = head(6, 4)[0]
    x1 = rrb.conv1x1(x)
    assert x1.shape == (2, 36, 7, 7)  # nine maps for each of the result
    torch.testing.assert_close(rrb(x), x1 + rrb.residual(x1))


def test_the_trunk_takes_the_weights_of_its_classifier() -> None:
    model = small_dfn()
    weights = torchvision.models.resnet18().state_dict()
    model.load_classifier(weights)
    assert model.classifier == "torchvision/resnet18"
    assert torch.equal(model.backbone.conv1.weight, weights["conv1.weight"])
    assert model.trunk() == [model.backbone]


def test_each_border_goes_on_from_all_before_it() -> None:
    """DFN's last border sums up what all stages of the border network make, and not its own and the first alone."""
    torch.manual_seed(0)
    model = DFN(3, backbone="resnet18", width=16)
    model.supervise(torch.rand(2, 3, 64, 64))["border4"].square().mean().backward()
    for part in (*model.border_pre, *model.border_post):
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())
