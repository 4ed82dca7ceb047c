"""What computes a network's scores: torch, with or without its graph rearranged, or another runtime."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from segue.engines.auto_engine import AutoEngine
from segue.engines.fused_engine import FusedEngine
from segue.engines.onnxruntime_engine import OnnxRuntimeEngine
from segue.engines.openvino_engine import OpenVinoEngine
from segue.engines.torch_engine import TorchEngine
from segue.machine.memory import keep_freed_memory
from segue.suggest import did_you_mean


class Engine(Protocol):
    """From normalised images (N, C, H, W), whose sizes the network takes as they are, to its own scores (N, K, h, w).

    It computes with the weights that the network has when an image first comes: after more training, make a new one.
    """

    name: str

    def __call__(self, x: Tensor) -> Tensor: ...

    def describe(self) -> str:
        """What computes, and how, in one line."""


ENGINES: dict[str, Callable[[nn.Module, torch.device], Engine]] = {
    "torch": TorchEngine,
    "fused": FusedEngine,
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVinoEngine,
    "auto": AutoEngine,
}


def create_engine(name: str, model: nn.Module, device: str | torch.device = "cpu", calibration: Sequence[Tensor] = ()) -> Engine:
    """The engine of that name for a network, which is brought to the device and into evaluation mode.

    model: its `score` is computed if it is one of segue's, and any other module's `forward`. All threads that torch has are used.
    calibration: normalised images (1, C, H, W), with which OpenVINO's convolutions calculate with integers of 8 bits, in the
    ranges that these images need; some hundred are enough. On a CPU, memory that torch frees is kept: see `keep_freed_memory`.
    ValueError if the engine does not exist, is not installed, or does not
    compute on that device.
    """
    if name not in ENGINES:
        raise ValueError(f'no engine "{name}"{did_you_mean(name, ENGINES)}')
    device = torch.device(device)
    if name in ("fused", "onnxruntime", "openvino") and device.type != "cpu":
        raise ValueError(f'engine (="{name}") computes on the CPU, not on "{device}"; take "torch" there, or the device "cpu"')
    if calibration and name != "openvino":
        raise ValueError(f'engine (="{name}") does not calculate in 8 bits; "openvino" takes images for calibration')
    if device.type == "cpu":
        keep_freed_memory()
    model = model.to(device).eval()
    return OpenVinoEngine(model, device, calibration) if calibration else ENGINES[name](model, device)
