"""An exported file: what is written in it beside the graph, and running it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segue._version import __version__
from segue.checkpoint import Card, find_checkpoint
from segue.engines.conversion import need
from segue.images import Raster, find_fault
from segue.labels import IGNORE, Labels, Mask

SUFFIXES = (".onnx", ".xml")


def describe(checkpoint: str | Path, card: Card, **more: Any) -> dict[str, str]:
    """What the file says of itself, each entry as JSON: see docs/export.md."""
    folder = find_checkpoint(checkpoint)
    terms = folder / "TERMS.md" if folder else None
    fields = {
        "segue": __version__,
        "network": card.network,
        "options": card.options,
        "classes": card.labels.names,
        "palette": card.labels.palette,
        "ignore": IGNORE,
        "mean": card.mean,
        "std": card.std,
        "short_side": card.short_side,
        "recipe": card.recipe,
        "training": card.training,
        "scores": card.scores,
        "terms": terms.read_text() if terms and terms.exists() else "",
        **more,
    }
    return {name: json.dumps(value) for name, value in fields.items()}


def save_onnx(model: Any, path: Path, entries: Mapping[str, str]) -> None:
    graph = model.graph
    for part in (model, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]  # torch writes stack traces into them, with the paths of the machine that exported
    need("onnx").helper.set_model_props(model, dict(entries))
    path.write_bytes(model.SerializeToString())


def save_openvino(model: Any, path: Path, entries: Mapping[str, str]) -> None:
    """PATH.xml, and the weights in a file of the same name that ends in .bin."""
    for name, value in entries.items():
        model.set_rt_info(value, ["segue", name])
    need("openvino").save_model(model, path, compress_to_fp16=False)


class ExportedModel:
    """The file, run on the CPU by its own runtime: called with an image (H, W, C), it gives the label map, uint8 (H, W).

    segue.evaluation scores it as it does a Predictor. ValueError if the file is none that `segue export` wrote.
    """

    labels: Labels
    metadata: dict[str, Any]
    """The entries of the file, by name."""
    run: Callable[[dict[str, Any]], Any]

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{path} is no exported model; its name must end in {' or '.join(SUFFIXES)}")
        if not path.is_file():
            raise ValueError(f"there is no file {path}; write one: segue export CHECKPOINT {path}")
        try:
            entries = self.open_onnx(path) if path.suffix == ".onnx" else self.open_openvino(path)
            self.metadata = {name: json.loads(value) for name, value in entries.items()}
            self.labels = Labels.from_json({"names": self.metadata["classes"], "palette": self.metadata["palette"]})
        except Exception as error:  # runtimes have errors of their own
            if isinstance(error, ValueError) and "segue[export]" in str(error):
                raise
            raise ValueError(f"{path} cannot be read as a file of segue export ({error}); export it again") from error

    def open_onnx(self, path: Path) -> Mapping[str, str]:
        runtime = need("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {given.name: tuple(given.shape) for given in session.get_inputs()}
        self.run = lambda given: session.run(["labels"], given)[0]
        return session.get_modelmeta().custom_metadata_map

    def open_openvino(self, path: Path) -> Mapping[str, str]:
        openvino = need("openvino")
        core = openvino.Core()
        model: Any = core.read_model(path)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = core.compile_model(model, "CPU", settings)
        self.inputs = {
            given.get_any_name(): tuple(n.get_length() if n.is_static else "" for n in given.get_partial_shape())
            for given in model.inputs
        }
        self.run = lambda given: compiled(given)["labels"]
        entries: dict[str, Any] = model.get_rt_info(["segue"]).value
        return {name: str(getattr(value, "value", value)) for name, value in entries.items()}

    @property
    def channels(self) -> int:
        """Those of the image, and depth where it uses that."""
        return int(self.inputs["image"][2]) + ("depth" in self.inputs)

    def __call__(self, image: Raster, depth: NDArray[np.float32] | None = None) -> Mask:
        fault = find_fault(image, int(self.inputs["image"][2]))
        if fault or image.dtype != self.metadata["input"]:
            raise ValueError(f"image has {fault or f'the type {image.dtype}; this file takes ' + self.metadata['input']}")
        given: dict[str, Any] = {"image": np.ascontiguousarray(image)}
        if "depth" in self.inputs:
            if depth is None:
                raise ValueError("this file takes depth too: pass it as depth=, float32 (H, W) in metres")
            given["depth"] = np.ascontiguousarray(depth, np.float32)
        result: Mask = np.array(self.run(given))
        return result
