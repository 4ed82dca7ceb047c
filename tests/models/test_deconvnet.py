"""DeconvNet against its paper: the mirror image of VGG16, unpooling, windows of 224."""

from functools import cache
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.deconvnet import DeconvNet, window_starts


@cache
def narrow() -> DeconvNet:
    """In evaluation, with the statistics of a batch of noise, so that scores are no constants."""
    torch.manual_seed(0)
    model = DeconvNet(3, width=2)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain average
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 224, 224))
    return model.eval()


def test_maps_have_the_sizes_of_figure_2() -> None:
    sizes: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"):
        model = DeconvNet(21)
    for key, layer in model.named_children():
        layer.register_forward_hook(lambda _, __, y, key=key: sizes.update({key: tuple(y.shape[1:])}))
    model(torch.empty(2, 3, 224, 224, device="meta"))
    figure = {"conv1": (64, 224), "conv2": (128, 112), "conv3": (256, 56), "conv4": (512, 28), "conv5": (512, 14)}
    figure |= {"fc6": (4096, 1), "fc7": (4096, 1), "fc6_deconv": (512, 7), "deconv5": (512, 14), "deconv4": (256, 28)}
    figure |= {"deconv3": (128, 56), "deconv2": (64, 112), "deconv1": (64, 224), "seg_score": (21, 224)}
    assert sizes == {key: (maps, size, size) for key, (maps, size) in figure.items()}


def test_every_layer_has_a_bias_and_the_authors_batch_norm() -> None:
    model = DeconvNet(3, width=1)
    convs = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(convs) == len(norms) + 1 == 13 + 2 + 1 + 13 + 1
    assert all(layer.bias is not None for layer in convs)
    for layer in norms:
        assert layer.eps == 1e-9 and (layer.weight == 1).all() and (layer.bias == 0.001).all()


def test_unpooling_undoes_the_pooling_of_the_same_level() -> None:
    """What enters a stage of the decoder is zero but where the encoder's stage had its maxima, one in each 2 x 2."""
    model = narrow()
    encoded: dict[str, Tensor] = {}
    unpooled: dict[str, Tensor] = {}
    handles = []
    for level in "12345":
        keep_output = lambda _, __, y, level=level: encoded.update({level: y})  # noqa: E731
        keep_input = lambda _, x, level=level: unpooled.update({level: x[0]})  # noqa: E731
        handles += [getattr(model, f"conv{level}").register_forward_hook(keep_output)]
        handles += [getattr(model, f"deconv{level}").register_forward_pre_hook(keep_input)]
    with torch.no_grad():
        model(torch.randn(1, 3, 224, 224))
    for handle in handles:
        handle.remove()
    for level in "12345":
        maxima = F.interpolate(F.max_pool2d(encoded[level], 2), scale_factor=2)
        assert unpooled[level].any()
        assert not unpooled[level][encoded[level] != maxima].any()
        per_cell = F.avg_pool2d((unpooled[level] != 0).float(), 2) * 4
        assert per_cell.max() == 1


@pytest.mark.parametrize("size", [224, 225, 335, 336, 337, 500, 1024])
def test_windows_cover_every_pixel_with_half_overlap(size: int) -> None:
    starts = window_starts(size)
    assert starts[0] == 0 and starts[-1] + 224 == size
    assert all(0 < after - before <= 112 for before, after in pairwise(starts))


@pytest.mark.parametrize(("height", "width"), [(224, 224), (224, 300), (345, 226)])
def test_scores_are_the_maxima_over_windows(height: int, width: int) -> None:
    model = narrow()
    x = torch.randn(2, 3, height, width)
    expected = torch.full((2, 3, height, width), -torch.inf)
    with torch.no_grad():
        for top in window_starts(height):
            for left in window_starts(width):
                here = (..., slice(top, top + 224), slice(left, left + 224))
                expected[here] = torch.maximum(expected[here], model.network(x[here]))
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-2


def test_a_small_image_is_continued_to_a_window_by_its_border() -> None:
    model = narrow()
    x = torch.randn(1, 3, 30, 41)
    rows, columns = torch.arange(224).clamp(max=29), torch.arange(224).clamp(max=40)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.network(x[..., rows, :][..., columns])[..., :30, :41])


def test_windows_of_a_larger_image_train_together() -> None:
    """One image, four windows: every layer learns, which a single window's batch norm would not let it."""
    model = DeconvNet(2, width=1)
    model.supervise(torch.rand(1, 3, 230, 230))["main"].square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.rand(1, 3, 224, 224))


def test_exported_with_several_windows_it_gives_the_same() -> None:
    model, x = narrow(), torch.randn(1, 3, 224, 240)
    exported = torch.export.export(model, (x,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x), model(x))


def test_vgg16_fills_the_encoder() -> None:
    model = DeconvNet(3, width=1)
    convs = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)][:15]
    places = [f"features.{place}" for place in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]
    weights = {}
    for number, (name, layer) in enumerate(zip([*places, "classifier.0", "classifier.3"], convs, strict=True)):
        shape = layer.weight.shape if name.startswith("features") else (layer.out_channels, layer.weight[0].numel())
        weights[f"{name}.weight"] = torch.full(shape, float(number))
        weights[f"{name}.bias"] = torch.full((layer.out_channels,), number + 0.5)
    model.load_classifier(weights)
    inside = [layer for part in model.trunk() for layer in part.modules() if isinstance(layer, nn.Conv2d)]
    assert inside == convs
    for number, layer in enumerate(convs):
        assert (layer.weight == number).all() and (layer.bias == number + 0.5).all()
