"""A convolution with all that follows it pixel by pixel, in the way that is the fastest on a CPU."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from segue.engines.depthwise import Depthwise
from segue.engines.winograd import Winograd, pays


class Convolution(nn.Module):
    """A convolution, the sum with another map if one is given, and a ReLU if asked for, all in channels_last.

    oneDNN computes it in one go, with kernels laid out as it likes them; Winograd's way is taken where that is faster, and a loop
    of our own where each channel is alone and the taps are apart, for which oneDNN has none.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int], groups: int,
        relu: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = weight
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.contiguous()
        self.how = padding, stride, dilation, groups
        self.relu = relu
        even = len({*padding}) == len({*dilation}) == 1
        self.for_winograd = even and {*stride} == {1} and groups == 1 and weight.shape[-2:] == (3, 3)
        self.alone = groups == len(weight) and weight.shape[1] == 1 and max(dilation) > 1
        self.ways: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {}

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to (N, K, H', W'), the shape of `other`."""
        x = x.contiguous(memory_format=torch.channels_last)
        if other is not None:
            other = other.contiguous(memory_format=torch.channels_last)
        way = self.choose(x.shape)
        if way not in self.ways:
            self.ways[way] = self.prepare(way, x)
        return self.ways[way](x, other)

    def choose(self, shape: torch.Size) -> str:
        padding, _, dilation, _ = self.how
        if self.for_winograd and pays(shape, len(self.weight), padding[0], dilation[0]):
            return "winograd"
        return "depthwise" if self.alone else "oneDNN"

    def prepare(self, way: str, x: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
        padding, stride, dilation, _ = self.how
        if way == "winograd":
            return Winograd(self.weight, self.bias, padding[0], dilation[0], self.relu)
        if way == "depthwise":
            return Depthwise(self.weight, self.bias, stride, padding, dilation, self.relu)
        kernels = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.how, list(x.shape))
        return partial(self.compute, kernels)

    def compute(self, kernels: Tensor, x: Tensor, other: Tensor | None) -> Tensor:
        operation = torch.ops.mkldnn._convolution_pointwise
        if other is None:
            return operation(x, kernels, self.bias, *self.how, "relu" if self.relu else "none", [], "")
        relu = "relu" if self.relu else None
        return operation.binary(x, other, kernels, self.bias, *self.how, "add", 1.0, relu, [], "")
