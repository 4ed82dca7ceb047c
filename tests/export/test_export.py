"""Files that say what the checkpoint says, and exports that fail without leaving anything."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from helpers.commands import call
from helpers.extras import needed
from helpers.networks import NETWORKS, Options, small_model
from segue.checkpoint import Card, load_checkpoint, save_checkpoint
from segue.data import Streets  # type: ignore[attr-defined]
from segue.data.synthetic.streets import STREETS
from segue.evaluation import evaluate
from segue.export.parity import Parity
from segue.inference import Predictor, working_size
from segue.labels import Labels

onnx = needed("onnx")
needed("onnxscript")
pytestmark = pytest.mark.runtimes

from segue import export as exporting  # noqa: E402
from segue.engines.conversion import to_onnx  # noqa: E402
from segue.export import ExportedModel, ExportError, export  # noqa: E402
from segue.export.graph import build_graph  # noqa: E402
from segue.export.parity import drawn_examples  # noqa: E402

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
LABELS = Labels.from_names(["a", "b", "c"])
OTHERS = {"deeplabv3plus": {"backbone": "resnet18"}}  # of which torch's exporter makes quick work
EVERY = [(name, OTHERS.get(name, options)) for name, options in NETWORKS]


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth colours and noise."""
    random = np.random.default_rng(seed)
    rough = random.integers(0, 256, (height // 16 + 2, width // 16 + 2, channels)).repeat(16, 0).repeat(16, 1)[:height, :width]
    return (rough * 0.8 + random.integers(0, 51, (height, width, channels))).astype(np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow U-Net that sees images with 48 pixels on the shorter side."""
    folder = tmp_path_factory.mktemp("runs") / "unet"
    options: Options = {"width": 4, "padding": "same"}
    model = small_model("unet", options, len(STREETS))
    card = Card("unet", STREETS, options=options, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), short_side=48)
    save_checkpoint(folder, model, card)
    (folder / "TERMS.md").write_text("for tests alone")
    return folder


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> bytes:
    """Its ONNX, which takes a while to write."""
    return to_onnx(load_checkpoint(checkpoint)[0]).SerializeToString()


@pytest.fixture
def quick(network: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "to_onnx", lambda *_, **__: onnx.load_from_string(network))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, size in enumerate(((48, 70), (61, 47), (120, 91))):
        PIL.Image.fromarray(photo(*size, seed=number)).save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), EVERY, ids=lambda value: str(value))
def test_every_network_is_one_file_for_all_sizes(name: str, options: Options, tmp_path: Path) -> None:
    model = small_model(name, options).eval()
    card = Card(name, LABELS, options=options, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    written = build_graph(to_onnx(model), model, card)
    (tmp_path / "model.onnx").write_bytes(written.SerializeToString())
    runtime = needed("onnxruntime")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    predictor = Predictor.of(model, card, "cpu")
    for height, width in ((37, 61), (95, 70)):
        image = photo(height, width)
        (labels,) = session.run(None, {"image": image})
        assert labels.shape == (height, width)
        assert labels.dtype == np.uint8
        assert (labels == predictor(image)).mean() > 0.999
        if name.startswith(("deeplabv1", "enet", "fanet18")):
            run = (
                needed("openvino").Core().compile_model(str(tmp_path / "model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            )
            assert (run({"image": image})["labels"] == predictor(image)).mean() > 0.999


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_the_file_says_what_the_checkpoint_says(
    suffix: str, checkpoint: Path, quick: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Above and below the working size; a single row as well."""
    if suffix == ".xml":
        needed("openvino")
    out = tmp_path / "new" / f"model{suffix}"
    assert call(monkeypatch, "export", checkpoint, out, "--images", photos) == 0
    assert "compared on 3 images" in capsys.readouterr().out
    assert {path.suffix for path in out.parent.iterdir()} == ({".xml", ".bin"} if suffix == ".xml" else {".onnx"})
    exported, predictor = ExportedModel(out), Predictor.load(checkpoint, "cpu")
    for height, width in ((48, 48), (31, 97), (130, 53), (20, 200), (150, 230)):
        image = photo(height, width, seed=height)
        assert (exported(image) == predictor(image)).mean() > 0.9995
    samples = Streets("val", 2, (60, 80))
    assert evaluate(exported, samples).mean_iu == pytest.approx(evaluate(predictor, samples).mean_iu, abs=1e-3)  # type: ignore[arg-type]
    assert exported.labels == STREETS
    assert exported.metadata["terms"] == "for tests alone"
    assert exported.metadata["options"] == {"width": 4, "padding": "same"}
    assert exported.metadata["parity"]["images"] == 3
    # A file that is shipped tells nothing of the machine that made it.
    for file in out.parent.iterdir():
        assert str(Path(torch.__file__).parent).encode() not in file.read_bytes()


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("short_side", [0, 40])
def test_coarse_scores_are_interpolated_as_the_predictor_does(aligned: bool, short_side: int, tmp_path: Path) -> None:
    """A network of one convolution, whose scores are eight times smaller; images below its smallest size are padded."""
    from segue.models.base import SegmentationModel

    class Coarse(SegmentationModel):
        stride = 8
        min_size = 24

        def __init__(self) -> None:
            super().__init__(3, 3)
            self.aligned = aligned
            self.conv = torch.nn.Conv2d(3, 3, 9, stride=8, padding=4)

        def score(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    torch.manual_seed(0)
    model = Coarse().eval()
    card = Card("coarse", LABELS, short_side=short_side)
    session = needed("onnxruntime").InferenceSession(build_graph(to_onnx(model), model, card).SerializeToString())
    predictor = Predictor.of(model, card, "cpu")
    for height, width in ((40, 64), (33, 57), (97, 203), (24, 31)):
        image = photo(height, width, seed=width)
        assert (session.run(None, {"image": image})[0] == predictor(image)).mean() > 0.999
    assert session.run(None, {"image": photo(5, 3)})[0].shape == (5, 3)


def test_the_working_size_is_the_predictors() -> None:
    from segue.export.graph import Graph
    from segue.export.graph import working_size as in_graph

    graph = Graph()
    graph("Identity", in_graph(graph, "size", 360), output="y")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [2]) for name in ("size", "y")]
    made = onnx.helper.make_graph(graph.nodes, "t", ends[:1], ends[1:], graph.weights)
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    session = needed("onnxruntime").InferenceSession(model.SerializeToString())
    sizes = np.random.default_rng(0).integers(1, 6000, (300, 2)).tolist()
    for size in [*sizes, [720, 1281], [720, 1283], [8, 9000], [9000, 2], [360, 480]]:
        assert tuple(session.run(None, {"size": np.array(size, np.int64)})[0]) == working_size(360, *size)


def test_depth_and_other_types_of_images(tmp_path: Path) -> None:
    options: Options = {"width": 4, "padding": "same"}
    model = small_model("unet", options, 3, 4).eval()
    card = Card("unet", LABELS, 4, options, mean=(0.4, 0.5, 0.6, 2.0), std=(0.2, 0.3, 0.25, 3.0), depth=True)
    save_checkpoint(tmp_path / "deep", model, card)
    parity = export(tmp_path / "deep", tmp_path / "deep.onnx", kind="uint16")
    assert parity.share > 0.9999
    exported, predictor = ExportedModel(tmp_path / "deep.onnx"), Predictor.load(tmp_path / "deep", "cpu")
    image, depth = photo(50, 70).astype(np.uint16) * 200, np.linspace(0, 9, 3500, dtype=np.float32).reshape(50, 70)
    assert exported.channels == 4
    assert (exported(image, depth) == predictor(image, depth)).mean() > 0.9995
    with pytest.raises(ValueError, match="pass it as depth="):
        exported(image)
    with pytest.raises(ValueError, match="a folder of images does not have"):
        export(tmp_path / "deep", tmp_path / "deep.onnx", images=tmp_path)


@pytest.mark.parametrize(("suffix", "runtime"), [(".onnx", "onnxruntime"), (".xml", "openvino")])
def test_the_lines_of_the_docs_run_where_there_is_neither_torch_nor_segue(
    suffix: str, runtime: str, checkpoint: Path, quick: None, photos: Path, tmp_path: Path
) -> None:
    needed(runtime)
    export(checkpoint, tmp_path / f"enet{suffix}", images=photos)
    (tmp_path / "photo.jpg").write_bytes((photos / "2.png").read_bytes())
    found = re.search(f"^```python {runtime}\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    refusing = "import sys\nsys.modules['torch'] = sys.modules['segue'] = None\n"
    done = subprocess.run([sys.executable, "-c", refusing + found[1]], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\{'\w+': 0\.\d+", done.stdout)
    image = np.array(PIL.Image.open(tmp_path / "photo.jpg").convert("RGB"))
    mask = np.array(PIL.Image.open(tmp_path / "labels.png"))
    assert (mask == Predictor.load(checkpoint, "cpu")(image)).mean() > 0.9995


def test_a_file_that_differs_is_not_written(
    checkpoint: Path, network: bytes, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As if the runtime calculated something else: the bias of the last layer is moved."""
    wrong = onnx.load_from_string(network)
    bias = next(w for w in wrong.graph.initializer if w.name.endswith("conv1x1.bias"))
    moved = onnx.numpy_helper.to_array(bias) + np.linspace(0, 0.5, len(STREETS), dtype=np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
    monkeypatch.setattr(exporting, "to_onnx", lambda *_, **__: wrong)
    out = tmp_path / "out" / "model.onnx"
    out.parent.mkdir()
    out.write_bytes(b"as it was")
    assert call(monkeypatch, "export", checkpoint, out, "--images", photos) == 2
    assert re.search(r"was not written: only \d+\.\d+% of the pixels are equal.*the worst image is", capsys.readouterr().err)
    assert out.read_bytes() == b"as it was"
    assert list(out.parent.iterdir()) == [out]


def test_eight_bits_are_refused_where_they_cost_more_than_half_a_point(
    checkpoint: Path, quick: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network that was not trained they cost nothing that can be lost."""
    monkeypatch.setattr(exporting, "FEWEST", 3)
    (photos / "broken.png").write_bytes(b"no image")
    samples, out, said = Streets("val", 2, (60, 80)), tmp_path / "out" / "model.onnx", []
    parity = export(checkpoint, out, samples=samples, calibrate=photos, say=said.append)
    assert parity.mean_iu
    assert 0.5 < parity.share < 1
    kinds = {node.op_type for node in onnx.load(out).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert ExportedModel(out).metadata["int8"] is True
    assert any("broken.png cannot be read" in line for line in said)
    before = out.read_bytes()
    monkeypatch.setattr("segue.export.parity.DROP", -1.0)
    with pytest.raises(ExportError, match=r"with 8 bits the mean IU is .*; calibrate with more images"):
        export(checkpoint, out, samples=samples, calibrate=photos)
    assert out.read_bytes() == before


def test_ctrl_c_leaves_nothing(checkpoint: Path, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "compare", stopped)
    (tmp_path / "out").mkdir()
    assert call(monkeypatch, "export", checkpoint, tmp_path / "out" / "model.onnx") == 130
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere", "x.onnx"], "nowhere is no checkpoint"),
        (["CHECKPOINT", "x.pb"], "must end in .onnx (ONNX) or .xml (OpenVINO)"),
        (["CHECKPOINT", "folder.onnx"], "folder.onnx is a folder; name a file in it"),
        (["CHECKPOINT", "file/x.onnx"], "cannot be written"),
        (["CHECKPOINT", "x.onnx", "--images", "nowhere"], "nowhere is no folder"),
        (["CHECKPOINT", "x.onnx", "--images", "folder.onnx"], "has no images"),
        (["CHECKPOINT", "x.onnx", "--int8"], "name a folder of your own with --calibrate"),
        (["CHECKPOINT", "x.onnx", "--calibrate", "photos"], "--calibrate is for --int8"),
        (["CHECKPOINT", "x.onnx", "--int8", "--calibrate", "photos"], "name a labelled set too"),
        (["CHECKPOINT", "x.onnx", "--int8", "--calibrate", "photos", "--data", "streets"], "has 2 images that can be read"),
        (["CHECKPOINT", "x.onnx", "--images", "photos", "--data", "streets"], "compare on one of them"),
        (["CHECKPOINT", "x.onnx", "--data", "cells"], "the network knows 9 classes"),
        (["CHECKPOINT", "x.onnx", "--images", "broken"], "cannot be read"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(
    args: list[str], message: str, checkpoint: Path, quick: None, photos: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.onnx", "broken"):
        Path(folder).mkdir()
    Path("file").write_text("")
    Path("broken/a.png").write_bytes((photos / "0.png").read_bytes()[:500])
    (photos / "0.png").write_bytes(b"no image")
    assert call(monkeypatch, "export", *(str(checkpoint) if arg == "CHECKPOINT" else arg for arg in args)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert {path.name for path in tmp_path.iterdir()} == {"folder.onnx", "broken", "file", "photos"}


def test_a_runtime_that_is_not_installed_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert call(monkeypatch, "export", checkpoint, tmp_path / "x.xml") == 2
    assert "openvino, which is not installed" in (err := capsys.readouterr().err)
    assert 'pip install "segue[export]"' in err


def test_other_files_are_no_exported_models(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        ExportedModel(tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"must end in \.onnx or \.xml"):
        ExportedModel(tmp_path / "x.pt")
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="export it again"):
        ExportedModel(tmp_path / "x.onnx")


def test_eight_bits_may_cost_half_a_point() -> None:
    """What is refused for its numbers."""
    assert Parity("here", mean_iu=(0.7, 0.6951)).fault(int8=True) == ""
    assert "mean IU is 69.49%" in Parity("here", mean_iu=(0.7, 0.6949)).fault(int8=True)
    assert Parity("here", {"a": 0.99991}, pixels=100_000, different=9).fault(int8=False) == ""
    assert "the worst image is a" in Parity("here", {"a": 0.99989}, pixels=100_000, different=11).fault(int8=False)


@pytest.mark.parametrize("short_side", [1, 20, 33, 40, 47])
def test_images_are_drawn_for_any_short_side(short_side: int) -> None:
    card = Card("unet", STREETS, short_side=short_side)
    for make in drawn_examples(card, "uint8", smallest=1):
        name, image, _, _ = make()
        assert name == f"{image.shape[0]} x {image.shape[1]}"
