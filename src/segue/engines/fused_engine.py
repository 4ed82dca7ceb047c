"""torch's operations on the CPU in another order: see `fusion`, `convolution` and `winograd`."""

import sys
from ctypes import CDLL
from functools import cache

import torch
from torch import Tensor, nn

from segue.engines.portable import Recent, Sizes, one_by_one


class FusedEngine:
    """One graph for all sizes; sizes that it does not take have graphs of their own."""

    name = "fused"

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        if not works():
            raise ValueError('engine (="fused") needs Linux and a torch with oneDNN, as that for x86 is; take "torch" here')
        from segue.engines.fusion import fuse  # and numba, which is slow to import

        self.network = Sizes(model, fuse)
        self.graphs: Recent[nn.Module] = Recent(most=4)

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        return one_by_one(self.compute, x)

    def compute(self, x: Tensor) -> Tensor:
        key, graph = self.load(x)
        try:
            return graph(x)
        except RuntimeError:
            if key:
                raise
        self.network.exceptions.add(tuple(x.shape[-2:]))  # its steps are others at this size
        return self.load(x)[1](x)

    def load(self, x: Tensor) -> tuple[tuple[int, ...], nn.Module]:
        """The graph for x, and the key that it is kept by: () for that of all sizes."""
        with self.network.lock:
            graph = self.graphs.find(self.network.key(x))
            if graph is None:
                graph = self.network.convert(x)
                if not self.network.key(x):
                    self.graphs.clear()  # what was for one size
                self.graphs.keep(self.network.key(x), graph)
            return self.network.key(x), graph

    def describe(self) -> str:
        return f"fused, torch {torch.__version__}"


@cache
def works() -> bool:
    """Whether this machine can: torch has oneDNN, and the threads that the loops run in."""
    has_threads = sys.platform.startswith("linux") and hasattr(CDLL(None), "GOMP_parallel")
    return has_threads and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
