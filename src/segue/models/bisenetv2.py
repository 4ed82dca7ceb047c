"""BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic Segmentation.

C. Yu, C. Gao, J. Wang, G. Yu, C. Shen, N. Sang, IJCV 2021. https://arxiv.org/abs/2004.02147

A wide, shallow detail branch and a narrow, deep semantic branch built of depthwise convolutions; each guides the other at its own
resolution before they are added. Booster heads on the stages of the semantic branch help in training and cost nothing afterwards.
3,358,627 parameters with 19 classes for inference, 5,231,487 with the booster heads.

The authors published no code. Where the paper is silent, these decisions give the counts above, which are those of the best known
ports (the booster heads of one of them):
- The main head has 1024 maps (the paper gives no number for its C_t). The network then takes 24.6 billion multiply-adds at
  512 x 1024; the paper says 21.15, so the authors' head may be narrower.
- In the aggregation layer the 1x1 behind a depthwise convolution has neither bias nor batch norm.
- The booster heads have 128 maps at the stage's resolution, then s x s maps at twice that, for a stage at 1/s.
- Every upsampling is bilinear, corners not aligned; one port takes the nearest pixel inside the network. No count depends on it.
- As drawn, a batch norm's shift is without effect in training where a 1x1 and the next batch norm follow at once: in the context
  embedding, the shortcuts, and behind the last depthwise convolution of a layer.

Differs from the paper:
- The 3x3 at the end of the context embedding has batch norm and ReLU, as every Conv2d of Table 1, where Fig. 4b draws a bare one;
  the count needs the norm. Elsewhere the figures are followed where ports add a ReLU that is not drawn: there is none behind the
  depthwise convolutions of a gather-and-expansion layer (Fig. 5) and none at the end of the aggregation (Fig. 6). Two ports, one
  with these and one without, report the same accuracy (mean IU 73.2 on Cityscapes), and neither changes the count.
- Heights and widths that are no multiple of 32 are padded by repeating the border.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.base import SegmentationModel, pad_to_multiple, resize
from segue.models.layers import conv_bn_relu, init_he


class BiSeNetV2(SegmentationModel):
    """Fig. 3 and Table 1, with a channel ratio of 1/4 and an expansion by 6. auxiliary: with the booster heads."""

    stride = 32
    min_size = 8

    def __init__(self, num_classes: int, in_channels: int = 3, auxiliary: bool = True) -> None:
        super().__init__(num_classes, in_channels)
        self.detail = nn.Sequential(
            conv_bn_relu(in_channels, 64, stride=2), conv_bn_relu(64, 64),  # S1: 64 x H/2 x W/2
            conv_bn_relu(64, 64, stride=2), conv_bn_relu(64, 64), conv_bn_relu(64, 64),  # S2: 64 x H/4 x W/4
            conv_bn_relu(64, 128, stride=2), conv_bn_relu(128, 128), conv_bn_relu(128, 128),  # S3: 128 x H/8 x W/8
        )  # fmt: skip
        self.stem = Stem(in_channels)
        self.stage3 = nn.Sequential(GatherExpansionDown(16, 32), GatherExpansion(32))
        self.stage4 = nn.Sequential(GatherExpansionDown(32, 64), GatherExpansion(64))
        self.stage5 = nn.Sequential(GatherExpansionDown(64, 128), *[GatherExpansion(128) for _ in range(3)])
        self.context = ContextEmbedding()
        self.aggregation = GuidedAggregation()
        self.head = nn.Sequential(conv_bn_relu(128, 1024), nn.Dropout(0.1), nn.Conv2d(1024, num_classes, 1))
        self.boosters = nn.ModuleDict()
        if auxiliary:
            self.boosters["booster2"] = BoosterHead(16, 4, num_classes)
            self.boosters["booster3"] = BoosterHead(32, 8, num_classes)
            self.boosters["booster4"] = BoosterHead(64, 16, num_classes)
            self.boosters["booster5"] = BoosterHead(128, 32, num_classes)
        self.apply(init_he)  # section 5.1

    def score(self, x: Tensor) -> Tensor:
        return self.decode(x, self.semantic(x))  # K x H/8 x W/8

    def supervise(self, x: Tensor) -> dict[str, Tensor]:
        """The main logits, and those of the booster heads on the stem and on stages 3 to 5; all at the image's size."""
        self.check_input(x)
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.stride)
        stages = self.semantic(x)
        logits = {"main": self.decode(x, stages)}
        logits |= {name: booster(stage) for (name, booster), stage in zip(self.boosters.items(), stages, strict=False)}
        return {name: resize(scores, x.shape[-2:])[..., :height, :width] for name, scores in logits.items()}

    def semantic(self, x: Tensor) -> list[Tensor]:
        """The semantic branch's stages before the context embedding."""
        s2 = self.stem(x)  # 16 x H/4 x W/4
        s3 = self.stage3(s2)  # 32 x H/8 x W/8
        s4 = self.stage4(s3)  # 64 x H/16 x W/16
        s5 = self.stage5(s4)  # 128 x H/32 x W/32
        return [s2, s3, s4, s5]

    def decode(self, x: Tensor, stages: list[Tensor]) -> Tensor:
        detail = self.detail(x)  # 128 x H/8 x W/8
        semantic = self.context(stages[-1])  # 128 x H/32 x W/32
        return self.head(self.aggregation(detail, semantic))  # K x H/8 x W/8


class Stem(nn.Module):
    """Fig. 4a: a strided convolution beside max pooling."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(in_channels, 16, stride=2)
        self.left = nn.Sequential(conv_bn_relu(16, 8, 1), conv_bn_relu(8, 16, stride=2))
        self.right = nn.MaxPool2d(3, stride=2, padding=1)
        self.fuse = conv_bn_relu(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)  # 16 x H/2 x W/2
        return self.fuse(torch.cat([self.left(x), self.right(x)], dim=1))  # 16 x H/4 x W/4


class ContextEmbedding(nn.Module):
    """Fig. 4b: the global mean, added everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(128), conv_bn_relu(128, 128, 1))
        self.conv = conv_bn_relu(128, 128)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x + self.mean(x))


class GatherExpansion(nn.Module):
    """Fig. 5b: 3x3, a depthwise 3x3 that makes six maps of each, and 1x1 back, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv_bn_relu(channels, channels),
            *conv_bn(channels, 6 * channels, groups=channels),
            *conv_bn(6 * channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + x)


class GatherExpansionDown(nn.Module):
    """Fig. 5c, stride 2: two depthwise 3x3 in the branch, and a separable convolution in place of the identity."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = 6 * in_channels
        self.branch = nn.Sequential(
            conv_bn_relu(in_channels, in_channels),
            *conv_bn(in_channels, inner, stride=2, groups=in_channels),
            *conv_bn(inner, inner, groups=inner),
            *conv_bn(inner, out_channels, 1),
        )
        self.shortcut = nn.Sequential(
            *conv_bn(in_channels, in_channels, stride=2, groups=in_channels), *conv_bn(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


class GuidedAggregation(nn.Module):
    """Fig. 6: at 1/8 and at 1/32 one branch is weighed by the sigmoid of the other; the two products are added."""

    def __init__(self) -> None:
        super().__init__()
        self.detail = nn.Sequential(*conv_bn(128, 128, groups=128), nn.Conv2d(128, 128, 1, bias=False))
        self.detail_down = nn.Sequential(*conv_bn(128, 128, stride=2), nn.AvgPool2d(3, stride=2, padding=1))
        self.semantic = nn.Sequential(*conv_bn(128, 128, groups=128), nn.Conv2d(128, 128, 1, bias=False))
        self.semantic_up = nn.Sequential(*conv_bn(128, 128))
        self.conv = nn.Sequential(*conv_bn(128, 128))

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        fine = self.detail(detail) * resize(self.semantic_up(semantic), detail.shape[-2:]).sigmoid()  # 128 x H/8 x W/8
        coarse = self.detail_down(detail) * self.semantic(semantic).sigmoid()  # 128 x H/32 x W/32
        return self.conv(fine + resize(coarse, detail.shape[-2:]))


class BoosterHead(nn.Module):
    """Section 4.4: logits of a stage at 1/`stride`, at twice its resolution; for training alone."""

    def __init__(self, in_channels: int, stride: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv_bn_relu(in_channels, 128), nn.Dropout(0.1))
        self.up = conv_bn_relu(128, stride * stride)
        self.classifier = nn.Conv2d(stride * stride, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = resize(self.conv(x), (2 * height, 2 * width))
        return self.classifier(self.up(x))


def conv_bn(in_channels: int, out_channels: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution that keeps the size but for its stride, batch norm; depthwise where there is a group for each map."""
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
