"""Fully Convolutional Networks for Semantic Segmentation, on AlexNet.

J. Long, E. Shelhamer, T. Darrell, CVPR 2015, https://arxiv.org/abs/1411.4038; PAMI 2017, https://arxiv.org/abs/1605.06211

FCN-32s as in fcn.py, with the convolutions of AlexNet as Caffe has them (CaffeNet): two groups, and local response normalisation
behind the first two poolings. The smallest and fastest of the paper's three. 56,954,261 parameters with 21 classes.

torchvision's AlexNet is another network (Krizhevsky's of 2014: 64 and 192 maps at first, no groups, no normalisation), and its
weights do not fit CaffeNet's layers; trunk="torchvision" builds this FCN on it, with 57,089,877 parameters. Kernels and strides,
and so padding and crop, are the same.

Differs from the paper: layers that no ImageNet weights fill start from He's normal distribution. The recipe's learning rate of
1e-3 is the paper's; the released solver has 1e-4.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.backbones import load_layer
from segue.models.base import SegmentationModel
from segue.models.fcn import FixedUpsampling, crop, scoring
from segue.models.layers import init_he_and_biases

TORCHVISION = ("features.0", "features.3", "features.6", "features.8", "features.10", "classifier.1", "classifier.4")


class FCN32sAlexNet(SegmentationModel):
    """Sizes in the comments are those of a 500 x 500 image. Dropout of one half behind fc6 and fc7.

    trunk: "caffe" (the paper's) or "torchvision", whose ImageNet weights it can start from.
    width: all maps in proportion to 64, the paper's; a multiple of 4.
    """

    def __init__(
        self, num_classes: int, in_channels: int = 3, trunk: Literal["caffe", "torchvision"] = "caffe", width: int = 64
    ) -> None:
        super().__init__(num_classes, in_channels)
        if trunk not in ("caffe", "torchvision"):
            raise ValueError(f"trunk (={trunk!r}) must be 'caffe' (the paper's) or 'torchvision'")
        if width < 4 or width % 4:
            raise ValueError(f"width (={width}) must be a multiple of 4; 64 is the paper's")
        caffe = trunk == "caffe"
        self.classifier = "" if caffe else "torchvision/alexnet"
        groups = 2 if caffe else 1
        maps = (96, 256, 384, 384, 256) if caffe else (64, 192, 384, 256, 256)
        c1, c2, c3, c4, c5 = (count * width // 64 for count in maps)
        self.conv1 = nn.Conv2d(in_channels, c1, 11, stride=4, padding=100)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=groups)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=groups)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=groups)
        self.fc6 = nn.Conv2d(c5, 64 * width, 6)
        self.fc7 = nn.Conv2d(64 * width, 64 * width, 1)
        self.norm = nn.LocalResponseNorm(5, 1e-4, 0.75) if caffe else nn.Identity()
        self.dropout = nn.Dropout(0.5)
        self.apply(init_he_and_biases)
        self.score_fr = scoring(64 * width, num_classes)
        self.upscore = FixedUpsampling(63, stride=32)

    def score(self, x: Tensor) -> Tensor:
        pool1 = self.norm(pool(F.relu(self.conv1(x))))  # 96 x 86 x 86
        pool2 = self.norm(pool(F.relu(self.conv2(pool1))))  # 256 x 43 x 43
        conv3 = F.relu(self.conv3(pool2))  # 384 x 43 x 43
        conv4 = F.relu(self.conv4(conv3))  # 384 x 43 x 43
        pool5 = pool(F.relu(self.conv5(conv4)))  # 256 x 21 x 21
        fc6 = self.dropout(F.relu(self.fc6(pool5)))  # 4096 x 16 x 16
        fc7 = self.dropout(F.relu(self.fc7(fc6)))  # 4096 x 16 x 16
        return crop(self.upscore(self.score_fr(fc7)), 18, x)  # K x 543 x 543, cropped to the image

    def trunk(self) -> list[nn.Module]:
        return [self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.fc6, self.fc7]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """torchvision's AlexNet; its first two fully connected layers become fc6 and fc7, the third is left out."""
        if not self.classifier:
            raise ValueError("torchvision's AlexNet does not fit CaffeNet's layers; make this network with trunk=\"torchvision\"")
        for layer, name in zip(self.trunk(), TORCHVISION, strict=True):
            load_layer(layer, weights, name)


def pool(x: Tensor) -> Tensor:
    """Maxima of 3x3 at stride 2; a last row or column alone is kept, as Caffe does."""
    return F.max_pool2d(x, 3, 2, ceil_mode=True)
