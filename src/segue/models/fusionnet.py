"""FusionNet: A Deep Fully Residual Convolutional Neural Network for Image Segmentation in Connectomics.

T. M. Quan, D. G. C. Hildebrand, W.-K. Jeong, 2016; Frontiers in Computer Science 2021. https://arxiv.org/abs/1612.05360

U-Net's five levels, made deeper by a residual layer within each, and joined by summation: a level up adds the same level's map
of the way down to its own, and does not concatenate it. 62,804,545 parameters with 1 channel and 1 class in the released form,
78,531,137 in the paper's.

`variant="released"`, the default, is the authors' Keras code: a level is a convolution, a residual layer of two convolutions
with batch norm before each, a convolution, and dropout of one quarter; on the way up the first of these convolutions stands
before the deconvolution. `variant="paper"` is the paper's figure: all is made of blocks of convolution, ReLU and batch norm, a
residual layer has three of them, and nothing is dropped. In both, nothing but the next layer stands behind a sum.

Decided: the figure leaves the paper's deconvolutions open; they are 3x3 blocks of the same kind. A known PyTorch port has so
too, with 512 parameters more, as its last convolution is 3x3 where ours is 1x1 as released. Weights start as Glorot's, Keras's
default. With one class, the logit is a sigmoid's. The authors enlarge images of 512 x 512 to 640 x 640 by reflection and cut the
result out again; this network takes any size, and leaves that to its caller. Deconvolutions lie as in TensorFlow, the authors'
framework, in both forms: of the 2n + 1 rows and columns that they make, the last is cut (torch's padding would cut the first).

Differs from the paper: heights and widths that are no multiple of 16 are padded by repeating the border. `width`, the maps of
the first level, is ours; all others are in proportion. Differs from the released code: batch norm is over channels, where the
code names the axis of the rows and takes the statistics of the batch in prediction too, which ties it to one size of images.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.base import SegmentationModel


class FusionNet(SegmentationModel):
    """Five levels down, four up. Sizes are those of the paper's input of 640 x 640."""

    stride = 16
    min_size = 16

    def __init__(
        self, num_classes: int, in_channels: int = 3, variant: Literal["released", "paper"] = "released", width: int = 64
    ) -> None:
        super().__init__(num_classes, in_channels)
        if variant not in ("released", "paper"):
            raise ValueError(f"variant (={variant!r}) must be 'released' (the authors' code) or 'paper' (the paper's figure)")
        parts = Released if variant == "released" else Paper
        w = width
        self.down1 = parts.down(in_channels, w)
        self.down2 = parts.down(w, 2 * w)
        self.down3 = parts.down(2 * w, 4 * w)
        self.down4 = parts.down(4 * w, 8 * w)
        self.bridge = parts.bridge(8 * w, 16 * w)
        self.deconv4, self.up4 = parts.deconv(16 * w, 8 * w), parts.up(8 * w)
        self.deconv3, self.up3 = parts.deconv(8 * w, 4 * w), parts.up(4 * w)
        self.deconv2, self.up2 = parts.deconv(4 * w, 2 * w), parts.up(2 * w)
        self.deconv1, self.up1 = parts.deconv(2 * w, w), parts.up(w)
        self.output = nn.Conv2d(w, num_classes, 1)
        self.apply(init_glorot)

    def score(self, x: Tensor) -> Tensor:
        x1 = self.down1(x)  # 64 x 640 x 640
        x2 = self.down2(F.max_pool2d(x1, 2))  # 128 x 320 x 320
        x3 = self.down3(F.max_pool2d(x2, 2))  # 256 x 160 x 160
        x4 = self.down4(F.max_pool2d(x3, 2))  # 512 x 80 x 80
        x = self.bridge(F.max_pool2d(x4, 2))  # 1024 x 40 x 40
        x = self.up4(self.deconv4(x) + x4)  # 512 x 80 x 80
        x = self.up3(self.deconv3(x) + x3)  # 256 x 160 x 160
        x = self.up2(self.deconv2(x) + x2)  # 128 x 320 x 320
        x = self.up1(self.deconv1(x) + x1)  # 64 x 640 x 640
        return self.output(x)  # K x 640 x 640


class Released:
    """The authors' code."""

    @staticmethod
    def down(in_channels: int, out_channels: int) -> nn.Sequential:
        level = conv_relu(in_channels, out_channels), released_residual(out_channels), conv_relu(out_channels, out_channels)
        return nn.Sequential(*level, nn.Dropout(0.25))

    @staticmethod
    def bridge(in_channels: int, out_channels: int) -> nn.Sequential:
        level = conv_relu(in_channels, out_channels), released_residual(out_channels)
        return nn.Sequential(*level, nn.Dropout(0.25), conv_relu(out_channels, out_channels))

    @staticmethod
    def deconv(in_channels: int, out_channels: int) -> nn.Sequential:
        return nn.Sequential(conv_relu(in_channels, out_channels), Deconvolution(out_channels, out_channels), nn.ReLU())

    @staticmethod
    def up(channels: int) -> nn.Sequential:
        return nn.Sequential(nn.Dropout(0.25), released_residual(channels), conv_relu(channels, channels))


class Paper:
    """The paper's figure."""

    @staticmethod
    def down(in_channels: int, out_channels: int) -> nn.Sequential:
        return nn.Sequential(block(in_channels, out_channels), paper_residual(out_channels), block(out_channels, out_channels))

    bridge = down

    @staticmethod
    def deconv(in_channels: int, out_channels: int) -> nn.Sequential:
        return nn.Sequential(Deconvolution(in_channels, out_channels), nn.ReLU(), nn.BatchNorm2d(out_channels))

    @staticmethod
    def up(channels: int) -> nn.Sequential:
        return nn.Sequential(block(channels, channels), paper_residual(channels), block(channels, channels))


class Residual(nn.Module):
    """The sum of the input and of what the layers make of it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Deconvolution(nn.ConvTranspose2d):
    """3x3, to twice the size, the row and column too many cut off the end."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(x, output_size)[..., :-1, :-1]


def released_residual(channels: int) -> Residual:
    return Residual(
        nn.BatchNorm2d(channels), conv_relu(channels, channels),
        nn.BatchNorm2d(channels), conv_relu(channels, channels),
    )  # fmt: skip


def paper_residual(channels: int) -> Residual:
    return Residual(block(channels, channels), block(channels, channels), block(channels, channels))


def conv_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU())


def block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(out_channels))


def init_glorot(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
