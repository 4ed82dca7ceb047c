"""One confusion matrix over a split, through the predictor that ships: the score reported is the score shipped."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, Self

from segue.data.samples import Sample, Samples
from segue.inference import Confidence, Predictor
from segue.labels import Mask
from segue.metrics import ConfusionMatrix


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


def evaluate(
    predictor: Predictor,
    samples: Samples,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    scorers: Sequence[Scorer] = (),
) -> ConfusionMatrix:
    """Predict every sample at its own size and count. `progress` wraps the sample numbers, as tqdm and rich's track do.

    ValueError if the classes of the data are not those of the network, or if there are no samples.
    """
    check_labels(predictor, samples)
    matrix = ConfusionMatrix(predictor.labels.names)
    needs_confidence = any(scorer.needs_confidence for scorer in scorers)
    for index, sample in zip(progress(range(len(samples))), read_ahead(samples), strict=True):
        try:
            prediction, confidence = predict_sample(predictor, sample, needs_confidence)
            matrix.update(sample["mask"], prediction)
            for scorer in scorers:
                scorer.update(index, sample, prediction, confidence)
        except ValueError as error:
            raise ValueError(f"{samples.name(index)}: {error}") from error
    return matrix


def predict_sample(predictor: Predictor, sample: Sample, with_confidence: bool = False) -> tuple[Mask, Confidence | None]:
    """The label map of a sample, and where it is wanted the probability of each pixel's class.

    The sample's depth is used if the network takes it.
    """
    uses_depth = "depth" in sample and predictor.channels == sample["image"].shape[2] + 1
    depth = sample["depth"] if uses_depth else None
    if with_confidence:
        return predictor.with_confidence(sample["image"], depth)
    return predictor(sample["image"], depth), None


def check_labels(predictor: Predictor, samples: Samples) -> None:
    if len(samples) == 0:
        raise ValueError("there are no samples to score")
    if predictor.labels.names != samples.labels.names:
        raise ValueError(
            f"the network knows {len(predictor.labels)} classes ({', '.join(predictor.labels.names)}), but the data have "
            f"{len(samples.labels)} ({', '.join(samples.labels.names)}); score it on data of its own classes"
        )


def read_ahead(samples: Samples) -> Iterator[Sample]:
    """The samples in order, the next one being read while one is in use."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(samples.__getitem__, 0)
        for index in range(1, len(samples) + 1):
            sample = coming.result()
            if index < len(samples):
                coming = pool.submit(samples.__getitem__, index)
            yield sample
