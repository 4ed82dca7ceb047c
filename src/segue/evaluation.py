"""One confusion matrix over a split, through the predictor that ships: the score reported is the score shipped."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from segue.data.samples import Sample, Samples
from segue.inference import Predictor
from segue.labels import Mask
from segue.metrics import ConfusionMatrix


def evaluate(
    predictor: Predictor, samples: Samples, progress: Callable[[Iterable[int]], Iterable[int]] = iter
) -> ConfusionMatrix:
    """Predict every sample at its own size and count. `progress` wraps the sample numbers, as tqdm and rich's track do.

    ValueError if the classes of the data are not those of the network, or if there are no samples.
    """
    check_labels(predictor, samples)
    matrix = ConfusionMatrix(predictor.labels.names)
    for index, sample in zip(progress(range(len(samples))), read_ahead(samples), strict=True):
        try:
            matrix.update(sample["mask"], predict_sample(predictor, sample))
        except ValueError as error:
            raise ValueError(f"{samples.name(index)}: {error}") from error
    return matrix


def predict_sample(predictor: Predictor, sample: Sample) -> Mask:
    """The label map of a sample; its depth is used if the network takes it."""
    uses_depth = "depth" in sample and predictor.channels == sample["image"].shape[2] + 1
    return predictor(sample["image"], sample["depth"] if uses_depth else None)


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
