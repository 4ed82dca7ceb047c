"""The 2018 Data Science Bowl: nuclei of cells under many microscopes, in many stains."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segue.data.files import FileSamples, Pair, pair_files, read, read_numbers
from segue.data.samples import DataError, Sample
from segue.images.fast_decoding import read_mask
from segue.labels import Labels, Mask

NUCLEI = Labels(names=("background", "nucleus"), palette=((0, 0, 0), (255, 255, 255)))

HELP = (
    "the Data Science Bowl 2018 is stage1_train/ID/images/ID.png with one file a nucleus in stage1_train/ID/masks, or else train "
    "and val with the folders images and instances: segue data fetch nuclei, or get stage1_train.zip from "
    "bbbc.broadinstitute.org/BBBC038 and unpack it into a folder stage1_train; name the folder above it with --root"
)


class Nuclei(FileSamples):
    """670 pictures, RGB, 256 x 256 pixels and more: in fluorescence, in histological stains, in bright field.

    Layout, as distributed: stage1_train/ID/images/ID.png, with one mask (0 or 255) a nucleus in stage1_train/ID/masks/*.png. Or
    folders: train/images/NAME.png with train/instances/NAME.png, 8 or 16 bits, 0 background and then a number a nucleus; likewise
    val.

    The challenge has no validation split. For stage1_train it is segue's: of the IDs in order, every fifth (the 5th, the 10th and
    so on) is val, 134 pictures of 670, and the others are train.

    Classes: background, nucleus. `instances` has a number for each nucleus on all of its pixels; in `mask`, nuclei that touch are
    held apart by a line of background, as in U-Net (section 3): see `separate`. The palette is segue's, black and white.

    Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, Nature Methods 2019; image set
    BBBC038v1 of the Broad Bioimage Benchmark Collection. CC0.
    """

    splits = ("train", "val")
    help = HELP

    def __init__(self, root: str | Path, split: str = "train") -> None:
        root = Path(root)
        self.check_split(split)
        if (root / "stage1_train").is_dir():
            pairs = [pair for i, pair in enumerate(list_stage1(root / "stage1_train")) if (i % 5 == 4) == (split == "val")]
        else:
            pairs = pair_files(root / split / "images", root / split / "instances", HELP)
        super().__init__(pairs, NUCLEI, mapping={0: 0, 1: 1})

    def __getitem__(self, index: int) -> Sample:
        image, instances = self.image(index), self.instances(index)
        mask = separate(instances)
        self.check_sizes(index, image.shape[1::-1], mask)
        return {"image": image, "mask": mask, "instances": instances}

    def mask(self, index: int) -> Mask:
        return separate(self.instances(index))

    def instances(self, index: int) -> NDArray[np.uint16]:
        """0 on the background, and a number for each nucleus, (H, W)."""
        path = self.pairs[index][1]
        return combine(path) if path.is_dir() else read(path, read_numbers, HELP)


def list_stage1(folder: Path) -> list[Pair]:
    """Each picture and the folder of its masks, in the order of their IDs."""
    pairs = [(path / "images" / f"{path.name}.png", path / "masks") for path in sorted(folder.glob("[!.]*")) if path.is_dir()]
    if not pairs:
        raise DataError(f"{folder} has no pictures; {HELP}")
    return pairs


def combine(folder: Path) -> NDArray[np.uint16]:
    """One file a nucleus, in the order of their names, as one array of numbers."""
    paths = sorted(folder.glob("[!.]*.png"))
    if not paths:
        raise DataError(f"{folder} has no masks; {HELP}")
    masks = [read(path, read_mask) for path in paths]
    instances = np.zeros(masks[0].shape, np.uint16)
    for i, mask in enumerate(masks):
        if mask.shape != instances.shape:
            raise DataError(
                f"{paths[i]} and {paths[0]} are masks of one picture, but their sizes are {mask.shape} and {instances.shape}; "
                "copy them anew"
            )
        instances[mask > 0] = i + 1
    return instances


def separate(instances: NDArray[np.uint16]) -> Mask:
    """1 on instances, 0 elsewhere and on every pixel whose neighbour above, below, left or right is of another instance.

    So where two instances touch, a line of background two pixels wide, one of each, lies between them: the separation border
    that U-Net's weights are about (section 3).
    """
    mask = (instances > 0).astype(np.uint8)
    for one, other, here, there in (
        (instances[1:], instances[:-1], mask[1:], mask[:-1]),
        (instances[:, 1:], instances[:, :-1], mask[:, 1:], mask[:, :-1]),
    ):
        touch = (one != other) & (one > 0) & (other > 0)
        here[touch] = there[touch] = 0
    return mask
