"""The table of data sets, and the ways from their files to batches."""

from collections.abc import Callable

from segue.data.camvid import CamVid
from segue.data.cityscapes import Cityscapes
from segue.data.em import Em
from segue.data.folder import Folder
from segue.data.medical import Brats, Isles, Volumes
from segue.data.nuclei import Nuclei
from segue.data.nyuv2 import Nyuv2
from segue.data.samples import DataError, Samples
from segue.data.sunrgbd import SunRgbd
from segue.data.synthetic.cells import Cells
from segue.data.synthetic.streets import Streets
from segue.data.voc import Voc
from segue.suggest import did_you_mean

DATASETS: dict[str, Callable[..., Samples]] = {
    "brats": Brats,
    "camvid": CamVid,
    "cells": Cells,
    "cityscapes": Cityscapes,
    "em": Em,
    "folder": Folder,
    "isles": Isles,
    "nuclei": Nuclei,
    "nyuv2": Nyuv2,
    "streets": Streets,
    "sunrgbd": SunRgbd,
    "voc": Voc,
    "volumes": Volumes,
}
DRAWN = ("cells", "streets")
"""Those that the program draws: they need no files."""


def create_dataset(name: str, root: str = "", split: str = "train") -> Samples:
    """The split of the data set of that name; ValueError if there is none such, or if its files are not as they should be."""
    if name not in DATASETS:
        raise ValueError(f'no data set "{name}"{did_you_mean(name, DATASETS)}')
    if name in DRAWN:
        return DATASETS[name](split)
    if not root:
        raise DataError(f"the data set {name} is read from files: say where with --root")
    return DATASETS[name](root, split)
