"""From samples to batches: shuffled the same way whatever was interrupted, however many processes share the work."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from segue.data.batches.transforms import Transform
from segue.data.contract import check_arrays, check_labels, check_sample, sample_name
from segue.data.samples import DataError
from segue.images import to_planes

PixelMap = Callable[[Mapping[str, Any]], Any]
"""From an augmented sample to one more number for each of its pixels, (H, W)."""

Key = tuple[int, int]
"""(epoch, index): the randomness of a sample depends on nothing else but the seed."""


FEW = 10  # images; so few are scenes to be cut, rather than data that are all there is


class EpochSampler(Sampler[Key]):
    """This process's share of every batch of an epoch, in an order drawn from the seed and the epoch.

    Batches are the same for any number of processes: each takes every `processes`-th sample of a batch. What does not fill a
    batch is left out of that epoch.
    """

    def __init__(self, length: int, batch_size: int, seed: int, process: int = 0, processes: int = 1) -> None:
        if batch_size < 1 or batch_size % processes:
            raise ValueError(f"batch_size (={batch_size}) must be a multiple of the {processes} devices that share a batch")
        if length < batch_size:
            raise DataError(
                f"the training split has {length} samples, fewer than batch_size (={batch_size}); make it smaller"
                + ("; of few large scenes, cut tiles, since an epoch is one crop of each image" if length < FEW else "")
            )
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.process, self.processes = process, processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.batch_size * self.batch_size // self.processes

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        whole = self.length // self.batch_size * self.batch_size
        for index in order[self.process : whole : self.processes]:
            yield self.epoch, int(index)


class TrainingSamples(Dataset[dict[str, Any]]):
    """Augmented samples as tensors; every random draw is fixed by (seed, epoch, index).

    fields: the arrays of a sample that are augmented and given, beside image and mask. maps: computed from these, by name.
    """

    def __init__(
        self, samples: Dataset[Any], transform: Transform | None, num_classes: int, seed: int, fields: Sequence[str] = (),
        maps: Mapping[str, PixelMap] = {},
    ) -> None:  # fmt: skip
        self.samples, self.transform, self.num_classes, self.seed = samples, transform, num_classes, seed
        self.fields, self.maps = ("image", "mask", *fields), maps

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        name = sample_name(self.samples, index)
        with seeded(self.seed, epoch, index):
            sample = self.samples[index]
            if self.transform:
                before = check_sample(sample, name, self.fields)[0].dtype
                sample = self.transformed({field: sample[field] for field in self.fields}, name)
                check_type(sample, before, name)
        tensors = to_tensors(sample, index, self.num_classes, name, self.fields)
        return {**tensors, **{field: torch.from_numpy(np.ascontiguousarray(of(sample))) for field, of in self.maps.items()}}

    def transformed(self, sample: dict[str, Any], name: str) -> Any:
        """What the transform makes of a sample; DataError with its name if it cannot."""
        try:
            return self.transform(**sample) if self.transform else sample
        except ValueError:
            raise
        except Exception as error:  # which it is depends on who wrote the transform
            raise DataError(f"{name}: the transform fails: {type(error).__name__}: {error}") from error


class EvaluationSamples(Dataset[dict[str, Any]]):
    """Samples as they are, of one process's share: every sample once, none twice, for any number of processes."""

    def __init__(
        self, samples: Dataset[Any], num_classes: int, process: int = 0, processes: int = 1, fields: Sequence[str] = ()
    ) -> None:
        self.samples, self.num_classes, self.fields = samples, num_classes, ("image", "mask", *fields)
        self.indices = range(process, len(samples), processes)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = self.indices[position]
        return to_tensors(self.samples[index], index, self.num_classes, sample_name(self.samples, index), self.fields)


def training_loader(
    samples: TrainingSamples, batch_size: int, workers: int, epoch: int = 0, process: int = 0, processes: int = 1, passes: int = 1
) -> DataLoader[dict[str, Any]]:
    """Batches with image (N, C, H, W), mask uint8 (N, H, W), index (N,).

    batch_size is that of all processes and passes together; a pass is what the network sees at once.
    """
    if batch_size % (processes * passes):
        raise ValueError(f"batch_size (={batch_size}) must be a multiple of the {processes} devices times the {passes} passes")
    sampler = EpochSampler(len(samples.samples), batch_size, samples.seed, process, processes)  # type: ignore[arg-type]
    sampler.set_epoch(epoch)  # workers begin to load before the first epoch is announced
    return DataLoader(
        samples, batch_size // processes // passes, sampler=sampler, num_workers=workers, persistent_workers=workers > 0,
        collate_fn=collate, pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def evaluation_loader(samples: EvaluationSamples, workers: int) -> DataLoader[dict[str, Any]]:
    """Batches of one, since images may differ in size."""
    return DataLoader(samples, 1, num_workers=workers, persistent_workers=workers > 0, pin_memory=torch.cuda.is_available())


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of samples; DataError if their images are of several types, which torch would mix without a word, or of several
    sizes."""
    first = samples[0]
    for sample in samples:
        if sample["image"].dtype != first["image"].dtype:
            raise DataError(
                f"the images of samples {first['index']} and {sample['index']} differ in their type: {first['image'].dtype} and "
                f"{sample['image'].dtype}; give all images of a data set one type"
            )
        for field, tensor in first.items():
            if np.shape(sample[field]) != np.shape(tensor):
                raise DataError(
                    f"samples {first['index']} and {sample['index']} differ in the shape of their {field}: "
                    f"{tuple(np.shape(tensor))} and {tuple(np.shape(sample[field]))}; end the transform with a crop to one size"
                )
    batch: dict[str, Any] = default_collate(samples)
    return batch


class seeded:
    """Within, the random numbers of Python, NumPy and torch (CPU) follow from the given ones; afterwards all go on as before."""

    def __init__(self, *numbers: int) -> None:
        self.seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])

    def __enter__(self) -> None:
        self.before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.default_generator.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        random.setstate(self.before[0])
        np.random.set_state(self.before[1])
        torch.set_rng_state(self.before[2])


def to_tensors(
    sample: dict[str, Any], index: int, num_classes: int, name: str, fields: Sequence[str] = ("image", "mask")
) -> dict[str, Any]:
    """Check a sample, and turn its image to (C, H, W), depth to (1, H, W); DataError with its name if it breaks the contract."""
    image, mask = check_arrays(sample, name, fields)
    check_labels(mask, num_classes, name)
    tensors = {"image": torch.from_numpy(to_planes(image)), "mask": torch.from_numpy(mask.copy()), "index": index}
    if "depth" in fields:
        tensors["depth"] = torch.from_numpy(np.array(sample["depth"], np.float32))[None]
    return tensors


def check_type(sample: Any, before: np.dtype[Any], name: str) -> None:
    """DataError if a transform has given the image another type, and so another scale than the images that are scored have."""
    after = np.asarray(sample["image"]).dtype if isinstance(sample, Mapping) and "image" in sample else before
    if after != before:
        raise DataError(
            f"{name}: the transform makes the image {after} of {before}; leave its values to mean and std, which the network's "
            "checkpoint keeps"
        )
