"""Convolutions of 3x3 with a quarter of the multiplications: Winograd's F(4x4, 3x3).

A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (https://arxiv.org/abs/1509.09308). An image
is cut into overlapping tiles of 6x6 pixels, whose transforms are multiplied with those of the kernels: 36 products of matrices in
the place of a convolution, for 4x4 results of each tile. Rounding errors are some ten times those of the plain sum.
"""

from math import ceil

import torch
from torch import Tensor

from segue.engines.loops import BLOCK, input_task, output_task, run
from segue.engines.portable import Recent

TILES = 36  # numbers of a tile, each of which has its own product of matrices
STRIPS = 32, 64, 128  # tiles computed together: they stay in the cache, and the kernels are read not too often
INPUT, OUTPUT = 4000, 6000  # what the transforms of a tile cost for each channel, in operations of the products
WORTH = 0.85  # of the cost of the plain convolution

KERNEL = torch.tensor(  # G
    [
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ],
    dtype=torch.float64,
)  # fmt: skip


class Winograd:
    """A convolution of 3x3 and stride 1, the sum with another map if one is given, and a ReLU if asked for.

    weight: (K, C, 3, 3). bias: (K,). padding and dilation are the same for rows and columns.
    """

    def __init__(self, weight: Tensor, bias: Tensor, padding: int, dilation: int, relu: bool) -> None:
        self.outputs, self.inputs = weight.shape[:2]
        self.bias, self.padding, self.dilation, self.relu = bias.contiguous(), padding, dilation, relu
        self.weight = weight
        self.kernels: Recent[Tensor] = Recent(most=len(STRIPS))  # by the size of a strip

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to (N, K, H', W'), as `other` is, all of them channels_last."""
        height, width = (size + 2 * (self.padding - self.dilation) for size in x.shape[-2:])
        y = empty(x, x.shape[0], self.outputs, height, width)
        down, across, tiles = count_tiles(height, width, self.dilation)
        strip = next((strip for strip in STRIPS if strip >= tiles), STRIPS[-1])
        kernels = self.kernels.find((strip,))
        kernels = self.transform_kernels(strip) if kernels is None else kernels
        v = x.new_empty(strip, TILES * padded(self.inputs))
        threads = torch.get_num_threads()
        for image in range(x.shape[0]):
            source, result = x[image].data_ptr(), y[image].data_ptr()
            added = 0 if other is None else other[image].data_ptr()
            for first in range(0, tiles, strip):
                last = min(first + strip, tiles)
                place = [down, across, self.dilation, first, last]
                task = [source, v.data_ptr(), *x.shape[-2:], self.inputs, *place, self.padding]
                run(input_task, task, threads)
                m = multiply(v, kernels)
                task = [result, m.data_ptr(), height, width, self.outputs, *place, int(self.relu), self.bias.data_ptr(), added]
                run(output_task, task, threads)
        return y

    def transform_kernels(self, strip: int) -> Tensor:
        """(36 K, C, 1, 1), channels padded, laid out for strips of so many tiles."""
        transformed = KERNEL @ self.weight.double() @ KERNEL.T  # K x C x 6 x 6
        kernels = self.weight.new_zeros(TILES, padded(self.outputs), padded(self.inputs))
        kernels[:, : self.outputs, : self.inputs] = transformed.flatten(2).permute(2, 0, 1)
        shape = [1, TILES * padded(self.inputs), strip, 1]
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            kernels.flatten(0, 1)[:, :, None, None], [0, 0], [1, 1], [1, 1], TILES, shape
        )
        return self.kernels.keep((strip,), packed)


def multiply(v: Tensor, kernels: Tensor) -> Tensor:
    """Tiles (T, 36 C) by the kernels, (T, 36 K): for oneDNN, which does this best, a convolution of 1x1 in 36 groups."""
    x = v[None, :, None].permute(0, 3, 1, 2)  # 1 x 36 C x T x 1
    m = torch.ops.mkldnn._convolution_pointwise(x, kernels, None, [0, 0], [1, 1], [1, 1], TILES, "none", [], "")
    return m.permute(0, 2, 3, 1).contiguous()


def pays(shape: torch.Size, outputs: int, padding: int, dilation: int) -> bool:
    """Whether it is faster than the plain convolution of images (N, C, H, W) that leaves out what it multiplies with padding."""
    inputs, *sizes = shape[1:]
    height, width = (size + 2 * (padding - dilation) for size in sizes)
    if min(height, width) < 1:
        return False
    *_, tiles = count_tiles(height, width, dilation)
    transformed = tiles * (2 * TILES * padded(inputs) * padded(outputs) + INPUT * padded(inputs) + OUTPUT * padded(outputs))
    taps = inside(sizes[0], height, padding, dilation) * inside(sizes[1], width, padding, dilation)
    return transformed < WORTH * 2 * taps * inputs * outputs


def inside(size: int, results: int, padding: int, dilation: int) -> int:
    """How often the three taps of all results along an axis lie on the image."""
    ranges = ((max(0, padding - tap * dilation), min(results, size + padding - tap * dilation)) for tap in range(3))
    return sum(max(0, end - start) for start, end in ranges)


def count_tiles(height: int, width: int, dilation: int) -> tuple[int, int, int]:
    """Rows and columns of tiles, for each of dilation x dilation grids of pixels, and all tiles together."""
    down, across = (ceil(size / dilation / 4) for size in (height, width))
    return down, across, dilation * dilation * down * across


def empty(x: Tensor, *shape: int) -> Tensor:
    """A map (N, C, H, W) in channels_last, of the kind of x, whatever torch's defaults are."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def padded(channels: int) -> int:
    return ceil(channels / BLOCK) * BLOCK
