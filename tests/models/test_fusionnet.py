"""What makes FusionNet FusionNet: residual layers in every level, and long skips by summation."""

import pytest
import torch
from torch import Tensor, nn

from segue.models.fusionnet import Deconvolution, FusionNet, Residual

both_variants = pytest.mark.parametrize("variant", ["released", "paper"])


@both_variants
def test_levels_have_the_maps_and_sizes_of_the_paper(variant: str) -> None:
    with torch.device("meta"):
        model = FusionNet(1, 1, variant)
        sizes: dict[str, tuple[int, ...]] = {}
        for name, level in model.named_children():
            level.register_forward_hook(lambda _, __, y, name=name: sizes.update({name: tuple(y.shape[1:])}))
        model(torch.empty(1, 1, 640, 640))
    levels = {1: (64, 640, 640), 2: (128, 320, 320), 3: (256, 160, 160), 4: (512, 80, 80)}
    expected = {f"{part}{number}": size for number, size in levels.items() for part in ("down", "deconv", "up")}
    assert sizes == {**expected, "bridge": (1024, 40, 40), "output": (1, 640, 640)}


@pytest.mark.parametrize(("variant", "convolutions"), [("released", 2), ("paper", 3)])
def test_every_level_has_one_residual_layer(variant: str, convolutions: int) -> None:
    model = FusionNet(1, 1, variant, width=4)
    residuals = {name.split(".")[0]: module for name, module in model.named_modules() if isinstance(module, Residual)}
    assert sorted(residuals) == ["bridge", *(f"down{n}" for n in (1, 2, 3, 4)), *(f"up{n}" for n in (1, 2, 3, 4))]
    assert sum(isinstance(module, Residual) for module in model.modules()) == 9
    order = ["BatchNorm2d", "Conv2d", "ReLU"] if variant == "released" else ["Conv2d", "ReLU", "BatchNorm2d"]
    for residual in residuals.values():
        kinds = [type(layer).__name__ for layer in residual.modules() if not list(layer.children())]
        assert kinds == order * convolutions


def test_a_residual_layer_adds_its_input_and_leaves_the_sum_as_it_is() -> None:
    x = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Residual(nn.ReLU())(x), x + x.relu())


@both_variants
def test_long_skips_are_sums(variant: str) -> None:
    """What enters a level up is the deconvolution's map plus the same level's map of the way down, neither halved."""
    torch.manual_seed(0)
    model = FusionNet(1, 1, variant, width=4).eval()
    seen: dict[str, Tensor] = {}
    for name, level in model.named_children():
        level.register_forward_hook(lambda _, x, y, name=name: seen.update({name: y, f"into {name}": x[0]}))
    with torch.no_grad():
        model(torch.rand(1, 1, 48, 32))
    for number in (1, 2, 3, 4):
        torch.testing.assert_close(seen[f"into up{number}"], seen[f"deconv{number}"] + seen[f"down{number}"])


@both_variants
def test_deconvolutions_are_cut_at_the_end_as_tensorflow_cuts_them(variant: str) -> None:
    """A pixel in the corner spreads from the corner: with torch's padding its first row and column would be cut off."""
    layer = next(module for module in FusionNet(1, 1, variant, width=4).deconv1.modules() if isinstance(module, Deconvolution))
    nn.init.ones_(layer.weight)
    x = torch.zeros(1, layer.in_channels, 4, 5)
    x[0, 0, 0, 0] = 1
    x[0, 0, 3, 4] = 10
    expected = torch.zeros(8, 10)
    expected[:3, :3] = 1
    expected[6:, 8:] = 10
    assert torch.equal(layer(x)[0, 0], expected)


def test_only_the_released_form_drops() -> None:
    """In each level down behind its last convolution, in the bridge before it, in each level up behind the sum."""
    dropouts = [name for name, module in FusionNet(1, 1, width=4).named_modules() if isinstance(module, nn.Dropout)]
    assert dropouts == [f"down{n}.3" for n in (1, 2, 3, 4)] + ["bridge.2"] + [f"up{n}.0" for n in (4, 3, 2, 1)]
    assert not any(isinstance(module, nn.Dropout) for module in FusionNet(1, 1, "paper", width=4).modules())


def test_another_variant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"variant \(='keras'\) must be 'released'.*'paper'"):
        FusionNet(1, variant="keras")
