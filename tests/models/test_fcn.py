"""FCN against the released graph: sizes, crops, upsampling, the stages of its training, the classifiers' weights."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models import fcn, fcn_alexnet, fcn_googlenet
from segue.models.base import SegmentationModel
from segue.models.fcn import FCN8s, FCN8sAtOnce, FCN16s, FCN32s
from segue.models.fcn_alexnet import FCN32sAlexNet
from segue.models.fcn_googlenet import FCN32sGoogLeNet

NETWORKS: dict[str, Callable[[], SegmentationModel]] = {
    "32s": lambda: FCN32s(3, width=1),
    "16s": lambda: FCN16s(3, width=1),
    "8s": lambda: FCN8s(3, width=1),
    "8s-atonce": lambda: FCN8sAtOnce(3, width=1),
    "alexnet": lambda: FCN32sAlexNet(3, width=4),
    "alexnet-torchvision": lambda: FCN32sAlexNet(3, trunk="torchvision", width=4),
    "googlenet": lambda: FCN32sGoogLeNet(3, width=8),
    "googlenet-torchvision": lambda: FCN32sGoogLeNet(3, trunk="torchvision", width=8),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def network(name: str) -> SegmentationModel:
    """A narrow network whose scoring layers are not zero, in evaluation."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for key, layer in model.named_children():
        if key.startswith("score"):
            nn.init.normal_(layer.weight)
    return model.eval()


def test_maps_have_the_released_sizes_for_a_500_pixel_image() -> None:
    sizes: dict[str, int] = {}
    with torch.device("meta"):
        model = FCN8s(21, width=1)
    for key, layer in model.named_children():
        layer.register_forward_hook(lambda _, __, y, key=key: sizes.update({key: y.shape[-1]}))
    model(torch.empty(1, 3, 500, 500, device="meta"))
    assert [sizes[f"conv{number}"] for number in range(1, 6)] == [698, 349, 175, 88, 44]
    assert [sizes[key] for key in ("fc6", "upscore2", "upscore_pool4", "upscore")] == [16, 34, 70, 568]


@every_network
def test_every_size_from_the_smallest_comes_back(name: str) -> None:
    with torch.device("meta"):
        model = NETWORKS[name]().eval()
    for size in range(model.min_size, model.min_size + 33):
        assert model(torch.empty(1, 3, size, 131, device="meta")).shape == (1, 3, size, 131)


@pytest.mark.parametrize(
    ("name", "size"),
    # Where the strides leave no rest and the coarse scores lie symmetrically in the image.
    [
        ("32s", 58), ("16s", 58), ("8s", 58), ("8s-atonce", 58), ("alexnet", 59), ("alexnet-torchvision", 59),
        ("googlenet", 93), ("googlenet-torchvision", 77),
    ],
)  # fmt: skip
def test_crops_line_up_with_the_image(name: str, size: int) -> None:
    """With kernels that are their own mirror images, a mirrored image gives mirrored scores: no crop is a pixel off."""
    model = network(name)
    for p in model.parameters():
        if p.ndim == 4:
            p.data = (p + p.flip(2) + p.flip(3) + p.flip(2, 3)) / 4
    x = torch.rand(1, 3, size, size)
    with torch.no_grad():
        scores, mirrored = model(x), model(x.flip(2, 3))
    assert scores.std() > 0
    torch.testing.assert_close(mirrored, scores.flip(2, 3), rtol=1e-4, atol=1e-4 * scores.std().item())


@pytest.mark.parametrize(
    ("name", "module", "pixels", "size"),
    # Table 1 has 907 for GoogLeNet, with the 7 x 7 average pooling that the text discards.
    [("32s", fcn, 404, 420), ("alexnet", fcn_alexnet, 355, 400), ("googlenet", fcn_googlenet, 907 - 6 * 32, 760)],
)
def test_receptive_field_is_that_of_table_1(
    name: str, module: object, pixels: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the gradient of one coarse score is not zero; maxima pass it to one pixel only, so means stand in for them."""
    window = 2 if name == "32s" else 3
    monkeypatch.setattr(module, "pool", lambda x, size=window: F.avg_pool2d(x, size, 2, ceil_mode=True))
    model = network(name)
    for p in model.parameters():
        p.data.abs_()
    coarse: list[Tensor] = []
    model.score_fr.register_forward_hook(lambda _, __, y: coarse.append(y))
    x = torch.rand(1, 3, size, size, requires_grad=True)
    model(x)
    middle = (coarse[0].shape[-1] - 1) // 2
    coarse[0][0, 0, middle, middle].backward()
    seen = (x.grad != 0).any(dim=1)[0].any(dim=0)
    assert seen.sum() == pixels
    assert not seen[0] and not seen[-1]  # the image did not cut it off


def released_8s(model: FCN8s, x: Tensor) -> Tensor:
    """The released graph, written out: whole kernels over pairs of classes in every upsampling, crops as ranges."""
    convs = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)][:13]
    pools = []
    height, width = x.shape[-2:]
    for number, conv in enumerate(convs):
        x = F.conv2d(x, conv.weight, conv.bias, padding=1 if number else 100).relu()
        if number in (1, 3, 6, 9, 12):
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            pools.append(x)
    for layer in (model.fc6, model.fc7):
        x = F.conv2d(x, layer.weight, layer.bias).relu()
    x = F.conv_transpose2d(model.score_fr(x), model.upscore2.weight, stride=2)
    h, w = x.shape[-2:]
    x = F.conv_transpose2d(x + model.score_pool4(pools[3])[..., 5 : 5 + h, 5 : 5 + w], model.upscore_pool4.weight, stride=2)
    h, w = x.shape[-2:]
    x = x + model.score_pool3(pools[2])[..., 9 : 9 + h, 9 : 9 + w]
    line = torch.tensor([1.0, 3, 5, 7, 9, 11, 13, 15, 15, 13, 11, 9, 7, 5, 3, 1]) / 16
    kernel = torch.einsum("ij,y,x->ijyx", torch.eye(3), line, line)
    return F.conv_transpose2d(x, kernel, stride=8)[..., 31 : 31 + height, 31 : 31 + width]


def test_8s_is_the_released_graph() -> None:
    model = network("8s")
    nn.init.normal_(model.upscore2.weight)
    nn.init.normal_(model.upscore_pool4.weight)
    for size in ((33, 47), (64, 90)):
        x = torch.rand(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(model(x), released_8s(model, x), rtol=1e-4, atol=1e-4)


def test_at_once_scales_pool4_and_pool3_and_nothing_else() -> None:
    model, staged = network("8s-atonce"), FCN8s(3, width=1).eval()
    staged.load_state_dict(model.state_dict())
    staged.score_pool4.weight.data *= 0.01
    staged.score_pool3.weight.data *= 0.0001
    x = torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        torch.testing.assert_close(model(x), staged(x))


@pytest.mark.parametrize(("earlier", "later"), [("32s", "16s"), ("16s", "8s")])
def test_a_stage_starts_from_the_scores_of_the_one_before(earlier: str, later: str) -> None:
    before, after = network(earlier), NETWORKS[later]().eval()
    missing, unexpected = after.load_state_dict(before.state_dict(), strict=False)
    assert {key.split(".")[0] for key in missing} == set(after.added)
    assert unexpected == []
    x = torch.rand(1, 3, 70, 90)
    with torch.no_grad():
        _, pool4, fc7 = before.features(x)
        if later == "16s":  # FCN-32s's coarse scores, twice as large by bilinear interpolation, and again by 16
            finest, factor, offset = before.score_fr(fc7), 16, 27
        else:
            finest, factor, offset = before.fuse_pool4(pool4, fc7), 8, 31
        kernel = torch.einsum("ij,y,x->ijyx", torch.eye(3), *[torch.tensor([0.25, 0.75, 0.75, 0.25])] * 2)
        twice = F.conv_transpose2d(finest, kernel, stride=2)
        whole = F.interpolate(twice, scale_factor=factor, mode="bilinear")  # from half a cell in, where no border is near
        offset -= factor // 2
        expected = whole[..., offset : offset + 70, offset : offset + 90]
        torch.testing.assert_close(after(x), expected, rtol=1e-4, atol=1e-4)


def test_upsampling_in_two_steps_is_that_in_one_where_scores_are_linear() -> None:
    """So FCN-16s begins where FCN-32s ended; no step shifts the scores."""
    m32, m16 = FCN32s(1, width=1), FCN16s(1, width=1)
    coarse = torch.arange(16.0) + 3 * torch.arange(16.0)[:, None]
    image = torch.empty(1, 1, 500, 500)
    with torch.no_grad():
        at_once = fcn.crop(m32.upscore(coarse[None, None]), 19, image)
        in_steps = fcn.crop(m16.upscore(m16.upscore2(coarse[None, None])), 27, image)
    inside = (..., slice(32, -32), slice(32, -32))
    torch.testing.assert_close(in_steps[inside], at_once[inside])


@every_network
def test_scores_are_zero_at_first(name: str) -> None:
    model = NETWORKS[name]().eval()
    with torch.no_grad():
        assert not model(torch.rand(1, 3, 40, 40)).any()


def test_kernels_that_the_paper_fixes_are_neither_learned_nor_saved() -> None:
    model = FCN8s(21, width=1)
    assert not any(key.startswith("upscore.") for key in [*model.state_dict(), *dict(model.named_parameters())])
    assert model.upscore2.weight.shape == (21, 21, 4, 4) and model.upscore2.weight.requires_grad


def test_vgg16_fills_the_trunk() -> None:
    """True shapes, each tensor with a value of its own; narrow ones show that fc6 reads a window as VGG16 reads its 7 x 7 map."""
    with torch.device("meta"):
        model = FCN32s(21)
    model.to_empty(device="cpu")
    maps = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    shapes = {f"features.{place}": (maps[i + 1], maps[i], 3, 3) for i, place in enumerate(places)}
    shapes |= {"classifier.0": (4096, 25088), "classifier.3": (4096, 4096), "classifier.6": (1000, 4096)}  # type: ignore[dict-item]
    weights = {}
    for number, (name, shape) in enumerate(shapes.items()):
        weights[f"{name}.weight"] = torch.tensor(float(number)).expand(shape)
        weights[f"{name}.bias"] = torch.tensor(number + 0.5).expand(shape[0])
    model.load_classifier(weights)
    layers = [layer for part in model.trunk() for layer in part.modules() if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 15
    for number, layer in enumerate(layers):
        assert layer.weight.aminmax() == (number, number) and layer.bias.aminmax() == (number + 0.5, number + 0.5)


def test_fc6_reads_a_map_as_the_fully_connected_layer_did() -> None:
    model = FCN32s(3, width=1)
    convs = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    weights = {
        f"features.{place}.{key}": p for place, conv in zip(places, convs, strict=False) for key, p in conv.named_parameters()
    }
    classifier = nn.Sequential(nn.Linear(8 * 7 * 7, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64))
    weights |= {f"classifier.{key}": p for key, p in classifier.named_parameters()}
    model.load_classifier({key: p.detach() for key, p in weights.items()})
    pool5 = torch.rand(1, 8, 9, 9)
    with torch.no_grad():
        fc7 = model.fc7(model.fc6(pool5).relu())
        torch.testing.assert_close(fc7[..., 1, 2], classifier.eval()(pool5[..., 1:8, 2:9].flatten(1)))


def test_alexnet_takes_the_weights_of_torchvision() -> None:
    import torchvision

    alexnet = torchvision.models.alexnet(weights=None).eval()
    model = FCN32sAlexNet(3, trunk="torchvision").eval()
    model.load_classifier(alexnet.state_dict())
    maps: list[Tensor] = []
    model.fc7.register_forward_hook(lambda _, __, y: maps.append(y))
    model.conv1.padding = (2, 2)  # the classifier's own
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        model.score(x)
        torch.testing.assert_close(maps[0].flatten(1), alexnet.classifier[:5](alexnet.features(x).flatten(1)))


def test_googlenet_takes_the_weights_of_torchvision() -> None:
    import torchvision

    googlenet = torchvision.models.googlenet(weights=None, init_weights=False, transform_input=False).eval()
    for key, tensor in googlenet.state_dict().items():
        if "running" in key:
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    model = FCN32sGoogLeNet(3, trunk="torchvision").eval()
    model.load_classifier(googlenet.state_dict())
    maps: list[Tensor] = []
    googlenet.inception5b.register_forward_hook(lambda _, __, y: maps.append(y))
    x = torch.rand(1, 3, 96, 80)
    with torch.no_grad():
        googlenet(x)
        torch.testing.assert_close(model.googlenet(x), maps[0])


@pytest.mark.parametrize("network", [FCN32sAlexNet, FCN32sGoogLeNet])
def test_the_graphs_of_caffe_refuse_the_weights_of_torchvision(network: type[FCN32sAlexNet] | type[FCN32sGoogLeNet]) -> None:
    with pytest.raises(ValueError, match='make this network with trunk="torchvision"'):
        network(3, width=8).load_classifier({})
    with pytest.raises(ValueError, match=r"trunk \(='keras'\) must be 'caffe'"):
        network(3, trunk="keras")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"width \(=6\) must be a multiple"):
        network(3, width=6)


def test_response_normalisation_is_that_of_caffe() -> None:
    """x / (1 + alpha / 5 * the sum of squares over five neighbouring maps) ** beta, behind the pooling."""
    model = FCN32sAlexNet(3, width=4)
    x = 30 * torch.rand(1, 6, 4, 4)
    squares = torch.stack([(x[:, max(i - 2, 0) : i + 3] ** 2).sum(1) for i in range(6)], dim=1)
    torch.testing.assert_close(model.norm(x), x / (1 + 1e-4 / 5 * squares) ** 0.75)
    seen: list[tuple[int, ...]] = []
    model.norm.register_forward_hook(lambda _, __, y: seen.append(tuple(y.shape[1:])))
    model(torch.rand(1, 3, 500, 500))
    assert seen == [(6, 86, 86), (16, 43, 43)]
