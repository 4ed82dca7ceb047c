"""Reading volumes in NIfTI, slice by slice, with errors that name the file."""

import functools
import importlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.data.samples import DamagedError, DataError

SUFFIXES = (".nii", ".nii.gz")
LOADING = threading.RLock()  # threads that want slices of one volume wait until one of them has loaded it


@dataclass(frozen=True)
class Volume:
    """What a file holds, along the axes of the patient: to the right, to the front, to the head, and what else there is."""

    path: Path
    stored: NDArray[Any]
    """As in the file: on disk where that is not compressed."""
    slope: float
    offset: float
    """A value is slope * stored + offset."""

    def slice(self, number: int) -> NDArray[np.float32]:
        """An axial slice (H, W, T), counted from the feet: the patient's front is up, his right side left, as radiologists look.

        T is 1, or the number of times. What is not a finite number is 0.
        """
        return np.nan_to_num(self.values(number), copy=False, nan=0, posinf=0, neginf=0)

    def values(self, number: int) -> NDArray[np.float32]:
        """The same with whatever stands in the file."""
        part = np.asarray(self.stored[::-1, ::-1, number])
        values = part.reshape(*part.shape[:2], -1).swapaxes(0, 1).astype(np.float32)
        if (self.slope, self.offset) != (1, 0):
            values = values * np.float32(self.slope) + np.float32(self.offset)
        return values

    def mean_slice(self, number: int) -> NDArray[np.float32]:
        """The mean over time of a slice, (H, W)."""
        return self.slice(number).mean(axis=-1)


@dataclass(frozen=True)
class Header:
    """What the head of a file says, along the axes of the patient."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    """From the number of a voxel to its place in millimetres, 4 x 4."""

    def distance(self, other: "Header") -> float:
        """How far apart, in voxels, a corner of one volume lies at most from the same of the other."""
        corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (*self.shape[:3], 1)
        apart = np.linalg.norm((corners @ (self.affine - other.affine).T)[:, :3], axis=1).max()
        return float(apart / np.linalg.norm(self.affine[:3, :3], axis=0).max())


def read_volume(path: Path) -> Volume:
    """The volume in a file; the last few are kept. DataError if it cannot be read."""
    with LOADING:
        return load_volume(path, stamp_of(path))


def read_header(path: Path) -> Header:
    """What the file's head says, in a fraction of a volume's time; DataError if it cannot be read."""
    stamp_of(path)
    nibabel = import_nibabel()
    try:
        image = nibabel.load(path)
        if len(image.shape) < 3 or 0 in image.shape or image.get_data_dtype().kind not in "iuf":
            raise DataError(f"{path} holds {image.get_data_dtype()} of the shape {image.shape}; it must be a volume of numbers")
        orientation = nibabel.io_orientation(image.affine)
        affine = image.affine @ nibabel.orientations.inv_ornt_aff(orientation, image.shape[:3])
        shape = [image.shape[axis] for axis in np.argsort(orientation[:, 0])]
    except DataError:
        raise
    except Exception as error:  # nibabel has a kind for each fault of a file
        raise DamagedError(unreadable(path, error)) from None
    return Header((*shape, *image.shape[3:]), affine)


def check_whole(path: Path) -> None:
    """DataError if the file ends too early. Of a compressed one the end tells its length; if not, it is read."""
    try:
        proxy = import_nibabel().load(path).dataobj
        needed = proxy.offset + int(np.prod(proxy.shape)) * proxy.dtype.itemsize
        if path.suffix != ".gz":
            found = path.stat().st_size
        else:
            with path.open("rb") as file:
                file.seek(-4, 2)
                found = int.from_bytes(file.read(4), "little")
        if found % 2**32 != needed % 2**32:
            proxy.get_unscaled()
    except Exception as error:
        raise DamagedError(unreadable(path, error)) from None


@functools.lru_cache(maxsize=8)
def load_volume(path: Path, stamp: int) -> Volume:
    nibabel = import_nibabel()
    try:
        image = nibabel.load(path)
        proxy = image.dataobj
        stored = nibabel.orientations.apply_orientation(proxy.get_unscaled(), nibabel.io_orientation(image.affine))
    except Exception as error:
        raise DamagedError(unreadable(path, error)) from None
    return Volume(path, stored, float(proxy.slope), float(proxy.inter))


def mean_and_deviation(path: Path) -> tuple[float, float]:
    """Of the values of a volume that are not 0, after the mean over time; (0, 1) where there are none, or all are alike."""
    with LOADING:
        return measure(path, stamp_of(path))


@functools.cache
def measure(path: Path, stamp: int) -> tuple[float, float]:
    volume = load_volume(path, stamp)
    count, total, squares = 0, 0.0, 0.0
    for number in range(volume.stored.shape[2]):
        values = volume.mean_slice(number).astype(np.float64)
        count += int(np.count_nonzero(values))
        total += values.sum()
        squares += (values**2).sum()
    mean = total / max(count, 1)
    deviation = max(squares / max(count, 1) - mean**2, 0) ** 0.5
    return mean, deviation if deviation > 1e-6 * abs(mean) else 1.0


def stamp_of(path: Path) -> int:
    """The time of the file's last change, by which what is kept of it is known to be of today."""
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def unreadable(path: Path, error: Exception) -> str:
    return f"{path} cannot be read as NIfTI: {' '.join(str(error).split()) or repr(error)}; copy it anew"


def import_nibabel() -> Any:
    try:
        return importlib.import_module("nibabel")
    except ImportError:
        raise DataError('volumes are NIfTI files, which nibabel reads: pip install "segue[medical]"') from None
