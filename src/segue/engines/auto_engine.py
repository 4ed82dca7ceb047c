"""The engine that is the fastest here: measured on the first image of each size class, and remembered."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from threading import Lock

import torch
from torch import Tensor, nn

from segue.engines.choices import describe_case, recall, remember, size_class
from segue.engines.fused_engine import FusedEngine, works
from segue.engines.onnxruntime_engine import OnnxRuntimeEngine
from segue.engines.openvino_engine import OpenVinoEngine
from segue.engines.torch_engine import TorchEngine
from segue.machine.timing import compare

Candidate = TorchEngine | FusedEngine | OnnxRuntimeEngine | OpenVinoEngine
CANDIDATES: dict[str, Callable[[nn.Module, torch.device], Candidate]] = {
    "torch": TorchEngine,
    "fused": FusedEngine,
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVinoEngine,
}
SECONDS = 4.0  # for measuring, besides what the engines take to get ready
EQUAL = 0.999  # share of the pixels with torch's class, below which an engine is not taken


class AutoEngine:
    """torch, or another engine that is installed, is faster and gives the same labels. On a GPU it is torch."""

    name = "auto"

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.engines: dict[str, Candidate] = {"torch": TorchEngine(model, device)}
        self.choices: dict[int, str] = {}  # by size class
        self.notes: list[str] = []
        self.failed = False  # whether an engine that is installed could not compute, which may be otherwise another time
        self.choosing = Lock()

    def __call__(self, x: Tensor) -> Tensor:
        with self.choosing:
            if size_class(x) not in self.choices:
                self.choices[size_class(x)] = self.choose(x)
                self.engines = {
                    name: engine for name, engine in self.engines.items() if name in {"torch", *self.choices.values()}
                }
            engine = self.engines[self.choices[size_class(x)]]
        return engine(x)

    def choose(self, x: Tensor) -> str:
        """The name of the engine for images of this size class."""
        names = [name for name in CANDIDATES if name == "torch" or (self.device.type == "cpu" and installed(name))]
        if len(names) == 1:
            return "torch"
        case = describe_case(f"engine of {', '.join(names)}", self.model, x)
        known = recall(case).get("choice")
        if known in names and self.agrees(known, x):
            self.notes.append(f"{known} for images of about {x.shape[-2]} x {x.shape[-1]}, as measured before")
            return str(known)
        sides = {name: partial(self.engines[name], x) for name in names if self.agrees(name, x)}
        times = compare(sides, SECONDS)
        choice = min(times, key=times.__getitem__)
        if not self.failed:
            remember(case, {"choice": choice, "seconds": times})
        measured = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in times.items())
        self.notes.append(f"{choice} for images of about {x.shape[-2]} x {x.shape[-1]} ({measured})")
        return choice

    def agrees(self, name: str, x: Tensor) -> bool:
        """Whether the engine can compute the network, and to torch's labels; it is ready then."""
        if name == "torch":
            return True
        try:
            engine = self.engines.setdefault(name, CANDIDATES[name](self.model, self.device))
            scores = engine(x)
        except MemoryError:
            raise
        except Exception:  # of a runtime that cannot do what this network does
            self.failed = True
            return False
        expected = self.engines["torch"](x)
        same = (scores.argmax(dim=1) == expected.argmax(dim=1)).double().mean()
        near = (scores - expected).abs().mean() <= 0.01 * expected.abs().mean()  # which one class alone does not tell
        return bool(near and same >= EQUAL)

    def describe(self) -> str:
        return f"auto: {'; '.join(self.notes) or 'torch'}"


def installed(name: str) -> bool:
    if name == "fused":
        return works()
    return all(find_spec(package) is not None for package in (name, "onnx", "onnxscript"))
