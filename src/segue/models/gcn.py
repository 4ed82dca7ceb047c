"""Large Kernel Matters: Improve Semantic Segmentation by Global Convolutional Network.

C. Peng, X. Zhang, G. Yu, G. Luo, J. Sun, CVPR 2017. https://arxiv.org/abs/1703.02719

To classify, a pixel's score should see the whole object; to localise, nothing may be pooled away. So each of a ResNet's four
maps is scored by a global convolution, k x k wide at the price of a few lines (GCN), a residual block corrects the scores along
boundaries (BR), and scores are doubled in size and summed, coarse to fine. 60,688,084 parameters with 21 classes, of ResNet-152
and k = 15, nearly the whole of the deepest map of a 512 x 512 image (16 x 16); 59,369,620 with k = 7.

Differs from the paper:
- Its "deconvolution", of which it gives neither kernel nor start, is bilinear interpolation here: FCN's fixed transposed
  convolution of stride 2, but with the border repeated where that mixes in zeros. A fixed kernel has no parameters; learned ones
  of 4x4, K to K maps, would add 5 * 16 K^2, 35,280 in all. The authors published no code. Two old ports interpolate with aligned
  corners, as torch's upsample_bilinear did in their day; that is no deconvolution of stride 2, so it is not followed. All layers
  are the ports': with their interpolation the logits are theirs to the bit; with the one here they differ by a third of the
  largest logit, for random weights.
- It gives no initialisation of the new layers: they start as PyTorch's convolutions do.
- Heights and widths that are no multiple of 32 are padded by repeating the border.
"""

from torch import Tensor, nn

from segue.models.backbones import create_backbone
from segue.models.base import SegmentationModel, resize


class GCN(SegmentationModel):
    """Fig. 2. Every map of the decoder has one channel for each class.

    k: odd, of the global convolutions. backbone: any that segue.models.backbones.create_backbone knows.
    """

    stride = 32

    def __init__(self, num_classes: int, in_channels: int = 3, k: int = 15, backbone: str = "resnet152") -> None:
        super().__init__(num_classes, in_channels)
        if k < 1 or k % 2 == 0:
            raise ValueError(
                f"k (={k}) must be odd, such as 15 or 7: an even kernel has no middle, and the maps would change size"
            )
        self.backbone = create_backbone(backbone, in_channels)
        self.classifier = self.backbone.classifier
        c2, c3, c4, c5 = self.backbone.channels
        self.gcn2 = GlobalConvolution(c2, num_classes, k)
        self.gcn3 = GlobalConvolution(c3, num_classes, k)
        self.gcn4 = GlobalConvolution(c4, num_classes, k)
        self.gcn5 = GlobalConvolution(c5, num_classes, k)
        self.br2 = BoundaryRefinement(num_classes)
        self.br3 = BoundaryRefinement(num_classes)
        self.br4 = BoundaryRefinement(num_classes)
        self.br5 = BoundaryRefinement(num_classes)
        self.refine4 = BoundaryRefinement(num_classes)
        self.refine3 = BoundaryRefinement(num_classes)
        self.refine2 = BoundaryRefinement(num_classes)
        self.refine1 = BoundaryRefinement(num_classes)
        self.refine0 = BoundaryRefinement(num_classes)

    def score(self, x: Tensor) -> Tensor:
        c2, c3, c4, c5 = self.backbone(x)  # in ResNet-152: 256 x H/4 x W/4, 512 x 1/8, 1024 x 1/16, 2048 x 1/32
        s5 = self.br5(self.gcn5(c5))  # K x H/32 x W/32
        s4 = self.refine4(double(s5) + self.br4(self.gcn4(c4)))  # K x H/16 x W/16
        s3 = self.refine3(double(s4) + self.br3(self.gcn3(c3)))  # K x H/8 x W/8
        s2 = self.refine2(double(s3) + self.br2(self.gcn2(c2)))  # K x H/4 x W/4
        s1 = self.refine1(double(s2))  # K x H/2 x W/2
        return self.refine0(double(s1))  # K x H x W

    def trunk(self) -> list[nn.Module]:
        return [self.backbone]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        self.backbone.load_classifier(weights)


class GlobalConvolution(nn.Module):
    """Fig. 2B: k x 1 then 1 x k, and 1 x k then k x 1, summed; nothing between them, so together one k x k kernel."""

    def __init__(self, in_channels: int, out_channels: int, k: int) -> None:
        super().__init__()
        tall, wide = (k // 2, 0), (0, k // 2)
        self.left = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, (k, 1), padding=tall),
            nn.Conv2d(out_channels, out_channels, (1, k), padding=wide),
        )
        self.right = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, (1, k), padding=wide),
            nn.Conv2d(out_channels, out_channels, (k, 1), padding=tall),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


class BoundaryRefinement(nn.Module):
    """Fig. 2C: S + R(S), with R two 3x3 convolutions and a ReLU between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x).relu())


def double(x: Tensor) -> Tensor:
    """Twice the height and width, by bilinear interpolation."""
    return resize(x, (2 * x.shape[-2], 2 * x.shape[-1]))
