"""Every engine computes the network that torch computes."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.extras import needed
from helpers.networks import Options, every_network, images, randomize_norms, small_model
from segue import Labels, Predictor, create_model
from segue.engines import auto_engine, create_engine, torch_engine
from segue.engines.choices import cache_file, describe_case
from segue.engines.conversion import need
from segue.engines.folding import fold_batch_norms
from segue.models.base import SegmentationModel, pad_to_multiple
from segue.models.layers import max_pool, max_unpool

WITHOUT_PAIRS = ("fusionnet",)  # whose batch norm follows the activation


pytestmark = pytest.mark.runtimes


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "segue" / "engines.json"


class Small(SegmentationModel):
    """What makes networks hard for an engine: unpooling of odd sizes, and batch norm behind a transposed convolution."""

    def __init__(self, num_classes: int = 3, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels)
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.bottom = nn.Sequential(nn.ConvTranspose2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8))
        self.head = nn.Conv2d(8, num_classes, 1)
        randomize_norms(self.eval())

    def score(self, x: Tensor) -> Tensor:
        encoded = self.encoder(x)
        x, places = max_pool(encoded, ceil_mode=True)
        return self.head(max_unpool(self.bottom(x), places, encoded.shape[-2:]))


class Halves(Small):
    """Its steps follow from the image's size."""

    def score(self, x: Tensor) -> Tensor:
        cuts = range(0, x.shape[-1], 24)
        return torch.cat([super(Halves, self).score(x[..., cut : cut + 24]) for cut in cuts], dim=-1)


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@every_network
def test_folded_it_gives_the_same_scores(name: str, options: Options) -> None:
    model = small_model(name, options).eval()
    randomize_norms(model)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    x = pad_to_multiple(images(model, count=1), model.stride, plus=int(model.aligned))
    with torch.no_grad():
        folded = fold_batch_norms(model)
        expected = model.score(x)
        torch.testing.assert_close(folded.score(x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert norms(folded) < norms(model) or name in WITHOUT_PAIRS or not norms(model)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_all_norms_of_enet_are_folded_but_the_one_behind_a_concatenation() -> None:
    model = small_model("enet", {}).eval()
    assert norms(fold_batch_norms(model)) == 1


class Shared(SegmentationModel):
    """Batch norms that must stay: behind a map that is used twice, behind a convolution that is, and before one."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.seen_twice, self.used_twice = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def score(self, x: Tensor) -> Tensor:
        y = self.seen_twice(self.norm3(x))
        y = y + self.norm1(y)
        return self.used_twice(y) + self.norm2(self.used_twice(x))


def test_a_norm_is_folded_only_if_nothing_else_sees_the_convolution() -> None:
    model = Shared().eval()
    randomize_norms(model)
    x = torch.rand(1, 3, 8, 8)
    folded = fold_batch_norms(model)
    assert norms(folded) == 3
    assert torch.equal(folded.score(x), model.score(x))
    assert folded.used_twice.weight is model.used_twice.weight  # no memory for what is not changed


def test_a_convolution_that_is_used_again_is_folded_if_the_norm_is_too() -> None:
    class Twice(Small):
        def score(self, x: Tensor) -> Tensor:
            return super().score(x) + super().score(x.flip(-1))

    model = Twice()
    x = torch.rand(1, 3, 8, 8)
    folded = fold_batch_norms(model)
    assert norms(folded) == 0
    torch.testing.assert_close(folded.score(x), model.score(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 2), (1, 1), (12, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exported_unpooling_equals_torchs_also_where_maxima_tie(size: tuple[int, int], dtype: torch.dtype) -> None:
    class Unpool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            maxima, places = max_pool(x, ceil_mode=True)
            return max_unpool(maxima - 2, places, x.shape[-2:])

    x = torch.randint(-1, 2, (2, 3, *size), generator=torch.Generator().manual_seed(0)).to(dtype)
    maxima, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    expected = F.max_unpool2d(maxima - 2, indices, [2, 2], output_size=list(size))
    program = torch.export.export(Unpool(), (x,))
    assert not any("unpool" in str(node.target) or "scatter" in str(node.target) for node in program.graph.nodes)
    assert program.module()(x).dtype == dtype
    assert torch.equal(program.module()(x), expected)
    assert torch.equal(Unpool()(x), expected)


@pytest.mark.parametrize(
    ("name", "network"),
    [("torch", Small), ("fused", Small), ("onnxruntime", Small), ("openvino", Small), ("onnxruntime", Halves), ("fused", Halves)],
)
def test_engines_give_torchs_scores_at_every_size(name: str, network: type[Small]) -> None:
    if name in ("onnxruntime", "openvino"):
        needed(name)
    model = network()
    engine = create_engine(name, model)
    assert engine.name == name
    random = torch.Generator().manual_seed(0)
    batches = [torch.rand(shape, generator=random) for shape in ((1, 3, 33, 48), (2, 3, 40, 24), (1, 3, 33, 48))]
    scores = [engine(x) for x in batches]  # all at once: none may be overwritten by the next
    for x, found in zip(batches, scores, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(found, model.score(x), rtol=1e-4, atol=1e-5)
    assert engine.describe().startswith(name)


@pytest.mark.parametrize("name", ["torch", "fused", "onnxruntime"])
def test_a_module_of_ones_own_goes_through_every_engine(name: str) -> None:
    if name == "onnxruntime":
        needed(name)
    model = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Hardswish()).eval()
    x = torch.rand(1, 4, 20, 30).to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(create_engine(name, model)(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_predictor_takes_the_engine() -> None:
    needed("openvino")
    labels = Labels.from_names(["a", "b", "c"])
    image = np.random.default_rng(0).integers(0, 256, (37, 45, 3), np.uint8)
    masks = [Predictor(Small(), labels, (0.5,) * 3, (0.2,) * 3, engine=engine)(image) for engine in ("torch", "openvino")]
    assert (masks[0] == masks[1]).mean() > 0.999


def test_eight_bits_keep_the_scores_nearly() -> None:
    needed("openvino")
    needed("nncf")
    model = Small()
    x = torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    engine = create_engine("openvino", model, calibration=x.split(1))
    with torch.no_grad():
        expected = model.score(x[:1])
    error = (engine(x[:1]) - expected).abs().mean() / expected.std()
    assert 1e-4 < error < 0.1
    assert "8 bits" in engine.describe()


def test_what_cannot_be_is_said() -> None:
    model = Small()
    with pytest.raises(ValueError, match='no engine "openvno"; did you mean "openvino"'):
        create_engine("openvno", model)
    with pytest.raises(ValueError, match=r'"onnxruntime".* not on "cuda"'):
        create_engine("onnxruntime", model, "cuda")
    with pytest.raises(ValueError, match='"openvino" takes images for calibration'):
        create_engine("torch", model, calibration=[torch.rand(1, 3, 8, 8)])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_that_is_not_installed_is_named_with_the_way_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf'{name}.*pip install "segue\[export\]"'):
        create_engine(name, Small())


def test_onnx_runtime_tells_its_makers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    runtime, tool = ModuleType("onnxruntime"), ModuleType("onnxruntime.quantization")
    monkeypatch.setattr(runtime, "disable_telemetry_events", lambda: told.append("off"), raising=False)
    for module in (runtime, tool):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        assert need(module.__name__) is module
    assert told == ["off", "off"]


class Fake:
    """An engine that is at once done, and wrong where told."""

    name = "fake"

    def __init__(self, model: Small, wrong: bool) -> None:
        self.model, self.wrong, self.calls = model, wrong, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        with torch.no_grad():
            scores = self.model.score(x)
        return -scores if self.wrong else scores

    def describe(self) -> str:
        return "fake"


def with_fake(monkeypatch: pytest.MonkeyPatch, wrong: bool, torch_is_slow: bool = True) -> list[Fake]:
    """`auto` may choose between torch and a fake; the fakes that it makes."""
    made: list[Fake] = []
    candidates = {"torch": auto_engine.TorchEngine, "fake": lambda model, _: made.append(Fake(model, wrong)) or made[-1]}  # type: ignore[attr-defined]
    times = {"torch": 2.0 if torch_is_slow else 1.0, "fake": 1.5}
    monkeypatch.setattr(auto_engine, "CANDIDATES", candidates)
    monkeypatch.setattr(auto_engine, "installed", lambda name: True)
    monkeypatch.setattr(auto_engine, "compare", lambda sides, _: {name: times[name] for name in sides})
    return made


def test_auto_takes_the_fastest_and_remembers_it(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    with_fake(monkeypatch, wrong=False)
    x = torch.rand(1, 3, 32, 32)
    engine = create_engine("auto", Small())
    engine(x)
    assert engine.describe() == "auto: fake for images of about 32 x 32 (torch 2000 ms, fake 1500 ms)"
    with_fake(monkeypatch, wrong=False, torch_is_slow=False)
    again = create_engine("auto", Small())
    again(x)
    assert again.describe() == "auto: fake for images of about 32 x 32, as measured before"
    wider = create_engine("auto", Small(num_classes=4))  # another network
    wider(x)
    assert "torch for" in wider.describe()
    assert len(json.loads(own_cache.read_text())) == 2


def test_auto_takes_no_engine_whose_labels_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    with_fake(monkeypatch, wrong=True)
    model, x = Small(), torch.rand(1, 3, 32, 32)
    engine = create_engine("auto", model)
    torch.testing.assert_close(engine(x), model.score(x), rtol=1e-4, atol=1e-5)
    assert "torch for" in engine.describe()


@pytest.mark.parametrize("content", ["{", "[]", "7", '{"a": 1}', "\x00"])
def test_a_damaged_memory_is_no_error(monkeypatch: pytest.MonkeyPatch, own_cache: Path, content: str) -> None:
    with_fake(monkeypatch, wrong=False)
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text(content)
    engine = create_engine("auto", Small())
    engine(torch.rand(1, 3, 32, 32))
    assert "fake for" in engine.describe()
    assert json.loads(own_cache.read_text())


def test_a_choice_that_is_no_name_is_made_anew(own_cache: Path) -> None:
    model, x = Small().eval(), torch.rand(1, 3, 256, 256)
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text(json.dumps({describe_case("memory format", model, x): {"choice": ["channels_last"]}}))
    create_engine("torch", model)(x)
    assert isinstance(json.loads(own_cache.read_text())[describe_case("memory format", model, x)]["choice"], str)


def test_a_memory_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with_fake(monkeypatch, wrong=False)
    engine = create_engine("auto", Small())
    engine(torch.rand(1, 3, 32, 32))
    assert "fake for" in engine.describe()
    assert not cache_file().exists()


def test_the_memory_format_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(
        torch_engine, "compare", lambda sides, seconds: measured.append(1) or {"contiguous": 2, "channels_last": 1}
    )
    x = torch.rand(1, 3, 256, 256)
    for _ in range(2):
        model = Small()
        engine = create_engine("torch", model)
        torch.testing.assert_close(engine(x), model.score(x), rtol=1e-4, atol=1e-5)
        engine(x)
        assert "contiguous" in engine.describe() or "channels_last" in engine.describe()
    assert measured == [1]


def test_a_network_in_training_is_brought_to_evaluation() -> None:
    model = create_model("enet", 2).train()
    x = torch.rand(1, 3, 32, 32)
    engine = create_engine("torch", model)
    torch.testing.assert_close(engine(x), engine(x))
    assert not model.training


def test_threads_that_begin_together_leave_the_output_as_it_was() -> None:
    needed("onnxruntime")
    engine, x, out = create_engine("auto", Small(3, 3)), torch.rand(1, 3, 64, 64), sys.stdout
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: engine(x), range(2))
    assert sys.stdout is out
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)
