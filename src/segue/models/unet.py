"""U-Net: Convolutional Networks for Biomedical Image Segmentation.

O. Ronneberger, P. Fischer, T. Brox, MICCAI 2015. https://arxiv.org/abs/1505.04597

A contracting path and an expansive path of five levels; each level up gets the map of the same level down, cropped and
concatenated. Convolutions are valid, so an image is first enlarged by mirroring its border (the overlap-tile strategy, Fig. 2),
and every pixel of the result has seen a full context. 31,030,658 parameters with 1 channel and 2 classes (Fig. 1).

Differs from the paper: an image goes through the network whole, and not in tiles, which gives the same but takes more memory;
and what surrounds a training crop is its own mirrored border, where the paper's tiles show the true surroundings. The released
Caffe network has in addition a ReLU after each up-convolution and 128 maps from the last one. Ours, not the paper's:
`padding="same"` and `batch_norm=True`, the variant that many use today; `width`, the maps of the first level, all others being
in proportion; `backbone="resnet34"` and the like, which puts a classifier's trunk in place of the contracting path (UNetTrunk).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.backbones import create_backbone
from segue.models.base import SegmentationModel

CONTEXT = 184  # rows and columns that the valid convolutions take away, 92 at each border


class UNet(SegmentationModel):
    """Fig. 1. Dropout of one half at the end of the contracting path."""

    def __init__(
        self, num_classes: int, in_channels: int = 3, padding: Literal["valid", "same"] = "valid", batch_norm: bool = False,
        width: int = 64,
    ) -> None:  # fmt: skip
        super().__init__(num_classes, in_channels)
        if padding not in ("valid", "same"):
            raise ValueError(f"padding (={padding!r}) must be 'valid' (the paper's) or 'same'")
        self.valid = padding == "valid"
        self.stride = 1 if self.valid else 16
        self.min_size = 2 if self.valid else 16
        pad = 0 if self.valid else 1
        w = width
        self.down1 = double_conv(in_channels, w, pad, batch_norm)
        self.down2 = double_conv(w, 2 * w, pad, batch_norm)
        self.down3 = double_conv(2 * w, 4 * w, pad, batch_norm)
        self.down4 = nn.Sequential(double_conv(4 * w, 8 * w, pad, batch_norm), nn.Dropout(0.5))
        self.bottom = nn.Sequential(double_conv(8 * w, 16 * w, pad, batch_norm), nn.Dropout(0.5))
        self.up4 = Up(16 * w, 8 * w, 8 * w, pad, batch_norm)
        self.up3 = Up(8 * w, 4 * w, 4 * w, pad, batch_norm)
        self.up2 = Up(4 * w, 2 * w, 2 * w, pad, batch_norm)
        self.up1 = Up(2 * w, w, w, pad, batch_norm)
        self.conv1x1 = nn.Conv2d(w, num_classes, 1)
        self.apply(init_he)

    def score(self, x: Tensor) -> Tensor:
        if not self.valid:
            return self.network(x)
        height, width = x.shape[-2:]
        x = mirror(mirror(x, tile_size(height), dim=2), tile_size(width), dim=3)
        return self.network(x)[..., :height, :width]

    def network(self, x: Tensor) -> Tensor:
        """Fig. 1; with valid convolutions heights and widths are 16 k + 60, and the result is 184 smaller."""
        x1 = self.down1(x)  # 64 x 568 x 568, for a tile of 572 x 572
        x2 = self.down2(F.max_pool2d(x1, 2))  # 128 x 280 x 280
        x3 = self.down3(F.max_pool2d(x2, 2))  # 256 x 136 x 136
        x4 = self.down4(F.max_pool2d(x3, 2))  # 512 x 64 x 64
        x = self.bottom(F.max_pool2d(x4, 2))  # 1024 x 28 x 28
        x = self.up4(x, x4)  # 512 x 52 x 52
        x = self.up3(x, x3)  # 256 x 100 x 100
        x = self.up2(x, x2)  # 128 x 196 x 196
        x = self.up1(x, x1)  # 64 x 388 x 388
        return self.conv1x1(x)  # K x 388 x 388


class UNetTrunk(SegmentationModel):
    """An expansive path like Fig. 1's over a classifier's trunk, with same padding and batch norm; sizes are a ResNet-34's.

    The trunk begins at 1/4, so the image's own resolution has two convolutions beside it, and 1/2 has no skip.
    """

    stride = 32
    min_size = 32

    def __init__(self, num_classes: int, in_channels: int = 3, backbone: str = "resnet34") -> None:
        super().__init__(num_classes, in_channels)
        trunk = create_backbone(backbone, in_channels)
        c2, c3, c4, c5 = trunk.channels
        self.down1 = double_conv(in_channels, 16, pad=1, batch_norm=True)
        self.up5 = Up(c5, c4, 256, pad=1, batch_norm=True)
        self.up4 = Up(256, c3, 128, pad=1, batch_norm=True)
        self.up3 = Up(128, c2, 64, pad=1, batch_norm=True)
        self.up2 = nn.Sequential(nn.ConvTranspose2d(64, 32, 2, stride=2), double_conv(32, 32, pad=1, batch_norm=True))
        self.up1 = Up(32, 16, 16, pad=1, batch_norm=True)
        self.conv1x1 = nn.Conv2d(16, num_classes, 1)
        self.apply(init_he)
        self.backbone = trunk  # which has its own initialisation
        self.classifier = trunk.classifier

    def score(self, x: Tensor) -> Tensor:
        x1 = self.down1(x)  # 16 x H x W
        x2, x3, x4, x = self.backbone(x)  # 64 x H/4 x W/4, 128 x H/8 x W/8, 256 x H/16 x W/16, 512 x H/32 x W/32
        x = self.up5(x, x4)  # 256 x H/16 x W/16
        x = self.up4(x, x3)  # 128 x H/8 x W/8
        x = self.up3(x, x2)  # 64 x H/4 x W/4
        x = self.up2(x)  # 32 x H/2 x W/2
        x = self.up1(x, x1)  # 16 x H x W
        return self.conv1x1(x)  # K x H x W

    def trunk(self) -> list[nn.Module]:
        return [self.backbone]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        self.backbone.load_classifier(weights)


def unet(
    num_classes: int, in_channels: int = 3, padding: Literal["valid", "same"] = "valid", batch_norm: bool = False,
    width: int = 64, backbone: str = "",
) -> SegmentationModel:  # fmt: skip
    """The paper's U-Net and its variants, or, where a backbone is named (any of create_backbone), U-Net with that trunk."""
    if not backbone:
        return UNet(num_classes, in_channels, padding, batch_norm, width)
    if (padding, batch_norm, width) != ("valid", False, 64):
        raise ValueError(
            f'padding, batch_norm and width are for a unet without a trunk; leave them out beside backbone (="{backbone}"): '
            "that unet always has same padding and batch norm"
        )
    return UNetTrunk(num_classes, in_channels, backbone)


class Up(nn.Module):
    """Up-convolution 2x2, "copy and crop" of the same level's map, concatenation (the upsampled map first), two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, pad: int, batch_norm: bool) -> None:
        super().__init__()
        self.upconv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.convs = double_conv(out_channels + skip_channels, out_channels, pad, batch_norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.upconv(x)
        return self.convs(torch.cat([x, centre_crop(skip, x.shape[-2:])], dim=1))


def double_conv(in_channels: int, out_channels: int, pad: int, batch_norm: bool) -> nn.Sequential:
    """Twice 3x3 convolution and ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers.append(nn.Conv2d(channels, out_channels, 3, padding=pad, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(out_channels))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def centre_crop(x: Tensor, size: torch.Size) -> Tensor:
    """The middle (h, w) of (N, C, H, W)."""
    top, left = (x.shape[-2] - size[0]) // 2, (x.shape[-1] - size[1]) // 2
    return x[..., top : top + size[0], left : left + size[1]]


def tile_size(size: int) -> int:
    """The smallest input size 16 k + 60 whose valid output covers `size` pixels; poolings then never meet an odd size."""
    return (size + CONTEXT - 45) // 16 * 16 + 60


def mirror(x: Tensor, size: int, dim: int) -> Tensor:
    """Enlarge a dimension to `size`: 92 before, the rest behind, reflected as often as needed, the border itself not repeated."""
    period = 2 * (x.shape[dim] - 1)
    place = torch.arange(size, device=x.device) - CONTEXT // 2
    place = place - place.div(period, rounding_mode="floor") * period
    return x.index_select(dim, torch.minimum(place, period - place))


def init_he(module: nn.Module) -> None:
    """Section 3: Gaussian with variance 2 / N; N is counted as in the released code, 4 x out_channels in an up-convolution."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
