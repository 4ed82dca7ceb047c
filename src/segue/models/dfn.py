"""Learning a Discriminative Feature Network for Semantic Segmentation.

C. Yu, J. Wang, C. Peng, C. Gao, G. Yu, N. Sang, CVPR 2018. https://arxiv.org/abs/1804.09337

Two networks on one ResNet-101. The smooth network, from the deepest map up, keeps a class whole inside: it starts from the mean
over the image, and at each stage the deeper features choose the channels of the shallower ones (CAB). The border network, from
the shallowest map down, learns the edges between classes, so that neighbours of different classes are told apart; it shapes the
features in training and is not computed in prediction. 90,715,923 parameters with 21 classes. The authors' code has 90,724,344:
8,421 of them, the refinement (RRB) behind the border network's first stage, are built and never used.

Where the paper is silent this follows the authors' code: the deep stem of ResNet-101 (three 3x3 convolutions), 512 maps in the
smooth network and 21 in the border network for any number of classes, no ReLU at the end of a head's RRB, and in it nine maps
for each map of the result, He initialisation, corners aligned in every interpolation. Each goes to the size of the map that it is
joined with, so any height and width is possible; the code takes multiples of 32 alone.

Differs from the paper: the truth of the borders is drawn after the crop, and leaves void out (`border_weights.label_edges`).
"""

import torch
from torch import Tensor, nn

from segue.models.backbones import create_backbone
from segue.models.base import SegmentationModel, resize
from segue.models.layers import conv_bn_relu, init_he

BORDER_MAPS = 21


class DFN(SegmentationModel):
    """Fig. 2a. Batch norm on the mean over the image makes training need two images a step.

    backbone: any that segue.models.backbones.create_backbone knows. width: maps of the smooth network, 512 in the authors'.
    """

    aligned = True
    draws_borders = True

    def __init__(self, num_classes: int, in_channels: int = 3, backbone: str = "resnet101_v1c", width: int = 512) -> None:
        super().__init__(num_classes, in_channels)
        if width < 1:
            raise ValueError(f"width (={width}) must be at least 1; 512 is the authors'")
        self.backbone = create_backbone(backbone, in_channels)
        self.classifier = self.backbone.classifier
        c2, c3, c4, c5 = self.backbone.channels
        self.global_context = conv_bn_relu(c5, width, 1)
        self.smooth_stages = nn.ModuleList(SmoothStage(channels, width) for channels in (c5, c4, c3, c2))
        self.smooth_heads = nn.ModuleList(head(width, num_classes) for _ in range(4))
        self.border_pre = nn.ModuleList(RRB(channels, BORDER_MAPS) for channels in (c2, c3, c4, c5))
        self.border_post = nn.ModuleList(RRB(BORDER_MAPS, BORDER_MAPS) for _ in range(3))
        self.border_heads = nn.ModuleList(head(BORDER_MAPS, 1) for _ in range(4))
        for name, child in self.named_children():
            if name != "backbone":
                child.apply(init_he)

    def score(self, x: Tensor) -> Tensor:
        return self.smooth_heads[3](self.smooth(self.backbone(x))[3])  # K x H/4 x W/4

    def smooth(self, features: list[Tensor]) -> list[Tensor]:
        """The smooth network: what its four stages give, at 1/32, 1/16, 1/8 and 1/4."""
        stages = []
        x = self.global_context(features[3].mean((2, 3), keepdim=True))  # 512 x 1 x 1
        for stage, low in zip(self.smooth_stages, reversed(features), strict=True):
            x = stage(low, x)  # 512 x the size of `low`
            stages.append(x)
        return stages

    def border(self, features: list[Tensor]) -> list[Tensor]:
        """The border network: what its four stages give, all at 1/4; each adds a deeper map."""
        first, *deeper = [pre(feature) for pre, feature in zip(self.border_pre, features, strict=True)]
        stages = [first]  # 21 x H/4 x W/4
        for post, x in zip(self.border_post, deeper, strict=True):
            stages.append(post(stages[-1] + resize(x, first.shape[-2:], aligned=True)))
        return stages

    def supervise(self, x: Tensor) -> dict[str, Tensor]:
        """Full-size logits: "main" and "smooth1" to "smooth3" (of 1/32, 1/16, 1/8); and of edges, "border1" to "border4"."""
        self.check_input(x)
        features = self.backbone(x)
        smooth = [head(stage) for head, stage in zip(self.smooth_heads, self.smooth(features), strict=True)]
        border = [head(stage) for head, stage in zip(self.border_heads, self.border(features), strict=True)]
        outputs = {"main": smooth.pop()}
        outputs |= {f"smooth{number}": logits for number, logits in enumerate(smooth, 1)}
        outputs |= {f"border{number}": logits for number, logits in enumerate(border, 1)}
        return {name: resize(logits, x.shape[-2:], aligned=True) for name, logits in outputs.items()}

    def trunk(self) -> list[nn.Module]:
        return [self.backbone]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        self.backbone.load_classifier(weights)


class SmoothStage(nn.Module):
    """RRB of a map of the trunk, CAB with the deeper stage's result, RRB."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.pre = RRB(in_channels, width)
        self.cab = CAB(width)
        self.post = RRB(width, width)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        low = self.pre(low)
        return self.post(self.cab(low, resize(high, low.shape[-2:], aligned=True)))


class RRB(nn.Module):
    """Fig. 2b, refinement residual block: 1x1, then x + R(x) with R two 3x3 convolutions, and ReLU, which heads leave out."""

    def __init__(self, in_channels: int, out_channels: int, relu: bool = True) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.residual = nn.Sequential(
            conv_bn_relu(out_channels, out_channels), nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        )
        self.act = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1x1(x)
        return self.act(x + self.residual(x))


class CAB(nn.Module):
    """Fig. 2c, channel attention block: both maps' means weigh the channels of the lower stage; the higher one is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width), nn.Sigmoid())

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        alpha = self.attention(torch.cat([low, high], dim=1).mean((2, 3)))  # one number in (0, 1) for each channel
        return low * alpha[..., None, None] + high


def head(in_channels: int, out_channels: int) -> nn.Sequential:
    """Logits of a stage, at its own size."""
    return nn.Sequential(RRB(in_channels, 9 * out_channels, relu=False), nn.Conv2d(9 * out_channels, out_channels, 1))
