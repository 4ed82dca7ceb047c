"""What makes SegNet SegNet: VGG16 as the encoder, poolings that are undone exactly by their indices, bare scores."""

import pytest
import torch
from torch import Tensor, nn

from segue.models.segnet import BayesianSegNet, SegNet, SegNetBasic, pool, unpool

every_segnet = pytest.mark.parametrize("network", [SegNet, BayesianSegNet, SegNetBasic])
STAGES = [f"encoder{number}" for number in (1, 2, 3, 4, 5)] + [f"decoder{number}" for number in (5, 4, 3, 2, 1)]


def stage_sizes(model: nn.Module, height: int, width: int) -> dict[str, tuple[int, ...]]:
    sizes: dict[str, tuple[int, ...]] = {}
    for name, stage in model.named_children():
        stage.register_forward_hook(lambda _, __, y, name=name: sizes.update({name: tuple(y.shape[1:])}))
    model(torch.empty(1, 3, height, width, device="meta"))
    return {name: size for name, size in sizes.items() if name in STAGES}


def test_stages_have_the_maps_and_sizes_of_the_authors_network() -> None:
    """At 360 x 480 pooling rounds 45 rows up to 23, and the decoder comes back to 45, not 46."""
    with torch.device("meta"):
        sizes = stage_sizes(SegNet(11), 360, 480)
    levels = [(360, 480), (180, 240), (90, 120), (45, 60), (23, 30)]
    encoder = [(64, *levels[0]), (128, *levels[1]), (256, *levels[2]), (512, *levels[3]), (512, *levels[4])]
    decoder = [(512, *levels[4]), (256, *levels[3]), (128, *levels[2]), (64, *levels[1]), (64, *levels[0])]
    assert sizes == dict(zip(STAGES, encoder + decoder, strict=True))


def test_a_stage_of_the_decoder_narrows_in_its_last_convolution() -> None:
    with torch.device("meta"):
        model = SegNet(11)
    widths = [[conv.out_channels for conv in convs(getattr(model, name))] for name in STAGES[5:]]
    assert widths == [[512, 512, 512], [512, 512, 256], [256, 256, 128], [128, 64], [64]]


def convs(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def test_basic_has_no_relu_in_the_decoder() -> None:
    with torch.device("meta"):
        model = SegNetBasic(11)
        assert stage_sizes(model, 360, 480)["decoder4"] == (64, 45, 60)
    relus = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    assert [name.split(".")[0] for name in relus] == STAGES[:4]
    assert {conv.kernel_size for name in STAGES[:4] for conv in convs(getattr(model, name))} == {(7, 7)}


@pytest.mark.parametrize(("height", "width"), [(6, 8), (5, 7), (1, 3), (1, 1)])
def test_unpooling_puts_each_maximum_back_for_odd_sizes_too(height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) + 0.1
    pooled, indices = pool(x)
    assert pooled.shape[-2:] == ((height + 1) // 2, (width + 1) // 2)
    back = unpool(pooled, indices, x)
    assert back.shape == x.shape
    largest = nn.functional.interpolate(pooled, scale_factor=2)[..., :height, :width]
    assert torch.equal(back, torch.where(x == largest, x, 0))


def test_the_first_normalisation_is_caffes() -> None:
    """Caffe's LRN over 5 channels: x / (1 + alpha / 5 * sum of squares)^beta."""
    x = torch.randn(1, 7, 3, 4, generator=torch.Generator().manual_seed(0)) * 100
    squares = nn.functional.pad(x.square(), (0, 0, 0, 0, 2, 2))
    sums = torch.stack([squares[:, channel : channel + 5].sum(1) for channel in range(7)], dim=1)
    torch.testing.assert_close(SegNetBasic(2, 7, width=2).norm(x), x / (1 + 1e-4 / 5 * sums) ** 0.75)


@every_segnet
def test_logits_are_not_rectified(network: type[SegNet]) -> None:
    torch.manual_seed(0)
    logits = network(5, width=8)(torch.rand(2, 3, 33, 47))
    assert (logits < 0).any()
    assert (logits > 0).any()


@every_segnet
@pytest.mark.parametrize("value", [0.0, 0.7, 255.0])
def test_constant_images_give_finite_logits_and_gradients(network: type[SegNet], value: float) -> None:
    """Batch norm's eps of 1e-9 is small, yet not too small for float32."""
    torch.manual_seed(0)
    model = network(3, width=8)
    logits = model(torch.full((2, 3, 32, 40), value))
    nn.functional.cross_entropy(logits, torch.randint(0, 3, (2, 32, 40))).backward()
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.eval()(torch.full((1, 3, 1, 1), value)).isfinite().all()


def test_bayesian_drops_half_of_six_maps_value_by_value() -> None:
    torch.manual_seed(0)
    model = BayesianSegNet(3, width=8)
    shares: list[tuple[int, float]] = []

    def record(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        there = inputs[0] != 0
        lost, kept = (output == 0) & there, output != 0
        shares.append((output.shape[-1], lost.sum().item() / there.sum().item()))
        assert (lost.any(3).any(2) & kept.any(3).any(2)).any()  # not whole maps at once

    [dropout] = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    dropout.register_forward_hook(record)
    model(torch.rand(2, 3, 64, 96))
    assert [width for width, _ in shares] == [12, 6, 3, 6, 12, 24]  # behind poolings 3, 4, 5 and behind decoders 5, 4, 3
    assert all(share == pytest.approx(0.5, abs=0.1) for _, share in shares)


def test_bayesian_samples_differ_while_dropout_alone_is_in_training_mode() -> None:
    torch.manual_seed(0)
    model = BayesianSegNet(3, width=8).eval()
    x = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        model.dropout.train()
        assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize(("network", "shift"), [(SegNet, 0.001), (SegNetBasic, 0.001), (BayesianSegNet, 0.0)])
def test_batch_norm_starts_as_released(network: type[SegNet], shift: float) -> None:
    norms = [module for module in network(3, width=4).modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.eps == 1e-9 and (norm.weight == 1).all() and (norm.bias == shift).all() for norm in norms)


@pytest.mark.parametrize("in_channels", [1, 3, 4])
def test_the_encoder_takes_the_thirteen_convolutions_of_vgg16(in_channels: int) -> None:
    """Weights of the true shapes: 3x3 kernels at torchvision's places in `features`, each filled with its own number."""
    places = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)}
    places |= {17: (512, 256)} | dict.fromkeys((19, 21, 24, 26, 28), (512, 512))
    weights = {f"features.{place}.weight": torch.tensor(1.0 + place).expand(*maps, 3, 3) for place, maps in places.items()}
    weights |= {f"features.{place}.bias": torch.tensor(-1.0 - place).expand(maps[0]) for place, maps in places.items()}
    model = SegNet(2, in_channels)
    model.load_classifier(weights)
    encoder = [conv for name in STAGES[:5] for conv in convs(getattr(model, name))]
    assert model.trunk() == encoder
    first = 3.0 if in_channels == 1 else 1.0  # a grey image stands for three equal channels
    assert [conv.weight.unique().tolist() for conv in encoder] == [[first], *([1.0 + place] for place in list(places)[1:])]
    assert [conv.bias.unique().tolist() for conv in encoder] == [[-1.0 - place] for place in places]
    del weights["features.28.bias"]
    with pytest.raises(ValueError, match=r"features\.28\.bias"):
        model.load_classifier(weights)
