"""torch's operations on the CPU in another order: see `fusion`, `convolution` and `winograd`."""

import torch
from torch import Tensor, nn

from segue.engines.fusion import fuse
from segue.engines.portable import Recent, Sizes
from segue.engines.winograd import works


class FusedEngine:
    """One graph for all sizes; a network that has none for all has one for each size."""

    name = "fused"

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        if not works():
            raise ValueError('engine (="fused") needs Linux and a torch with oneDNN, as that for x86 is; take "torch" here')
        self.network = Sizes(model, fuse)
        self.graphs: Recent[nn.Module] = Recent(most=2)

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        graph = self.graphs.find(self.network.key(x)) or self.load(x)
        return torch.cat([graph(image) for image in torch.split(x.float(), 1)])

    def load(self, x: Tensor) -> nn.Module:
        graph = self.network.convert(x)
        return self.graphs.keep(self.network.key(x), graph)

    def describe(self) -> str:
        return f"fused, torch {torch.__version__}"
