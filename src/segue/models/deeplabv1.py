"""Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs.

L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy, A. L. Yuille, ICLR 2015. https://arxiv.org/abs/1412.7062

VGG16 keeps its maps at 1/8: the last two poolings lose their stride, and the convolutions behind them sample their input with
holes ("atrous"), so that each still sees what it saw in the classifier. In the variant LargeFOV, the best of section 5, fc6 is
3x3 with dilation 12 and has 1024 filters, and the logits are enlarged bilinearly. 20,505,429 parameters with 21 classes (20.5 M
in the paper). The paper's fully connected CRF stands behind any prediction and is no part of the network.

As the authors' Caffe network has it: poolings of 3x3, the last of them followed by an average over 3x3 in which the zeros at
the border count; a loss on the small logits; images of 8k + 1 pixels a side, such as 321, so that the corners of every map lie
on the corners of the image, and an enlargement that keeps them there ("align corners"). Caffe rounds the sizes of poolings up,
which for 8k + 1 makes no difference.

Decisions: images of other sizes are padded to 8k + 1 by repeating the border. The paper makes fc6 and fc7 from those of VGG16
"by simple decimation"; here that is every fourth filter and, of the 7x7 taps, the first, the middle and the last of each row
and column. Layers that no classifier fills start from He's normal distribution, fc8 from a Gaussian of .01 as the authors have
it.

Differs from the paper: nothing known.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.backbones import load_layer, load_vgg16
from segue.models.base import SegmentationModel, pad_to_multiple
from segue.models.layers import init_he_and_biases


class DeepLabV1(SegmentationModel):
    """DeepLab-LargeFOV. Dropout of one half behind fc6 and fc7. Sizes in the comments are those of a 321 x 321 image.

    `supervise` gives the logits at 1/8: the truth is made smaller, not they larger.

    width: maps of the first stage; all others in proportion. 64 is the paper's, and the one that ImageNet weights fit.
    """

    stride = 8
    min_size = 8
    aligned = True
    classifier = "torchvision/vgg16"

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__(num_classes, in_channels)
        if width < 1:
            raise ValueError(f"width (={width}) must be at least 1; 64 is the paper's")
        self.vgg = VGG16(in_channels, width)
        self.fc6 = nn.Conv2d(8 * width, 16 * width, 3, padding=12, dilation=12)
        self.fc7 = nn.Conv2d(16 * width, 16 * width, 1)
        self.dropout = nn.Dropout(0.5)
        self.apply(init_he_and_biases)
        self.fc8 = scoring(16 * width, num_classes, 1)

    def score(self, x: Tensor) -> Tensor:
        pool5 = self.vgg(x)[-1]  # 512 x 41 x 41
        pool5a = F.avg_pool2d(pool5, 3, stride=1, padding=1)
        fc6 = self.dropout(F.relu(self.fc6(pool5a)))  # 1024 x 41 x 41
        fc7 = self.dropout(F.relu(self.fc7(fc6)))  # 1024 x 41 x 41
        return self.fc8(fc7)  # K x 41 x 41

    def supervise(self, x: Tensor) -> dict[str, Tensor]:
        self.check_input(x)
        return {"main": self.score(pad_to_multiple(x, self.stride, plus=1))}

    def trunk(self) -> list[nn.Module]:
        return [self.vgg, self.fc6, self.fc7]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """torchvision's VGG16; fc6 and fc7 are decimated (see above), or stay as they are where the file has none."""
        self.vgg.load_classifier(weights)
        load_decimated(self.fc6, self.fc7, weights)


class VGG16(nn.Module):
    """VGG16 as far as pool5, at 1/8: (N, C, 8k + 1, 8k + 1) to the five pooled maps, the last (N, 8 * width, k + 1, k + 1)."""

    def __init__(self, in_channels: int, width: int = 64) -> None:
        super().__init__()
        self.conv1 = stage(in_channels, width, 2)
        self.conv2 = stage(width, 2 * width, 2)
        self.conv3 = stage(2 * width, 4 * width, 3)
        self.conv4 = stage(4 * width, 8 * width, 3)
        self.conv5 = stage(8 * width, 8 * width, 3, dilation=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        pool1 = F.max_pool2d(self.conv1(x), 3, stride=2, padding=1)  # 64 x 161 x 161
        pool2 = F.max_pool2d(self.conv2(pool1), 3, stride=2, padding=1)  # 128 x 81 x 81
        pool3 = F.max_pool2d(self.conv3(pool2), 3, stride=2, padding=1)  # 256 x 41 x 41
        pool4 = F.max_pool2d(self.conv4(pool3), 3, stride=1, padding=1)  # 512 x 41 x 41
        pool5 = F.max_pool2d(self.conv5(pool4), 3, stride=1, padding=1)  # 512 x 41 x 41
        return [pool1, pool2, pool3, pool4, pool5]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        load_vgg16([layer for layer in self.modules() if isinstance(layer, nn.Conv2d)], weights)


def stage(in_channels: int, out_channels: int, convs: int, dilation: int = 1) -> nn.Sequential:
    """3x3 convolutions, each with ReLU."""
    layers: list[nn.Module] = []
    for number in range(convs):
        channels = out_channels if number else in_channels
        layers += [nn.Conv2d(channels, out_channels, 3, padding=dilation, dilation=dilation), nn.ReLU()]
    return nn.Sequential(*layers)


def scoring(in_channels: int, num_classes: int, size: int, dilation: int = 1) -> nn.Conv2d:
    """Convolution to the classes: Gaussian of .01, biases 0."""
    layer = nn.Conv2d(in_channels, num_classes, size, padding=dilation * (size // 2), dilation=dilation)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def load_decimated(fc6: nn.Conv2d, fc7: nn.Conv2d, weights: dict[str, Tensor]) -> None:
    """Fill fc6 (3x3) and fc7 from VGG16's fully connected layers: each fourth filter, and each third tap of the 7x7."""
    if not any(name.startswith("classifier.") for name in weights):
        return  # the file holds VGG's convolutions alone
    for name, layer, inputs, size, step in (("classifier.0", fc6, 512, 7, 1), ("classifier.3", fc7, 4096, 1, 4)):
        weight, bias = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
        if weight is None or bias is None or weight.shape != (4096, inputs * size**2):
            raise ValueError(
                f"the weights' {name} is {'missing' if weight is None or bias is None else tuple(weight.shape)}, and VGG16's is "
                f"{(4096, inputs * size**2)}; take torchvision's whole vgg16, or its features alone"
            )
        kernels = weight.reshape(4096, inputs, size, size)[::4, ::step, ::3, ::3]
        load_layer(layer, {f"{name}.weight": kernels, f"{name}.bias": bias[::4]}, name)
