"""Learning Deconvolution Network for Semantic Segmentation.

H. Noh, S. Hong, B. Han, ICCV 2015. https://arxiv.org/abs/1505.04366

VGG16 down to a single vector and its mirror image up again: unpooling puts each value back where the encoder found its maximum,
and transposed convolutions ("deconvolutions") fill in what lies between. The network sees a window of 224 x 224 pixels at a time,
an object proposal in the paper, so that objects of all sizes are seen whole. 251,805,653 parameters with 21 classes.

Decisions, as the authors' Caffe code has them: every convolution and transposed convolution has a bias although batch norm
follows, batch norm has eps 1e-9 and a shift that starts at .001, no dropout.

Differs from the paper:
- In place of the paper's 50 object proposals, each resized to 224 x 224, a regular grid of windows covers the image at its own
  scale, with half overlap; the last ones end at the border. The scores of a pixel are the maxima over its windows, as in the
  paper, and in training too. An image of 224 x 224 is one window, which is how the paper trains. A smaller one is continued to
  that size by its border.
- The authors paste score maps on zeros, so no maximum of theirs is negative; here only windows count that hold the pixel.
- Batch norm keeps a running average for evaluation; the authors average over 500 batches after training. Their weight decay
  takes its scales and shifts along, the recipes' does not. They crop windows of 224 pixels at random from 250.
- Without VGG16's weights the encoder starts from He's normal distribution.
"""

from functools import reduce
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.backbones import load_layer, load_vgg16
from segue.models.base import SegmentationModel
from segue.models.layers import max_pool, max_unpool

WINDOW = 224  # pixels; five poolings leave 7 x 7, and fc6 a single vector
STEP = WINDOW // 2  # between two windows


class DeconvNet(SegmentationModel):
    """Fig. 2. All windows of a batch go through the network together.

    fc6 and fc7 have one value in each map of a window. In training batch norm therefore needs two windows at least (torch raises
    ValueError), and makes 1 and -1 of two whatever they show: train on four and more; the paper has 64.

    width: maps of the first stage; all others in proportion. 64 is the paper's, and the one that ImageNet weights fit.
    """

    classifier = "torchvision/vgg16"

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__(num_classes, in_channels)
        if width < 1:
            raise ValueError(f"width (={width}) must be at least 1; 64 is the paper's")
        self.conv1 = stage(in_channels, (width, width))
        self.conv2 = stage(width, (2 * width, 2 * width))
        self.conv3 = stage(2 * width, (4 * width, 4 * width, 4 * width))
        self.conv4 = stage(4 * width, (8 * width, 8 * width, 8 * width))
        self.conv5 = stage(8 * width, (8 * width, 8 * width, 8 * width))
        self.fc6 = bn_relu(nn.Conv2d(8 * width, 64 * width, 7))
        self.fc7 = bn_relu(nn.Conv2d(64 * width, 64 * width, 1))
        self.fc6_deconv = bn_relu(nn.ConvTranspose2d(64 * width, 8 * width, 7))
        self.deconv5 = deconv_stage(8 * width, (8 * width, 8 * width, 8 * width))
        self.deconv4 = deconv_stage(8 * width, (8 * width, 8 * width, 4 * width))
        self.deconv3 = deconv_stage(4 * width, (4 * width, 4 * width, 2 * width))
        self.deconv2 = deconv_stage(2 * width, (2 * width, width))
        self.deconv1 = deconv_stage(width, (width, width))
        self.seg_score = nn.Conv2d(width, num_classes, 1)
        self.apply(init)
        nn.init.normal_(self.seg_score.weight, std=0.01)

    def score(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        below, right = torch.sym_max(WINDOW - height, 0), torch.sym_max(WINDOW - width, 0)
        x = F.pad(x, (0, right, 0, below), mode="replicate")  # type: ignore[arg-type]
        tops, lefts = window_starts(x.shape[-2]).to(x.device), window_starts(x.shape[-1]).to(x.device)
        windows = cut(cut(x, lefts, dim=3), tops, dim=2)  # N x C x rows x 224 x columns x 224
        windows = windows.permute(2, 4, 0, 1, 3, 5)
        scores = torch.unflatten(self.network(windows.flatten(0, 2)), 0, windows.shape[:3])  # rows x columns x N x K x 224 x 224
        scores = merge(scores.permute(2, 3, 0, 4, 1, 5), lefts, x.shape[-1], dim=4)  # N x K x rows x 224 x W
        return merge(scores, tops, x.shape[-2], dim=2)[..., :height, :width]

    def network(self, x: Tensor) -> Tensor:
        """Fig. 2: windows (N, in_channels, 224, 224) to logits (N, num_classes, 224, 224)."""
        x, indices1 = max_pool(self.conv1(x))  # 64 x 112 x 112
        x, indices2 = max_pool(self.conv2(x))  # 128 x 56 x 56
        x, indices3 = max_pool(self.conv3(x))  # 256 x 28 x 28
        x, indices4 = max_pool(self.conv4(x))  # 512 x 14 x 14
        x, indices5 = max_pool(self.conv5(x))  # 512 x 7 x 7
        x = self.fc7(self.fc6(x))  # 4096 x 1 x 1
        x = self.fc6_deconv(x)  # 512 x 7 x 7
        x = self.deconv5(unpool(x, indices5))  # 512 x 14 x 14
        x = self.deconv4(unpool(x, indices4))  # 256 x 28 x 28
        x = self.deconv3(unpool(x, indices3))  # 128 x 56 x 56
        x = self.deconv2(unpool(x, indices2))  # 64 x 112 x 112
        x = self.deconv1(unpool(x, indices1))  # 64 x 224 x 224
        return self.seg_score(x)  # K x 224 x 224

    def trunk(self) -> list[nn.Module]:
        return [self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.fc6, self.fc7]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """torchvision's VGG16; its first two fully connected layers become fc6 and fc7, the third is left out."""
        *convs, fc6, fc7, _ = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        load_vgg16(convs, weights)
        load_layer(fc6, weights, "classifier.0")
        load_layer(fc7, weights, "classifier.3")


def stage(in_channels: int, maps: tuple[int, ...]) -> nn.Sequential:
    """3x3 convolutions to `maps`."""
    return nn.Sequential(*[bn_relu(nn.Conv2d(*io, 3, padding=1)) for io in pairwise((in_channels, *maps))])


def deconv_stage(in_channels: int, maps: tuple[int, ...]) -> nn.Sequential:
    """3x3 transposed convolutions to `maps`, of the same size as their input."""
    return nn.Sequential(*[bn_relu(nn.ConvTranspose2d(*io, 3, padding=1)) for io in pairwise((in_channels, *maps))])


def bn_relu(conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels, eps=1e-9), nn.ReLU())


def unpool(x: Tensor, indices: Tensor) -> Tensor:
    """Twice the size: each value where its maximum was."""
    return max_unpool(x, indices, (2 * x.shape[-2], 2 * x.shape[-1]))


def window_starts(size: int) -> Tensor:
    """Where windows begin along `size` pixels: every half window, and the last one so that it ends at the border."""
    return (torch.arange((size - 1) // STEP) * STEP).clamp(max=size - WINDOW)


def cut(x: Tensor, starts: Tensor, dim: int) -> Tensor:
    """The windows that begin at `starts` along `dim`, which becomes two: their number, and 224."""
    places = starts[:, None] + torch.arange(WINDOW, device=x.device)
    return torch.unflatten(x.index_select(dim, places.flatten()), dim, (-1, WINDOW))


def merge(maps: Tensor, starts: Tensor, size: int, dim: int) -> Tensor:
    """Undo `cut`: score maps of windows laid out along `size` pixels; where several overlap, their maxima."""
    pixels, last = torch.arange(size, device=maps.device), starts.shape[0] - 1
    second = pixels // STEP  # of the two windows of a regular grid that see a pixel
    third = torch.where(pixels < starts[-1], second, last)
    found = []
    for window in (second - 1, second, third):
        window = window.clamp(0, last)
        found.append(maps.flatten(dim, dim + 1).index_select(dim, window * WINDOW + pixels - starts[window]))
    return reduce(torch.maximum, found)


def init(module: nn.Module) -> None:
    """The authors' Gaussian of deviation .01 for transposed convolutions, He's for the encoder; batch norm shifts by .001."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.01)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.constant_(module.bias, 0.001)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
