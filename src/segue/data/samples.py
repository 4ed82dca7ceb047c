"""The sample contract: what every data set gives."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from segue.labels import Labels, Mask

Sample = dict[str, NDArray[Any]]
"""image (H, W, C), mask uint8 (H, W); where the data have them, depth float32 (H, W) in metres, instances uint16 (H, W).

An image has any number of channels of uint8, uint16 or float32, one type in all of a data set. A network sees uint8
divided by 255, uint16 divided by 65535, and float32 as it is, without nan or infinite values; less the mean, divided by the
standard deviation of each channel in these units.
"""


def takes_depth(channels: int, sample: Mapping[str, Any]) -> bool:
    """Whether a network of so many channels takes a sample's depth: it has it, and the image lacks just one channel."""
    return "depth" in sample and channels == np.shape(sample["image"])[-1] + 1


class DataError(ValueError):
    """The data are missing, incomplete, or not what they should be; the message names the file and the ways out."""


class DamagedError(DataError):
    """A file is not there, cut short, or none of its kind: to be copied anew, where other DataErrors are to be mended."""


class MisplacedError(DataError):
    """Files of one sample are whole, but do not lie on one another."""


class Samples(Dataset[Sample]):
    """A data set: samples by number, what their labels mean, and a name for each that a person can find again.

    A subclass defines __len__ and __getitem__ and sets `labels`.
    """

    labels: Labels

    def __len__(self) -> int:
        raise TypeError(f"{type(self).__name__} has no length: a data set must define __len__")

    def mask(self, index: int) -> Mask:
        """The sample's mask alone, for counting labels."""
        return self[index]["mask"]

    def truth(self, index: int) -> Sample:
        """What a scorer asks of the sample; without the image, where that is quicker."""
        return self[index]

    def void(self, index: int) -> NDArray[np.bool_] | None:
        """Which pixels of the image show nothing, (H, W), by what its file says; None if all show something."""
        return None

    def name(self, index: int) -> str:
        """The file, or whatever else tells a person which sample this is."""
        return f"sample {index}"

    def check(self, index: int) -> None:
        """Raise DataError if the sample cannot be used; a data set that defines it is asked, instead of reading every sample."""
