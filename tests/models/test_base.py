"""What every network in the table of models keeps. A new one joins by its lines in PARAMETERS, helpers and state_dict/."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from helpers.networks import NETWORKS, Options, every_network, images, small_model
from segue import create_model, list_models
from segue.models.base import as_segmentation_model
from segue.training.losses import supervised_loss

# Learned parameters as the paper, or its authors' code, has them; where ours are fewer, the file argues why.
# (network, options, classes, channels, parameters)
PARAMETERS: list[tuple[str, Options, int, int, int]] = [
    ("bayesian_segnet", {}, 11, 3, 29_449_355),
    ("bisenetv1", {}, 19, 3, 13_194_489),
    ("bisenetv1", {"auxiliary": False}, 19, 3, 12_894_163),
    ("bisenetv1", {"backbone": "xception39"}, 19, 3, 1_842_289),
    ("bisenetv1", {"backbone": "xception39", "auxiliary": False}, 19, 3, 1_541_963),
    ("bisenetv1", {"backbone": "resnet101"}, 19, 3, 48_239_417),
    ("bisenetv2", {}, 19, 3, 5_231_487),
    ("bisenetv2", {"auxiliary": False}, 19, 3, 3_358_627),
    ("deconvnet", {}, 21, 3, 251_805_653),
    ("deeplabv1", {}, 21, 3, 20_505_429),
    ("deeplabv2", {}, 21, 3, 44_048_532),
    ("deeplabv2", {"backbone": "vgg16"}, 21, 3, 37_877_652),
    ("deeplabv3", {}, 21, 3, 58_040_661),
    ("deeplabv3", {"output_stride": 8}, 21, 3, 58_040_661),
    ("deeplabv3plus", {}, 21, 3, 59_344_309),
    ("deeplabv3plus", {"backbone": "xception65"}, 21, 3, 41_055_413),
    ("dfn", {}, 21, 3, 90_724_344 - 8_421),  # an RRB of the border network that the authors build and never use
    ("enet", {}, 19, 3, 364_311),
    ("enet", {}, 11, 3, 363_791),
    ("enet", {"encoder_only": True}, 20, 3, 340_736),
    # The authors' count less what they build and never use, and less what an auxiliary head alone sees.
    ("fanet18", {"auxiliary": False}, 19, 3, 13_820_032 - 147_712 - 2_112 - 590_080),
    ("fanet34", {"auxiliary": False}, 19, 3, 23_928_192 - 147_712 - 2_112 - 590_080),
    ("fcn32s", {}, 21, 3, 134_346_581),
    ("fcn16s", {}, 21, 3, 134_357_354 + 21 * 21 * 16),  # with the middle upsamplings that are learned
    ("fcn8s", {}, 21, 3, 134_362_751 + 2 * 21 * 21 * 16),
    ("fcn8s_atonce", {}, 21, 3, 134_362_751 + 2 * 21 * 21 * 16),
    ("fcn32s_alexnet", {}, 21, 3, 56_954_261),
    ("fcn32s_googlenet", {}, 21, 3, 5_995_077),
    ("fusionnet", {}, 1, 1, 62_804_545),
    # A port's count, less the 3x3 of its last layer, which is 1x1 as in the released code.
    ("fusionnet", {"variant": "paper"}, 1, 1, 78_531_649 - 8 * 64),
    ("gcn", {}, 21, 3, 60_688_084),
    ("gcn", {"k": 7}, 21, 3, 59_369_620),
    ("rednet", {}, 37, 4, 81_970_233),
    ("segnet", {}, 11, 3, 29_449_355),
    ("segnet", {}, 21, 3, 29_455_125),
    ("segnet_basic", {}, 11, 3, 1_416_587),
    ("unet", {}, 2, 1, 31_030_658),
]


@pytest.mark.parametrize(("name", "options", "num_classes", "in_channels", "expected"), PARAMETERS, ids=lambda value: str(value))
def test_parameters_are_those_of_the_paper(
    name: str, options: Options, num_classes: int, in_channels: int, expected: int
) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes, in_channels, **options)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("name", list_models())
def test_names_and_shapes_of_the_weights_are_pinned(name: str) -> None:
    """A checkpoint of an older version must go on loading; a deliberate change rewrites the file."""
    with torch.device("meta"):
        state = create_model(name, 11, 3).state_dict()
    lines = [f"{key} {'x'.join(map(str, tensor.shape)) or 'scalar'}" for key, tensor in state.items()]
    assert lines == Path(__file__).with_name("state_dict").joinpath(f"{name}.txt").read_text().splitlines()


@every_network
@pytest.mark.parametrize("train", [True, False])
def test_any_size_comes_back_as_the_same_size(name: str, options: Options, train: bool) -> None:
    model = small_model(name, options).train(train)
    smallest = model.min_size
    for height, width in ((smallest, smallest), (33, 47), (40, 31)):
        with torch.no_grad():
            logits = model(images(model, max(height, smallest), max(width, smallest)))
        assert logits.shape == (2, 3, max(height, smallest), max(width, smallest))
        assert logits.isfinite().all()


@every_network
@pytest.mark.parametrize(("num_classes", "in_channels"), [(1, 1), (2, 3), (21, 4)])
def test_any_number_of_classes_and_channels(name: str, options: Options, num_classes: int, in_channels: int) -> None:
    if name == "rednet" and in_channels == 1:
        in_channels = 2  # one of which is depth
    model = small_model(name, options, num_classes, in_channels).eval()
    size = max(32, model.min_size)
    with torch.no_grad():
        assert model(images(model, size, size)).shape == (2, num_classes, size, size)


@every_network
def test_supervise_gives_a_gradient_to_every_parameter(name: str, options: Options) -> None:
    """In training, or with fixed statistics where batch norm takes back what a shift before it does."""
    model = small_model(name, options)
    reached: set[str] = set()
    for train in (True, False):
        model.train(train).zero_grad()
        outputs = model.supervise(images(model))
        assert outputs["main"].shape[:2] == (2, 3)
        sum((output - 1).square().mean() for output in outputs.values()).backward()  # type: ignore[union-attr]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        reached |= {key for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert [key for key, _ in model.named_parameters() if key not in reached] == []


@every_network
def test_evaluation_does_not_depend_on_the_rest_of_the_batch(name: str, options: Options) -> None:
    model = small_model(name, options).eval()
    batch = images(model)
    with torch.no_grad():
        torch.testing.assert_close(model(batch)[:1], model(batch[:1]), rtol=1e-4, atol=1e-4)


@every_network
def test_weights_saved_and_loaded_give_the_same_logits(name: str, options: Options, tmp_path: Path) -> None:
    model = small_model(name, options).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(1)
    other = create_model(name, 3, 3, **options).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(model(images(model)), other(images(model)))


@pytest.mark.slow
@every_network
def test_exported_it_gives_the_same_logits(name: str, options: Options) -> None:
    model = small_model(name, options).eval()
    exported = torch.export.export(model, (images(model),)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(images(model)), model(images(model)), rtol=1e-4, atol=1e-4)


@every_network
def test_aligned_maps_are_compared_with_the_labels_under_them(name: str, options: Options) -> None:
    """What `supervise` gives lies on every s-th pixel, so that making the labels smaller moves none."""
    model = small_model(name, options).eval()
    if not model.aligned:
        return
    with torch.no_grad():
        outputs = model.supervise(images(model, 65, 97))
    for logits in outputs.values():
        assert [64 % (logits.shape[2] - 1), 96 % (logits.shape[3] - 1)] == [0, 0]


COARSE = ("deconvnet", "fanet18", "fcn")  # whose scores are too coarse for small things, or see windows of 224 pixels


@pytest.mark.slow
@every_network
def test_it_learns_a_tiny_batch_by_heart(name: str, options: Options) -> None:
    """Bands of three colours, through all outputs of `supervise` as in training, but without dropout."""
    coarse = name.startswith(COARSE)
    height, width, band = (192, 128, 64) if coarse else (40, 56, 14)
    orders = torch.tensor([(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1)])
    target = orders[:, torch.arange(height) // band, None].expand(-1, -1, width)
    x = torch.eye(3)[target].permute(0, 3, 1, 2)
    x = x + 0.01 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))  # or rounding decides which pixel a pool takes
    model = small_model(name, options)
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.eval()
    batch = {"mask": target, "edges": torch.zeros_like(target)}
    small = sum(p.numel() for p in model.parameters()) < 1e6
    slow = name == "deconvnet"  # whose batch norms over single values make it so
    steps, rate = (50, 5e-3) if slow else (40, 2e-3) if coarse else (40, 5e-3) if small else (20, 1e-3)
    optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = supervised_loss(model.supervise(x), batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


@every_network
def test_images_that_do_not_fit_are_refused_with_the_way_out(name: str, options: Options) -> None:
    model = small_model(name, options)
    with pytest.raises(ValueError, match=r"takes \(N, 3, H, W\).*in_channels=4"):
        model(torch.rand(1, 4, 64, 64))
    if model.min_size > 1:
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


def test_rednet_has_four_channels_and_the_others_three_unless_told() -> None:
    with torch.device("meta"):
        assert {name: create_model(name, 2).in_channels for name in ("rednet", "enet", "unet")} == {
            "rednet": 4,
            "enet": 3,
            "unet": 3,
        }


def test_list_models_takes_a_pattern() -> None:
    assert list_models("u*") == ["unet"]
    assert set(list_models()) == {name for name, _ in NETWORKS} | {"fanet34"}  # which is fanet18 with more blocks


def test_enet_unpools_where_the_encoder_found_the_maxima() -> None:
    model = small_model("enet", {}).eval()
    x = torch.rand(1, 16, 8, 8)
    pooled = nn.functional.max_pool2d(x, 2)
    _, indices = model.down1(x)
    model.up5.main = nn.Identity()
    model.up5.branch = nn.Sequential(nn.Upsample(scale_factor=2), nn.Threshold(1, 0))  # zeros
    unpooled = model.up5(pooled, indices)
    assert torch.equal(unpooled[unpooled != 0].sort().values, pooled.flatten().sort().values)
    assert torch.equal(unpooled != 0, x == nn.functional.interpolate(pooled, scale_factor=2))


def test_any_function_looks_like_a_network_of_segues() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    class Own(nn.Module):
        stride = 7  # a name of its own, which means something else

        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Conv2d(3, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.score(x.relu())

    class Deep(Own):
        def supervise(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"main": self(x), "half": self(x[..., ::2, ::2])}

    x = torch.randn(1, 3, 8, 8)
    for network in (function, Own(), Deep()):
        seen = as_segmentation_model(network)
        assert (seen.stride, seen.aligned, seen.min_size, seen.in_channels) == (1, False, 1, None)
        seen.check_input(x)
        assert torch.equal(seen.score(x), network(x))
        assert torch.equal(seen.supervise(x)["main"], network(x))
    assert list(as_segmentation_model(Own()).supervise(x)) == ["main"]
    assert list(as_segmentation_model(Deep()).supervise(x)) == ["main", "half"]
    model = small_model("enet", {})
    assert as_segmentation_model(model) is model
