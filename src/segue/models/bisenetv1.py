"""BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation.

C. Yu, J. Wang, C. Peng, C. Gao, G. Yu, N. Sang, ECCV 2018. https://arxiv.org/abs/1808.00897

Two paths share the work: a shallow, wide spatial path keeps the detail at 1/8, and a fast classifier, the context path, goes down
to 1/32 and to a global mean. Attention refinement modules weigh the context's maps, and a feature fusion module joins the paths.
Parameters with 19 classes, for inference and with the two auxiliary heads: 12,894,163 and 13,194,489 (resnet18), 1,541,963 and
1,842,289 (xception39), 47,638,803 and 48,239,417 (resnet101).

This is the network of the authors' code (TorchSeg). With ResNet-18 and Xception-39 its heads have 64 maps, and the auxiliary ones
128, as in its settings for speed; with ResNet-101 all have 256, and three 3x3 stand for the first 7x7. Any other trunk gets the
heads of ResNet-18 if its last stage has at most 512 maps, else those of ResNet-101. The code's slower setting of ResNet-18 has
256 maps in the auxiliary heads: 13,494,777 parameters. The recipe has the rate, the crops and the scales of that setting; the
settings for speed crop 768 x 1536 and take the loss at 1/8, against labels made smaller, where all losses here are at full size.

Differs from the paper:
- The paper's spatial path is three convolutions of stride 2; the code's are a 7x7 and two 3x3 of 64 maps, then 1x1 to 128.
- In the code a 3x3 to 128 maps stands before the attention of each refinement module, and another behind each upsampling.
- The code supervises the context path behind these, at 1/16 and 1/8; the paper says only that its output is supervised.
- The paper gives 5.8 and 49.0 million parameters (Xception-39, ResNet-18). The code has about a quarter of each, so these look
  like megabytes of floats; its multiply-adds, 3.07 and 11.58 billion at 360 x 640, agree with the paper's 2.9 and 10.8.
- The authors' ImageNet weights of Xception-39 are not public, so it starts from random ones.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.backbones import Backbone, create_backbone
from segue.models.base import SegmentationModel, resize
from segue.models.layers import conv_bn_relu, init_he


class BiSeNetV1(SegmentationModel):
    """Fig. 2a. backbone: "resnet18", "xception39", "resnet101" (deep stem), or any other trunk; auxiliary: with the two heads."""

    min_size = 8
    aligned = True

    def __init__(self, num_classes: int, in_channels: int = 3, backbone: str = "resnet18", auxiliary: bool = True) -> None:
        super().__init__(num_classes, in_channels)
        self.context_path = context_trunk(backbone, in_channels)
        *_, width16, width32 = self.context_path.channels
        self.spatial_path = nn.Sequential(
            conv_bn_relu(in_channels, 64, 7, stride=2),  # 64 x H/2 x W/2
            conv_bn_relu(64, 64, 3, stride=2),  # 64 x H/4 x W/4
            conv_bn_relu(64, 64, 3, stride=2),  # 64 x H/8 x W/8
            conv_bn_relu(64, 128, 1),  # 128 x H/8 x W/8
        )
        self.global_context = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(width32, 128, 1))
        self.arm32 = AttentionRefinement(width32)
        self.arm16 = AttentionRefinement(width16)
        self.refine32 = conv_bn_relu(128, 128)
        self.refine16 = conv_bn_relu(128, 128)
        self.ffm = FeatureFusion()
        main, auxiliaries = (64, 128) if width32 <= 512 else (256, 256)
        self.head = head(256, main, num_classes)
        self.auxiliary = nn.ModuleDict()
        if auxiliary:
            self.auxiliary["context32"] = head(128, auxiliaries, num_classes)
            self.auxiliary["context16"] = head(128, auxiliaries, num_classes)
        for name, module in self.named_children():
            if name != "context_path":
                module.apply(init_he)
        self.classifier = self.context_path.classifier

    def score(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)["main"])  # K x H/8 x W/8

    def supervise(self, x: Tensor) -> dict[str, Tensor]:
        """The main logits, and those of the context path's stages at 1/32 and 1/16; all at the image's size."""
        self.check_input(x)
        features = self.features(x)
        logits = {"main": self.head(features["main"])}
        logits |= {name: auxiliary(features[name]) for name, auxiliary in self.auxiliary.items()}
        return {name: resize(scores, x.shape[-2:], aligned=True) for name, scores in logits.items()}

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The fused map, and the context path's two refined maps."""
        spatial = self.spatial_path(x)  # 128 x H/8 x W/8
        *_, c4, c5 = self.context_path(x)  # 256 x H/16 x W/16 and 512 x H/32 x W/32, in a ResNet-18
        context = self.arm32(c5) + self.global_context(c5)  # 128 x H/32 x W/32
        context32 = self.refine32(resize(context, c4.shape[-2:], aligned=True))  # 128 x H/16 x W/16
        context = self.arm16(c4) + context32
        context16 = self.refine16(resize(context, spatial.shape[-2:], aligned=True))  # 128 x H/8 x W/8
        return {"main": self.ffm(spatial, context16), "context32": context32, "context16": context16}

    def trunk(self) -> list[nn.Module]:
        return [self.context_path]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        self.context_path.load_classifier(weights)


class AttentionRefinement(nn.Module):
    """Fig. 2b: each of 128 maps is weighed by what the global mean says."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(in_channels, 128)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(128, 128, 1, bias=False), nn.BatchNorm2d(128), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.attention(x)


class FeatureFusion(nn.Module):
    """Fig. 2c: the two paths side by side, 256 maps, joined by 1x1 and weighed; the weighed maps are added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv_bn_relu(256, 256, 1)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(256, 256, 1, bias=False), nn.ReLU(),
            nn.Conv2d(256, 256, 1, bias=False), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x = self.conv(torch.cat([spatial, context], dim=1))
        return x + x * self.attention(x)


class Xception39(Backbone):
    """Section 4.1 and the authors' code: 4, 8 and 4 blocks, each stage's first with stride 2; four maps at 1/4 to 1/32."""

    channels = (8, 64, 128, 256)

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn_relu(in_channels, 8, stride=2), nn.MaxPool2d(3, stride=2, padding=1))
        self.layer1 = nn.Sequential(XceptionBlock(8, 16, stride=2), *[XceptionBlock(64, 16) for _ in range(3)])
        self.layer2 = nn.Sequential(XceptionBlock(64, 32, stride=2), *[XceptionBlock(128, 32) for _ in range(7)])
        self.layer3 = nn.Sequential(XceptionBlock(128, 64, stride=2), *[XceptionBlock(256, 64) for _ in range(3)])

    def forward(self, x: Tensor) -> list[Tensor]:
        c2 = self.stem(x)  # 8 x H/4 x W/4
        c3 = self.layer1(c2)  # 64 x H/8 x W/8
        c4 = self.layer2(c3)  # 128 x H/16 x W/16
        c5 = self.layer3(c4)  # 256 x H/32 x W/32
        return [c2, c3, c4, c5]


class XceptionBlock(nn.Module):
    """Three separable convolutions, to 4 x `width` maps, beside the identity, or beside one of them where the stride is 2."""

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            separable(in_channels, width, stride), nn.ReLU(),
            separable(width, width), nn.ReLU(),
            separable(width, 4 * width),
        )  # fmt: skip
        self.shortcut = separable(in_channels, 4 * width, stride) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


def separable(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 in each map, 1x1 across the maps, batch norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def context_trunk(backbone: str, in_channels: int) -> Backbone:
    if backbone == "xception39":
        return Xception39(in_channels)
    return create_backbone("resnet101_v1c" if backbone == "resnet101" else backbone, in_channels)


def head(in_channels: int, width: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(conv_bn_relu(in_channels, width), nn.Conv2d(width, num_classes, 1))
