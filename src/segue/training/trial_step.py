"""What a step of a training takes: its samples, its memory format, and a step alone, to be timed before there is a run."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segue.engines.choices import FORMATS
from segue.machine.timing import clock
from segue.models.base import as_segmentation_model
from segue.recipes import Recipe
from segue.training.losses import supervised_loss
from segue.training.optimizers import freeze_norms, make_optimizer

MemoryFormat = Literal["channels_first", "channels_last"]
TRIED = 4  # images of the batch on which the memory formats are compared, at most
GAIN = 1.1  # by which channels_last must be faster to be taken: what is nearly equal shall not be left to chance
TYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def recipe_loss(recipe: Recipe, outputs: dict[str, Tensor], batch: dict[str, Tensor], class_weights: Tensor | None) -> Tensor:
    return supervised_loss(outputs, batch, class_weights, loss=recipe.loss, auxiliary=recipe.auxiliary, border=recipe.border)


def recipe_optimizer(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    return make_optimizer(
        network, recipe.learning_rate, optimizer=recipe.optimizer, momentum=recipe.momentum, weight_decay=recipe.weight_decay,
        decay=recipe.decay, new_layers=recipe.new_layers, bias_rate=recipe.bias_rate,
    )  # fmt: skip


class Step:
    """Forward pass, loss, backward pass and step of the optimizer, of a copy of the network, on `images` drawn images.

    The copy is in training mode and on the device. A call takes one step, and leaves the random numbers of others alone.
    """

    def __init__(
        self, recipe: Recipe, network: nn.Module, num_classes: int, images: int, device: torch.device,
        memory_format: MemoryFormat = "channels_first",
    ) -> None:  # fmt: skip
        self.recipe, self.device, self.format = recipe, device, FORMATS[memory_format]
        self.network: Any = to_format(copy.deepcopy(network).train().to(device), memory_format)
        if recipe.freeze_norms:
            freeze_norms(self.network)
        self.optimizer = recipe_optimizer(recipe, self.network)
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0  # noise teaches nothing, and large rates would end in numbers that are not finite
        self.supervise = as_segmentation_model(self.network).supervise
        if recipe.compile:
            self.supervise = torch.compile(self.supervise)
        with unseen(device):
            torch.manual_seed(0)
            labels = (images, *recipe.crop)
            self.images = torch.rand(images, len(recipe.mean), *recipe.crop, device=device).to(memory_format=self.format)
            self.batch = {"mask": torch.randint(num_classes, labels, dtype=torch.uint8, device=device)}
            if recipe.border_weights:
                self.batch["border_weights"] = torch.rand(labels, device=device)
            if getattr(network, "draws_borders", False):
                self.batch["edges"] = torch.randint(2, labels, dtype=torch.uint8, device=device)
        self.weights = None if recipe.class_weights == "none" else torch.ones(num_classes, device=device)

    def __call__(self) -> None:
        with unseen(self.device):
            kind = TYPES.get(self.recipe.precision)
            with torch.autocast(self.device.type, kind, enabled=kind is not None):
                outputs = self.supervise(self.images)
                loss = recipe_loss(self.recipe, outputs, self.batch, self.weights)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()

    def seconds(self, times: int = 2) -> float:
        """Of the fastest of some steps; `times` more are taken before on a GPU, and one on a CPU."""
        for _ in range(times if self.device.type == "cuda" else 1):
            self()
        return min(clock(self) for _ in range(times))


@contextmanager
def unseen(device: torch.device) -> Iterator[None]:
    """Within, torch's random numbers may be used as one likes; afterwards they go on as before."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def to_format(network: nn.Module, memory_format: str) -> nn.Module:
    """The network itself, with its weights and so what it computes in this memory format."""
    return network.to(memory_format=FORMATS[memory_format])


def time_formats(
    recipe: Recipe, network: nn.Module, num_classes: int, images: int, device: torch.device
) -> dict[MemoryFormat, float]:
    """Seconds of a step in each memory format, on as many images, but two to four: a batch norm may need two.

    Infinitely many where the device has too little memory.
    """
    images = min(max(images, 2), TRIED)
    formats: tuple[MemoryFormat, ...] = ("channels_first", "channels_last")
    eager = replace(recipe, compile=False)  # twice a minute is too long
    seconds: dict[MemoryFormat, float] = {}
    for name in formats:
        try:
            seconds[name] = Step(eager, network, num_classes, images, device, name).seconds()
        except torch.OutOfMemoryError:
            seconds[name] = math.inf
    return seconds


def faster_format(seconds: dict[MemoryFormat, float]) -> MemoryFormat:
    """channels_last where it is clearly faster."""
    return "channels_last" if seconds["channels_last"] * GAIN < seconds["channels_first"] else "channels_first"


@contextmanager
def float32_products(tf32: bool) -> Iterator[None]:
    """Within, GPUs multiply float32 numbers as TF32, or exactly; afterwards as before."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
