"""One image, from its file to its labels."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segue.images import Raster, find_fault, photo_channels, to_grey
from segue.images.channels import read_with_void
from segue.images.fast_decoding import read_image
from segue.images.pictures import to_rgb
from segue.inference import Predictor
from segue.inference.crf import DenseCRF
from segue.labels import Image, Mask


def describe(source: Path | str, error: BaseException) -> str:
    """What went wrong, with the name of the file."""
    text = str(error) or "there is not enough memory for it"
    return text if str(source) in text else f"{source}: {text}"


def read_photo(path: Path, channels: int) -> tuple[Image, Raster, NDArray[np.bool_] | None]:
    """An image as an RGB picture of 8 bits, as a network of so many channels sees it, and which pixels show nothing, (H, W).

    These are None where all show something. ImageError if the image does not fit.
    """
    if channels in (1, 3) and photo_channels(path):
        image = read_image(path)
        return image, to_grey(image) if channels == 1 else image, None
    stored = read_with_void(path)
    seen = stored.image
    if seen.shape[2] != channels:
        hint = "; a photo of 8 bits may be of any colours" if channels in (1, 3) else ""
        raise ValueError(f"{path} has {seen.shape[2]} channel(s) of {seen.dtype}, but the network takes {channels}{hint}")
    if fault := find_fault(seen):
        raise ValueError(f"{path} has {fault}")
    return to_rgb(seen), seen, stored.void


def label_photo(
    predictor: Predictor, image: Image, seen: Raster, crf: DenseCRF | None = None, samples: int = 0
) -> tuple[Mask, NDArray[np.float32] | None]:
    """The label map of what the network sees, and the variance of several samples where these are wanted, else None.

    image: it as an RGB picture, along whose edges the CRF moves the classes.
    """
    if crf is None and not samples:
        return predictor(seen), None
    probabilities, uncertainty = predictor.sampled(seen, samples) if samples else (predictor.probabilities(seen), None)
    if crf is not None:
        probabilities = crf(image, probabilities)
    return probabilities.argmax(axis=0).astype(np.uint8), uncertainty
