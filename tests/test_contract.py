"""What every network in the table of models keeps. A new network joins by its line in PARAMETERS and in tests/data/state_dict."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segue import create_model, list_models
from segue.layers import SegmentationModel
from segue.losses import cross_entropy

# Learned parameters as the paper, or its authors' code, has them: {network: {(classes, channels): parameters}}.
PARAMETERS = {
    "enet": {(19, 3): 364_183, (11, 3): 363_663},
    "unet": {(2, 1): 31_030_658},
}
NETWORKS = [*((name, {}) for name in list_models()), ("unet", {"padding": "same", "batch_norm": True})]
every_network = pytest.mark.parametrize(("name", "options"), NETWORKS, ids=lambda value: str(value))


def small_model(name: str, options: dict[str, object], num_classes: int = 3, in_channels: int = 3) -> SegmentationModel:
    torch.manual_seed(0)
    return create_model(name, num_classes, in_channels, **options)


def images(model: SegmentationModel, height: int = 40, width: int = 56, count: int = 2) -> Tensor:
    return torch.rand(count, model.in_channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list_models())
def test_parameters_are_those_of_the_paper(name: str) -> None:
    for (num_classes, in_channels), expected in PARAMETERS[name].items():
        with torch.device("meta"):
            model = create_model(name, num_classes, in_channels)
        assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("name", list_models())
def test_names_and_shapes_of_the_weights_are_pinned(name: str) -> None:
    """A checkpoint of an older version must go on loading; a deliberate change rewrites the file."""
    with torch.device("meta"):
        state = create_model(name, 11, 3).state_dict()
    lines = [f"{key} {'x'.join(map(str, tensor.shape)) or 'scalar'}" for key, tensor in state.items()]
    assert lines == Path(__file__).with_name("data").joinpath("state_dict", f"{name}.txt").read_text().splitlines()


@every_network
@pytest.mark.parametrize("train", [True, False])
def test_any_size_comes_back_as_the_same_size(name: str, options: dict[str, object], train: bool) -> None:
    model = small_model(name, options).train(train)
    smallest = model.min_size
    for height, width in ((smallest, smallest), (33, 47), (40, 31)):
        with torch.no_grad():
            assert model(images(model, height, width)).shape == (2, 3, height, width)


@every_network
@pytest.mark.parametrize(("num_classes", "in_channels"), [(1, 1), (2, 3), (21, 4)])
def test_any_number_of_classes_and_channels(name: str, options: dict[str, object], num_classes: int, in_channels: int) -> None:
    model = small_model(name, options, num_classes, in_channels).eval()
    with torch.no_grad():
        assert model(images(model, 32, 32)).shape == (2, num_classes, 32, 32)


@every_network
def test_supervise_gives_a_gradient_to_every_parameter(name: str, options: dict[str, object]) -> None:
    model = small_model(name, options)
    outputs = model.supervise(images(model))
    assert outputs["main"].shape == (2, 3, 40, 56)
    sum(output.square().mean() for output in outputs.values()).backward()  # type: ignore[union-attr]
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@every_network
def test_evaluation_does_not_depend_on_the_rest_of_the_batch(name: str, options: dict[str, object]) -> None:
    model = small_model(name, options).eval()
    batch = images(model)
    with torch.no_grad():
        torch.testing.assert_close(model(batch)[:1], model(batch[:1]), rtol=1e-4, atol=1e-4)


@every_network
def test_weights_saved_and_loaded_give_the_same_logits(name: str, options: dict[str, object], tmp_path: Path) -> None:
    model = small_model(name, options).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(1)
    other = create_model(name, 3, **options).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(model(images(model)), other(images(model)))


@every_network
def test_exported_it_gives_the_same_logits(name: str, options: dict[str, object]) -> None:
    model = small_model(name, options).eval()
    exported = torch.export.export(model, (images(model),)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(images(model)), model(images(model)), rtol=1e-4, atol=1e-4)


@every_network
def test_it_learns_a_tiny_batch_by_heart(name: str, options: dict[str, object]) -> None:
    model = small_model(name, options)
    target = (torch.arange(40)[:, None] // 14 + torch.zeros(2, 40, 56)).long()
    x = torch.eye(3)[target].permute(0, 3, 1, 2)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3 if sum(p.numel() for p in model.parameters()) < 1e6 else 3e-4)
    for _ in range(20):
        optimizer.zero_grad()
        loss = cross_entropy(model.supervise(x)["main"], target)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.4 * torch.log(torch.tensor(3.0))


@every_network
def test_images_that_do_not_fit_are_refused_with_the_way_out(name: str, options: dict[str, object]) -> None:
    model = small_model(name, options)
    with pytest.raises(ValueError, match=r"takes \(N, 3, H, W\).*in_channels=4"):
        model(torch.rand(1, 4, 64, 64))
    with pytest.raises(ValueError, match=f"{model.min_size - 1} x 64 pixels.*at least"):
        model(torch.rand(1, 3, model.min_size - 1, 64))
    with pytest.raises(ValueError, match=r"num_classes \(=0\)"):
        create_model(name, 0)


def test_a_wrong_name_or_option_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match='no model "enett"; did you mean "enet"'):
        create_model("enett", 2)
    with pytest.raises(ValueError, match='unet has no option "paddin"; did you mean "padding"'):
        create_model("unet", 2, paddin="same")
    with pytest.raises(ValueError, match=r"'valid'.*'same'"):
        create_model("unet", 2, padding="full")


def test_list_models_takes_a_pattern() -> None:
    assert list_models("u*") == ["unet"]
    assert set(list_models()) == set(PARAMETERS)


def test_unet_crops_and_sizes_are_those_of_figure_1() -> None:
    with torch.device("meta"):
        model = create_model("unet", 2, 1)
        sizes: dict[str, torch.Size] = {}
        for key in ("down1", "down2", "down3", "down4", "bottom", "up4", "up3", "up2", "up1"):
            getattr(model, key).register_forward_hook(lambda _, __, y, key=key: sizes.update({key: y.shape[1:]}))
        assert model.network(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    figure = {"down1": (64, 568), "down2": (128, 280), "down3": (256, 136), "down4": (512, 64), "bottom": (1024, 28)}
    figure |= {"up4": (512, 52), "up3": (256, 100), "up2": (128, 196), "up1": (64, 388)}
    assert sizes == {key: (maps, size, size) for key, (maps, size) in figure.items()}


def test_unet_sees_the_border_mirrored() -> None:
    """The overlap-tile strategy: a prediction equals that of the valid network on an image mirrored by hand."""
    model = small_model("unet", {}).eval()
    image = images(model, 196, 212, count=1)  # 16 k + 60 - 184 each
    by_hand = nn.functional.pad(image, (92, 92, 92, 92), mode="reflect")
    with torch.no_grad():
        torch.testing.assert_close(model(image), model.network(by_hand), rtol=1e-4, atol=1e-4)


def test_enet_unpools_where_the_encoder_found_the_maxima() -> None:
    model = small_model("enet", {}).eval()
    x = torch.rand(1, 16, 8, 8)
    pooled, indices = model.down1.pool(x)
    unpooled = model.up5.unpool(pooled, indices)
    assert torch.equal(unpooled[unpooled != 0].sort().values, pooled.flatten().sort().values)
    assert torch.equal(unpooled != 0, x == nn.functional.interpolate(pooled, scale_factor=2))
