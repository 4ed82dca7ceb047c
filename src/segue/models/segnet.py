"""SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation.

V. Badrinarayanan, A. Kendall, R. Cipolla, PAMI 2017. https://arxiv.org/abs/1511.00561
Bayesian SegNet: A. Kendall, V. Badrinarayanan, R. Cipolla, BMVC 2017. https://arxiv.org/abs/1511.02680

The decoder puts each value back to where the encoder's pooling found its maximum, and convolutions make the sparse maps dense;
only the indices of the poolings cross over, no maps. SegNet mirrors the thirteen convolutions of VGG16: 29,449,355 parameters
with 11 classes. SegNet-Basic has four of 7x7 each way: 1,416,587. Bayesian SegNet drops half of the deep values, in prediction
too: the mean of the softmax over several passes gives the label, its variance the uncertainty.

Where the papers are silent this follows the authors' Caffe networks: poolings round up, so any size can be undone exactly; a
stage of the decoder goes to its lower width in the last convolution; the convolution to the classes stands bare, without batch
norm and ReLU; batch norm has eps 1e-9 and starts with the shift .001 (Bayesian: 0); convolutions start as He's (msra).

Decided: eps stays 1e-9. Over a constant map batch norm then multiplies by 31,623, but only the last bit of a mean: the logits of
constant images are finite. Gradients overflow where a whole batch is one constant image of at most 8 x 8 pixels with labels that
differ, and with torch's 1e-5 they do so too. An engine in float16, where 1e-9 is 0, must keep batch norm in float32.
SegNet-Basic's convolutions have a bias, as released; by the paper's text they have none (1,416,064).

Differs from the paper: batch norm keeps running statistics during training; the authors average them in one more pass over the
training set afterwards. Images were BGR of 0 to 255 without a mean taken off; torchvision's VGG16 wants RGB by ImageNet's mean
and std. To SegNet-Basic's first normalisation the scale matters: with images of 0 to 1 it does next to nothing, so divide by std
1/255 there. The authors' weight decay takes batch norm's scales along, not its shifts; the recipes decay neither. The model zoo's
Bayesian SegNet for CamVid is another network, with one more 3x3 to 64 maps before the classes. `width`, the
maps of the first stage, is ours; all others are in proportion.
"""

from torch import Tensor, nn

from segue.models.backbones import load_vgg16
from segue.models.base import SegmentationModel
from segue.models.layers import max_pool, max_unpool


class SegNet(SegmentationModel):
    """Fig. 2. Sizes are those of CamVid's images, 360 x 480."""

    classifier = "torchvision/vgg16"

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__(num_classes, in_channels)
        w = width
        self.encoder1 = stage(in_channels, w, w)
        self.encoder2 = stage(w, 2 * w, 2 * w)
        self.encoder3 = stage(2 * w, 4 * w, 4 * w, 4 * w)
        self.encoder4 = stage(4 * w, 8 * w, 8 * w, 8 * w)
        self.encoder5 = stage(8 * w, 8 * w, 8 * w, 8 * w)
        self.decoder5 = stage(8 * w, 8 * w, 8 * w, 8 * w)
        self.decoder4 = stage(8 * w, 8 * w, 8 * w, 4 * w)
        self.decoder3 = stage(4 * w, 4 * w, 4 * w, 2 * w)
        self.decoder2 = stage(2 * w, 2 * w, w)
        self.decoder1 = stage(w, w)
        self.classify = nn.Conv2d(w, num_classes, 3, padding=1)
        self.dropout: nn.Module = nn.Identity()
        self.apply(init_he)

    def score(self, x: Tensor) -> Tensor:
        x1 = self.encoder1(x)  # 64 x 360 x 480
        x, indices1 = pool(x1)
        x2 = self.encoder2(x)  # 128 x 180 x 240
        x, indices2 = pool(x2)
        x3 = self.encoder3(x)  # 256 x 90 x 120
        x, indices3 = pool(x3)
        x4 = self.encoder4(self.dropout(x))  # 512 x 45 x 60
        x, indices4 = pool(x4)
        x5 = self.encoder5(self.dropout(x))  # 512 x 23 x 30
        x, indices5 = pool(x5)  # 512 x 12 x 15
        x = self.decoder5(unpool(self.dropout(x), indices5, x5))  # 512 x 23 x 30
        x = self.decoder4(unpool(self.dropout(x), indices4, x4))  # 256 x 45 x 60
        x = self.decoder3(unpool(self.dropout(x), indices3, x3))  # 128 x 90 x 120
        x = self.decoder2(unpool(self.dropout(x), indices2, x2))  # 64 x 180 x 240
        x = self.decoder1(unpool(x, indices1, x1))  # 64 x 360 x 480
        return self.classify(x)  # K x 360 x 480

    def convolutions(self) -> list[nn.Conv2d]:
        """The thirteen of the encoder, which are VGG16's."""
        encoder = (self.encoder1, self.encoder2, self.encoder3, self.encoder4, self.encoder5)
        return [layer for stage in encoder for layer in stage if isinstance(layer, nn.Conv2d)]

    def trunk(self) -> list[nn.Module]:
        return [*self.convolutions()]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        load_vgg16(self.convolutions(), weights)


class BayesianSegNet(SegNet):
    """Section 3: half of the values dropped behind poolings 3, 4 and 5 and behind decoders 5, 4 and 3.

    A sample of the Monte Carlo prediction is a pass in which the nn.Dropout is in training mode and all else is not.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__(num_classes, in_channels, width)
        self.dropout = nn.Dropout(0.5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.zeros_(module.bias)


class SegNetBasic(SegmentationModel):
    """Section 3.1: four encoders and four decoders of one 7x7 convolution each, without ReLU in the decoders."""

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__(num_classes, in_channels)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)  # across channels, as Caffe's
        self.encoder1 = stage(in_channels, width, size=7)
        self.encoder2 = stage(width, width, size=7)
        self.encoder3 = stage(width, width, size=7)
        self.encoder4 = stage(width, width, size=7)
        self.decoder4 = linear_stage(width)
        self.decoder3 = linear_stage(width)
        self.decoder2 = linear_stage(width)
        self.decoder1 = linear_stage(width)
        self.classify = nn.Conv2d(width, num_classes, 1)
        self.apply(init_he)

    def score(self, x: Tensor) -> Tensor:
        x1 = self.encoder1(self.norm(x))  # 64 x 360 x 480
        x, indices1 = pool(x1)
        x2 = self.encoder2(x)  # 64 x 180 x 240
        x, indices2 = pool(x2)
        x3 = self.encoder3(x)  # 64 x 90 x 120
        x, indices3 = pool(x3)
        x4 = self.encoder4(x)  # 64 x 45 x 60
        x, indices4 = pool(x4)  # 64 x 23 x 30
        x = self.decoder4(unpool(x, indices4, x4))  # 64 x 45 x 60
        x = self.decoder3(unpool(x, indices3, x3))  # 64 x 90 x 120
        x = self.decoder2(unpool(x, indices2, x2))  # 64 x 180 x 240
        x = self.decoder1(unpool(x, indices1, x1))  # 64 x 360 x 480
        return self.classify(x)  # K x 360 x 480


def stage(in_channels: int, *widths: int, size: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU for each of the widths."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(in_channels, width, size, padding=size // 2), norm(width), nn.ReLU()]
        in_channels = width
    return nn.Sequential(*layers)


def linear_stage(width: int) -> nn.Sequential:
    """SegNet-Basic's decoder: convolution 7x7 and batch norm alone."""
    return nn.Sequential(nn.Conv2d(width, width, 7, padding=3), norm(width))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-9)


def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Halve the size, rounded up: the maxima of 2 x 2 pixels, and the places where they were."""
    return max_pool(x, ceil_mode=True)


def unpool(x: Tensor, indices: Tensor, encoded: Tensor) -> Tensor:
    """Each value at the place of its maximum in `encoded`, the map that was pooled; zeros elsewhere."""
    return max_unpool(x, indices, encoded.shape[-2:])


def init_he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.constant_(module.bias, 0.001)
