"""Real-time Semantic Segmentation with Fast Attention.

P. Hu, F. Perazzi, F. Caba Heilbron, O. Wang, Z. Lin, K. Saenko, S. Sclaroff, RA-L 2021. https://arxiv.org/abs/2007.03815

Self-attention without the softmax: queries and keys of length 1 leave a product of three matrices, and where keys and values are
multiplied first, the cost grows with the number of pixels and not with its square. Each stage of a ResNet passes through such
attention on its way into a U-shaped decoder; a further halving of the first stage makes the network fast on large images.

Parameters with 19 classes, for inference and with the two auxiliary heads: 13,080,128 and 13,820,352 (FANet-18), 23,188,288 and
23,928,512 (FANet-34). The authors' code has 13,820,032 and 13,970,176 (FANet-18), and 23,928,192 for inference (FANet-34). It
builds the 3x3 of the second stage's module (147,712) and the 1x1 of the first stage's (2,112), but never uses them, and keeps for
inference the 3x3 of the fourth stage's (590,080), which only an auxiliary head sees. Here they are left out.

Differs from the paper: where the authors' code does, it is followed.
- The attention is not divided by the number of pixels; the batch norm behind it takes up that factor.
- ReLU is leaky (.01) but for the one at the end of a residual block. Queries and keys have none.
- The 1x1 before an upsampling pads its input with a border of zeros, so what is resized is two rows and columns larger, and its
  corners are of the border: images below 65 pixels, whose last stage is one pixel, lose that stage's share.
- The last layer has no bias.
The recipe's learning rate warms up linearly, the authors' exponentially.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.backbones import ResNet
from segue.models.base import SegmentationModel, resize


class FANet(SegmentationModel):
    """Section III-B. The stages are at 1/8, 1/16, 1/32 and 1/64. auxiliary: with the heads on the two coarsest."""

    min_size = 8
    aligned = True
    depth = 18  # of the ResNet

    def __init__(self, num_classes: int, in_channels: int = 3, auxiliary: bool = True) -> None:
        super().__init__(num_classes, in_channels)
        self.resnet = ResNet(self.depth, in_channels, strides=(2, 2, 2, 2), slope=0.01)
        self.attention1 = AttentionModule(64)
        self.attention2 = AttentionModule(128)
        self.attention3 = AttentionModule(256)
        self.attention4 = AttentionModule(512)
        self.up4 = conv_bn(512, 256, padding=1)
        self.up3 = conv_bn(256, 128, padding=1)
        self.up2 = conv_bn(128, 64, padding=1)
        self.smooth3 = conv_bn(256, 128, 3, padding=1)
        self.smooth1 = conv_bn(64, 128, 3, padding=1)
        self.head = head(256, 256, num_classes)
        self.auxiliary = nn.ModuleDict()
        if auxiliary:
            self.auxiliary["context64"] = nn.Sequential(conv_bn(512, 128, 3, padding=1), *head(128, 64, num_classes))
            self.auxiliary["context32"] = head(128, 64, num_classes)
        for name, module in self.named_children():
            if name != "resnet":
                module.apply(init_kaiming)
        self.classifier = self.resnet.classifier

    def score(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)["main"])  # K x H/8 x W/8

    def supervise(self, x: Tensor) -> dict[str, Tensor]:
        """The main logits, and those of the stages at 1/64 and 1/32; all at the image's size."""
        self.check_input(x)
        features = self.features(x)
        logits = {"main": self.head(features["main"])}
        logits |= {name: auxiliary(features[name]) for name, auxiliary in self.auxiliary.items()}
        return {name: resize(scores, x.shape[-2:], aligned=True) for name, scores in logits.items()}

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """What the heads see."""
        c1, c2, c3, c4 = self.resnet(x)
        p4 = self.attention4(c4)  # 512 x H/64 x W/64
        p3 = self.attention3(c3) + resize(self.up4(p4), c3.shape[-2:], aligned=True)  # 256 x H/32 x W/32
        p2 = self.attention2(c2) + resize(self.up3(p3), c2.shape[-2:], aligned=True)  # 128 x H/16 x W/16
        p1 = self.attention1(c1) + resize(self.up2(p2), c1.shape[-2:], aligned=True)  # 64 x H/8 x W/8
        context = self.smooth3(p3)  # 128 x H/32 x W/32
        main = torch.cat([resize(context, p1.shape[-2:], aligned=True), self.smooth1(p1)], dim=1)  # 256 x H/8 x W/8
        return {"main": main, "context64": p4, "context32": context}

    def trunk(self) -> list[nn.Module]:
        return [self.resnet]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """The first stage's stride of 2 needs a projection that the classifier does not have; it stays as it is."""
        own = self.resnet.state_dict()
        projection = {name: tensor for name, tensor in own.items() if name.startswith("layer1.0.downsample.")}
        self.resnet.load_classifier({**projection, **weights})


class FANet18(FANet):
    depth = 18


class FANet34(FANet):
    depth = 34


class AttentionModule(nn.Module):
    """Queries and keys have 32 maps; what they gather is projected and added to the stage's own map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = conv_bn(channels, 32)[:2]  # without the activation
        self.key = conv_bn(channels, 32)[:2]
        self.value = conv_bn(channels, channels)
        self.lateral = conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        return self.lateral(fast_attention(query, key, value).view_as(x)) + x


def fast_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Section III-A: each of n pixels takes the sum of all values, weighed by the cosine between its query and their keys.

    query, key: (N, c, n). value and result: (N, C, n). The n x n cosines are never made: the cost is n * c * C.
    """
    query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
    return (value @ key.transpose(1, 2)) @ query  # (C x n, n x c), then (C x c, c x n)


def conv_bn(in_channels: int, out_channels: int, size: int = 1, padding: int = 0) -> nn.Sequential:
    """Convolution, batch norm, leaky ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, size, padding=padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.01))


def head(in_channels: int, width: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(conv_bn(in_channels, width, 3, padding=1), nn.Conv2d(width, num_classes, 1, bias=False))


def init_kaiming(module: nn.Module) -> None:
    """The authors' code: normal, variance 1 / fan-in."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=1)
