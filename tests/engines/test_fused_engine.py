"""The engine that rearranges torch's graph: its convolutions, what it fuses, and the memory that it keeps."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.networks import images, randomize_norms, small_model
from segue.engines import create_engine
from segue.engines.convolution import Convolution
from segue.engines.fused_engine import works
from segue.engines.winograd import Winograd, pays
from segue.models.base import pad_to_multiple

pytestmark = pytest.mark.skipif(not works(), reason="no oneDNN, or other threads than GNU's")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "padding", "dilation"),
    [
        (3, 5, (13, 17), 1, 1), (32, 32, (4, 4), 1, 1), (40, 33, (14, 9), 2, 2), (16, 48, (5, 3), 0, 1), (33, 16, (1, 1), 1, 1),
        (20, 20, (9, 30), 3, 1), (8, 8, (31, 7), 12, 12), (64, 64, (70, 45), 1, 1), (5, 4, (40, 50), 0, 5),
    ],
)  # fmt: skip
@pytest.mark.parametrize("relu", [False, True])
def test_winograd_gives_the_convolution(
    inputs: int, outputs: int, size: tuple[int, int], padding: int, dilation: int, relu: bool
) -> None:
    x, bias = random(2, inputs, *size), random(outputs, seed=2)
    weight = random(outputs, inputs, 3, 3, seed=1) / (9 * inputs) ** 0.5
    expected = F.conv2d(x.double(), weight.double(), bias.double(), 1, padding, dilation)
    other = random(*expected.shape, seed=3).contiguous(memory_format=torch.channels_last)
    winograd = Winograd(weight, bias, padding, dilation, relu)
    x = x.contiguous(memory_format=torch.channels_last)
    for added in (None, other):
        wanted = (expected if added is None else expected + added).float()
        torch.testing.assert_close(winograd(x, added), F.relu(wanted) if relu else wanted, rtol=1e-5, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("taps", "stride", "dilation"), [((3, 3), (1, 1), (2, 2)), ((5, 3), (2, 1), (2, 3)), ((1, 3), (3, 2), (1, 4))]
)
def test_dilated_depthwise_convolutions(taps: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> None:
    x, weight, bias = random(2, 19, 23, 14), random(19, 1, *taps, seed=1), random(19, seed=2)
    how = [*stride], [taps[0] // 2, 3], [*dilation]
    expected = F.conv2d(x, weight, bias, *how, groups=19)
    other = random(*expected.shape, seed=3)
    for relu in (False, True):
        convolution = Convolution(weight, bias, *how, 19, relu)
        for added in (None, other):
            wanted = expected if added is None else expected + added
            torch.testing.assert_close(convolution(x, added), F.relu(wanted) if relu else wanted, rtol=1e-4, atol=1e-5)
        assert [*convolution.ways] == ["depthwise"]


def test_a_convolution_changes_its_way_with_the_size() -> None:
    weight = random(128, 128, 3, 3) / 34
    convolution = Convolution(weight, None, [1, 1], [2, 2], [2, 2], 1, False)
    for size in ((2, 2), (48, 40)):  # of the small one all but a tap lie in the padding
        x = random(1, 128, *size)
        with torch.inference_mode():
            torch.testing.assert_close(convolution(x), F.conv2d(x, weight, None, 1, 2, 2), rtol=1e-5, atol=1e-4)
    assert {*convolution.ways} == {"oneDNN", "winograd"}
    assert not pays(torch.Size((1, 64, 1, 1)), 64, 0, 1)  # nothing comes out


class Tangle(nn.Module):
    """What can be fused, and what looks like it."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, bias=i % 2 == 0) for i in range(8))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8, affine=i % 2 == 0) for i in range(8))
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2, bias=False)
        self.up_norm = nn.BatchNorm2d(4)
        self.narrow = nn.Conv2d(8, 1, 1)
        self.same = nn.Conv2d(4, 4, 3, padding="same")
        self.kernel = nn.Parameter(random(8, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.convs, self.norms
        x = F.relu(norm[0](conv[0](x)))  # all into one
        x = F.relu(norm[1](conv[1](x)) + norm[2](conv[2](x)))  # the sum into one of both
        x = F.relu(norm[3](conv[3](x))) + x  # a ReLU before the sum
        seen = conv[4](x)
        x = norm[4](seen) + seen  # a map that is used twice
        x = conv[5](x) + self.narrow(x)  # a sum of maps of different shapes
        y = conv[6](x)
        x = F.relu_(y + y)  # a sum with itself
        x = conv[7](norm[7](x)) - x  # a norm before, a difference
        x = torch.add(conv[0](x), x, alpha=2)  # a convolution that is used again, a sum with a factor
        x = F.conv2d(x, self.kernel * 2)  # kernels that are calculated
        return self.same(self.up_norm(self.up(x)))


def test_a_tangle_of_what_can_be_fused_and_what_cannot() -> None:
    torch.manual_seed(0)
    model = Tangle().eval()
    randomize_norms(model)
    engine = create_engine("fused", model)
    x = random(2, 8, 21, 18)
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(engine(x), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    (graph,) = engine.graphs.values()  # type: ignore[attr-defined]
    left = [str(node.target) for node in graph.graph.nodes if "batch_norm" in str(node.target)]
    assert len(left) == 2  # behind the map that is used twice, and before a convolution


FAMILIES = [
    ("enet", {}), ("deeplabv3plus", {"backbone": "resnet18"}), ("bisenetv1", {"backbone": "xception39"}), ("fcn8s", {"width": 4}),
    ("gcn", {"backbone": "resnet18", "k": 7}), ("deconvnet", {"width": 4}), ("unet", {"width": 4}),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_networks_score_as_in_torch(name: str, options: dict[str, object]) -> None:
    model = small_model(name, options).eval()
    randomize_norms(model)
    x = pad_to_multiple(images(model, 72, 104, count=1), model.stride, plus=int(model.aligned))
    with torch.no_grad():
        expected = model.score(x)
    found = create_engine("fused", model)(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


FAULTS = """
import resource, sys
import torch
if sys.argv[1] == "kept":
    from segue.machine.memory import keep_freed_memory
    keep_freed_memory()
faults = []
for _ in range(20):
    torch.empty(2**24).fill_(1)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[10])  # at first the heap grows
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_freed_memory_is_kept_unless_the_user_says_otherwise() -> None:
    def faults(way: str, **environment: str) -> int:
        command = [sys.executable, "-c", FAULTS, way]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
        return int(done.stdout)

    before, kept = faults("as it is"), faults("kept")
    if before < 1000:
        pytest.skip("another allocator")
    assert kept < before / 10
    assert faults("kept", MALLOC_TRIM_THRESHOLD_="131072") > before / 2


class Odd(nn.Module):
    """Steps that depend on the size, and what is no convolution of maps of float32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 3, padding=1)
        self.gain, self.offset = nn.Parameter(random(32)), nn.Parameter(random(32, seed=1))
        self.strided = nn.Parameter(random(64, seed=2)[::2])
        self.linear = nn.Linear(32 * 4, 32)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > 100:
            x = x + 1
        x = self.conv(x) + (x > 0)  # booleans
        mean, variance = torch.zeros(32), torch.ones(32)
        x = F.batch_norm(self.conv(x), mean, variance, self.gain, None)  # a gain alone
        x = F.batch_norm(self.conv(x), mean, variance, 1 + self.gain, self.offset)  # calculated
        x = F.conv2d(x, self.conv.weight[:, :, 1:2, 1:2].contiguous(), self.strided)
        x = self.conv(x) + x.shape[-1]  # a number
        pooled = F.adaptive_avg_pool2d(F.relu(self.conv(x)), 2).flatten(1)  # a view of maps in channels_last
        return x + self.linear(pooled)[..., None, None] + self.conv(x[0])


def test_what_looks_like_a_map_and_is_none() -> None:
    torch.manual_seed(0)
    model = Odd().eval()
    engine = create_engine("fused", model)
    for size in ((72, 80), (66, 101), (8, 120), (64, 64), (5, 3), (72, 120)):
        x = random(1, 32, *size)
        with torch.no_grad():
            expected = model(x)
        torch.testing.assert_close(engine(x), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("deconvnet", {"width": 4}, ((224, 256), (200, 240), (300, 250))),
        ("fcn8s", {"width": 4}, ((64, 96), (96, 96), (1, 1), (6, 3))),
        ("fanet18", {}, ((128, 160), (160, 192), (128, 128))),
    ],
)
def test_sizes_that_the_graph_for_all_does_not_take(name: str, options: dict[str, object], sizes: list[tuple[int, int]]) -> None:
    model = small_model(name, options).eval()
    engine = create_engine("fused", model)
    for size in sizes:
        x = pad_to_multiple(images(model, *size, count=1), model.stride, plus=int(model.aligned))
        with torch.no_grad():
            expected = model.score(x)
        torch.testing.assert_close(engine(x), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_torchs_default_type_does_not_matter() -> None:
    model = nn.Conv2d(64, 64, 3, padding=1).eval()
    engine, x = create_engine("fused", model), random(1, 64, 40, 40)
    expected = engine(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(engine(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_module_of_several_results_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x + 1

    with pytest.raises(ValueError, match="more than one tensor"):
        create_engine("fused", Two())(random(1, 3, 8, 8))


def test_other_machines_are_told_what_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.engines.fused_engine.works", lambda: False)
    with pytest.raises(ValueError, match='take "torch" here'):
        create_engine("fused", nn.Identity())
