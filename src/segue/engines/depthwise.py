"""Convolutions of each channel alone, as Xception and separable pyramids have them: oneDNN takes its time if they are dilated."""

import torch
from torch import Tensor

from segue.engines.loops import rows_task, run
from segue.engines.winograd import empty


class Depthwise:
    """A convolution of each channel alone, the sum with another map if one is given, and a ReLU if asked for.

    weight: (C, 1, k, l). bias: (C,). stride, padding and dilation: of rows and of columns.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, stride: list[int], padding: list[int], dilation: list[int], relu: bool
    ) -> None:
        self.kernels = weight[:, 0].permute(1, 2, 0).contiguous()  # k x l x C
        self.bias = bias.contiguous()
        self.stride, self.padding, self.dilation, self.relu = stride, padding, dilation, relu

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to (N, C, H', W'), as `other` is, all of them channels_last."""
        *taps, channels = self.kernels.shape
        height, width = (
            (size + 2 * padding - dilation * (tap - 1) - 1) // stride + 1
            for size, padding, dilation, tap, stride in zip(
                x.shape[-2:], self.padding, self.dilation, taps, self.stride, strict=True
            )
        )
        y = empty(x, x.shape[0], channels, height, width)
        how = [*taps, *self.stride, *self.padding, *self.dilation, int(self.relu)]
        for image in range(x.shape[0]):
            added = 0 if other is None else other[image].data_ptr()
            addresses = [x[image].data_ptr(), y[image].data_ptr(), self.kernels.data_ptr(), self.bias.data_ptr(), added]
            run(rows_task, [*addresses, *x.shape[-2:], height, width, channels, *how], torch.get_num_threads())
        return y
