"""Rethinking Atrous Convolution for Semantic Image Segmentation.

L.-C. Chen, G. Papandreou, F. Schroff, H. Adam, 2017. https://arxiv.org/abs/1706.05587

ResNet-101 keeps its last map at 1/16 or 1/8 by dilation in place of stride, and the three blocks of its last stage have that
dilation times 1, 2 and 4 (multi-grid). Atrous spatial pyramid pooling gets batch norm, a 1x1 and the pooled image as further
branches; its branches are concatenated and projected to 256 maps, which are classified and enlarged. The output stride changes
no weight: a network trained at 16 may be used at 8. 58,040,661 parameters with 21 classes.

As the authors' TensorFlow code has it: no further 3x3 between the projection and the classes, as many ports have it; dropout of
.1 there; interpolations align the corners, and crops have 16k + 1 pixels a side, such as 513, so that corners stay on corners.

Decision: images of other sizes are padded to 16k + 1 (8k + 1 at output stride 8) by repeating the border.

Differs from the paper: a stage's stride is in its first block, as in torchvision's ResNet, whose weights it takes; the authors'
ResNets have it in the block before, the last of the earlier stage. Batch norms average with torch's momentum of .1; the paper's
decay of .9997 is for runs of 30,000 steps, and leaves shorter ones with statistics from their start. Convolutions of the head
that have a batch norm behind them start as torch's do.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segue.models.backbones import create_backbone
from segue.models.base import SegmentationModel
from segue.models.layers import conv_bn_relu

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}  # of ASPP, by output stride (section 3.3)


class DeepLabV3(SegmentationModel):
    """Section 3. Sizes in the comments are those of a 513 x 513 image at output stride 16.

    Training needs two images a batch: batch norm follows the pooled image, which is one value a map.

    backbone: resnet101, the paper's, or any other of `create_backbone`. output_stride: 16 or 8.
    """

    aligned = True

    def __init__(self, num_classes: int, in_channels: int = 3, backbone: str = "resnet101", output_stride: int = 16) -> None:
        super().__init__(num_classes, in_channels)
        check_output_stride(output_stride)
        self.stride = self.min_size = output_stride
        self.backbone = create_backbone(backbone, in_channels, output_stride, multi_grid=(1, 2, 4))
        self.classifier = self.backbone.classifier
        self.aspp = ASPP(self.backbone.channels[-1], RATES[output_stride])
        self.logits = scoring(256, num_classes)

    def score(self, x: Tensor) -> Tensor:
        features = self.backbone(x)[-1]  # 2048 x 33 x 33
        return self.logits(self.aspp(features))  # K x 33 x 33

    def trunk(self) -> list[nn.Module]:
        return [self.backbone]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """The backbone's weights, of torchvision or timm."""
        self.backbone.load_classifier(weights)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling, Fig. 5: 1x1, three 3x3 with dilation, and the pooled image; projected, with dropout of .1.

    conv3x3: makes an atrous branch of (in_channels, out_channels, dilation=...).
    """

    def __init__(self, in_channels: int, rates: Sequence[int], conv3x3: Callable[..., nn.Module] = conv_bn_relu) -> None:
        super().__init__()
        self.conv1x1 = conv_bn_relu(in_channels, 256, 1)
        self.atrous = nn.ModuleList([conv3x3(in_channels, 256, dilation=rate) for rate in rates])
        self.image_pooling = conv_bn_relu(in_channels, 256, 1)
        self.project = conv_bn_relu(5 * 256, 256, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.image_pooling(x.mean((2, 3), keepdim=True))  # 256 x 1 x 1
        branches = [self.conv1x1(x), *(conv(x) for conv in self.atrous), pooled.expand(-1, -1, *x.shape[-2:])]
        return self.dropout(self.project(torch.cat(branches, dim=1)))  # 256 x 33 x 33


def scoring(in_channels: int, num_classes: int) -> nn.Conv2d:
    """1x1 convolution to the classes: truncated Gaussian of .01, biases 0."""
    layer = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def check_output_stride(output_stride: int) -> None:
    if output_stride not in RATES:
        raise ValueError(f"output_stride (={output_stride}) must be 16 or 8")
