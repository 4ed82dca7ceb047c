"""The contract that every network keeps, and the few blocks that several papers share."""

from collections.abc import Callable

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

    def upgrade(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights that an older segue saved, by the names of today; those of today stay as they are."""
        return weights

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


class AnyNetwork:
    """A function from images to logits of their size, such as a module of one's own, with what a SegmentationModel has beside it.

    It holds the network and is none: what is saved, exported or brought to a device is the network itself.
    """

    stride, aligned, min_size = SegmentationModel.stride, SegmentationModel.aligned, SegmentationModel.min_size
    in_channels = None  # it does not tell

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.score = network
        self.supervise: Callable[[Tensor], dict[str, Tensor]] = getattr(network, "supervise", lambda x: {"main": network(x)})

    def check_input(self, x: Tensor) -> None:
        """Any input is left to the network to refuse."""


def as_segmentation_model(network: Callable[[Tensor], Tensor]) -> SegmentationModel | AnyNetwork:
    """The network itself if it is one of segue's; around any other what makes it look so."""
    return network if isinstance(network, SegmentationModel) else AnyNetwork(network)


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
