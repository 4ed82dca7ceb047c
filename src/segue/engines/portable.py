"""A network in the form that an engine reads: for all sizes where that is possible, else for one at a time."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from segue.engines.conversion import LARGEST, SMALLEST, need, to_onnx

Value = TypeVar("Value")
LARGE = 2**28  # bytes of weights, from which a model goes through a file: ONNX in one piece ends at 2^31


class Sizes:
    """A network that is written in another form: for the first size alone, which is quick, and for all when a second comes.

    If its steps depend on the size it is written for each; small images, which the form for all was not tried with, have forms
    of their own too. write: of the model, a size or None, and the number of channels. What finds or makes a form holds `lock`.
    """

    def __init__(self, model: nn.Module, write: Callable[[nn.Module, tuple[int, int] | None, int], Any]) -> None:
        self.model = model
        self.write = write
        self.any_size = False  # whether what was written last takes any
        self.may_take_any = True
        self.exceptions: set[tuple[int, ...]] = set()  # sizes that the form for all does not take
        self.times = 0
        self.lock = Lock()

    def key(self, x: Tensor) -> tuple[int, ...]:
        """What images have in common for which one form is enough."""
        return () if self.any_size and self.is_usual(x) else tuple(x.shape[-2:])

    def is_usual(self, x: Tensor) -> bool:
        height, width = x.shape[-2:]
        return min(height, width) >= SMALLEST and max(height, width) <= LARGEST and (height, width) not in self.exceptions

    def convert(self, x: Tensor) -> Any:
        """A form that takes x."""
        self.times += 1
        if self.times > 1 and self.may_take_any and self.is_usual(x):
            try:
                network = self.write(self.model, None, x.shape[1])
                self.any_size = True
                return network
            except ValueError:
                self.may_take_any = False
        return self.write(self.model, (x.shape[-2], x.shape[-1]), x.shape[1])


class Portable(Sizes):
    """A network that is written as ONNX."""

    def __init__(self, model: nn.Module) -> None:
        need("onnx"), need("onnxscript")
        super().__init__(model, to_onnx)

    @contextmanager
    def written(self, x: Tensor) -> Iterator[bytes | str]:
        """The network as ONNX that takes x: in one piece, or if large the path of a file."""
        proto = self.convert(x)
        if sum(parameter.nbytes for parameter in self.model.parameters()) < LARGE:
            yield proto.SerializeToString()
            return
        with TemporaryDirectory(prefix="segue-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "network.onnx"
            need("onnx").save_model(proto, path, save_as_external_data=True, location="weights")
            del proto  # before the engine has a copy of its own
            yield str(path)


class Recent(OrderedDict[tuple[int, ...], Value]):
    """The values that were kept or found last."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def keep(self, key: tuple[int, ...], value: Value) -> Value:
        self[key] = value
        if len(self) > self.most:
            self.popitem(last=False)
        return value

    def find(self, key: tuple[int, ...]) -> Value | None:
        if key not in self:
            return None
        self.move_to_end(key)
        return self[key]


def one_by_one(compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The scores of each image of a batch (N, C, H, W), which the engine computes alone."""
    scores = [compute(image) for image in torch.split(x.detach().float().contiguous(), 1)]
    return scores[0] if len(scores) == 1 else torch.cat(scores)
