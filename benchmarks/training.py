"""A step of training: forward pass, loss, backward pass and step of the optimizer.

Each of segue's networks, by its paper, and where a package ships the network of that name and trunk, that one: in eager torch,
on the same random images and labels, with Adam. The peers have the pixel-wise cross entropy that their users have
(torch.nn.CrossEntropyLoss on logits of the image's size); segue has the loss of its recipes, and the memory format measured
to be faster, with that of the peer beside it ("channels first"). On a CPU segue's process keeps memory that torch frees, as it
does in a training; the peer, which does not, has a process of its own, with which segue's takes turns. Each measured step follows
one of the same side that is not measured. The loading of images is not included. Networks of one name differ between packages by
the parameters and multiply-adds that the table says: ASPP and decoder of SMP's DeepLabV3+ have separable convolutions, which in
the paper only Xception's have. Auxiliary outputs are left out on both sides but where a network of segue's has them always. "no
peer" is a network that no package ships.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from harness import Apart, arguments, command_line, compare, summarize, write_record
from torch import nn

from segue.machine.memory import keep_freed_memory
from segue.models import create_model
from segue.models.counting import multiply_adds
from segue.recipes.recipe import Recipe
from segue.training.trial_step import TYPES, Step, faster_format, time_formats

CLASSES = 19
REST = 0.05  # seconds between two sides
RECIPE = Recipe(network="", data="streets", epochs=1, batch_size=2, learning_rate=1e-3, mean=(0.0,) * 3, std=(1.0,) * 3)


class Logits(nn.Module):
    """A peer's network that gives its logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.network(x)
        return found["out"] if isinstance(found, dict) else found


class PeerStep(Step):
    """The step as the package's users write it."""

    def __call__(self) -> None:
        kind = TYPES.get(self.recipe.precision)
        with torch.autocast(self.device.type, kind, enabled=kind is not None):
            loss = nn.functional.cross_entropy(self.network(self.images), self.target)  # type: ignore[attr-defined]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


@dataclass(frozen=True)
class Case:
    network: str
    """segue's."""
    package: str = "no peer"
    make: Callable[[], nn.Module] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    channels: int = 3


def make_smp(name: str, encoder: str) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, name)(encoder, encoder_weights=None, classes=CLASSES)


def make_torchvision(name: str) -> nn.Module:
    from torchvision.models import segmentation

    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=False)


def make_bisenet() -> nn.Module:
    from pixseg.models import bisenet_resnet18

    return bisenet_resnet18(num_classes=CLASSES, weights_backbone=None)


def make_enet() -> nn.Module:
    from pixseg.models import enet_original

    return enet_original(num_classes=CLASSES)


CASES = (
    Case("deeplabv3plus", "SMP", lambda: make_smp("DeepLabV3Plus", "resnet50"), {"backbone": "resnet50"}),
    Case(
        "deeplabv3", "torchvision", lambda: make_torchvision("deeplabv3_resnet50"), {"backbone": "resnet50", "output_stride": 8}
    ),
    Case("unet", "SMP", lambda: make_smp("Unet", "resnet18"), {"backbone": "resnet18"}),
    Case("bisenetv1", "pixseg", make_bisenet),
    Case("enet", "pixseg", make_enet),
    Case("bisenetv2"),
    Case("dfn", options={"backbone": "resnet18", "width": 64}),
    Case("fanet18"),
    Case("fcn8s", options={"width": 16}),
    Case("fusionnet", options={"width": 16}),
    Case("gcn", options={"backbone": "resnet18", "k": 7}),
    Case("rednet", options={"backbone": "resnet18"}, channels=4),
    Case("segnet", options={"width": 16}),
)  # fmt: skip


def make_peer(network: str, recipe: Recipe, device: torch.device, threads: int) -> PeerStep:
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(threads)
    (make,) = [case.make for case in CASES if case.network == network and case.make]
    peer = PeerStep(recipe, Logits(make()), CLASSES, recipe.batch_size, device)
    peer.target = peer.batch["mask"].long()  # type: ignore[attr-defined]
    return peer


def measure(case: Case, recipe: Recipe, device: torch.device, rounds: int) -> dict[str, Any]:
    recipe = replace(recipe, network=case.network, mean=(0.0,) * case.channels, std=(1.0,) * case.channels)
    networks: dict[str, nn.Module] = {"segue": create_model(case.network, CLASSES, case.channels, **case.options)}
    seconds = time_formats(recipe, networks["segue"], CLASSES, recipe.batch_size, device)
    chosen = faster_format(seconds)
    sides: dict[str, Callable[[], object]] = {
        "segue": Step(recipe, networks["segue"], CLASSES, recipe.batch_size, device, chosen)
    }
    if chosen != "channels_first":
        networks["segue, channels first"] = networks["segue"]
        sides["segue, channels first"] = Step(recipe, networks["segue"], CLASSES, recipe.batch_size, device)
    if case.make:
        networks[case.package] = Logits(case.make())
        given = case.network, recipe, device, torch.get_num_threads()
        sides[case.package] = Apart(make_peer, *given) if device.type == "cpu" else make_peer(*given)
    found = summarize(compare(sides, rounds, rest=REST), "segue")
    for side in sides.values():
        if isinstance(side, Apart):
            side.close()
    for side, figures in found.items():  # type: ignore[assignment]
        network = networks[side]
        figures["parameters"] = sum(parameter.numel() for parameter in network.parameters())
        figures["multiply_adds"] = multiply_adds(network, torch.empty(1, case.channels, *recipe.crop, device="meta"))
        figures["memory_format"] = chosen if side == "segue" else "channels_first"
        figures["images_per_second"] = round(recipe.batch_size / figures["median"], 2)
    return found


def why_slower(name: str, package: str, found: dict[str, Any]) -> list[str]:
    """What explains a step that takes longer than the peer's; nothing where none does."""
    own, peer = found["segue"], found.get(package, found["segue"])
    if peer["ratio"] >= 1:
        return []
    more = own["multiply_adds"] / peer["multiply_adds"]
    return [
        f"{name} takes longer than {package}'s: by the paper it has {more:.3g} times the multiply-adds, of which it does "
        f"{more * peer['ratio']:.3g} times as many a second"
    ]


def main() -> None:
    options = arguments(__doc__, rounds=7, devices=("cpu", "cuda"), batch=2, size=256, only="")
    warnings.filterwarnings("ignore", category=UserWarning)
    size = 128 if options.quick else options.size
    device = torch.device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    results, notes = {}, [f"{options.batch} images of {size} x {size} pixels"]
    for precision in ("32-true", *(("bf16-mixed",) if options.device == "cuda" else ())):
        recipe = replace(RECIPE, batch_size=options.batch, crop=(size, size), precision=precision)
        for case in CASES:
            if options.only in case.network:
                torch.manual_seed(0)
                name = case.network + (" bf16" if precision != "32-true" else "")
                results[name] = measure(case, recipe, device, options.rounds)
                notes += why_slower(name, case.package, results[name])
                print(name, {side: figures["median"] for side, figures in results[name].items()}, flush=True)
    write_record(options.out, command_line(), results, device=options.device, notes=notes)


if __name__ == "__main__":
    main()
