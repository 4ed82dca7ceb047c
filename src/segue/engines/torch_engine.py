"""torch itself, with batch norm folded and the memory format that is the faster one for the network."""

from functools import partial

import torch
from torch import Tensor, nn

from segue.engines.choices import FORMATS, describe_case, recall, remember, size_class
from segue.engines.folding import fold_batch_norms
from segue.machine.timing import compare
from segue.models.base import SegmentationModel, as_segmentation_model

WORTH = 2**16  # pixels, from which on the format is measured


class TorchEngine:
    """The first image of a size class is computed in both formats, some times, unless that was done before.

    Batch norm is folded in segue's own networks, of which is known that their steps do not depend on what an image shows.
    """

    name = "torch"

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = model
        self.folded: nn.Module | None = None
        self.formats: dict[int, str] = {}  # by size class

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        if size_class(x) not in self.formats:
            self.formats[size_class(x)] = self.choose_format(x)
        return self.compute(x, self.formats[size_class(x)])

    def compute(self, x: Tensor, memory_format: str) -> Tensor:
        if self.folded is None:
            self.folded = fold_batch_norms(self.model) if isinstance(self.model, SegmentationModel) else self.model
        x = x.contiguous(memory_format=FORMATS[memory_format])
        return as_segmentation_model(self.folded).score(x)

    def choose_format(self, x: Tensor) -> str:
        if x.shape[0] * x.shape[-2] * x.shape[-1] < WORTH:
            return "channels_first"
        case = describe_case("memory format", self.model, x)
        known = recall(case).get("choice")
        if known in FORMATS:
            return str(known)
        times = compare({name: partial(self.compute, x, name) for name in FORMATS}, seconds=2)
        choice = min(times, key=times.__getitem__)
        remember(case, {"choice": choice, "seconds": times})
        return choice

    def describe(self) -> str:
        return f"torch {torch.__version__}, {' or '.join(sorted({*self.formats.values()})) or 'not run yet'}"
