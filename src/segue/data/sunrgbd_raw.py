"""SUN RGB-D as distributed: what its toolbox, of MATLAB's files, says of the images, and the labels that it holds."""

from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.data.files import import_package
from segue.data.samples import DataError

Files = tuple[str, str, str]  # of an image: it, its depth, its label
TOOLBOX = "SUNRGBDtoolbox"
META, SEG = f"{TOOLBOX}/Metadata/SUNRGBDMeta.mat", f"{TOOLBOX}/Metadata/SUNRGBD2Dseg.mat"
ALLSPLIT = f"{TOOLBOX}/traintestSUNRGBD/allsplit.mat"
NEED = f"the files of {TOOLBOX} are read with h5py and scipy: pip install h5py scipy"
HELP = (
    "SUN RGB-D is SUNRGBD.zip and SUNRGBDtoolbox.zip from rgbd.cs.princeton.edu, both unpacked in one folder; or what the file "
    "src/datasets/sunrgbd/prepare_dataset.py of github.com/TUI-NICR/ESANet writes, with the lists train_rgb.txt, "
    "train_depth.txt, train_label.txt, likewise test_; name the place with --root"
)


def read_toolbox(root: Path, part: str) -> list[Files]:
    """As SUNRGBDtoolbox lists them; a label is named as if SUNRGBD2Dseg.mat were a folder: seglabel/1 and so on."""
    for path in (root / "SUNRGBD", root / ALLSPLIT, root / META, root / SEG):
        if not path.exists():
            raise DataError(f"{path} does not exist; {HELP}")
    rows = read_meta(root / META, (root / META).stat().st_mtime_ns)
    check_labels(root / SEG, len(rows))
    listed = {below(path): path for path in strings(read_mat(root / ALLSPLIT, f"all{part}"), root / ALLSPLIT)}
    unknown = sorted(listed.keys() - {folder for folder, _, _ in rows})
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if unknown[1:] else ""
        raise DataError(
            f"{root / ALLSPLIT} names {listed[unknown[0]]}{more}, which is not in {META}; unpack the toolbox anew; {HELP}"
        )
    return [
        (f"SUNRGBD/{folder}/image/{image}", f"SUNRGBD/{folder}/depth_bfx/{depth}", f"{SEG}/seglabel/{number}")
        for number, (folder, image, depth) in enumerate(rows, 1)
        if folder in listed
    ]


@lru_cache(maxsize=1)
def read_meta(path: Path, changed: int) -> list[Files]:
    """The folder below SUNRGBD, the image and the depth of each; kept until the file's time of change is another: it is slow."""
    meta = read_mat(path, "SUNRGBDMeta")
    if not {"rgbpath", "rgbname", "depthname"} <= {*(meta.dtype.names or ())}:
        raise DataError(f"{path} lacks rgbpath, rgbname or depthname of the images; unpack the toolbox anew; {HELP}")
    paths, images, depths = (strings(meta[field], path) for field in ("rgbpath", "rgbname", "depthname"))
    folders = [str(PurePosixPath(below(image)).parent.parent) for image in paths]
    return list(zip(folders, images, depths, strict=True))


def below(path: str) -> str:
    """What follows SUNRGBD in a path of the toolbox, which begins where its authors had the data: /n/fs/sun3d/data/SUNRGBD/."""
    return str(PurePosixPath(path.rpartition("/SUNRGBD/")[2].strip("/")))


def strings(cells: NDArray[Any], path: Path) -> list[str]:
    """What a cell array, or a field of a struct array, holds."""
    try:
        return [str(cell.item()) for cell in cells.reshape(-1)]
    except (ValueError, AttributeError):
        raise DataError(f"{path} cannot be read: it must hold texts; unpack the toolbox anew; {HELP}") from None


def read_mat(path: Path, name: str) -> NDArray[Any]:
    """One variable in a .mat that is not HDF5."""
    loadmat = import_package("scipy.io", NEED).loadmat
    try:
        return np.asarray(loadmat(path, variable_names=[name])[name])
    except Exception as error:  # scipy has a kind for each fault of a file
        raise DataError(f"{path} cannot be read: {error!r}; unpack the toolbox anew; {HELP}") from None


def check_labels(path: Path, images: int) -> None:
    """DataError unless SUNRGBD2Dseg.mat has so many labels."""
    try:
        with import_package("h5py", NEED).File(path) as file:
            shape = file["SUNRGBD2Dseg/seglabel"].shape
    except (OSError, KeyError, AttributeError) as error:
        raise DataError(f"{path} cannot be read: {error}; unpack the toolbox anew; {HELP}") from None
    if shape != (images, 1):
        raise DataError(
            f"{path} has labels of the shape {shape}, but {META} has {images} images; they must belong together; {HELP}"
        )


def read_label(path: Path) -> NDArray[Any]:
    """(H, W), of .../SUNRGBD2Dseg.mat/seglabel/1 or a later one; 0 is void."""
    try:
        with import_package("h5py", NEED).File(path.parents[1]) as file:
            reference = file["SUNRGBD2Dseg/seglabel"][int(path.name) - 1, 0]
            return np.ascontiguousarray(file[reference][()].T)  # MATLAB's axes are the other way round
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}; unpack the toolbox anew") from None
