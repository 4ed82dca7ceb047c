"""RedNet: Residual Encoder-Decoder Network for indoor RGB-D Semantic Segmentation.

J. Jiang, L. Zheng, F. Luo, Z. Zhang, 2018. https://arxiv.org/abs/1806.01054

Two ResNets, one for colour and one for depth. After the first convolution and after each of the four stages the depth features
are added to those of colour, and the sum goes on in the colour branch and, through a 1x1 "agent", to the decoder, which is made
of residual blocks too. Four side outputs, at 1/16 to 1/2, are trained along with the last one (pyramid supervision).
81,970,233 parameters with 37 classes, of ResNet-50; the side outputs have 19,092 of them. As the paper says, a RedNet of
ResNet-34 (or 18), whose maps are narrow, has no agents and no skip from the first convolution.

Differs from the paper: heights and widths that are no multiple of 32 are padded by repeating the border. The released code draws
the new layers from a Gaussian with variance 2 / N; here they start by Xavier's rule, as the paper says. It squeezes images to
480 x 640; the recipe makes their shorter side 480 and crops.
"""

from torch import Tensor, nn

from segue.models.backbones import ResNet, list_resnets
from segue.models.base import SegmentationModel, pad_to_multiple
from segue.models.layers import conv_bn_relu


class RedNet(SegmentationModel):
    """Fig. 2 and Table 1. The last channel of the image is depth, the others are colour: in_channels = 4 is RGB-D.

    backbone: resnet50, or another ResNet.
    """

    stride = 32

    def __init__(self, num_classes: int, in_channels: int = 4, backbone: str = "resnet50") -> None:
        super().__init__(num_classes, in_channels)
        if in_channels < 2:
            raise ValueError(f"in_channels (={in_channels}) must be at least 2: the last is depth; RGB-D has 4")
        if backbone not in list_resnets():
            raise ValueError(f'backbone (="{backbone}") must be one of {", ".join(list_resnets())}')
        layers = int(backbone.removeprefix("resnet"))
        self.rgb = ResNet(layers, in_channels - 1)
        self.depth = ResNet(layers, 1)
        self.classifier = self.rgb.classifier
        self.has_agents = layers >= 50
        shapes = zip((64, *self.rgb.channels), (64, 64, 128, 256, 512), strict=True)
        self.agents = nn.ModuleList(
            conv_bn_relu(wide, narrow, 1) if self.has_agents else nn.Identity() for wide, narrow in shapes
        )
        self.trans1 = nn.Sequential(*[ResidualUnit(512) for _ in range(5)], UpsampleUnit(512, 256))
        self.trans2 = nn.Sequential(*[ResidualUnit(256) for _ in range(3)], UpsampleUnit(256, 128))
        self.trans3 = nn.Sequential(*[ResidualUnit(128) for _ in range(2)], UpsampleUnit(128, 64))
        self.trans4 = nn.Sequential(*[ResidualUnit(64) for _ in range(2)], UpsampleUnit(64, 64))
        self.trans5 = nn.Sequential(*[ResidualUnit(64) for _ in range(3)])
        self.final_conv = nn.ConvTranspose2d(64, num_classes, 2, stride=2)
        self.side_convs = nn.ModuleList(nn.Conv2d(channels, num_classes, 1) for channels in (256, 128, 64, 64))
        for name, child in self.named_children():
            if name not in ("rgb", "depth"):
                child.apply(init_xavier)

    def encode(self, x: Tensor) -> list[Tensor]:
        """The fused maps, at 1/2, 1/4, 1/8, 1/16 and 1/32; the depth branch goes on unfused."""
        rgb, depth = self.rgb.stem(x[:, :-1]), self.depth.stem(x[:, -1:])
        fused = [rgb + depth]  # 64 x H/2 x W/2
        rgb, depth = self.rgb.maxpool(fused[0]), self.depth.maxpool(depth)
        for rgb_stage, depth_stage in zip(stages(self.rgb), stages(self.depth), strict=True):
            depth = depth_stage(depth)
            rgb = rgb_stage(rgb) + depth
            fused.append(rgb)  # in ResNet-50: 256 x H/4 x W/4, 512 x 1/8, 1024 x 1/16, 2048 x 1/32
        return fused

    def decode(self, fused: list[Tensor]) -> list[Tensor]:
        """What Trans1 to Trans5 give; skips are added behind the places of the side outputs."""
        skip0, skip1, skip2, skip3, x = [agent(y) for agent, y in zip(self.agents, fused, strict=True)]  # x: 512 x H/32 x W/32
        trans1 = self.trans1(x)  # 256 x H/16 x W/16
        trans2 = self.trans2(trans1 + skip3)  # 128 x H/8 x W/8
        trans3 = self.trans3(trans2 + skip2)  # 64 x H/4 x W/4
        trans4 = self.trans4(trans3 + skip1)  # 64 x H/2 x W/2
        trans5 = self.trans5(trans4 + skip0 if self.has_agents else trans4)  # 64 x H/2 x W/2
        return [trans1, trans2, trans3, trans4, trans5]

    def score(self, x: Tensor) -> Tensor:
        return self.final_conv(self.decode(self.encode(x))[4])  # K x H x W

    def supervise(self, x: Tensor) -> dict[str, Tensor]:
        """Logits "main" of full size, and "out1" to "out4" at 1/16, 1/8, 1/4 and 1/2, sizes rounded up."""
        self.check_input(x)
        height, width = x.shape[-2:]
        *sides, last = self.decode(self.encode(pad_to_multiple(x, self.stride)))
        outputs = {"main": self.final_conv(last)[..., :height, :width]}
        for number, (conv, side) in enumerate(zip(self.side_convs, sides, strict=True), 1):
            scale = 32 >> number
            outputs[f"out{number}"] = conv(side)[..., : -(-height // scale), : -(-width // scale)]
        return outputs

    def trunk(self) -> list[nn.Module]:
        return [self.rgb, self.depth]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """One classifier for both branches; the first kernels of depth are the mean over RGB."""
        self.rgb.load_classifier(weights)
        self.depth.load_classifier({**weights, "conv1.weight": weights["conv1.weight"].mean(1, keepdim=True)})


def stages(resnet: ResNet) -> tuple[nn.Module, ...]:
    return resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn_relu(channels, channels), nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.residual(x)).relu()


class UpsampleUnit(nn.Module):
    """Fig. 3c: the second 3x3 convolution is transposed with stride 2, and the shortcut is a transposed 2x2 one."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn_relu(in_channels, in_channels),
            nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Sequential(
            nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.shortcut(x) + self.residual(x)).relu()


def init_xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
