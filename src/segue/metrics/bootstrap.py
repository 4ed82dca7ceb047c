"""Whether a difference in mean IU is more than the choice of the images: the paired bootstrap (Efron and Tibshirani, 1993).

The images are drawn anew, as many as there are, with replacement; both matrices are summed over the same draw, and the two mean
IUs subtracted. The middle 95 % of 10,000 such differences are the interval. Pairing takes out what is common to both: that one
image is harder than another.

What it does not tell: the interval is that of two checkpoints, and a training with another seed gives another checkpoint. Images
of one video resemble each other, so there are fewer independent ones than files, and the true interval is wider (CamVid, the EM
slices). And each class has its own interval: of twenty classes without a difference, about one lies outside by chance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segue.metrics.confusion import mean
from segue.metrics.images import ImageMatrices

Floats = NDArray[np.float64]

RESAMPLES = 10_000
DRAWS = 4_000_000  # images in the resamples that are in the memory at once
FEWEST = 6
"""Images. That five pairs all point one way happens by chance in 2 of 32 cases, which is more than 5 %; whatever is done with
them can show no difference."""


@dataclass(frozen=True)
class Comparison:
    """IUs are shares, 0 to 1, and differences are B less A. IUs and means are those of each evaluation by itself."""

    names: tuple[str, ...]
    images: int
    iu: tuple[Floats, Floats]
    """Of each class, of A and of B; nan for a class in neither the truth nor the prediction of that one."""
    mean_iu: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    """95 % of the resamples' differences in mean IU lie in it."""
    better: float
    """The share of the resamples in which B has the higher mean IU."""
    class_intervals: Floats
    """(classes, 2); nan for a class that one of the two does not have."""

    @property
    def is_real(self) -> bool:
        """Whether there are enough images, and the interval leaves 0 out."""
        low, high = self.interval
        return self.images >= FEWEST and (low > 0 or high < 0)


def compare(a: ImageMatrices, b: ImageMatrices, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Compare two predictions of the same images. ValueError unless classes, images and their truth are the same.

    A class that is in neither truth nor prediction of a resample is left out of the mean there, of A and of B each by itself.
    """
    check_same(a, b)
    images = sorted(a)
    hits, unions = zip(*(hits_and_unions(matrices, images) for matrices in (a, b)), strict=True)
    iu_a, iu_b = a.total.iu, b.total.iu
    random = np.random.default_rng(seed)
    class_differences = np.empty((resamples, len(a.names)))
    differences = np.empty(resamples)
    chunk = max(1, DRAWS // len(images))
    for start in range(0, resamples, chunk):
        weights = draws(random, min(chunk, resamples - start), len(images))
        ius = [shares(weights @ right, weights @ union) for right, union in zip(hits, unions, strict=True)]
        class_differences[start : start + chunk] = ius[1] - ius[0]
        differences[start : start + chunk] = means(ius[1]) - means(ius[0])
    mean_a, mean_b = mean(iu_a), mean(iu_b)
    low, high = interval(differences)
    return Comparison(
        names=a.names,
        images=len(images),
        iu=(iu_a, iu_b),
        mean_iu=(mean_a, mean_b),
        difference=mean_b - mean_a,
        interval=(float(low), float(high)),
        better=float((differences > 0).mean()),
        class_intervals=np.stack([interval(column) for column in class_differences.T]),
    )


def check_same(a: ImageMatrices, b: ImageMatrices) -> None:
    """ValueError unless classes, images and the truth of each image are the same."""
    if a.names != b.names:
        raise ValueError(
            f"A and B have different classes: {', '.join(a.names)} and {', '.join(b.names)}; score both on one data set"
        )
    alone = [(what, [image for image in sorted(one) if image not in other]) for what, one, other in (("B", a, b), ("A", b, a))]
    missing = [f"{len(images)} images are missing in {what} ({', '.join(images[:3])})" for what, images in alone if images]
    if missing:
        raise ValueError(f"A and B were scored on different images: {'; '.join(missing)}; score both on the same ones")
    if not len(a):
        raise ValueError("A and B have no images")
    for image in a:
        if (a[image].counts.sum(axis=1) != b[image].counts.sum(axis=1)).any():
            raise ValueError(f"the truth of {image} differs between A and B; score both anew, with the same labels")


def hits_and_unions(matrices: ImageMatrices, images: list[str]) -> tuple[Floats, Floats]:
    """The pixels of each class that are right, and those in its truth or its prediction, by image: (images, classes)."""
    hits, unions = np.empty((2, len(images), len(matrices.names)))
    for row, image in enumerate(images):
        counts = matrices[image].counts
        hits[row] = counts.diagonal()
        unions[row] = counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal()
    return hits, unions


def shares(hits: Floats, unions: Floats) -> Floats:
    """IUs; nan where there is neither truth nor prediction."""
    return hits / np.where(unions > 0, unions, np.nan)


def means(ius: Floats) -> Floats:
    """The mean of each row's numbers that are not nan; 0 for a row without any."""
    present = ~np.isnan(ius)
    return np.where(present, ius, 0).sum(axis=1) / np.maximum(1, present.sum(axis=1))


def draws(random: np.random.Generator, resamples: int, images: int) -> Floats:
    """How often each image is in each resample, (resamples, images)."""
    chosen = random.integers(images, size=(resamples, images)) + images * np.arange(resamples)[:, None]
    return np.bincount(chosen.reshape(-1), minlength=resamples * images).reshape(resamples, images).astype(np.float64)


def interval(values: Floats) -> Floats:
    """The middle 95 % of what is not nan; nan if nothing is left."""
    present = values[~np.isnan(values)]
    return np.quantile(present, [0.025, 0.975]) if len(present) else np.full(2, np.nan)
