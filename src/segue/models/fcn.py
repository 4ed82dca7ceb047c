"""Fully Convolutional Networks for Semantic Segmentation.

J. Long, E. Shelhamer, T. Darrell, CVPR 2015, https://arxiv.org/abs/1411.4038; PAMI 2017, https://arxiv.org/abs/1605.06211

A classifier whose fully connected layers are read as convolutions gives a coarse map of scores instead of one vector; transposed
convolutions bring it to the size of the image, and scores of earlier, finer layers are added on the way (32s, 16s, 8s: the stride
of the finest one). Learned end to end from whole images. This file holds the networks on VGG16; fcn_alexnet.py and
fcn_googlenet.py hold the others.

Parameters with 21 classes: 134,346,581 for 32s; 16s adds 10,773 of score_pool4 and 7,056 of the learned upscore2, 134,364,410
together; 8s adds 5,397 of score_pool3 and 7,056 of upscore_pool4, 134,376,863. The last upsampling is fixed and has none.

Decisions: the upsamplings by two are learned from a bilinear start, as the papers have it; the released networks keep them fixed.
Their kernels are whole tensors over pairs of classes, as in the release (zero between two classes at first), and have no bias.
Padding, rounding of the poolings and places of the crops are the release's, so the graph is the released one pixel for pixel.

Differs from the papers: layers that no ImageNet weights fill start from He's normal distribution, so that a network can also be
trained from nothing. Released and papers' networks always start from the classifier.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.backbones import load_layer, load_vgg16
from segue.models.base import SegmentationModel
from segue.models.layers import bilinear_kernel, init_he_and_biases


class FCN32s(SegmentationModel):
    """VGG16, its scores at stride 32, one upsampling by 32. Sizes in the comments are those of a 500 x 500 image.

    The first convolution pads by 100, so that the 7x7 of fc6 fits on images of any size. The scoring layer starts from zero
    (CVPR, section 4.3). Dropout of one half behind fc6 and fc7, of single values.

    width: maps of the first stage; all others in proportion. 64 is the paper's, and the one that ImageNet weights fit.
    """

    classifier = "torchvision/vgg16"

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__(num_classes, in_channels)
        if width < 1:
            raise ValueError(f"width (={width}) must be at least 1; 64 is the paper's")
        self.conv1 = stage(in_channels, width, 2, padding=100)
        self.conv2 = stage(width, 2 * width, 2)
        self.conv3 = stage(2 * width, 4 * width, 3)
        self.conv4 = stage(4 * width, 8 * width, 3)
        self.conv5 = stage(8 * width, 8 * width, 3)
        self.fc6 = nn.Conv2d(8 * width, 64 * width, 7)
        self.fc7 = nn.Conv2d(64 * width, 64 * width, 1)
        self.dropout = nn.Dropout(0.5)
        self.apply(init_he_and_biases)
        self.score_fr = scoring(64 * width, num_classes)
        self.upscore = FixedUpsampling(64, stride=32)

    def score(self, x: Tensor) -> Tensor:
        _, _, fc7 = self.features(x)
        return crop(self.upscore(self.score_fr(fc7)), 19, x)  # K x 544 x 544, cropped to the image

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is scored: pool3, pool4 and fc7."""
        pool1 = pool(self.conv1(x))  # 64 x 349 x 349
        pool2 = pool(self.conv2(pool1))  # 128 x 175 x 175
        pool3 = pool(self.conv3(pool2))  # 256 x 88 x 88
        pool4 = pool(self.conv4(pool3))  # 512 x 44 x 44
        pool5 = pool(self.conv5(pool4))  # 512 x 22 x 22
        fc6 = self.dropout(F.relu(self.fc6(pool5)))  # 4096 x 16 x 16
        fc7 = self.dropout(F.relu(self.fc7(fc6)))  # 4096 x 16 x 16
        return pool3, pool4, fc7

    def trunk(self) -> list[nn.Module]:
        return [self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.fc6, self.fc7]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """torchvision's VGG16; its first two fully connected layers become fc6 and fc7, the third is left out."""
        convs = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        load_vgg16(convs[:13], weights)  # fc6 is the fourteenth
        load_layer(self.fc6, weights, "classifier.0")
        load_layer(self.fc7, weights, "classifier.3")


class FCN16s(FCN32s):
    """The scores of pool4 are added to those of fc7, upsampled by two. Starts from a trained FCN-32s.

    score_pool4 starts from zero, so the sum is at first what comes from fc7 alone, the coarse scores of FCN-32s. To upsample them
    by two and then by sixteen is not quite to upsample them by 32: it is equal where they are linear, and bends less sharply
    elsewhere. Of 21 random maps the largest stays the largest in 90 % of the pixels for noise, in 97 % for smooth maps.
    """

    added: tuple[str, ...] = ("score_pool4", "upscore2")

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__(num_classes, in_channels, width)
        self.score_pool4 = scoring(8 * width, num_classes)
        self.upscore2 = learned_upsampling(num_classes)
        self.upscore = FixedUpsampling(32, stride=16)

    def score(self, x: Tensor) -> Tensor:
        _, pool4, fc7 = self.features(x)
        return crop(self.upscore(self.fuse_pool4(pool4, fc7)), 27, x)  # K x 560 x 560, cropped to the image

    def fuse_pool4(self, pool4: Tensor, fc7: Tensor) -> Tensor:
        upscore2 = self.upscore2(self.score_fr(fc7))  # K x 34 x 34
        return upscore2 + crop(self.score_pool4(pool4), 5, upscore2)


class FCN8s(FCN16s):
    """The scores of pool3 are added too. Starts from a trained FCN-16s; score_pool3 starts from zero."""

    added: tuple[str, ...] = ("score_pool3", "upscore_pool4")

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__(num_classes, in_channels, width)
        self.score_pool3 = scoring(4 * width, num_classes)
        self.upscore_pool4 = learned_upsampling(num_classes)
        self.upscore = FixedUpsampling(16, stride=8)

    def score(self, x: Tensor) -> Tensor:
        pool3, pool4, fc7 = self.features(x)
        upscore_pool4 = self.upscore_pool4(self.fuse_pool4(pool4, fc7))  # K x 70 x 70
        fused = upscore_pool4 + crop(self.score_pool3(pool3), 9, upscore_pool4)
        return crop(self.upscore(fused), 31, x)  # K x 568 x 568, cropped to the image


class FCN8sAtOnce(FCN8s):
    """FCN-8s trained in one go from the classifier (PAMI): pool4 and pool3 are scaled by .01 and .0001.

    That does what the lower learning rates of the stages do elsewhere.
    """

    added = ()

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pool3, pool4, fc7 = super().features(x)
        return 0.0001 * pool3, 0.01 * pool4, fc7


class FixedUpsampling(nn.Module):
    """Transposed convolution of every map by itself with a bilinear kernel: h rows become stride * (h - 1) + size."""

    kernel: Tensor

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("kernel", bilinear_kernel(size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = x.shape[1]
        return F.conv_transpose2d(x, self.kernel.expand(maps, 1, -1, -1), stride=self.stride, groups=maps)


def learned_upsampling(num_classes: int) -> nn.ConvTranspose2d:
    """By two, (N, K, h, w) to (N, K, 2h + 2, 2w + 2); at the start bilinear, every class from itself alone."""
    layer = nn.ConvTranspose2d(num_classes, num_classes, 4, stride=2, bias=False)
    nn.init.zeros_(layer.weight)
    for number in range(num_classes):
        layer.weight.data[number, number] = bilinear_kernel(4)
    return layer


def scoring(in_channels: int, num_classes: int) -> nn.Conv2d:
    """1x1 convolution to the classes, from zero."""
    layer = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def stage(in_channels: int, out_channels: int, convs: int, padding: int = 1) -> nn.Sequential:
    """3x3 convolutions, each with ReLU; `padding` is that of the first."""
    layers: list[nn.Module] = []
    for number in range(convs):
        channels = out_channels if number else in_channels
        layers += [nn.Conv2d(channels, out_channels, 3, padding=1 if number else padding), nn.ReLU()]
    return nn.Sequential(*layers)


def pool(x: Tensor) -> Tensor:
    """Maxima of 2x2; a last row or column alone is kept, as Caffe does."""
    return F.max_pool2d(x, 2, ceil_mode=True)


def crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    """The part of x with the height and width of `like` that begins `offset` rows and columns in."""
    height, width = like.shape[-2:]
    return x[..., offset : offset + height, offset : offset + width]
