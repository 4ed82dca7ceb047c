"""Convolutions of each channel alone, as Xception and separable pyramids have them: oneDNN takes its time if they are dilated."""

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from segue.engines.team import FAST, carray, floats, run, take

# Of a task: whole numbers, of which some are addresses.
NEXT, X, Y, KERNELS, BIAS, OTHER, ROWS, COLUMNS, HEIGHT, WIDTH, CHANNELS, TAPS_DOWN, TAPS_ACROSS = range(13)
STRIDE_DOWN, STRIDE_ACROSS, PADDING_DOWN, PADDING_ACROSS, DILATION_DOWN, DILATION_ACROSS, RELU = range(13, 20)


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
        y = torch.empty(x.shape[0], channels, height, width, memory_format=torch.channels_last)
        how = [*taps, *self.stride, *self.padding, *self.dilation, int(self.relu)]
        for image in range(x.shape[0]):
            added = 0 if other is None else other[image].data_ptr()
            addresses = [x[image].data_ptr(), y[image].data_ptr(), self.kernels.data_ptr(), self.bias.data_ptr(), added]
            run(rows_task, [*addresses, *x.shape[-2:], height, width, channels, *how], torch.get_num_threads())
        return y


@njit(**FAST)
def convolve_row(x: Any, kernels: Any, bias: Any, other: Any, y: Any, row: int, task: Any) -> None:
    rows, columns, channels = x.shape
    floor = np.float32(0) if task[RELU] else np.float32(-np.inf)
    for column in range(y.shape[1]):
        to = y[row, column]
        if len(other):
            plus = other[row, column]
            for c in range(channels):
                to[c] = bias[c] + plus[c]
        else:
            for c in range(channels):
                to[c] = bias[c]
        for i in range(kernels.shape[0]):
            at = row * task[STRIDE_DOWN] + i * task[DILATION_DOWN] - task[PADDING_DOWN]
            if not 0 <= at < rows:
                continue
            for j in range(kernels.shape[1]):
                beside = column * task[STRIDE_ACROSS] + j * task[DILATION_ACROSS] - task[PADDING_ACROSS]
                if 0 <= beside < columns:
                    source, kernel = x[at, beside], kernels[i, j]
                    for c in range(channels):
                        to[c] += source[c] * kernel[c]
        for c in range(channels):
            to[c] = max(to[c], floor)


def rows_task(task: Any) -> None:
    channels = task[CHANNELS]
    x = carray(floats(task[X]), (task[ROWS], task[COLUMNS], channels))
    y = carray(floats(task[Y]), (task[HEIGHT], task[WIDTH], channels))
    kernels = carray(floats(task[KERNELS]), (task[TAPS_DOWN], task[TAPS_ACROSS], channels))
    bias = carray(floats(task[BIAS]), (channels,))
    other = carray(floats(task[OTHER]), (task[HEIGHT] if task[OTHER] else 0, task[WIDTH], channels))
    row = take(task)
    while row < task[HEIGHT]:
        convolve_row(x, kernels, bias, other, y, row, task)
        row = take(task)
