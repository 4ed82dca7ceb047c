"""The contract that every network keeps, and the few blocks that several papers share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SegmentationModel(nn.Module):
    """A network that gives every pixel a class.

    It maps images (N, in_channels, H, W) of floats to logits (N, num_classes, H, W), in training and in evaluation alike, for
    every H and W from `min_size` up. A subclass writes `score`; the losses live elsewhere.
    """

    stride = 1  # `score` is given heights and widths that are multiples of this, or where `aligned` multiples plus one
    aligned = False  # whether the corner pixels of the scores lie on those of the image, and not areas on areas
    min_size = 1  # the smallest height and width that the network takes, in pixels
    classifier = ""  # whose ImageNet weights it starts from: torchvision/NAME or timm/NAME; empty if from none
    draws_borders = False  # whether `supervise` gives the borders of the classes too
    added: tuple[str, ...] = ()  # layers that an earlier stage of a staged training does not have
    dropped: tuple[str, ...] = ()  # layers that only an earlier stage has

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
            if value < 1:
                raise ValueError(f"{name} (={value}) must be at least 1")
        self.num_classes = num_classes
        self.in_channels = in_channels

    def score(self, x: Tensor) -> Tensor:
        """Logits at the network's own resolution: (N, in_channels, H, W) -> (N, num_classes, h, w).

        H and W are multiples of `stride`, plus one where `aligned`; (h, w) covers the same field as (H, W).
        """
        raise TypeError(f"{type(self).__name__} has no score(): a network must define it")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the input's own size: (N, in_channels, H, W) -> (N, num_classes, H, W)."""
        self.check_input(x)
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.stride, plus=int(self.aligned))
        logits = resize(self.score(x), x.shape[-2:], self.aligned)
        return logits[..., :height, :width]

    def supervise(self, x: Tensor) -> dict[str, Tensor]:
        """What a loss compares with the truth: the logits as "main", and the auxiliary outputs of a network that has them.

        Each is (N, num_classes, h, w); where h x w is smaller than the image, the truth is resized to it. One whose name begins
        with "border" is (N, 1, h, w): the logit of an edge between classes.
        """
        return {"main": self(x)}

    def trunk(self) -> list[nn.Module]:
        """The layers that come from an ImageNet classifier; all others are new, and learn faster in some recipes."""
        return []

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """Take an ImageNet classifier's weights by their names in its library; ValueError if they do not fit."""
        raise ValueError(f"{type(self).__name__} starts from no classifier; leave out its weights")

    def check_input(self, x: Tensor) -> None:
        """Raise ValueError unless x is a batch of images that this network takes."""
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"images have the shape {tuple(x.shape)}, but this network takes (N, {self.in_channels}, H, W); "
                f"make it with create_model(..., in_channels={x.shape[1] if x.ndim == 4 else '...'}) for other channels"
            )
        if min(x.shape[-2:]) < self.min_size:
            raise ValueError(
                f"images are {x.shape[-2]} x {x.shape[-1]} pixels (height x width), but {type(self).__name__} takes "
                f"{self.min_size} x {self.min_size} at least; enlarge them first"
            )


def pad_to_multiple(x: Tensor, multiple: int, plus: int = 0) -> Tensor:
    """Repeat the last row and column of (N, C, H, W) until both sizes are multiples of `multiple`, and `plus` more."""
    below, right = (plus - x.shape[-2]) % multiple, (plus - x.shape[-1]) % multiple
    if below or right:
        x = F.pad(x, (0, right, 0, below), mode="replicate")
    return x


def resize(x: Tensor, size: tuple[int, int] | torch.Size, aligned: bool = False) -> Tensor:
    """Bilinear interpolation of (N, C, h, w) to (N, C, *size); no work where the size is right.

    aligned: corner pixels lie on corner pixels; if not, the areas of the pixels cover the same field.
    """
    if x.shape[-2:] == torch.Size(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=aligned)


def conv_bn_relu(in_channels: int, out_channels: int, size: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size but for its stride, batch norm, ReLU."""
    padding = dilation * (size // 2)
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


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
