"""One confusion matrix over a split, through the predictor that ships: the score reported is the score shipped."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from segue.data.samples import Sample, Samples, takes_depth
from segue.evaluation.label_maps import LabelMaps
from segue.images import Raster
from segue.images.fast_decoding import compiled_unfilter
from segue.images.relabel import compiled_rename
from segue.labels import Confidence, Labels, Mask
from segue.machine.threads import ordered
from segue.metrics import ConfusionMatrix, ImageMatrices
from segue.metrics.confusion import compiled_count

SCORERS = {
    "cells": "segue.metrics.instances:InstanceScorer",
    "cityscapes": "segue.metrics.cityscapes:CityscapesScorer",
    "em": "segue.metrics.membranes:MembraneScorer",
    "nuclei": "segue.metrics.instances:InstanceScorer",
}
"""By what a data set is judged beside the confusion matrix, imported when it is needed."""


class Labeller(Protocol):
    """What is scored: a Predictor, an ExportedModel, or whatever else labels images."""

    @property
    def labels(self) -> Labels:
        """Its classes."""

    @property
    def channels(self) -> int:
        """What it takes: the channels of the image, and one more for depth where it uses that."""

    def __call__(self, image: Raster, depth: NDArray[np.float32] | None = None, /) -> Mask:
        """The class number of each pixel, uint8 (H, W), of an image (H, W, C), and depth (H, W) in metres if it is used."""


@runtime_checkable
class ConfidentLabeller(Labeller, Protocol):
    """One that also says how likely it is right, which some scorers ask; a Predictor does."""

    def with_confidence(self, image: Raster, depth: NDArray[np.float32] | None = None, /) -> tuple[Mask, Confidence]:
        """The class number of each pixel, as by a call, and its probability."""


class Scorer(Protocol):
    """What else a data set is judged by. It sees each image once; scorers of several processes or parts are merged."""

    title: str
    """Of its table."""
    needs_confidence: bool
    """Whether it asks for the probability of each pixel's class, which takes longer."""

    def update(self, index: int, sample: Sample, prediction: Mask, confidence: Confidence | None) -> None:
        """Count one image: its number in the data set, the sample, and the label map (H, W); confidence float32 (H, W)."""

    def merge(self, other: Self) -> None:
        """Take in what another scorer has counted on other images."""

    def scores(self) -> dict[str, float]:
        """Summary scores by name."""

    def table(self) -> list[tuple[str, ...]]:
        """Rows for people to read, the header first, the first column text."""


def create_scorers(data: str, samples: Samples) -> list[Scorer]:
    """What the data set of that name is judged by beside the confusion matrix, which is nothing for most."""
    if data not in SCORERS:
        return []
    module, name = SCORERS[data].split(":")
    scorer: Scorer = getattr(import_module(module), name)(samples)
    return [scorer]


def evaluate(
    predictor: Labeller,
    samples: Samples,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    scorers: Sequence[Scorer] = (),
) -> ConfusionMatrix:
    """Predict every sample at its own size and count. `progress` wraps the sample numbers, as tqdm and rich's track do.

    ValueError if the classes of the data are not those of the network, or if there are no samples.
    """
    return evaluate_images(predictor, samples, progress, scorers).total


def evaluate_images(
    predictor: Labeller,
    samples: Samples,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    scorers: Sequence[Scorer] = (),
    *,
    into: ImageMatrices | None = None,
    root: str | Path = "",
    share: tuple[int, int] = (0, 1),
) -> ImageMatrices:
    """As `evaluate`, and the matrix of each image by its name, which is told from the folder `root` on.

    into: matrices to go on with; images that are there are passed over, which scorers do not allow.
    share: (number, count) of a process among several, which scores every `count`-th image from its number on. Added up, the
    matrices of all have each image once, whatever the remainder.
    """
    images = ImageMatrices(predictor.labels.names) if into is None else into
    for _ in count_images(predictor, samples, images, progress, scorers, root, share):
        pass
    return images


def count_images(
    predictor: Labeller,
    samples: Samples,
    images: ImageMatrices,
    progress: Callable[[Iterable[int]], Iterable[int]],
    scorers: Sequence[Scorer],
    root: str | Path,
    share: tuple[int, int],
) -> Iterator[tuple[int, Mask]]:
    """Go through the samples as `evaluate_images` says; gives the number of each and its label map, once it is counted."""
    check_labels(predictor, samples)
    names = image_names(samples, root)
    passed_over = [name for name in names if name in images]
    if passed_over and scorers:
        raise ValueError(f"{passed_over[0]} is counted already, and {scorers[0].title} could not see it; begin without `into`")
    needs_confidence = any(scorer.needs_confidence for scorer in scorers)
    if not isinstance(predictor, ConfidentLabeller):
        reject_blind(scorers, f"{type(predictor).__name__} does")
    indices = [index for index in range(share[0], len(samples), share[1]) if names[index] not in images]
    for index, sample in zip(progress(indices), read_ahead(samples, indices), strict=True):
        try:
            prediction, confidence = predict_sample(predictor, sample, needs_confidence)
            images.add(names[index], sample["mask"], prediction)
            for scorer in scorers:
                scorer.update(index, sample, prediction, confidence)
        except ValueError as error:
            raise ValueError(f"{samples.name(index)}: {error}") from error
        yield index, prediction


def evaluate_files(
    predictions: LabelMaps | str | Path | Sequence[str | Path],
    samples: Samples,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    scorers: Sequence[Scorer] = (),
    *,
    ids: str = "",
    root: str | Path = "",
) -> ImageMatrices:
    """As `evaluate_images`, of label maps that are in files: a folder of them, matched by name, or the file of each sample.

    ids: see LabelMaps. Files are read and counted on torch.get_num_threads() threads, twice as many being in memory at most.
    ValueError, which names the file, if one is missing, too many, of another size than its mask, or holds what is no class.
    """
    maps = predictions if isinstance(predictions, LabelMaps) else LabelMaps(predictions, samples, ids)
    reject_blind(scorers, "label maps do")
    if len(samples) == 0:
        raise ValueError("there are no samples to score")
    images = ImageMatrices(samples.labels.names)
    names = image_names(samples, root)

    def count(index: int) -> tuple[Sample, Mask]:
        sample = samples.truth(index) if scorers else {"mask": samples.mask(index)}
        prediction = maps[index]
        (height, width), (rows, columns) = sample["mask"].shape, prediction.shape
        if (height, width) != (rows, columns):
            raise ValueError(
                f"{maps.paths[index]} is {columns} x {rows} pixels (width x height), but the mask of {samples.name(index)} is "
                f"{width} x {height}; label maps are scored at the size of the data's masks"
            )
        try:
            images.add(names[index], sample["mask"], prediction)
        except ValueError as error:
            maps.check(index, sample["mask"])
            raise ValueError(f"{maps.paths[index]}: {error}{maps.hint}") from error
        return sample, prediction

    for compile_once in (compiled_unfilter, compiled_rename, compiled_count):  # before all threads ask for them
        compile_once()
    indices, threads = range(len(samples)), torch.get_num_threads()
    counted = ordered(count, indices, threads, waiting=2 * threads)
    for index, (sample, prediction) in zip(progress(indices), counted, strict=True):
        for scorer in scorers:
            scorer.update(index, sample, prediction, None)
    return images


def image_names(samples: Samples, root: str | Path = "") -> list[str]:
    """The names of the samples, those of files from the folder `root` on; ValueError if two are alike."""
    folder = f"{Path(root)}{os.sep}" if root else ""
    names = [samples.name(index).removeprefix(folder).replace(os.sep, "/") for index in range(len(samples))]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} names belong to several images ({', '.join(twice[:3])}); give each a name of its own")
    return names


def reject_blind(scorers: Sequence[Scorer], which: str) -> None:
    """ValueError if a scorer asks for probabilities, where there are none."""
    blind = [scorer.title for scorer in scorers if scorer.needs_confidence]
    if blind:
        raise ValueError(f"{blind[0]} asks how likely each pixel's class is, which {which} not say; leave it out")


def predict_sample(predictor: Labeller, sample: Sample, with_confidence: bool = False) -> tuple[Mask, Confidence | None]:
    """The label map of a sample, and the probability of each pixel's class where it is wanted and the predictor tells it.

    The sample's depth is used if the network takes it.
    """
    depth = sample["depth"] if takes_depth(predictor.channels, sample) else None
    if with_confidence and isinstance(predictor, ConfidentLabeller):
        return predictor.with_confidence(sample["image"], depth)
    return predictor(sample["image"], depth), None


def check_labels(predictor: Labeller, samples: Samples) -> None:
    if len(samples) == 0:
        raise ValueError("there are no samples to score")
    if predictor.labels.names != samples.labels.names:
        raise ValueError(
            f"the network knows {len(predictor.labels)} classes ({', '.join(predictor.labels.names)}), but the data have "
            f"{len(samples.labels)} ({', '.join(samples.labels.names)}); score it on data of its own classes"
        )


def read_ahead(samples: Samples, indices: Iterable[int]) -> Iterator[Sample]:
    """The samples of these numbers in their order, the next one being read while one is in use."""
    return ordered(samples.__getitem__, indices, threads=1, waiting=2)
