"""BiSeNet and BiSeNet V2 against their papers' tables and the counts of the authors' code."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.base import SegmentationModel
from segue.models.bisenetv1 import AttentionRefinement, BiSeNetV1, FeatureFusion, Xception39
from segue.models.bisenetv2 import BiSeNetV2, GatherExpansion, GatherExpansionDown, GuidedAggregation
from segue.models.counting import multiply_adds


def on_meta(network: type[SegmentationModel], **options: object) -> SegmentationModel:
    with torch.device("meta"):
        return network(19, **options).eval()  # type: ignore[call-arg]


def images(height: int, width: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("options", "inference", "training"),
    [
        ({"backbone": "resnet18"}, 12_894_163, 13_194_489),  # the authors' R18.speed
        ({"backbone": "xception39"}, 1_541_963, 1_842_289),  # X39
        ({"backbone": "resnet101"}, 47_638_803, 48_239_417),  # R101
    ],
)
def test_v1_has_the_parameters_of_the_authors_code(options: dict[str, object], inference: int, training: int) -> None:
    for auxiliary, count in ((False, inference), (True, training)):
        assert sum(p.numel() for p in on_meta(BiSeNetV1, auxiliary=auxiliary, **options).parameters()) == count


def test_v2_has_the_parameters_that_its_ports_share() -> None:
    for auxiliary, count in ((False, 3_358_627), (True, 5_231_487)):
        assert sum(p.numel() for p in on_meta(BiSeNetV2, auxiliary=auxiliary).parameters()) == count


@pytest.mark.parametrize(
    ("network", "options", "size", "billions"),
    [
        (BiSeNetV1, {"backbone": "resnet18"}, (768, 1536), 58.3),
        (BiSeNetV1, {"backbone": "resnet18"}, (360, 640), 11.58),
        (BiSeNetV1, {"backbone": "xception39"}, (768, 1536), 15.6),
        (BiSeNetV1, {"backbone": "xception39"}, (360, 640), 3.07),
        (BiSeNetV1, {"backbone": "resnet101"}, (1024, 1024), 218.0),
        (BiSeNetV2, {}, (512, 1024), 24.60),
    ],
)
def test_multiply_adds(
    network: type[SegmentationModel], options: dict[str, object], size: tuple[int, int], billions: float
) -> None:
    """Auxiliary heads are built here, and cost nothing at inference."""
    image = torch.empty(1, 3, *size, device="meta")
    assert multiply_adds(on_meta(network, **options), image) == pytest.approx(billions * 1e9, rel=0.01)


def test_v1_paths_have_the_papers_sizes() -> None:
    model = on_meta(BiSeNetV1)
    x = torch.empty(1, 3, 768, 1536, device="meta")
    assert model.spatial_path(x).shape == (1, 128, 96, 192)
    assert [tuple(y.shape[1:]) for y in model.context_path(x)[-2:]] == [(256, 48, 96), (512, 24, 48)]
    shapes = {name: tuple(y.shape[1:]) for name, y in model.features(x).items()}
    assert shapes == {"main": (256, 96, 192), "context32": (128, 48, 96), "context16": (128, 96, 192)}
    assert model.score(x).shape == (1, 19, 96, 192)


def test_xception39_has_four_eight_and_four_blocks() -> None:
    with torch.device("meta"):
        trunk = Xception39(3)
        maps = trunk(torch.empty(1, 3, 224, 224))
    assert [tuple(y.shape[1:]) for y in maps] == [(8, 56, 56), (64, 28, 28), (128, 14, 14), (256, 7, 7)]
    assert [len(stage) for stage in (trunk.layer1, trunk.layer2, trunk.layer3)] == [4, 8, 4]
    assert trunk.channels == tuple(y.shape[1] for y in maps)


@pytest.mark.parametrize(("backbone", "widths"), [("resnet34", (64, 128)), ("resnet50", (256, 256)), ("resnet101", (256, 256))])
def test_v1_heads_follow_the_width_of_the_trunk(backbone: str, widths: tuple[int, int]) -> None:
    model = on_meta(BiSeNetV1, backbone=backbone)
    assert (model.head[-1].in_channels, model.auxiliary["context32"][-1].in_channels) == widths


def test_v1_takes_the_trunk_of_timm() -> None:
    model = BiSeNetV1(3, backbone="mobilenetv3_small_050").eval()
    assert model.classifier == "timm/mobilenetv3_small_050"
    with torch.no_grad():
        assert model(images(33, 47)).shape == (2, 3, 33, 47)


def test_v1_takes_the_weights_of_a_classifier() -> None:
    model = BiSeNetV1(2, in_channels=1)
    spatial = model.spatial_path[0][0].weight.clone()
    weights = {name: torch.full_like(tensor, 0.25) for name, tensor in BiSeNetV1(2).context_path.state_dict().items()}
    model.load_classifier(weights)
    assert model.classifier == "torchvision/resnet18"
    assert model.trunk() == [model.context_path]
    assert model.context_path.conv1.weight.unique().tolist() == [0.75]  # the sum over RGB
    assert model.context_path.layer4[1].conv2.weight.unique().tolist() == [0.25]
    assert torch.equal(model.spatial_path[0][0].weight, spatial)
    with pytest.raises(ValueError, match=r"fc\.weight|conv1\.weight"):
        model.load_classifier({"fc.weight": torch.zeros(1000, 512)})


@pytest.mark.parametrize("network", [BiSeNetV1, BiSeNetV2])
def test_auxiliary_heads_are_for_training_alone(network: type[SegmentationModel]) -> None:
    torch.manual_seed(0)
    options = {"backbone": "xception39"} if network is BiSeNetV1 else {}
    model = network(3, **options).eval()  # type: ignore[call-arg]
    heads = model.auxiliary if network is BiSeNetV1 else model.boosters
    called: list[str] = []
    for name, head in heads.items():
        head.register_forward_hook(lambda *_, name=name: called.append(name))
    x = images(33, 47)
    with torch.no_grad():
        logits = model(x)
        assert called == []
        outputs = model.supervise(x)
    assert called == list(heads) and list(outputs) == ["main", *heads]
    assert {tuple(y.shape) for y in outputs.values()} == {(2, 3, 33, 47)}
    assert torch.equal(outputs["main"], logits)
    lean = network(3, auxiliary=False, **options).eval()  # type: ignore[call-arg]
    unused = lean.load_state_dict(model.state_dict(), strict=False)
    assert not unused.missing_keys and all(key.startswith(("auxiliary.", "boosters.")) for key in unused.unexpected_keys)
    with torch.no_grad():
        assert list(lean.supervise(x)) == ["main"]
        assert torch.equal(lean(x), logits)


@pytest.mark.parametrize("network", [BiSeNetV1, BiSeNetV2])
@pytest.mark.parametrize("train", [True, False])
def test_any_size_comes_back_as_the_same_size(network: type[SegmentationModel], train: bool) -> None:
    model = network(3, **({"backbone": "xception39"} if network is BiSeNetV1 else {})).train(train)  # type: ignore[call-arg]
    for size in ((model.min_size, model.min_size), (8, 71), (33, 47), (64, 32)):
        with torch.no_grad():
            assert model(images(*size)).shape == (2, 3, *size)


def test_v1_attention_weighs_whole_maps() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 16, 5, 7)
    refine = AttentionRefinement(16).eval()
    with torch.no_grad():
        before, after = refine.conv(x), refine(x)
        weights = (after / before).nan_to_num(0).amax(dim=(2, 3), keepdim=True)
        assert (weights > 0).any() and (weights < 1).all()
        torch.testing.assert_close(after, weights * before)


def test_v1_fusion_adds_the_weighed_maps_to_the_maps() -> None:
    fusion = FeatureFusion().eval()
    nn.init.zeros_(fusion.attention[3].weight)  # every weight is then the sigmoid of 0
    spatial, context = torch.randn(1, 128, 4, 6), torch.randn(1, 128, 4, 6)
    with torch.no_grad():
        torch.testing.assert_close(fusion(spatial, context), 1.5 * fusion.conv(torch.cat([spatial, context], dim=1)))


def test_v2_stages_are_those_of_table_1() -> None:
    model = on_meta(BiSeNetV2)
    x = torch.empty(1, 3, 512, 1024, device="meta")
    sizes = [tuple(stage.shape[1:]) for stage in model.semantic(x)]
    assert sizes == [(16, 128, 256), (32, 64, 128), (64, 32, 64), (128, 16, 32)]
    detail = []
    for layer in model.detail:
        x = layer(x)
        detail.append(tuple(x.shape[1:]))
    assert detail == [(64, 256, 512)] * 2 + [(64, 128, 256)] * 3 + [(128, 64, 128)] * 3


def test_v2_gathers_and_expands_by_six() -> None:
    keep, down = GatherExpansion(8).eval(), GatherExpansionDown(8, 12).eval()
    for height, width in ((6, 10), (5, 7), (1, 1)):
        x = torch.randn(1, 8, height, width)
        with torch.no_grad():
            assert keep(x).shape == x.shape
            assert down(x).shape == (1, 12, -(-height // 2), -(-width // 2))
            assert keep(x).min() >= 0 and down(x).min() >= 0
    for layer in (keep, down):  # Fig. 5 has no ReLU behind a depthwise convolution
        assert sum(isinstance(m, nn.ReLU) for m in layer.branch.modules()) == 1
    convs = [[m for m in layer.branch.modules() if isinstance(m, nn.Conv2d)] for layer in (keep, down)]
    assert [(c.out_channels, c.groups, c.stride[0]) for c in convs[0]] == [(8, 1, 1), (48, 8, 1), (8, 1, 1)]
    assert [(c.out_channels, c.groups, c.stride[0]) for c in convs[1]] == [(8, 1, 1), (48, 8, 2), (48, 48, 1), (12, 1, 1)]


def test_v2_is_guided_by_the_other_branch() -> None:
    """Where the semantic guide is shut, the detail at 1/8 does not matter; without the detail at 1/32 nothing is left then."""
    aggregation = GuidedAggregation().eval()
    detail, semantic = torch.randn(1, 128, 16, 24), torch.randn(1, 128, 4, 6)
    with torch.no_grad():
        assert aggregation(detail, semantic).shape == detail.shape
        nn.init.constant_(aggregation.semantic_up[1].bias, -1e4)  # the sigmoid at 1/8 is then 0
        coarse_only = aggregation(detail, semantic)
        aggregation.detail[2].weight.zero_()
        assert coarse_only.any() and torch.equal(aggregation(detail, semantic), coarse_only)
        aggregation.detail_down[1].weight.zero_()
        assert not aggregation(detail, semantic).any()


def test_v2_has_no_unused_parameter() -> None:
    """In evaluation: in training a batch norm takes away some shifts and scales that stand before it."""
    torch.manual_seed(0)
    model = BiSeNetV2(3).eval()
    sum(output.square().mean() for output in model.supervise(images(40, 56)).values()).backward()  # type: ignore[union-attr]
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-4] == []


def test_contexts_corners_stay_on_corners() -> None:
    """BiSeNet's context path is enlarged with its corners on the corners, as its score is."""
    torch.manual_seed(0)
    model, image = BiSeNetV1(3).eval(), torch.rand(1, 3, 65, 97)

    def enlarged(maps: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=True)

    with torch.inference_mode():
        *_, c4, c5 = model.context_path(image)
        context32 = model.refine32(enlarged(model.arm32(c5) + model.global_context(c5), c4))
        context16 = model.refine16(enlarged(model.arm16(c4) + context32, model.spatial_path(image)))
        features = model.features(image)
    torch.testing.assert_close(features["context32"], context32)
    torch.testing.assert_close(features["context16"], context16)
