"""OpenVINO on the CPU."""

import io
from collections.abc import Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from segue.engines.conversion import need, quantize_openvino
from segue.engines.portable import Portable, Recent, one_by_one


class OpenVinoEngine:
    """The network is compiled for each size, which is faster than one for all sizes; the last few stay.

    calibration: normalised images (1, C, H, W), for which it calculates with integers of 8 bits.
    """

    name = "openvino"

    def __init__(self, model: nn.Module, device: torch.device, calibration: Sequence[Tensor] = ()) -> None:
        self.openvino = need("openvino")
        if calibration:
            need("nncf")
        self.network = Portable(model)
        self.calibration = calibration
        self.core = self.openvino.Core()
        self.in_use = Lock()  # a request computes one image at a time
        self.networks: Recent[Any] = Recent(most=1)  # not compiled yet
        self.requests: Recent[Any] = Recent(most=4)

    def __call__(self, x: Tensor) -> Tensor:
        with self.in_use:
            return one_by_one(self.compute, x)

    def compute(self, x: Tensor) -> Tensor:
        request, shape = self.requests.find(tuple(x.shape)) or self.compile(x)
        scores = torch.empty(shape)
        request.set_input_tensor(self.openvino.Tensor(x.numpy(), shared_memory=True))
        request.set_output_tensor(self.openvino.Tensor(scores.numpy(), shared_memory=True))
        request.infer()
        return scores

    def compile(self, x: Tensor) -> tuple[Any, tuple[int, ...]]:
        """A request for images of this shape, and the shape of the scores."""
        network = self.networks.find(self.network.key(x)) or self.read(x)
        network.reshape(list(x.shape))
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",  # not bfloat16, where the processor has that
        }
        compiled = self.core.compile_model(network, "CPU", options)
        return self.requests.keep(tuple(x.shape), (compiled.create_infer_request(), tuple(compiled.outputs[0].shape)))

    def read(self, x: Tensor) -> Any:
        with self.network.written(x) as written:
            network = self.core.read_model(io.BytesIO(written) if isinstance(written, bytes) else written)
        if self.calibration:
            size = self.network.key(x)  # none, if it takes any
            images = [nn.functional.interpolate(image, size=size) if size else image for image in self.calibration]
            network = quantize_openvino(network, [image.float().cpu().numpy() for image in images])
        return self.networks.keep(self.network.key(x), network)

    def describe(self) -> str:
        bits = ", 8 bits" if self.calibration else ""
        return f"openvino {self.openvino.__version__.partition('-')[0]}{bits}"
