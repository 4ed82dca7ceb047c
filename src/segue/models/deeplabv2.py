"""DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs.

L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy, A. L. Yuille, PAMI 2018. https://arxiv.org/abs/1606.00915

Atrous spatial pyramid pooling: four branches with the dilations 6, 12, 18 and 24 (ASPP-L) look at the last map of the trunk,
and their logits are summed. With ResNet-101 the same network also sees the image at 3/4 and at 1/2 of its size, and the
greatest of the three logits counts for each class and pixel. 44,048,532 parameters with 21 classes; 37,877,652 with VGG16.

As the authors' Caffe networks have it: each branch is one 3x3 convolution behind ResNet-101, and fc6, fc7, fc8 behind VGG16
(without the average pooling of v1); every 3x3 of ResNet's last two stages has dilation 2 and 4, and stages lose their stride in
the first 1x1. Interpolations align the corners (Caffe's Interp): the training size 321 becomes 241 and 161 that way, and all of
them are 8k + 1, so one grid of 32k + 1 pixels carries the three scales exactly. On it Caffe's rounding of poolings makes no
difference.

Decisions: images of other sizes are padded to 32k + 1 by repeating the border (the authors pad to 321 or 513 with the mean
colour). VGG16 sees one scale, for which the paper reports it. Its four branches start from the same decimated layers of the
classifier.

Differs from the paper: ResNet starts from torchvision's ImageNet weights, not from the authors', which had seen COCO too;
theirs were trained with the stride in the first 1x1 as it stands here, torchvision's with the stride in the 3x3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.backbones import ResNet, list_resnets
from segue.models.base import SegmentationModel, pad_to_multiple, resize
from segue.models.deeplabv1 import VGG16, load_decimated, scoring
from segue.models.layers import init_he_and_biases

RATES = (6, 12, 18, 24)
SCALES = {"scale1": 4, "scale075": 3, "scale05": 2}  # in quarters of the image's size


class DeepLabV2(SegmentationModel):
    """DeepLab-ASPP-L. Sizes in the comments are those of a 321 x 321 image.

    `supervise` gives the greatest of the logits as "main" and those of each scale, at 1/8 of its own size but for those of 3/4:
    as in the authors' network they are enlarged to 1/8 of the image's, since their places lie between the image's pixels. The
    truth is made smaller.

    backbone: resnet101 or vgg16, the paper's; or another of resnet18 to resnet152.
    """

    stride = 32
    aligned = True
    min_size = 8

    def __init__(self, num_classes: int, in_channels: int = 3, backbone: str = "resnet101") -> None:
        super().__init__(num_classes, in_channels)
        self.classifier = f"torchvision/{backbone}"
        if backbone == "vgg16":
            self.scales = {"scale1": 4}
            self.backbone: VGG16 | ResNet = VGG16(in_channels)
            self.backbone.apply(init_he_and_biases)
            self.aspp = nn.ModuleList([Branch(num_classes, rate) for rate in RATES])
        elif backbone in list_resnets():
            self.scales = SCALES
            depth = int(backbone.removeprefix("resnet"))
            self.backbone = ResNet(depth, in_channels, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), stride_first=True)
            self.aspp = nn.ModuleList([scoring(self.backbone.channels[-1], num_classes, 3, rate) for rate in RATES])
        else:
            raise ValueError(f'backbone (="{backbone}") must be vgg16 or one of {", ".join(list_resnets())}')

    def score(self, x: Tensor) -> Tensor:
        return maximum(list(self.score_scales(x).values()))  # K x 41 x 41

    def supervise(self, x: Tensor) -> dict[str, Tensor]:
        self.check_input(x)
        scores = self.score_scales(pad_to_multiple(x, self.stride, plus=1))
        main = maximum(list(scores.values()))
        if "scale075" in scores:
            scores["scale075"] = resize(scores["scale075"], main.shape[-2:], aligned=True)
        return {"main": main, **scores} if len(scores) > 1 else {"main": main}

    def score_scales(self, x: Tensor) -> dict[str, Tensor]:
        """The logits of each scale at 1/8 of its size: K x 41 x 41, K x 31 x 31 and K x 21 x 21."""
        scores = {}
        for name, quarters in self.scales.items():
            height, width = ((size - 1) * quarters // 4 + 1 for size in x.shape[-2:])
            features = self.backbone(resize(x, (height, width), aligned=True))[-1]  # 2048 x 41 x 41 or 512 x 41 x 41, and smaller
            scores[name] = torch.stack([branch(features) for branch in self.aspp]).sum(0)
        return scores

    def trunk(self) -> list[nn.Module]:
        return [self.backbone, *(layer for branch in self.branches() for layer in (branch.fc6, branch.fc7))]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """torchvision's weights of the backbone. Of VGG16 also fc6 and fc7, decimated as in v1, where the file has them."""
        self.backbone.load_classifier(weights)
        for branch in self.branches():
            load_decimated(branch.fc6, branch.fc7, weights)

    def branches(self) -> list["Branch"]:
        return [branch for branch in self.aspp if isinstance(branch, Branch)]


class Branch(nn.Module):
    """ASPP behind VGG16: fc6 with the dilation `rate`, fc7 and fc8. Dropout of one half behind the first two."""

    def __init__(self, num_classes: int, rate: int) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=rate, dilation=rate)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        self.dropout = nn.Dropout(0.5)
        self.apply(init_he_and_biases)
        self.fc8 = scoring(1024, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fc6 = self.dropout(F.relu(self.fc6(x)))  # 1024 x 41 x 41
        fc7 = self.dropout(F.relu(self.fc7(fc6)))  # 1024 x 41 x 41
        return self.fc8(fc7)  # K x 41 x 41


def maximum(scores: list[Tensor]) -> Tensor:
    """The greatest of several maps of logits, element by element, at the size of the first."""
    greatest = scores[0]
    for other in scores[1:]:
        greatest = torch.maximum(greatest, resize(other, greatest.shape[-2:], aligned=True))
    return greatest
