"""FANet against the definition of its attention and the counts of the authors' code."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segue.models.counting import multiply_adds
from segue.models.fanet import AttentionModule, FANet, FANet18, FANet34, conv_bn, fast_attention


def on_meta(network: type[FANet], auxiliary: bool = True) -> FANet:
    with torch.device("meta"):
        return network(19, auxiliary=auxiliary).eval()


def images(height: int, width: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("network", "inference"), [(FANet18, 13_820_032), (FANet34, 23_928_192)])
def test_parameters_are_those_of_the_authors_code_less_the_unused(network: type[FANet], inference: int) -> None:
    never_used = parameters(conv_bn(128, 128, 3)) + parameters(conv_bn(64, 32))
    for_an_auxiliary_head = parameters(conv_bn(512, 128, 3))
    assert parameters(on_meta(network, auxiliary=False)) == inference - never_used - for_an_auxiliary_head
    assert parameters(on_meta(network)) == inference + 150_144 - never_used  # 13,970,176 in training, with ResNet-18


@pytest.mark.parametrize(("network", "billions"), [(FANet18, 47.1 + 0.25), (FANet34, 66.5 + 0.25)])
def test_multiply_adds(network: type[FANet], billions: float) -> None:
    """At 1024 x 2048, the convolutions' and the attention's; the auxiliary heads are built here, and cost nothing."""
    image = torch.empty(1, 3, 1024, 2048, device="meta")
    assert multiply_adds(on_meta(network), image) == pytest.approx(billions * 1e9, rel=0.01)


def test_stages_are_halved_once_more_than_a_resnet_s() -> None:
    model = on_meta(FANet18)
    x = torch.empty(1, 3, 1024, 2048, device="meta")
    assert [tuple(y.shape[1:]) for y in model.resnet(x)] == [(64, 128, 256), (128, 64, 128), (256, 32, 64), (512, 16, 32)]
    shapes = {name: tuple(y.shape[1:]) for name, y in model.features(x).items()}
    assert shapes == {"main": (256, 128, 256), "context64": (512, 16, 32), "context32": (128, 32, 64)}
    assert model.score(x).shape == (1, 19, 128, 256)


def test_attention_is_the_product_with_all_cosines() -> None:
    random = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 35, generator=random), torch.randn(2, 4, 35, generator=random)
    value = torch.randn(2, 6, 35, generator=random)
    expected = torch.zeros(2, 6, 35)
    for image in range(2):
        for pixel in range(35):
            for other in range(35):
                cosine = torch.cosine_similarity(query[image, :, pixel], key[image, :, other], dim=0)
                expected[image, :, pixel] += cosine * value[image, :, other]
    torch.testing.assert_close(fast_attention(query, key, value), expected, rtol=1e-4, atol=1e-5)


def test_cost_of_attention_grows_with_the_pixels_not_with_their_square() -> None:
    with torch.device("meta"):
        module = AttentionModule(64)
    costs = []
    for side in (32, 64, 128):
        with FlopCounterMode(display=False) as counter:
            module(torch.empty(1, 64, side, side, device="meta"))
        costs.append(counter.get_total_flops())
    assert costs == [costs[0], 4 * costs[0], 16 * costs[0]]


def test_a_pixel_sees_the_whole_map() -> None:
    torch.manual_seed(0)
    module = AttentionModule(8).eval()
    x = torch.randn(1, 8, 9, 9)
    changed = x.clone()
    changed[..., 8, 8] += 1
    with torch.no_grad():
        assert not torch.equal(module(x)[..., 0, 0], module(changed)[..., 0, 0])


def test_relu_is_leaky_inside_the_trunk_but_not_at_the_end_of_a_block() -> None:
    torch.manual_seed(0)
    trunk = FANet18(2).eval().resnet
    with torch.no_grad():
        assert trunk.stem(images(32, 32)).min() < 0
        assert all(stage.min() == 0 for stage in trunk(images(64, 64)))


def test_classifier_s_weights_leave_one_projection_fresh() -> None:
    torch.manual_seed(0)
    weights = torchvision.models.resnet18(weights=None).state_dict()
    model = FANet18(2)
    before = {name: tensor.clone() for name, tensor in model.resnet.state_dict().items()}
    model.load_classifier(weights)
    after = model.resnet.state_dict()
    assert model.classifier == "torchvision/resnet18" and model.trunk() == [model.resnet]
    fresh = [name for name in after if name not in weights]
    assert fresh and all(name.startswith("layer1.0.downsample.") for name in fresh)
    assert all(torch.equal(after[name], before[name] if name in fresh else weights[name]) for name in after)
    del weights["layer2.0.downsample.0.weight"]
    with pytest.raises(ValueError, match=r"no layer2\.0\.downsample\.0\.weight"):
        model.load_classifier(weights)


def test_auxiliary_heads_are_for_training_alone() -> None:
    torch.manual_seed(0)
    model = FANet18(3).eval()
    called: list[str] = []
    for name, head in model.auxiliary.items():
        head.register_forward_hook(lambda *_, name=name: called.append(name))
    x = images(65, 47)
    with torch.no_grad():
        logits = model(x)
        assert called == []
        outputs = model.supervise(x)
    assert called == ["context64", "context32"] and list(outputs) == ["main", *called]
    assert {tuple(y.shape) for y in outputs.values()} == {(2, 3, 65, 47)}
    assert torch.equal(outputs["main"], logits)
    lean = FANet18(3, auxiliary=False).eval()
    assert not lean.load_state_dict(model.state_dict(), strict=False).missing_keys
    with torch.no_grad():
        assert list(lean.supervise(x)) == ["main"]
        assert torch.equal(lean(x), logits)


@pytest.mark.parametrize("train", [True, False])
def test_any_size_comes_back_as_the_same_size(train: bool) -> None:
    model = FANet18(3).train(train)
    for size in ((model.min_size, model.min_size), (8, 71), (33, 47), (64, 128)):
        with torch.no_grad():
            assert model(images(*size)).shape == (2, 3, *size)
