import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.pictures import assert_same_labels
from segue import Labels, Predictor, create_model
from segue.inference.tiling import SHARE, examine, label_bands, make_plan, predict_tiled, reach
from segue.models.base import SegmentationModel

RANDOM = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was tested before."""
    monkeypatch.setitem(globals(), "RANDOM", np.random.default_rng(3))


NARROW: dict[str, dict[str, Any]] = {
    "bayesian_segnet": {"width": 4}, "deconvnet": {"width": 2}, "deeplabv1": {"width": 4}, "deeplabv3": {"backbone": "resnet18"},
    "deeplabv3plus": {"backbone": "resnet18"}, "dfn": {"backbone": "resnet18", "width": 8}, "fcn8s": {"width": 4},
    "fcn32s_alexnet": {"width": 4}, "fcn32s_googlenet": {"width": 8}, "fusionnet": {"width": 4}, "gcn": {"backbone": "resnet18"},
    "segnet": {"width": 4}, "segnet_basic": {"width": 4}, "unet": {"width": 4},
}  # fmt: skip
"""Of the networks whose default would be slow, with the layers that they have by default, or so that it makes no difference."""


def network(name: str, **options: Any) -> SegmentationModel:
    """A network with random weights in all its layers, those that start from zero included."""
    torch.manual_seed(1)
    model = create_model(name, 4, **{**NARROW.get(name, {}), **options}).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr, operator]
    for parameter in model.parameters():
        if parameter.ndim == 4 and not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return model


def predictor(model: Any, classes: int = 4, channels: int = 3, **options: Any) -> Predictor:
    labels = Labels.from_names([f"class {number}" for number in range(classes)])
    return Predictor(model, labels, (0.4,) * channels, (0.25,) * channels, **options)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, channels), dtype=np.uint8)


class Pooled(SegmentationModel):
    """A coarse network: means of 8 x 8 pixels, one 3x3 convolution of them."""

    stride = 8

    def __init__(self, channels: int = 3) -> None:
        super().__init__(4, channels)
        torch.manual_seed(1)
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)

    def score(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.avg_pool2d(x, 8))


class Global(Pooled):
    """The same, less the mean over the image."""

    def score(self, x: Tensor) -> Tensor:
        scores = super().score(x)
        return scores - scores.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(("name", "size", "tile"), [
    ("segnet_basic", (130, 750), 512), ("unet", (601, 131), 512), ("fusionnet", (200, 1209), 1008),
    ("deeplabv1", (1101, 101), 920), ("fcn8s", (1701, 64), 1536),
])  # fmt: skip
def test_within_reach_tiles_give_the_result_of_the_whole(name: str, size: tuple[int, int], tile: int) -> None:
    model = predictor(network(name))
    image = noise(*size)
    plan = make_plan(model, *size, (tile, tile))
    assert plan.exact
    assert len(plan.rows) * len(plan.columns) > 1
    different = predict_tiled(model, image, tile) != model(image)
    assert different.mean() < 1e-4  # where two classes tie to the last bits


@pytest.mark.parametrize("size", [(300, 500), (299, 64), (64, 333), (9, 401), (131, 257)])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_coarse_scores_are_joined_without_a_seam(size: tuple[int, int], channels: int) -> None:
    model = predictor(Pooled(channels), channels=channels)
    image = noise(*size, channels)
    assert_same_labels(predict_tiled(model, image, 64), model(image))


def test_integers_of_16_bits_and_floats_are_taken() -> None:
    model = predictor(Pooled())
    image = noise(150, 211)
    expected = model(image)
    assert_same_labels(predict_tiled(model, image.astype(np.uint16) * 257, 64), expected)
    assert_same_labels(predict_tiled(model, (image / 255).astype(np.float32), 64), expected)


def test_beyond_reach_tiles_fade_into_each_other() -> None:
    """A network whose scores depend on the mean of the tile: at a seam they must not jump, and in a tile's middle be its own."""

    class Levels(SegmentationModel):
        """Of 60 classes that which stands for the mean."""

        stride = 8

        def __init__(self) -> None:
            super().__init__(60, 3)
            self.levels = nn.Parameter(torch.linspace(-1.2, 1.2, 60)[None, :, None, None])

        def score(self, x: Tensor) -> Tensor:
            difference = x.mean((1, 2, 3), keepdim=True) - self.levels
            return -(difference**2).expand(-1, -1, x.shape[2] // 8, x.shape[3] // 8)

    model = predictor(Levels(), classes=60)
    image = np.zeros((64, 512, 3), np.uint8)
    image[:] = np.linspace(0, 255, 512).astype(np.uint8)[None, :, None]
    plan = make_plan(model, 64, 512, (64, 128))
    assert not plan.exact
    labels = np.concatenate([band for _, band in label_bands(model, plan, lambda a, b: image[a:b])])
    steps = np.diff(labels[32].astype(int))
    assert labels[32].max() - labels[32].min() > 20
    assert steps.min() >= 0
    assert steps.max() <= 3  # a cut from tile to tile would be 12
    assert (labels == labels[:1]).all()


@pytest.mark.parametrize("name", ["bisenetv2", "bisenetv1", "fanet18"])
def test_a_single_tile_of_the_networks_own_sizes_is_the_whole(name: str) -> None:
    model = predictor(network(name))
    image = noise(129, 193) if model.network.aligned else noise(128, 192)  # type: ignore[union-attr, attr-defined]
    np.testing.assert_array_equal(predict_tiled(model, image, 256), model(image))


def test_a_band_can_be_made_alone() -> None:
    image = noise(300, 200)
    read = lambda start, stop: image[start:stop]  # noqa: E731
    for model in (predictor(Pooled()), predictor(Global())):
        plan = make_plan(model, 300, 200, (64, 64))
        bands = list(label_bands(model, plan, read))
        assert [top for top, _ in bands] == plan.rows.cuts[:-1]
        for top, labels in label_bands(model, plan, read, bands[2][0]):
            np.testing.assert_array_equal(labels, dict(bands)[top])


@pytest.mark.parametrize("name", ["segnet_basic", "deeplabv1", "unet"])
def test_no_gradient_comes_from_beyond_the_reach(name: str) -> None:
    """And the reach is not much too far."""
    model = network(name)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _, inputs, __: inputs[0])  # so that gradients pass
    traits = examine(network(name))
    assert traits.reach is not None
    size = 2 * traits.reach + traits.period * 6
    size += (traits.plus - size) % traits.period
    x = torch.rand(1, 3, size, 96 + traits.plus, requires_grad=True)
    scores = model.double().score(x.double())
    middle = scores.shape[2] // 2
    scores[:, :, middle].sum().backward()
    assert x.grad is not None
    causes = x.grad.abs().amax(dim=(0, 1, 3)).nonzero()[:, 0]
    centre = int(middle / traits.ratio)
    furthest = max(centre - int(causes[0]), int(causes[-1]) - centre)
    assert 0.5 * traits.reach <= furthest <= traits.reach


def test_traits_are_those_of_the_papers_layers() -> None:
    assert examine(network("enet")).ratio == 1
    assert examine(network("deeplabv1")).ratio == Fraction(1, 8)
    assert examine(network("segnet")).period == 32  # five poolings
    assert examine(network("unet")).period == 16
    assert reach(Global()) is None
    assert reach(Pooled()) == 16 + 8 * (16 == 0)
    assert reach(lambda x: x) == 16  # a period


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_is_found() -> None:
    text = (Path(__file__).parents[2] / "docs" / "big-images.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    assert set(rows) > set(NARROW)
    for name in sorted({*NARROW, "enet", "bisenetv1", "bisenetv2", "fanet18"} - {"gcn"}):
        found = reach(network(name))
        expected = "blended" if found is None else f"exact from {SHARE * found} pixels"
        assert rows[name].strip() == expected, name


def test_what_tiles_cannot_do_is_refused() -> None:
    image = noise(64, 64)
    for options in ({"scales": (0.5, 1.0)}, {"flip": True}):
        with pytest.raises(ValueError, match="leave out scales and flip"):
            predict_tiled(predictor(Pooled(), **options), image)
    with pytest.raises(ValueError, match="depth"):
        predict_tiled(predictor(Pooled(4), channels=4, uses_depth=True), noise(64, 64, 4))
    with pytest.raises(ValueError, match=r"\(64, 64\); it must be \(H, W, 3\)"):
        predict_tiled(predictor(Pooled()), image[..., 0])
    with pytest.raises(ValueError, match=r"\(64, 64, 1\).*must be \(H, W, 3\)"):
        predict_tiled(predictor(Pooled()), image[..., :1])
    with pytest.raises(ValueError, match=r"126 rows of scores for 128 rows.*label the image whole"):
        predict_tiled(predictor(nn.Conv2d(3, 4, 3)), image)


def test_the_working_size_of_a_checkpoint_is_left_aside() -> None:
    image = noise(100, 164)
    assert_same_labels(predict_tiled(predictor(Pooled(), short_side=48), image, 64), predictor(Pooled())(image))


def test_memory_does_not_grow_with_the_height(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading asks for the rows of one band of tiles at a time, and no tile is larger than it may be."""
    seen: list[tuple[int, ...]] = []

    class Spy(Pooled):
        def score(self, x: Tensor) -> Tensor:
            seen.append(tuple(x.shape[-2:]))
            return super().score(x)

    monkeypatch.setattr("segue.inference.tiling.SIDES", (64, 64, 64, 128))
    model = predictor(Spy())
    plan = make_plan(model, 100_000, 300)
    seen.clear()
    asked: list[int] = []

    def read(start: int, stop: int) -> np.ndarray:
        asked.append(stop - start)
        return np.zeros((stop - start, 300, 3), np.uint8)

    for top, band in label_bands(model, plan, read):
        assert len(band) <= 128
        if top > 1000:
            break
    assert max(asked) <= 128
    assert max(max(size) for size in seen) <= 128
