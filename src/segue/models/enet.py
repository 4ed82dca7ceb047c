"""ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation.

A. Paszke, A. Chaurasia, S. Kim, E. Culurciello, 2016. https://arxiv.org/abs/1606.02147

An early reduction to 1/8, many cheap bottlenecks there (regular, dilated, asymmetric), and a small decoder that unpools with the
indices of the encoder's poolings. 364,311 parameters with 19 classes.

Where the paper is silent this follows the authors' Torch7 code: which convolutions have a bias (of the asymmetric ones the
second), 1x5 before 5x1, batch norm with eps 1e-3, an inner width of a quarter of the output's.

The first of the paper's two stages of training is `encoder_only=True`: a 1x1 convolution classifies the maps at 1/8.

Differs from the paper: heights and widths that are no multiple of 8 are padded by repeating the border. The authors' code
multiplies the learning rate by 1e-7 at each 100th epoch (its help text says 1e-1), so it learns nothing after the 99th of 300;
the recipes keep the rate. It trains with void as a class of its own, of weight 0 in the first stage but by a slip not in the
second; here void does not count.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.base import SegmentationModel, pad_to_multiple
from segue.models.layers import max_pool, max_unpool


class ENet(SegmentationModel):
    """Table 1. Dropout p = .01 in stage 1, .1 in stages 2 and 3, none in the decoder."""

    stride = 8
    min_size = 8
    added = ("up4", "stage4", "up5", "stage5", "fullconv")
    dropped = ("encoder_head",)

    def __init__(self, num_classes: int, in_channels: int = 3, encoder_only: bool = False) -> None:
        super().__init__(num_classes, in_channels)
        if in_channels > 15:
            raise ValueError(f"in_channels (={in_channels}) must be at most 15: the image is among the initial block's 16 maps")
        self.initial = InitialBlock(in_channels)
        self.down1 = Downsample(16, 64, dropout=0.01)
        self.stage1 = nn.Sequential(*[Bottleneck(64, regular(16), dropout=0.01) for _ in range(4)])
        self.down2 = Downsample(64, 128, dropout=0.1)
        self.stage2 = context_stage()
        self.stage3 = context_stage()
        self.encoder_only = encoder_only
        if encoder_only:
            self.encoder_head = nn.Conv2d(128, num_classes, 1)
            return
        self.up4 = Upsample(128, 64)
        self.stage4 = nn.Sequential(DecoderBottleneck(64), DecoderBottleneck(64))
        self.up5 = Upsample(64, 16)
        self.stage5 = DecoderBottleneck(16)
        self.fullconv = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def score(self, x: Tensor) -> Tensor:
        x = self.initial(x)  # 16 x H/2 x W/2
        x, indices1 = self.down1(x)  # 64 x H/4 x W/4
        x = self.stage1(x)
        x, indices2 = self.down2(x)  # 128 x H/8 x W/8
        x = self.stage3(self.stage2(x))
        if self.encoder_only:
            return self.encoder_head(x)  # K x H/8 x W/8
        x = self.stage4(self.up4(x, indices2))  # 64 x H/4 x W/4
        x = self.stage5(self.up5(x, indices1))  # 16 x H/2 x W/2
        return self.fullconv(x)  # K x H x W

    def upgrade(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """At first the 5x1 convolutions had no bias here, which is a bias of zero."""
        tall = {name: conv for name, conv in self.named_modules() if isinstance(conv, nn.Conv2d) and conv.kernel_size == (5, 1)}
        return {**{f"{name}.bias": torch.zeros(conv.out_channels) for name, conv in tall.items()}, **weights}

    def supervise(self, x: Tensor) -> dict[str, Tensor]:
        """The encoder alone learns from labels at 1/8."""
        if not self.encoder_only:
            return super().supervise(x)
        self.check_input(x)
        return {"main": self.score(pad_to_multiple(x, self.stride))}


def context_stage() -> nn.Sequential:
    """Stages 2 and 3: eight bottlenecks at 1/8, their dilation doubling from 2 to 16."""
    convs = [regular(32), dilated(32, 2), asymmetric(32), dilated(32, 4)]
    convs += [regular(32), dilated(32, 8), asymmetric(32), dilated(32, 16)]
    return nn.Sequential(*[Bottleneck(128, conv, dropout=0.1) for conv in convs])


def regular(width: int) -> nn.Module:
    return nn.Conv2d(width, width, 3, padding=1)


def dilated(width: int, dilation: int) -> nn.Module:
    return nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)


def asymmetric(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, width, (1, 5), padding=(0, 2), bias=False),
        nn.Conv2d(width, width, (5, 1), padding=(2, 0)),
    )


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class InitialBlock(nn.Module):
    """Fig. 2a: a strided convolution beside the pooled image, 16 maps together."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 16 - in_channels, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.norm = norm(16)
        self.act = nn.PReLU(16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.conv(x), self.pool(x)], dim=1)  # 16 x H/2 x W/2
        return self.act(self.norm(x))


class Bottleneck(nn.Module):
    """Fig. 2b: 1x1 to a quarter of the maps, a convolution, 1x1 back, dropout; the sum with the input is activated."""

    def __init__(self, channels: int, conv: nn.Module, dropout: float) -> None:
        super().__init__()
        inner = channels // 4
        self.branch = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), norm(inner), nn.PReLU(inner),
            conv, norm(inner), nn.PReLU(inner),
            nn.Conv2d(inner, channels, 1, bias=False), norm(channels), nn.Dropout2d(dropout),
        )  # fmt: skip
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.branch(x))


class Downsample(nn.Module):
    """Fig. 2b, downsampling: the 1x1 becomes 2x2 with stride 2; the main branch is max pooled and padded with zero maps."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        inner = out_channels // 4
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, inner, 2, stride=2, bias=False), norm(inner), nn.PReLU(inner),
            regular(inner), norm(inner), nn.PReLU(inner),
            nn.Conv2d(inner, out_channels, 1, bias=False), norm(out_channels), nn.Dropout2d(dropout),
        )  # fmt: skip
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        main, indices = max_pool(x)  # C x h/2 x w/2
        branch = self.branch(x)  # out x h/2 x w/2
        main = F.pad(main, (0, 0, 0, 0, 0, branch.shape[1] - main.shape[1]))  # zero maps at the end
        return self.act(main + branch), indices


class DecoderBottleneck(nn.Module):
    """As Bottleneck, with ReLU and without dropout."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.branch = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), norm(inner), nn.ReLU(),
            regular(inner), norm(inner), nn.ReLU(),
            nn.Conv2d(inner, channels, 1, bias=False), norm(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.branch(x))


class Upsample(nn.Module):
    """Fig. 2b, upsampling: a transposed convolution; the main branch is unpooled to where the encoder found its maxima."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = out_channels // 4
        self.main = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), norm(out_channels))
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, inner, 1, bias=False), norm(inner), nn.ReLU(),
            nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1), norm(inner), nn.ReLU(),
            nn.Conv2d(inner, out_channels, 1, bias=False), norm(out_channels),
        )  # fmt: skip

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        branch = self.branch(x)  # out x 2h x 2w
        main = max_unpool(self.main(x), indices, branch.shape[-2:])
        return F.relu(main + branch)
