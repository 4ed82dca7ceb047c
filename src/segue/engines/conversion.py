"""From a network to a graph, and to the formats of other runtimes: floats (1, C, H, W) to scores (1, K, h, w), of any size."""

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from segue.models.base import as_segmentation_model

if TYPE_CHECKING:
    import onnx

OPSET = 18  # of ONNX: what torch writes without converting it
EXAMPLE = 320  # pixels of the lower side of the image that torch's exporter is shown; it calculates with shapes alone
SMALLEST, LARGEST = 64, 2**14  # pixels between which torch's exporter looks for what depends on the size

SILENCE = RLock()


class Score(nn.Module):
    """A network as a function of its normalised image alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return as_segmentation_model(self.network).score(x)


def to_onnx(model: nn.Module, size: tuple[int, int] | None = None, in_channels: int = 3) -> "onnx.ModelProto":
    """The network's `score`, or the `forward` of a module of one's own: "x" float32 (1, C, H, W) to "scores" (1, K, h, w).

    The model is in evaluation mode. H and W may be any that `score` takes: multiples of `stride`, plus one where `aligned`.
    size: the only (H, W) that the result takes. in_channels: of a module that is none of segue's. ValueError if the network's
    steps depend on the size so that they cannot be written for all sizes at once.
    """
    need("onnx")
    need("onnxscript")
    program = to_program(model, size, in_channels)
    with refused(model, size, "as ONNX"), quiet():
        written = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=OPSET, input_names=["x"], output_names=["scores"]
        )
    if written is None:
        raise ValueError(f"torch wrote no ONNX of {type(model).__name__}")
    return written.model_proto


def to_program(model: nn.Module, size: tuple[int, int] | None = None, in_channels: int = 3) -> ExportedProgram:
    """The same as torch's graph of it; see `to_onnx`."""
    if model.training:
        raise ValueError(
            f"{type(model).__name__} is in training mode, in which it is no function of its image; call eval() first"
        )
    network = as_segmentation_model(model)
    step, plus = network.stride, int(network.aligned)
    low = -(-max(network.min_size, EXAMPLE) // step) | 1
    height, width = size or (step * low + plus, 3 * step * low + plus)  # no level of the network may be as wide as high
    shapes = None
    if size is None:
        k, m = (Dim(name, min=SMALLEST // step, max=LARGEST // step) for name in ("rows", "columns"))
        shapes = ({2: k, 3: m} if step + plus == 1 else {2: step * k + plus, 3: step * m + plus},)
    parameter = next(model.parameters(), torch.zeros(()))
    example = torch.zeros(1, network.in_channels or in_channels, height, width, device=parameter.device)
    with refused(model, size, "as a graph"), quiet():
        return torch.export.export(
            Score(model).eval(), (example,), dynamic_shapes=shapes, prefer_deferred_runtime_asserts_over_guards=True
        )


@contextmanager
def refused(model: nn.Module, size: tuple[int, int] | None, form: str) -> Iterator[None]:
    """ValueError in place of whatever torch's exporters raise."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        sizes = "images of any size" if size is None else f"images of {size[0]} x {size[1]} pixels"
        raise ValueError(f"{type(model).__name__} cannot be written {form} for {sizes}: {error}") from error


def quantize_openvino(model: Any, inputs: Sequence[Any], ignored: str = "") -> Any:
    """An openvino.Model that calculates with integers of 8 bits, chosen by the values that it sees for these `inputs`.

    inputs: arrays as the model takes them. ignored: a pattern of the names of operations that stay as they are.
    """
    nncf = need("nncf")
    # The places of maxima are found by comparing, which must not be done with rounded numbers on one side.
    scope = nncf.IgnoredScope(patterns=[ignored] if ignored else [], types=["Equal"], validate=False)
    with quiet():
        mixed = nncf.QuantizationPreset.MIXED  # activations below 0, as PReLU has them, get integers of their own
        data = nncf.Dataset(list(inputs))
        return nncf.quantize(model, data, preset=mixed, subset_size=len(inputs), ignored_scope=scope)


def quantize_onnx(model: "onnx.ModelProto", inputs: Sequence[Any]) -> "onnx.ModelProto":
    """The ONNX of a network that calculates with integers of 8 bits, chosen by the values that it sees for these `inputs`.

    inputs: arrays as the model takes them. The tool is ONNX Runtime's own: NNCF's result was slower there, and no better.
    """
    quantization, shapes = need("onnxruntime.quantization"), need("onnxruntime.quantization.shape_inference")
    reader = Reader({model.graph.input[0].name: given} for given in inputs)
    with quiet(), TemporaryDirectory(prefix="segue-") as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        shapes.quant_pre_process(model, prepared, skip_symbolic_shape=True)
        types = quantization.QuantType
        quantization.quantize_static(
            prepared, quantized, reader, per_channel=True, activation_type=types.QUInt8, weight_type=types.QInt8
        )
        return need("onnx").load(quantized)


class Reader:
    """Inputs as ONNX Runtime asks for them."""

    def __init__(self, inputs: Iterable[dict[str, Any]]) -> None:
        self.coming = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.coming, None)


def need(name: str) -> Any:
    """The package of that name; ValueError that says how to install it, if it is not there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package's own
            # Without telling their makers of each use.
            os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
            sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
            if name.partition(".")[0] == "onnxruntime":
                import_module("onnxruntime").disable_telemetry_events()
            return import_module(name)
    except ImportError as error:
        raise ValueError(f'this needs {name}, which is not installed ({error}): pip install "segue[export]"') from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters say to those who write them. One thread at a time: it is silence for the whole process."""
    with SILENCE:
        disabled = logging.root.manager.disable
        logging.disable(logging.ERROR)
        try:
            with warnings.catch_warnings(), redirect_stdout(StringIO()):
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(disabled)
