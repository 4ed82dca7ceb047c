"""ONNX Runtime on the CPU."""

from typing import Any

import torch
from torch import Tensor, nn

from segue.engines.conversion import need
from segue.engines.portable import Portable, Recent, one_by_one


class OnnxRuntimeEngine:
    """One session for all sizes; a network that cannot be written for all has one for each size."""

    name = "onnxruntime"

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.runtime = need("onnxruntime")
        self.network = Portable(model)
        self.sessions: Recent[Any] = Recent(most=2)

    def __call__(self, x: Tensor) -> Tensor:
        return one_by_one(self.compute, x)

    def compute(self, x: Tensor) -> Tensor:
        with self.network.lock:
            session = self.sessions.find(self.network.key(x)) or self.load(x)
        (scores,) = session.run(None, {"x": x.numpy()})
        return torch.from_numpy(scores)

    def load(self, x: Tensor) -> Any:
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the last step needs the cores
        with self.network.written(x) as network:
            options.enable_cpu_mem_arena = not self.network.any_size  # with many sizes it grows and grows
            session = self.runtime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        if not self.network.key(x):
            self.sessions.clear()  # what was for one size
        return self.sessions.keep(self.network.key(x), session)

    def describe(self) -> str:
        return f"onnxruntime {self.runtime.__version__}"
