"""The blocks that several papers share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn_relu(in_channels: int, out_channels: int, size: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size but for its stride, batch norm, ReLU."""
    padding = dilation * (size // 2)
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


def init_he(module: nn.Module) -> None:
    """He's normal distribution for the kernels of convolutions, as `apply` wants it."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)


def init_he_and_biases(module: nn.Module) -> None:
    """The same, and no bias."""
    init_he(module)
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


def max_pool(x: Tensor, ceil_mode: bool = False) -> tuple[Tensor, Tensor]:
    """Halve (N, C, H, W): the maxima of 2 x 2 pixels, and the places of the first ones, for `max_unpool`.

    H and W are even, or with ceil_mode rounded up. A place is torch's index. Torch is fast at scattering by it, other engines are
    slow or not able to; so in a network that is being exported it is the pixel's number in its window, 0 to 3, by rows.
    """
    if not torch.compiler.is_exporting():
        return F.max_pool2d(x, 2, ceil_mode=ceil_mode, return_indices=True)
    wide = high = both = x
    if ceil_mode:  # repeat the last column and row: dropped if even, and if not, a repeated pixel is never first
        wide, high, both = (F.pad(x, (0, right, 0, below), mode="replicate") for right, below in ((1, 0), (0, 1), (1, 1)))
    maxima, first = F.max_pool2d(both, 2), F.max_pool2d(x, 1, stride=2)
    upper, left = F.max_pool2d(wide, (1, 2), stride=2), F.max_pool2d(high, (2, 1), stride=2)
    places = torch.where(upper == maxima, torch.where(first == maxima, 0.0, 1.0), torch.where(left == maxima, 2.0, 3.0))
    return maxima, places.to(x.dtype)


def max_unpool(x: Tensor, places: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Undo `max_pool`: (N, C, h, w) to (N, C, *size), each value at its window's place, and zeros elsewhere."""
    if not torch.compiler.is_exporting():  # F.max_unpool2d imports sympy to check the size, which takes a second or two
        return torch.ops.aten.max_unpool2d(x, places, list(size))
    rows, columns = (torch.arange(length, device=x.device) % 2 for length in size)
    here = F.interpolate(places, size=tuple(size)) == 2 * rows[:, None] + columns
    return torch.where(here, F.interpolate(x, size=tuple(size)), 0.0)


def bilinear_kernel(size: int) -> Tensor:
    """The kernel (size, size) with which a transposed convolution of stride (size + 1) // 2 interpolates bilinearly."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    line = 1 - (torch.arange(size) - centre).abs() / factor
    return line[:, None] * line
