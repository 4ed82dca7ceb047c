"""SUN RGB-D, rooms of houses, offices and shops seen by four depth cameras."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.data.files import FileSamples, read, read_lines, read_numbers, size_message
from segue.data.samples import DataError, Sample
from segue.data.sunrgbd_raw import ALLSPLIT, HELP, TOOLBOX, Files, read_label, read_toolbox
from segue.labels import IGNORE, Labels, Mask

SUNRGBD = Labels.from_names(
    (
        "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
        "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
        "fridge", "tv", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink",
        "lamp", "bathtub", "bag",
    )
)  # fmt: skip


class SunRgbd(FileSamples):
    """5285 training and 5050 test images with depth, about 561 x 427 to 730 x 530 (width x height), 37 classes.

    Layout, as distributed: SUNRGBD with the images and depths, such as SUNRGBD/kv1/NYUdata/NYU0003/image/NYU0003.jpg and
    .../depth_bfx/NYU0003.png, and beside it SUNRGBDtoolbox, of which are read Metadata/SUNRGBDMeta.mat (the files of each image),
    Metadata/SUNRGBD2Dseg.mat (its labels, in the order of SUNRGBDMeta) and traintestSUNRGBD/allsplit.mat (the folders of the
    images of the two parts); needs h5py and scipy, and half a minute to read SUNRGBDMeta. Or as ESANet's prepare_dataset.py
    writes it: lists train_rgb.txt, train_depth.txt and train_label.txt, likewise test_; their lines are paths from the root,
    labels are .npy, such as .../label/label.npy, or PNGs of 8 bits. Where the lists are there, they are taken. In both layouts
    the label 0 is void and 1 to 37 are the classes.

    Splits: trainval and test are the official training and test parts. Validation is segue's: in the order of SUNRGBDMeta, which
    is that of the lists, every tenth run of 50 images of the training part is val (500), so that few of its rooms are in train,
    which is the rest (4785).

    `depth` is in metres, 0 where unknown: the depth that the authors have filled in, not the raw one. A file of SUN RGB-D holds
    millimetres with their 16 bits rotated left by 3, as the toolbox's read3dPoints undoes; its limit of 8 m is left out. RedNet's
    own code takes the numbers as stored, eighths of a millimetre below 8.192 m: its mean 19050 and deviation 9650 are 2.38125
    and 1.20625 m.

    Classes: the 37 of the benchmark, wall to bag; void is ignored. The palette is VOC's, by the numbers in the files.

    Song, Lichtenberg, Xiao: SUN RGB-D: A RGB-D Scene Understanding Benchmark Suite, CVPR 2015, with images of NYU Depth v2
    (Silberman et al., ECCV 2012), Berkeley B3DO (Janoch et al., 2011) and SUN3D (Xiao et al., ICCV 2013). For research; cite
    all four.
    """

    splits = ("train", "val", "trainval", "test")
    help = HELP

    def __init__(self, root: str | Path, split: str = "train") -> None:
        root = Path(root)
        self.check_split(split)
        part = "test" if split == "test" else "train"
        self.packed = (root / TOOLBOX).is_dir() and not (root / f"{part}_rgb.txt").exists()
        files = read_toolbox(root, part) if self.packed else read_lists(root, part)
        chosen = [paths for i, paths in enumerate(files) if split in ("trainval", "test") or in_val(i) == (split == "val")]
        if not chosen:
            source = root / (ALLSPLIT if self.packed else f"{part}_rgb.txt")
            raise DataError(f"{source} has {len(files)} lines, which leaves none for {split}; {HELP}")
        images, self.depths, masks = ([root / path for path in paths] for paths in zip(*chosen, strict=True))
        super().__init__(list(zip(images, masks, strict=True)), SUNRGBD, mapping={0: IGNORE} | {i: i - 1 for i in range(1, 38)})

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return {**sample, "depth": self.depth(index, sample["mask"])}

    def mask(self, index: int) -> Mask:
        path = self.pairs[index][1]
        if self.packed:
            return self.decode(check_array(read_label(path), path), path)
        return self.decode(read_array(path), path) if path.suffix == ".npy" else super().mask(index)

    def depth(self, index: int, mask: Mask) -> NDArray[np.float32]:
        """In metres, (H, W); DataError unless it fits the mask."""
        path = self.depths[index]
        stored = read(path, read_numbers, HELP)
        if stored.shape != mask.shape:
            raise DataError(size_message(path, stored.shape[::-1], self.pairs[index][1], mask.shape[::-1]))
        return to_metres(stored)

    def check(self, index: int) -> None:
        self[index]


def in_val(number: int) -> bool:
    return number // 50 % 10 == 9


def to_metres(stored: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The depth that a file of SUN RGB-D holds: its 16 bits are turned right by 3 and then are millimetres."""
    return ((stored >> 3) | (stored << 13)).astype(np.float32) / np.float32(1000)


def read_lists(root: Path, part: str) -> list[Files]:
    """As ESANet's script lists them."""
    lists = [read_lines(root / f"{part}_{what}.txt", HELP) for what in ("rgb", "depth", "label")]
    lengths = [len(lines) for lines in lists]
    if len({*lengths}) > 1:
        raise DataError(f"the lists {root}/{part}_*.txt (rgb, depth, label) have {lengths} lines; they must be alike; {HELP}")
    return list(zip(*lists, strict=True))


def read_array(path: Path) -> Mask:
    try:
        return check_array(np.load(path, allow_pickle=False), path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; {HELP}") from None
    except DataError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}; make the labels anew") from None


def check_array(array: NDArray[Any], path: Path) -> Mask:
    if array.ndim != 2 or array.dtype.kind not in "ui" or array.max(initial=0) > 255 or array.min(initial=0) < 0:
        raise DataError(f"{path} must hold the labels 0 to 37, (H, W), but it holds {array.dtype} of the shape {array.shape}")
    return array.astype(np.uint8)
