"""Fully Convolutional Networks for Semantic Segmentation, on GoogLeNet.

J. Long, E. Shelhamer, T. Darrell, CVPR 2015, https://arxiv.org/abs/1411.4038; PAMI 2017, https://arxiv.org/abs/1605.06211

FCN-32s as in fcn.py, with the inception modules of GoogLeNet (Szegedy et al., CVPR 2015, Table 1) up to 5b; its final average
pooling and its two auxiliary classifiers are left out (the paper's 907 pixels of receptive field still count that pooling; it is
715 without). 5,995,077 parameters with 21 classes.

Decisions: the authors never released this network, nor their own GoogLeNet. The modules are those of that Table 1 as Caffe has
them: a bias in every convolution, no batch norm, local response normalisation around the second stage. There is no fully
connected 7x7 to feed, so nothing calls for a padding of 100: convolutions pad as in the classifier, and the bilinear kernel is 63
wide as in FCN-AlexNet, so that the centre of every coarse score falls on a pixel and one crop, of offset 1, fits every size.
Dropout of .4 before the scores, "where used in the original classifier".

torchvision's GoogLeNet is another network (batch norm and no biases, 3x3 in place of 5x5, a 2x2 fourth pooling, no response
normalisation), and its weights do not fit these layers; trunk="torchvision" builds this FCN on it, with 5,621,429 parameters and
an offset of 9. Those weights take images with mean .5 and standard deviation .5 in each channel.

Differs from the paper: layers that no ImageNet weights fill start from He's normal distribution.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.backbones import load_trunk
from segue.models.base import SegmentationModel
from segue.models.fcn import FixedUpsampling, crop, scoring
from segue.models.layers import init_he_and_biases


class FCN32sGoogLeNet(SegmentationModel):
    """The scores of inception 5b at stride 32, and one upsampling by 32.

    trunk: "caffe" (the paper's modules) or "torchvision", whose ImageNet weights it can start from.
    width: all maps in proportion to 64, the paper's; a multiple of 8.
    """

    min_size = 31

    def __init__(
        self, num_classes: int, in_channels: int = 3, trunk: Literal["caffe", "torchvision"] = "caffe", width: int = 64
    ) -> None:
        super().__init__(num_classes, in_channels)
        if trunk not in ("caffe", "torchvision"):
            raise ValueError(f"trunk (={trunk!r}) must be 'caffe' (the paper's) or 'torchvision'")
        if width < 8 or width % 8:
            raise ValueError(f"width (={width}) must be a multiple of 8; 64 is the paper's")
        batch_norm = trunk == "torchvision"
        self.classifier = "torchvision/googlenet" if batch_norm else ""
        self.offset = 9 if batch_norm else 1
        self.googlenet = GoogLeNet(in_channels, batch_norm, width)
        self.apply(init_he_and_biases)
        self.dropout = nn.Dropout(0.4)
        self.score_fr = scoring(16 * width, num_classes)
        self.upscore = FixedUpsampling(63, stride=32)

    def score(self, x: Tensor) -> Tensor:
        return crop(self.upscore(self.score_fr(self.dropout(self.googlenet(x)))), self.offset, x)

    def trunk(self) -> list[nn.Module]:
        return [self.googlenet]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """torchvision's GoogLeNet; the classifiers are left out."""
        if not self.classifier:
            raise ValueError(
                "torchvision's GoogLeNet does not fit the layers of Caffe's; make this network with trunk=\"torchvision\""
            )
        load_trunk(self.googlenet, weights, self.classifier)


class GoogLeNet(nn.Module):
    """Table 1 of its paper, with torchvision's names; sizes are those of a 500 x 500 image."""

    def __init__(self, in_channels: int, batch_norm: bool, width: int) -> None:
        super().__init__()
        bn = batch_norm
        self.conv1 = Unit(in_channels, width, 7, bn, stride=2)
        self.conv2 = Unit(width, width, 1, bn)
        self.conv3 = Unit(width, 3 * width, 3, bn)
        self.norm = nn.Identity() if bn else nn.LocalResponseNorm(5, 1e-4, 0.75)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32, width, bn)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64, width, bn)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64, width, bn)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64, width, bn)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64, width, bn)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64, width, bn)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128, width, bn)
        self.pool4 = 2 if bn else 3
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128, width, bn)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128, width, bn)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(pool(self.conv1(x)))  # 64 x 125 x 125
        x = pool(self.norm(self.conv3(self.conv2(x))))  # 192 x 62 x 62
        x = pool(self.inception3b(self.inception3a(x)))  # 480 x 31 x 31
        x = self.inception4c(self.inception4b(self.inception4a(x)))  # 512 x 31 x 31
        x = pool(self.inception4e(self.inception4d(x)), self.pool4)  # 832 x 15 x 15
        return self.inception5b(self.inception5a(x))  # 1024 x 15 x 15


class Inception(nn.Module):
    """Four branches, concatenated: 1x1; 1x1 and 3x3; 1x1 and 5x5; pooling and 1x1. Numbers of maps in the order of Table 1."""

    def __init__(
        self, in_channels: int, ones: int, reduce3: int, threes: int, reduce5: int, fives: int, pooled: int, width: int, bn: bool
    ) -> None:
        super().__init__()
        maps = (in_channels, ones, reduce3, threes, reduce5, fives, pooled)
        in_channels, ones, reduce3, threes, reduce5, fives, pooled = (count * width // 64 for count in maps)
        kernel = 3 if bn else 5  # torchvision's has 3x3
        self.branch1 = Unit(in_channels, ones, 1, bn)
        self.branch2 = nn.Sequential(Unit(in_channels, reduce3, 1, bn), Unit(reduce3, threes, 3, bn))
        self.branch3 = nn.Sequential(Unit(in_channels, reduce5, 1, bn), Unit(reduce5, fives, kernel, bn))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), Unit(in_channels, pooled, 1, bn))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class Unit(nn.Module):
    """Convolution that keeps the size but for its stride, with a bias or with batch norm, and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, size: int, batch_norm: bool, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, size, stride, size // 2, bias=not batch_norm)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def pool(x: Tensor, size: int = 3) -> Tensor:
    """Maxima at stride 2; a last row or column alone is kept, as Caffe does."""
    return F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), size, 2)
