"""ImageNet trunks as feature lists, and the weights of the classifiers that they come from. The only file that imports timm."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

RESNET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
VGG16_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # their places in torchvision's `features`


class Backbone(nn.Module):
    """Images (N, C, H, W) to four maps, at 1/4, 1/8, 1/16 and 1/32 unless strides are traded for dilation."""

    channels: tuple[int, ...]  # of the four maps
    classifier = ""  # where its ImageNet weights are: torchvision/NAME or timm/NAME

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of the classifier that this trunk was cut from; its last layers are left out."""
        load_trunk(self, weights, self.classifier)


class ResNet(Backbone):
    """Deep Residual Learning for Image Recognition (He et al., CVPR 2016), Table 1; weights are named as torchvision's.

    strides, dilations: of the four stages; every 3x3 of a stage has the stage's dilation, in the last stage times `multi_grid`.
    deep_stem: three 3x3 convolutions of 64, 64 and 128 maps in place of the 7x7 ("v1c").
    stride_first: a stage's stride is in its first 1x1, as in the first release, and not in the 3x3.
    slope: of the leaky ReLU in the stem and inside the blocks; 0 is ReLU. Behind each sum stands ReLU.
    """

    def __init__(
        self, depth: int, in_channels: int = 3, strides: Sequence[int] = (1, 2, 2, 2), dilations: Sequence[int] = (1, 1, 1, 1),
        multi_grid: Sequence[int] = (1, 1, 1), deep_stem: bool = False, stride_first: bool = False, slope: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.classifier = f"torchvision/resnet{depth}"
        if deep_stem:
            self.classifier = f"timm/resnet{depth}s.gluon_in1k" if depth >= 50 else ""
        self.block = BasicBlock if depth < 50 else Bottleneck
        self.width = 64  # of what enters the next block
        self.stride_first, self.slope = stride_first, slope
        if deep_stem:
            self.conv1: nn.Module = nn.Sequential(
                nn.Conv2d(in_channels, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.LeakyReLU(slope) if slope else nn.ReLU(),
                nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.LeakyReLU(slope) if slope else nn.ReLU(),
                nn.Conv2d(64, 128, 3, 1, 1, bias=False),
            )  # fmt: skip
            self.width = 128
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.width)
        self.act = nn.LeakyReLU(slope) if slope else nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        widths, blocks = (64, 128, 256, 512), RESNET_BLOCKS[depth]
        grids = ((1,), (1,), (1,), tuple(multi_grid))
        stages = zip(widths, blocks, strides, dilations, grids, strict=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = (self.stage(*stage) for stage in stages)
        self.channels = tuple(width * self.block.expansion for width in widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        own = self.state_dict()
        deeper = [name for name in weights if name.startswith("layer") and name not in own]
        if deeper:
            raise ValueError(f"the weights are of a deeper ResNet: {deeper[0]} has no place here; take {self.classifier}")
        super().load_classifier(weights)

    def stage(self, width: int, blocks: int, stride: int, dilation: int, grid: tuple[int, ...]) -> nn.Sequential:
        layers = []
        for number in range(blocks):
            rate = dilation * grid[number % len(grid)]
            layers.append(self.block(self.width, width, stride if number == 0 else 1, rate, self.stride_first, self.slope))
            self.width = width * self.block.expansion
        return nn.Sequential(*layers)

    def stem(self, x: Tensor) -> Tensor:
        return self.act(self.bn1(self.conv1(x)))  # 64 x H/2 x W/2

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.stem(x))  # 64 x H/4 x W/4
        c2 = self.layer1(x)  # 256 x H/4 x W/4, in a ResNet of bottlenecks
        c3 = self.layer2(c2)  # 512 x H/8 x W/8
        c4 = self.layer3(c3)  # 1024 x H/16 x W/16
        c5 = self.layer4(c4)  # 2048 x H/32 x W/32
        return [c2, c3, c4, c5]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, stride_first: bool, slope: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act = nn.LeakyReLU(slope) if slope else nn.ReLU()
        self.downsample = shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1 to a quarter of the maps, 3x3, and 1x1 back, beside the identity."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, stride_first: bool, slope: float) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.act = nn.LeakyReLU(slope) if slope else nn.ReLU()
        self.downsample = shortcut(in_channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        y = self.act(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + self.downsample(x))


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """The identity, or a 1x1 projection where sizes or widths differ."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class TimmTrunk(Backbone):
    """The last four maps of any feature network of timm."""

    features: Any

    def __init__(self, name: str, in_channels: int, output_stride: int) -> None:
        import timm

        super().__init__()
        self.classifier = f"timm/{name}"
        strides: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
        try:
            self.features = timm.create_model(name, features_only=True, in_chans=in_channels, **strides)
        except (RuntimeError, NotImplementedError, TypeError, AssertionError, AttributeError) as error:
            raise ValueError(
                f'backbone (="{name}") cannot be a trunk with output stride {output_stride} ({error}); '
                f"take {', '.join(list_resnets())} or a feature network of timm: timm.list_models()"
            ) from None
        self.channels = tuple(self.features.feature_info.channels()[-4:])
        self.check_sizes(name, in_channels, output_stride)

    def check_sizes(self, name: str, in_channels: int, output_stride: int) -> None:
        """ValueError unless an image of 64 x 96 becomes four maps (C, h, w), at 1/4 to 1/32 but for strides that were cut."""
        expected = [(channels, 64 // s, 96 // s) for channels, s in zip(self.channels, (4, 8, 16, 32), strict=False)]
        expected = [(c, max(h, 64 // output_stride), max(w, 96 // output_stride)) for c, h, w in expected]
        try:
            with torch.no_grad():
                shapes = [tuple(m.shape[1:]) for m in self.eval().forward(torch.zeros(1, in_channels, 64, 96))]
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ValueError(f'backbone (="{name}") does not take images of any size: {error}') from None
        self.train()
        if shapes != expected or len(shapes) < 4:
            raise ValueError(
                f'backbone (="{name}") makes maps of {shapes} from 64 x 96 pixels, and {expected} are needed; '
                f"take another, such as {', '.join(list_resnets())}"
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.features(x)
        return maps[-4:]

    def load_classifier(self, weights: dict[str, Tensor]) -> None:
        """timm's weights by their names, or a port's, where all shapes of the whole classifier are the same in the same order."""
        import timm

        whole = timm.create_model(self.classifier.partition("/")[2]).state_dict()
        if [tensor.shape for tensor in whole.values()] == [tensor.shape for tensor in weights.values()]:
            weights = dict(zip(whole, weights.values(), strict=True))
        load_trunk(self.features, weights, self.classifier)


def list_resnets() -> list[str]:
    return [f"resnet{depth}" for depth in RESNET_BLOCKS]


def create_backbone(name: str, in_channels: int = 3, output_stride: int = 32, multi_grid: Sequence[int] = (1, 1, 1)) -> Backbone:
    """The trunk of that name: resnet18 to resnet152, resnet101_v1c (deep stem) and the like, or any feature network of timm.

    output_stride: 8, 16 or 32, of the last map; where it is not 32, the last stages have dilation in place of stride.
    multi_grid: factors of the dilations in the last stage of a ResNet, block by block.
    """
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride (={output_stride}) must be 8, 16 or 32")
    if name == "xception65":
        return Xception65(in_channels, output_stride)
    match = re.fullmatch(r"resnet(18|34|50|101|152)(_v1c)?", name)
    if match is None:
        return TimmTrunk(name, in_channels, output_stride)
    strides = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1), 32: (1, 2, 2, 2)}[output_stride]
    dilations = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}[output_stride]
    trunk = ResNet(int(match[1]), in_channels, strides, dilations, multi_grid, deep_stem=bool(match[2]))
    if output_stride == 8:  # where a stride was lost the 3x3 samples as before: every second place equals output stride 16
        block: Any = trunk.layer3[0]
        conv = block.conv1 if isinstance(block, BasicBlock) else block.conv2
        conv.dilation = conv.padding = (1, 1)
    return trunk


def classifier_weights(source: str) -> dict[str, Tensor]:
    """ImageNet weights by their names: of a file (.safetensors, .pth), or downloaded, as torchvision/NAME or timm/NAME."""
    path = Path(source)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.is_file():
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        return state.get("state_dict", state)
    library, _, name = source.partition("/")
    try:
        if library == "torchvision":
            import torchvision

            weights = torchvision.models.get_model_weights(name).DEFAULT
            return dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
        if library == "timm":
            import timm

            return dict(timm.create_model(name, pretrained=True).state_dict())
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the weights {source} cannot be downloaded ({error}); fetch the file elsewhere and name it: --classifier FILE, "
            'or start from random weights: --classifier ""'
        ) from None
    raise ValueError(f'classifier (="{source}") is no file; name a .pth or .safetensors file, or say imagenet')


def load_trunk(trunk: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy a classifier's weights into the trunk that has their names; what the trunk does not have is left out.

    The first kernels are adapted to the trunk's channels. timm's feature networks write a dot of a name as an underscore, which
    makes no difference. ValueError, before anything is changed, if a weight is missing or of another shape.
    """
    flat = {name.replace(".", "_"): tensor for name, tensor in weights.items()}
    found = {}
    for name, own in trunk.state_dict().items():
        tensor = flat.get(name.replace(".", "_"))
        if tensor is None:
            if name.endswith("num_batches_tracked"):
                continue
            raise ValueError(f"the weights have no {name}, which this trunk needs; it takes those of {source or 'its own kind'}")
        found[name] = fit_kernel(tensor, own, name)
    trunk.load_state_dict({**trunk.state_dict(), **found})


def load_vgg16(convs: Sequence[nn.Conv2d], weights: dict[str, Tensor]) -> None:
    """Copy torchvision's VGG16 into the thirteen convolutions of a trunk, first to last."""
    for conv, place in zip(convs, VGG16_CONVS, strict=True):
        load_layer(conv, weights, f"features.{place}")


def load_layer(layer: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Copy NAME.weight, and NAME.bias where the layer has one; fully connected weights are reshaped to a convolution's kernel."""
    for kind, own in layer.named_parameters():
        if f"{name}.{kind}" not in weights:
            raise ValueError(f"the weights have no {name}.{kind}; take those of the whole classifier")
        tensor = weights[f"{name}.{kind}"]
        if tensor.ndim == 2:
            tensor = tensor.reshape(own.shape) if tensor.numel() == own.numel() else tensor
        own.data.copy_(fit_kernel(tensor, own, f"{name}.{kind}"))


def fit_kernel(tensor: Tensor, own: Tensor, name: str) -> Tensor:
    """The tensor in the shape of `own`: kernels over RGB adapted to other channels; ValueError if anything else differs."""
    if tensor.ndim == 4 and tensor.shape[1] == 3 and own.shape == (tensor.shape[0], own.shape[1], *tensor.shape[2:]):
        tensor = adapt_channels(tensor, own.shape[1])
    if tensor.shape != own.shape:
        raise ValueError(f"the weights' {name} is {tuple(tensor.shape)}, and this trunk's is {tuple(own.shape)}")
    return tensor


def adapt_channels(kernels: Tensor, in_channels: int) -> Tensor:
    """First kernels (O, 3, k, k) for another number of channels: (O, in_channels, k, k).

    More channels: those of RGB, and their mean for each further one. Fewer: their sum in equal parts, so that a grey image gives
    what it gives as RGB.
    """
    if in_channels < 3:
        return kernels.sum(1, keepdim=True).repeat(1, in_channels, 1, 1) / in_channels
    return torch.cat([kernels, kernels.mean(1, keepdim=True).repeat(1, in_channels - 3, 1, 1)], dim=1)


class Xception65(Backbone):
    """The Xception of DeepLab v3+ (Chen et al., ECCV 2018), Fig. 4; the layers are timm's, and so are the names of the weights.

    The first three maps are taken inside the modules that halve the size: what the second of their three separable convolutions
    gives, before its ReLU, as the authors' decoder does (timm's own features are taken behind the ReLU).
    """

    channels = (256, 728, 1024, 2048)
    classifier = "timm/xception65"

    def __init__(self, in_channels: int = 3, output_stride: int = 32) -> None:
        import timm

        super().__init__()
        network = timm.create_model("xception65", in_chans=in_channels, output_stride=output_stride)
        self.stem: Any = network.stem
        self.blocks: Any = network.blocks

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)  # 64 x H/2 x W/2
        maps = []
        for number, block in enumerate(self.blocks):
            if number in (1, 2, 19):
                inner = block.stack.conv2(torch.relu(block.stack.conv1(torch.relu(x))))
                maps.append(inner)  # 256 x H/4 x W/4; 728 x H/8 x W/8; 1024 x H/16 x W/16
                x = block.stack.conv3(torch.relu(inner)) + block.shortcut(x)
            else:
                x = block(x)
        return [*maps, x]  # 2048 x H/32 x W/32


def load_classifier(network: Any, classifier: str) -> None:
    """Give the network the weights of an ImageNet classifier: imagenet, or a file."""
    if not hasattr(network, "load_classifier"):
        raise ValueError(f"{type(network).__name__} has no load_classifier(weights); load them yourself, and take no classifier")
    source = getattr(network, "classifier", "") if classifier == "imagenet" else classifier
    if not source:
        raise ValueError(f'classifier (="{classifier}"): no library has weights for this {type(network).__name__}; name a file')
    network.load_classifier(classifier_weights(source))
