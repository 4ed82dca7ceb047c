"""Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation.

L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff, H. Adam, ECCV 2018. https://arxiv.org/abs/1802.02611

DeepLab v3 without its classifying layer is the encoder; a small decoder enlarges its map to 1/4, joins an early map of the
trunk, reduced to 48 maps, refines both together by two 3x3 convolutions and classifies. Parameters with 21 classes: 59,344,309
with ResNet-101 and plain convolutions; 41,055,413 with Xception-65, where ASPP and decoder have separable convolutions.

As the authors' TensorFlow code has it: the encoder's map comes first in the concatenation; a separable convolution has batch
norm and ReLU behind both of its parts; Xception's early map is the second separable convolution of its second module, before
the ReLU; no dropout in the decoder; interpolations align the corners, and crops have 16k + 1 pixels a side, such as 513.

Decisions: images of other sizes are padded to 16k + 1 (8k + 1 at output stride 8) by repeating the border. ResNet's early map
is the last of its first stage before the striding, as the paper says (section 4.1); the authors' code takes the last
convolution of that stage's second block, before the sum. Of ResNets the last stage has v3's multi-grid (1, 2, 4); Xception has
none, as in the paper.

Differs from the paper: what deeplabv3.py names, the place of ResNet's strides and the momentum of batch norm. The recipes' decay
of 1e-4 is that of ResNet-101; with Xception the authors take 4e-5, and none for depthwise kernels.
"""

import torch
from torch import Tensor, nn

from segue.models.backbones import create_backbone
from segue.models.base import SegmentationModel, resize
from segue.models.deeplabv3 import ASPP, RATES, check_output_stride, scoring
from segue.models.layers import conv_bn_relu


class DeepLabV3Plus(SegmentationModel):
    """Fig. 2. Sizes in the comments are those of a 513 x 513 image at output stride 16.

    Training needs two images a batch: batch norm follows the pooled image, which is one value a map.

    backbone: resnet101 or xception65, the paper's, or any other of `create_backbone`. output_stride: 16 or 8.
    """

    aligned = True

    def __init__(self, num_classes: int, in_channels: int = 3, backbone: str = "resnet101", output_stride: int = 16) -> None:
        super().__init__(num_classes, in_channels)
        check_output_stride(output_stride)
        self.stride = self.min_size = output_stride
        self.backbone = create_backbone(backbone, in_channels, output_stride, multi_grid=(1, 2, 4))
        self.classifier = self.backbone.classifier
        conv3x3 = separable_conv if backbone == "xception65" else conv_bn_relu
        self.aspp = ASPP(self.backbone.channels[-1], RATES[output_stride], conv3x3)
        self.low_level = conv_bn_relu(self.backbone.channels[0], 48, 1)
        self.decoder = nn.Sequential(conv3x3(256 + 48, 256), conv3x3(256, 256))
        self.logits = scoring(256, num_classes)

    def score(self, x: Tensor) -> Tensor:
        early, _, _, last = self.backbone(x)  # 256 x 129 x 129, 2048 x 33 x 33
        encoded = resize(self.aspp(last), early.shape[-2:], aligned=True)  # 256 x 129 x 129
        fused = torch.cat([encoded, self.low_level(early)], dim=1)  # 304 x 129 x 129
        return self.logits(self.decoder(fused))  # K x 129 x 129

    def trunk(self) -> list[nn.Module]:
        return [self.backbone]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """The backbone's weights, of torchvision or timm."""
        self.backbone.load_classifier(weights)


def separable_conv(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """3x3 of every map by itself, then 1x1 over all maps; batch norm and ReLU behind both."""
    depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False)
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    nn.init.trunc_normal_(depthwise.weight, std=0.33, a=-0.66, b=0.66)
    nn.init.trunc_normal_(pointwise.weight, std=0.06, a=-0.12, b=0.12)
    return nn.Sequential(depthwise, nn.BatchNorm2d(in_channels), nn.ReLU(), pointwise, nn.BatchNorm2d(out_channels), nn.ReLU())
