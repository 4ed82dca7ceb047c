"""Whether samples are what a data set must give, told with the sample's name before anything is made of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from segue.data.samples import DataError, Samples
from segue.images import Raster, find_depth_fault, find_fault
from segue.labels import IGNORE, Mask

FORMS = {
    "image": "(H, W, C) of uint8, uint16 or float32",
    "mask": "(H, W) of uint8",
    "depth": "(H, W) of float32, in metres",
}


def check_samples(
    samples: Any, split: str, progress: Callable[[Iterable[int]], Iterable[int]] = iter, num_classes: int = IGNORE
) -> None:
    """DataError if the split is empty or one of its samples cannot be used.

    A data set that knows a quicker way (`Samples.check`) is asked; of another, every sample is read.
    """
    try:
        length = len(samples)
    except TypeError as error:
        raise DataError(f"the {split} split has no length ({error}); a data set must define __len__ and __getitem__") from None
    if length == 0:
        raise DataError(f"the {split} split is empty")
    if isinstance(samples, Samples) and type(samples).check is not Samples.check:
        for index in progress(range(length)):
            samples.check(index)
        return
    first = None
    for index in progress(range(length)):
        image = read_sample(samples, index, num_classes)
        first = image if first is None else first
        if (image.dtype, image.shape[2]) != (first.dtype, first.shape[2]):
            raise DataError(
                f"{sample_name(samples, index)}: the image is {image.dtype} with {image.shape[2]} channel(s), but "
                f"{sample_name(samples, 0)} is {first.dtype} with {first.shape[2]}; give all images of a data set one type"
            )


def read_sample(samples: Any, index: int, num_classes: int = IGNORE) -> Raster:
    """The image of a sample that keeps the contract; DataError with its name if it does not, or cannot be read."""
    name = sample_name(samples, index)
    try:
        sample = samples[index]
    except DataError:
        raise
    except Exception as error:  # which it is depends on who wrote the data set
        raise DataError(f"{name} cannot be read: {type(error).__name__}: {error}") from error
    image, mask = check_sample(sample, name)
    check_labels(mask, num_classes, name)
    return image


def check_sample(sample: Any, name: str, fields: Sequence[str] = ("image", "mask")) -> tuple[Raster, Mask]:
    """The image and the mask of a sample as a data set gives it; DataError with its name unless it is as it should be."""
    image, mask = check_arrays(sample, name, fields)
    for field in ("image", "mask", "depth"):
        if field in sample and not isinstance(sample[field], np.ndarray):
            raise DataError(
                f"{name}: the {field} is of the type {type(sample[field]).__name__}; it must be a NumPy array, {FORMS[field]}"
            )
    return image, mask


def check_arrays(sample: Any, name: str, fields: Sequence[str] = ("image", "mask")) -> tuple[Raster, Mask]:
    """The image and the mask of a sample; DataError with its name unless their shapes and types are as they should be, and those
    of its depth."""
    if not isinstance(sample, Mapping) or not set(fields) <= sample.keys():
        came = f"a dict of {', '.join(map(str, sample))}" if isinstance(sample, Mapping) else f"a {type(sample).__name__}"
        raise DataError(f"{name}: the sample is {came}; it must be a dict with {' and '.join(fields)}")
    image, mask = np.asarray(sample["image"]), np.asarray(sample["mask"])
    fault = find_fault(image)
    if fault:
        raise DataError(f"{name}: the image has {fault}")
    if mask.shape != image.shape[:2] or mask.dtype != np.uint8:
        if mask.shape == image.shape[1:]:
            raise DataError(
                f"{name}: the image has the shape {image.shape}, its channels first, as ToTensorV2 makes it; it must be (H, W, C)"
            )
        raise DataError(
            f"{name}: the mask has the shape {mask.shape} and the type {mask.dtype}; it must be {image.shape[:2]} of uint8, "
            "one class number for each pixel of the image"
        )
    if "depth" in sample and (fault := find_depth_fault(np.asarray(sample["depth"]), mask.shape)):
        raise DataError(f"{name}: the depth has {fault}")
    return image, mask


def check_labels(mask: Mask, num_classes: int, name: str) -> None:
    """DataError with the sample's name if its mask has a label that is no class, nor 255."""
    worst = int((mask + np.uint8(1)).max(initial=0)) - 1  # 255, which is ignored, becomes 0
    if worst >= num_classes:
        raise DataError(
            f"{name}: the mask has the label {worst}, but there are {num_classes} classes, 0 to {num_classes - 1}; "
            f"map it to a class or to {IGNORE}, which is ignored"
        )


def sample_name(samples: Any, index: int) -> str:
    """What the data set calls the sample, or its number."""
    name = getattr(samples, "name", None)
    return str(name(index)) if callable(name) else f"sample {index}"
