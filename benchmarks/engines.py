"""From image to label map.

A uint8 image to its uint8 label map, by six networks of three packages, in eager torch and in segue's engines. The first side
of each case is the network as its package makes it, in eager torch, in the way of the package's own examples but for the
softmax, which a label map does not need: the image made a tensor and normalised in float32, the network, its upsampling,
argmax. The other sides run the very same module, with its weights, through segue's Predictor, whose engine computes it up to
its own scores, and whose last step makes the labels of these. Reading and decoding of the image is not included; all threads
work on one image.

On a CPU the first side has a process of its own, with which the others take turns: segue's engines let the process keep memory
that torch frees, which would speed up the package's network too. Image and labels go through a pipe, in about a millisecond.
Each measured run follows one of the same side that is not measured, so that a figure is that of an image among others.

Before anything is timed, the labels of each side are compared with those of the first on two images ("equal pixels": of both);
a side that agrees in less than 99.5 of 100 pixels ends the benchmark. The weights are random, and the statistics of batch norm
are those of drawn streets, so that the numbers in the networks have the size that training gives them. Label maps of trained
networks have larger areas, which makes segue's last step faster than it is here.

"openvino int8" calculates its convolutions in integers of 8 bits, calibrated on drawn streets; of random weights its labels
differ much, so "segue export --int8" measures on a trained network what they cost. "auto" measures the engines on the first
image and takes the fastest that gives torch's labels, as the notes say. "segue's own" is segue's network of that name and
trunk, by its paper, in the same engine as "segue, auto"; it may have more or fewer multiply-adds than the package's, as the
table says. "share of peak" is that of what the machine's multiply-adds can do at most, for the whole way, and "extra MB" the
memory at the peak of the first image above what was held before.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import torch
from harness import Apart, arguments, command_line, compare, summarize, write_record
from torch import Tensor, nn

from segue.benchmark import parse_size, street
from segue.data.synthetic.streets import Streets
from segue.engines import create_engine
from segue.engines.fused_engine import works
from segue.inference import Predictor
from segue.labels import Labels
from segue.machine.memory import peak_memory
from segue.machine.peak_flops import peak_gflops
from segue.models import create_model
from segue.models.base import SegmentationModel
from segue.models.counting import multiply_adds

CLASSES = 19
LABELS = Labels.from_names([f"class {i}" for i in range(CLASSES)])
CALIBRATION = 16  # streets
INT8 = "openvino int8"
ENGINES = ("torch", "fused", "onnxruntime", "openvino", "auto")
REST = 0.05  # seconds between two sides
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # pixseg's transform only divides by 255


class Peer(SegmentationModel):
    """A package's network, whose scores end before its own upsampling."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(CLASSES, 3)
        self.network = network

    def logits(self, x: Tensor) -> Tensor:
        """All of it, as the package's users call it."""
        return self.network(x)["out"]


class Torchvision(Peer):
    stride = 8

    def score(self, x: Tensor) -> Tensor:
        return self.network.classifier(self.network.backbone(x)["out"])


class SMP(Peer):
    aligned = True  # with a stride of 1, since it takes multiples of its stride and not those plus one
    min_size = 95  # so that the image on which batch norms are looked for has 96 pixels a side, which it takes

    def logits(self, x: Tensor) -> Tensor:
        return self.network(x)

    def score(self, x: Tensor) -> Tensor:
        return self.network.segmentation_head[0](self.network.decoder(self.network.encoder(x)))


class Pixseg(Peer):
    stride = 32  # its scores have the image's size

    def score(self, x: Tensor) -> Tensor:
        return self.network(x)["out"]


@dataclass(frozen=True)
class Network:
    """A package's network, and segue's network of that name, if there is one."""

    package: str
    make: Callable[[], Peer]
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    own: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def make_smp(name: str, encoder: str) -> Peer:
    import segmentation_models_pytorch as smp

    return SMP(getattr(smp, name)(encoder, encoder_weights=None, classes=CLASSES))


def make_torchvision(name: str) -> Peer:
    from torchvision.models import segmentation

    return Torchvision(getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES))


def make_bisenet() -> Peer:
    from pixseg.models import bisenet_resnet18

    return Pixseg(bisenet_resnet18(num_classes=CLASSES, weights_backbone=None))


def make_enet() -> Peer:
    from pixseg.models import enet_original

    return Pixseg(enet_original(num_classes=CLASSES))


NETWORKS = {
    "DeepLabV3+ ResNet-50": Network(
        "SMP", lambda: make_smp("DeepLabV3Plus", "resnet50"), IMAGENET, "deeplabv3plus", {"backbone": "resnet50"}
    ),
    "U-Net ResNet-18": Network("SMP", lambda: make_smp("Unet", "resnet18"), IMAGENET, "unet", {"backbone": "resnet18"}),
    "FCN ResNet-50": Network("torchvision", lambda: make_torchvision("fcn_resnet50"), IMAGENET),
    "DeepLabV3 ResNet-50": Network(
        "torchvision", lambda: make_torchvision("deeplabv3_resnet50"), IMAGENET, "deeplabv3",
        {"backbone": "resnet50", "output_stride": 8},
    ),
    "BiSeNet ResNet-18": Network("pixseg", make_bisenet, UNIT, "bisenetv1"),
    "ENet": Network("pixseg", make_enet, UNIT, "enet"),
}  # fmt: skip


def settle(peer: Peer) -> Peer:
    """Give batch norm the statistics of two streets."""
    norms = [module for module in peer.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over what is seen
    images = np.stack([street((256, 512), 3), street((256, 512), 3)[:, ::-1]])
    with torch.no_grad():
        peer.train().logits(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    return peer.eval()


def eager(name: str, weights: dict[str, Tensor], device: str, threads: int) -> Callable[..., Any]:
    """The package's way from an image to its labels, or to the bytes that they need at the peak."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    network = NETWORKS[name]
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in network.normalization)
    peer = network.make().eval().to(device)
    peer.load_state_dict(weights)

    @torch.inference_mode()
    def predict(image: Any) -> Any:
        x = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].contiguous().float() / 255
        return peer.logits((x - mean) / std).argmax(dim=1)[0].to(torch.uint8).cpu().numpy()

    def answer(image: Any, memory: bool = False) -> Any:
        return peak_memory(lambda: predict(image), torch.device(device)) if memory else predict(image)

    return answer


def in_integers(peer: Peer, normalization: tuple[tuple[float, ...], tuple[float, ...]], size: tuple[int, int]) -> Predictor:
    """Calibrated on streets that no side is timed on."""
    predictor = Predictor(peer, LABELS, *normalization, device="cpu")
    scenes = Streets("train", count=CALIBRATION, size=(256, 512))
    images = [cv2.resize(scenes[i]["image"], size[::-1], interpolation=cv2.INTER_LINEAR) for i in range(CALIBRATION)]
    predictor.engine = create_engine("openvino", peer, "cpu", calibration=[predictor.prepare(image, None) for image in images])
    return predictor


def sides_of(
    name: str, size: tuple[int, int], device: str, engines: list[str]
) -> tuple[dict[str, Callable[[Any], Any]], dict[str, nn.Module]]:
    """What predicts, and the network that it runs, by side."""
    network = NETWORKS[name]
    torch.manual_seed(0)
    peer = settle(network.make())
    given = name, peer.state_dict(), device, torch.get_num_threads()
    sides: dict[str, Callable[[Any], Any]] = {
        f"{network.package}, eager": Apart(eager, *given) if device == "cpu" else eager(*given)
    }
    for engine in engines:
        sides[f"segue, {engine}"] = Predictor(peer, LABELS, *network.normalization, device=device, engine=engine)
    if "openvino" in engines:
        sides[f"segue, {INT8}"] = in_integers(peer, network.normalization, size)
    modules: dict[str, nn.Module] = dict.fromkeys(sides, peer)
    if network.own:
        own = create_model(network.own, CLASSES, **network.options)
        sides["segue's own"] = Predictor(own, LABELS, *network.normalization, device=device, engine=engines[-1])
        modules["segue's own"] = own
    return sides, modules


def measure(
    name: str, size: tuple[int, int], device: str, engines: list[str], rounds: int, peak: float
) -> tuple[list[dict[str, Any]], str]:
    """The rows of one network, and what "auto" chose for it."""
    sides, modules = sides_of(name, size, device, engines)
    images = [street(size, 3), np.ascontiguousarray(street(size, 3)[::-1])]
    counts = {module: multiply_adds(module, torch.empty(1, 3, *size)) for module in set(modules.values())}
    first, truth, more = next(iter(sides)), [], {}
    for side, predict in sides.items():
        predict(images[1])  # what is compiled gets ready
        if side == first:
            memory = predict(images[0], True)
        else:
            memory = peak_memory(lambda predict=predict: predict(images[0]), torch.device(device))
        labels = [predict(image) for image in images]
        truth = truth or labels
        equal = float(np.mean([a == b for a, b in zip(labels, truth, strict=True)]))
        same = modules[side] is modules[first]
        if same and INT8 not in side and equal < 0.995:
            raise SystemExit(f"{name}: {side} and {first} agree in {equal:.2%} of pixels only")
        more[side] = {"equal_pixels": equal if same else None, "extra_MB": None if memory is None else round(memory / 1e6)}
    times = compare({side: lambda predict=predict: predict(images[0]) for side, predict in sides.items()}, rounds, rest=REST)
    for predict in sides.values():
        if isinstance(predict, Apart):
            predict.close()
    rows = []
    for side, figures in summarize(times, first).items():
        operations = 2e-9 * counts[modules[side]]
        share = round(operations / figures["median"] / peak, 3)
        row = {"case": name, "side": side, **figures, "GMAC": round(operations / 2, 2), "share_of_peak": share, **more[side]}
        rows.append(row)
    return rows, sides["segue, auto"].engine.describe()  # type: ignore[attr-defined]


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times as fast as eager torch each engine is with the same network: the geometric mean over the networks."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["side"].startswith("segue, "):
            found.setdefault(row["side"], []).append(1 / row["ratio"])
    return [
        {
            "case": f"geometric mean over {len(values)} networks", "side": side, "unit": "x as fast as eager",
            "median": round(float(np.exp(np.mean(np.log(values)))), 2),
        }
        for side, values in found.items()
    ]  # fmt: skip


def installed(names: tuple[str, ...]) -> list[str]:
    """The engines that can be had here; the others are named."""
    missing = [name for name in ("onnxruntime", "openvino") if find_spec(name) is None] + ([] if works() else ["fused"])
    for name in missing:
        print(f"{name} is left out: it is not installed, or not for this machine", file=sys.stderr)
    return [name for name in names if name not in missing]


def main() -> None:
    options = arguments(__doc__, devices=("cpu", "cuda"), size="512x1024", only="")
    size = parse_size("128x256" if options.quick else options.size)
    warnings.filterwarnings("ignore")  # of the packages
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # that nothing is remembered from elsewhere
    engines = installed(ENGINES) if options.device == "cpu" else ["torch", "auto"]
    peak = peak_gflops(options.threads, options.device)
    rows: list[dict[str, Any]] = []
    choices = []
    for name in NETWORKS:
        if name.lower().startswith(options.only.lower()):
            print(f"measuring {name}", file=sys.stderr)
            found, choice = measure(name, size, options.device, engines, options.rounds, peak)
            rows += found
            choices.append(f"{name}, {choice}.")
    notes = [
        f"Images of {size[0]} x {size[1]} pixels (height x width), {CLASSES} classes.",
        f"The machine's peak: {peak:.0f} GFLOP/s in float32, by a loop of multiply-adds or a product of matrices in "
        f"{options.threads} threads, whichever does more."
        if options.device == "cpu"
        else f"The machine's peak: {peak:.0f} GFLOP/s, by a product of matrices.",
        *choices,
    ]
    write_record(options.out, command_line(), [*rows, *means(rows)], device=options.device, notes=notes)


if __name__ == "__main__":
    main()
