"""What a training will take, measured on this machine before it starts: nothing is written, and no run is begun."""

import math
import time
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset

from segue.data.batches.cache import Estimate, estimate, may_share
from segue.data.batches.loading import EpochSampler
from segue.data.samples import Samples
from segue.inference import working_size
from segue.machine.memory import free_memory, keep_freed_memory
from segue.machine.provenance import describe_machine
from segue.machine.timing import clock
from segue.models import create_model
from segue.models.counting import multiply_adds
from segue.recipes import Recipe
from segue.training.checks import check_fit
from segue.training.optimizers import freeze_norms
from segue.training.samples import fields_of, training_samples
from segue.training.splits import Splits
from segue.training.trial_step import MemoryFormat, Step, faster_format, float32_products, time_formats

BATCHES = ((2, 4), (1, 2), (1,))  # images in those from which larger ones are told; the first that fit are taken
LOADED = 8  # samples that are loaded to tell how long it takes
ROOM = 0.9  # of the memory that is free, which a step may take


@dataclass(frozen=True)
class Plan:
    """What a training will take. Seconds and bytes are of one device; times are what they are while nothing else runs."""

    recipe: Recipe
    device: str
    devices: int
    parameters: int
    trained: int
    """Parameters that the optimizer changes."""
    crop_adds: int
    """Multiply-adds of a training crop, forward."""
    image_adds: int
    """Multiply-adds of the first evaluation image, forward."""
    measured: tuple[int, ...]
    """Images of the batches of which steps were measured; other batches are told from these on a straight line."""
    fixed: float
    """Bytes that a step takes however few images it has: weights, gradients, the optimizer's numbers."""
    per_image: float
    """Bytes that a step takes for each image of a pass."""
    free: int
    """Bytes of memory that are free on the device."""
    largest: int
    """Images of the largest pass that fits; 0 if none do."""
    pass_seconds: float
    """Of one pass: forward, loss, backward, step of the optimizer."""
    image_seconds: float
    """In which one process reads and augments one image."""
    evaluation_seconds: float
    """In which the network computes one evaluation image."""
    format_seconds: dict[MemoryFormat, float]
    """Of a step in each memory format, on at most four images; empty where the recipe names one."""
    memory_format: str
    images: int
    """Of the training split."""
    evaluated: int
    """Images of the evaluation split."""
    cache: Estimate
    is_cached: bool
    """Whether decoded images will be kept in memory."""
    disk: int
    """Bytes of best/, last/ and resume.ckpt, and of the copies that are there while they are written."""

    @property
    def pass_images(self) -> int:
        return self.recipe.batch_size // self.recipe.accumulate // self.devices

    @property
    def passes(self) -> int:
        """In an epoch."""
        return self.images // self.recipe.batch_size * self.recipe.accumulate

    @property
    def peak(self) -> float:
        """Bytes at the peak of a step."""
        return self.fixed + self.per_image * self.pass_images

    @property
    def loading_seconds(self) -> float:
        """In which the workers make the images of one pass ready."""
        return self.pass_images * self.image_seconds / max(1, self.recipe.workers)

    @property
    def epoch_seconds(self) -> float:
        """Of training: workers load while the network computes, so the slower of the two counts; without workers, both."""
        both = self.pass_seconds + self.loading_seconds
        return self.passes * (max(self.pass_seconds, self.loading_seconds) if self.recipe.workers else both)

    @property
    def seconds(self) -> float:
        """Of the whole run, with its evaluations."""
        epochs = self.recipe.epochs
        evaluations = epochs // self.recipe.validate_every + (epochs % self.recipe.validate_every > 0)
        whole = epochs * self.epoch_seconds + evaluations * self.evaluated / self.devices * self.evaluation_seconds
        return min(whole, 60 * self.recipe.minutes + self.epoch_seconds) if self.recipe.minutes else whole


@dataclass(frozen=True)
class Line:
    """What a step takes by the images of a pass, on a straight line through what steps were measured to take."""

    few: int
    """Images of the smallest batch that was measured."""
    few_seconds: float
    fixed: float
    """Bytes of a step without images."""
    per_image: float
    """Bytes of each image."""
    per_image_seconds: float

    @classmethod
    def through(cls, measured: tuple[int, ...], steps: list[tuple[int, float, int]]) -> "Line":
        """measured: images of each batch. steps: what `measure_step` gives of each."""
        few, (few_bytes, few_seconds, _) = measured[0], steps[0]
        # where a single image is all that fits, as if a step of none took nothing
        fewer, fewer_bytes, fewer_seconds = (few, few_bytes, few_seconds) if len(steps) > 1 else (0, 0, 0.0)
        more_bytes, more_seconds, _ = steps[-1]
        per_image = max(1.0, (more_bytes - fewer_bytes) / (measured[-1] - fewer))
        per_image_seconds = max(0.0, (more_seconds - fewer_seconds) / (measured[-1] - fewer))
        return cls(few, few_seconds, max(0.0, few_bytes - few * per_image), per_image, per_image_seconds)

    def seconds(self, images: int) -> float:
        """Of a pass; no fewer than the share that these are of the few."""
        return max(
            self.few_seconds + (images - self.few) * self.per_image_seconds, self.few_seconds * min(1, images / self.few)
        )  # fmt: skip


def plan(recipe: Recipe, devices: int = 1, train_data: Dataset[Any] | None = None, val_data: Dataset[Any] | None = None) -> Plan:
    """Measure a few steps of the recipe here. ValueError for what `train` would refuse too, and where not one image fits."""
    if devices < 1:
        raise ValueError(f"devices (={devices}) must be at least 1")
    splits = Splits(recipe, train_data, val_data)
    classes = len(splits.labels)
    network = create_model(recipe.network, classes, len(recipe.mean), **recipe.options)
    check_fit(recipe, network, splits.train)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()  # as train does
    images = pass_images(recipe, splits, devices)
    kept = estimate(splits.train, devices)
    if recipe.cache == "memory":
        kept.check()
    free = free_memory() // devices  # before any is kept
    image_seconds = load_seconds(recipe, network, splits.train, classes)
    with float32_products(recipe.tf32):
        formats = time_formats(recipe, network, classes, images, device) if recipe.memory_format == "auto" else {}
        chosen: MemoryFormat = faster_format(formats) if recipe.memory_format == "auto" else recipe.memory_format
        measured, steps = measure_steps(recipe, network, classes, device, chosen)
        evaluation, adds = evaluate_image(recipe, network, splits.val, device)
    line = Line.through(measured, steps)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info()[0]
    largest = max(0, int((ROOM * free - line.fixed) / line.per_image))
    if device.type == "cuda":
        largest = largest_on_gpu(recipe, network, classes, chosen, max(measured[-1], largest))
    return Plan(
        recipe=recipe, device=describe(device), devices=devices,
        parameters=sum(parameter.numel() for parameter in network.parameters()), trained=trained(recipe, network),
        crop_adds=multiply_adds(network, torch.empty(1, len(recipe.mean), *recipe.crop, device="meta")), image_adds=adds,
        measured=measured, fixed=line.fixed, per_image=line.per_image, free=free, largest=largest,
        pass_seconds=line.seconds(images), image_seconds=image_seconds, evaluation_seconds=evaluation, format_seconds=formats,
        memory_format=chosen, images=len(splits.train), evaluated=len(splits.val),  # type: ignore[arg-type]
        cache=kept, is_cached=will_cache(recipe, splits.train, kept), disk=disk_space(network, state=steps[0][2]),
    )  # fmt: skip


def pass_images(recipe: Recipe, splits: Splits, devices: int) -> int:
    """Images of a pass on one device; ValueError if the batch cannot be shared so, or is larger than the split."""
    images = recipe.batch_size // recipe.accumulate // devices
    if images * recipe.accumulate * devices != recipe.batch_size:
        raise ValueError(
            f"batch_size (={recipe.batch_size}) must be a multiple of {devices} devices times accumulate (={recipe.accumulate})"
        )
    EpochSampler(len(splits.train), recipe.batch_size, recipe.seed, processes=devices)  # type: ignore[arg-type]
    return images


def disk_space(network: nn.Module, state: int) -> int:
    """Bytes of a run's checkpoints while they are written; `state` are those of the optimizer's numbers."""
    return 4 * sum(tensor.nbytes for tensor in network.state_dict().values()) + 2 * state


def load_seconds(recipe: Recipe, network: nn.Module, data: Dataset[Any], num_classes: int) -> float:
    """Seconds of this thread to read and augment one image; the first is left out, since code is still being loaded."""
    samples = training_samples(recipe, network, data, num_classes, fields_of(recipe, data[0]))
    chosen = np.linspace(0, len(data) - 1, LOADED + 1).round().astype(int)  # type: ignore[arg-type]
    seconds = []
    for index in chosen:
        start = time.thread_time()
        samples[0, int(index)]
        seconds.append(time.thread_time() - start)
    return float(np.mean(seconds[1:]))


def measure_steps(
    recipe: Recipe, network: nn.Module, num_classes: int, device: torch.device, memory_format: MemoryFormat
) -> tuple[tuple[int, ...], list[tuple[int, float, int]]]:
    """What `measure_step` gives of the first of BATCHES that fit, and how many images these are."""
    for counts in BATCHES:
        try:
            return counts, [measure_step(recipe, network, num_classes, count, device, memory_format) for count in counts]
        except torch.OutOfMemoryError:
            pass  # only outside of this is the memory of the failed step free again
        torch.cuda.empty_cache()
    raise ValueError(f"a step of one image does not fit into the memory that is free; make crop (={recipe.crop}) smaller")


def measure_step(
    recipe: Recipe, network: nn.Module, num_classes: int, images: int, device: torch.device, memory_format: MemoryFormat
) -> tuple[int, float, int]:
    """Bytes at the peak of a step, its seconds, and the bytes of the optimizer's numbers."""
    step = Step(recipe, network, num_classes, images, device, memory_format)
    step()
    state = sum(tensor.nbytes for tensor in tensors_of(step.optimizer.state_dict()))
    return peak_bytes(step, state), step.seconds(), state


def peak_bytes(step: Step, state: int) -> int:
    """Bytes of all tensors at the peak of a step, all gradients counted as if they were there from the beginning.

    On a GPU as its allocator says; on a CPU without what an operation takes for itself while it runs.
    """
    for group in step.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    if step.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(step.device)
        step()
        return torch.cuda.max_memory_allocated(step.device)
    gradients = [parameter.grad for parameter in step.network.parameters() if parameter.grad is not None]
    held = [*gradients, *step.network.parameters(), *step.network.buffers(), step.images, *step.batch.values()]
    with Allocations() as made:
        step()
    return sum(tensor.nbytes for tensor in held) + state + made.most


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that tensors made within it hold at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.storages = weakref.WeakSet[torch.UntypedStorage]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        taken = [tensor.untyped_storage() for tensor in tensors_of([args, kwargs])]
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_of(result):
            storage = tensor.untyped_storage()
            if storage not in self.storages and all(storage is not other for other in taken):
                self.storages.add(storage)
                weakref.finalize(storage, self.free, storage.nbytes())
                self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        return result

    def free(self, size: int) -> None:
        self.now -= size


def tensors_of(value: Any) -> list[torch.Tensor]:
    """All tensors in dicts and lists within each other."""
    if isinstance(value, torch.Tensor):
        return [value]
    inner: Any = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for item in inner for tensor in tensors_of(item)]


def largest_on_gpu(recipe: Recipe, network: nn.Module, num_classes: int, memory_format: MemoryFormat, images: int) -> int:
    """The most images of a pass for which a step works: half as many after each that is out of memory, from `images` on."""
    while images:
        try:
            Step(recipe, network, num_classes, images, torch.device("cuda"), memory_format)()
            return images
        except torch.cuda.OutOfMemoryError:
            images //= 2
        finally:
            torch.cuda.empty_cache()
    return 0


def evaluate_image(recipe: Recipe, network: nn.Module, data: Dataset[Any], device: torch.device) -> tuple[float, int]:
    """Seconds and multiply-adds of the network on the first evaluation image. ValueError if it does not fit."""
    height, width = np.shape(data[0]["mask"])
    size = working_size(recipe.short_side, height, width)
    x = torch.zeros(1, len(recipe.mean), *size, device=device)
    network = network.eval().to(device)
    try:
        with torch.inference_mode():
            network(x)
            seconds = min(clock(lambda: network(x)) for _ in range(2))
    except torch.OutOfMemoryError:
        raise ValueError(
            f"an evaluation image of {size[0]} x {size[1]} does not fit into the memory that is free; "
            f"give a smaller short_side (={recipe.short_side})"
        ) from None
    return seconds, multiply_adds(network, x)


def trained(recipe: Recipe, network: nn.Module) -> int:
    """Parameters that an optimizer would be given."""
    if recipe.freeze_norms:
        freeze_norms(network)
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def will_cache(recipe: Recipe, data: Dataset[Any], kept: Estimate) -> bool:
    can = isinstance(data, Samples) and may_share(recipe.workers) and kept.fits
    return recipe.cache == "memory" or (recipe.cache == "auto" and can)


def plan_table(plan: Plan) -> list[tuple[str, str]]:
    """What `segue train --plan` prints: the header, then a name and its value in each row."""
    recipe, gb = plan.recipe, 2**30
    timed = {name: f"{seconds:.3g} s" if seconds < math.inf else "no room" for name, seconds in plan.format_seconds.items()}
    formats = ", ".join(f"{name.replace('_', ' ')} {seconds}" for name, seconds in timed.items())
    slower = "the loading" if plan.loading_seconds > plan.pass_seconds else "the network"
    fits = f"{plan.cache.size / gb:.2f} GB for each device; {plan.cache.free / gb:.1f} GB are free"
    staged = recipe.before and not recipe.init
    largest = f"{plan.largest} images" if plan.largest else "none: even one image does not fit"
    return [
        ("plan", f"{recipe.network} on {recipe.data}"),
        *([("trained first, not in this plan", f"{recipe.before}: segue train {recipe.before} --plan")] if staged else []),
        ("device", plan.device if plan.devices == 1 else f"{plan.devices} x {plan.device}"),
        ("parameters", f"{plan.trained:,} trained of {plan.parameters:,}"),
        ("multiply-adds of a crop", f"{plan.crop_adds / 1e9:.2f} * 10^9, {recipe.crop[0]} x {recipe.crop[1]}"),
        ("multiply-adds of an evaluation image", f"{plan.image_adds / 1e9:.2f} * 10^9"),
        ("memory format", plan.memory_format.replace("_", " ") + (f" (a step: {formats})" if formats else "")),
        ("images in a pass", f"{plan.pass_images}; passes in a step of the optimizer: {recipe.accumulate}"),
        ("memory of a step", f"{plan.peak / gb:.2f} GB; {plan.free / gb:.1f} GB are free"),
        ("largest pass that fits", largest),
        ("a pass", f"{plan.pass_seconds:.3g} s; its images are loaded in {plan.loading_seconds:.3g} s: {slower} decides"),
        ("an epoch", f"{duration(plan.epoch_seconds)}, {plan.passes} passes"),
        ("the whole run", f"{duration(plan.seconds)}, {recipe.epochs} epochs and their evaluations"),
        ("decoded images in memory", f"{'yes' if plan.is_cached else 'no'}: {fits}"),
        ("checkpoints", f"{plan.disk / gb:.3f} GB on the disk at most"),
        ("measured", f"steps of {' and '.join(map(str, plan.measured))} images of noise; the rest is on a straight line"),
    ]


def duration(seconds: float) -> str:
    """In the unit that people would take."""
    for unit, length in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def describe(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else str(describe_machine()["hardware"])
