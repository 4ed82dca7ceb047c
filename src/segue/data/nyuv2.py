"""NYU Depth v2, rooms seen by a Kinect, with the forty classes of Gupta et al."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.data.files import FileSamples, import_package, read, read_lines, read_numbers, size_message
from segue.data.samples import DataError, Sample
from segue.images import Raster
from segue.labels import IGNORE, Labels, Mask

NYUV2 = Labels.from_names(
    (
        "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
        "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
        "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand", "toilet",
        "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
    )
)  # fmt: skip

LABELED, SPLITS, CLASSES = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"
NEED = f"{LABELED} and the files beside it are read with h5py and scipy: pip install h5py scipy"
HELP = (
    f"NYU Depth v2 is {LABELED} and {SPLITS}, both from cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html, and {CLASSES} from "
    "github.com/ankurhanda/nyuv2-meta-data, in one folder: segue data fetch nyuv2 (2.8 GB); or what the file "
    "src/datasets/nyuv2/prepare_dataset.py of github.com/TUI-NICR/ESANet writes, with the lists train.txt and test.txt; name the "
    "place with --root"
)


class Nyuv2(FileSamples):
    """795 training and 654 test images with depth, 640 x 480 (width x height), 40 classes.

    Layout, as distributed: nyu_depth_v2_labeled.mat (images, depths, and labels of 894 kinds of things), splits.mat (trainNdxs,
    testNdxs) and classMapping40.mat (mapClass, from the 894 to the 40); needs h5py and scipy. Or folders, as ESANet's
    prepare_dataset.py writes them: lists train.txt and test.txt of numbers such as 0003, with train/rgb/0003.png,
    train/depth/0003.png of 16 bits in millimetres and train/labels_40/0003.png, in which 0 is void and 1 to 40 are the classes;
    likewise test. Where the .mat is there, it is taken.

    Splits: trainval and test are the official training and test parts. Validation is segue's: in the order of the training part
    every tenth run of 20 images is val (75), so that few of its rooms are in train, which is the rest (720).

    `depth` is in metres, 0 where unknown: the depth that the authors have filled in, not the raw one. The white frame about the
    images is left as it is.

    Classes: the 40 of Gupta et al., wall to otherprop; void is ignored. The palette is VOC's, by the numbers in the files.

    Silberman, Hoiem, Kohli, Fergus: Indoor Segmentation and Support Inference from RGBD Images, ECCV 2012; the classes: Gupta,
    Arbelaez, Malik: Perceptual Organization and Recognition of Indoor Scenes from RGB-D Images, CVPR 2013. The authors name no
    licence; for research; cite both.
    """

    splits = ("train", "val", "trainval", "test")
    help = HELP

    def __init__(self, root: str | Path, split: str = "train") -> None:
        root = Path(root)
        self.check_split(split)
        part = "test" if split == "test" else "train"
        self.packed = (root / LABELED).exists()
        numbers: Sequence[int | str]
        numbers = read_split(root / SPLITS, part) if self.packed else read_lines(root / f"{part}.txt", HELP)
        numbers = [numbers[i] for i in range(len(numbers)) if split in ("trainval", "test") or in_val(i) == (split == "val")]
        if not numbers:
            raise DataError(f"the {part} list below {root} has none for {split}: it must have 795 images; {HELP}")
        if self.packed:
            self.indices = [int(number) - 1 for number in numbers]
            self.classes = read_classes(root / CLASSES)
            check_packed(root / LABELED, max(self.indices) + 1)
            pairs = [(root / LABELED, root / LABELED)] * len(numbers)
        else:
            folders = root / part / "rgb", root / part / "labels_40", root / part / "depth"
            images, masks, self.depths = ([folder / f"{number}.png" for number in numbers] for folder in folders)
            pairs = list(zip(images, masks, strict=True))
        super().__init__(pairs, NYUV2, mapping={0: IGNORE} | {i: i - 1 for i in range(1, 41)})

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return {**sample, "depth": self.depth(index, sample["mask"])}

    def image(self, index: int) -> Raster:
        return self.unpack(index, "images") if self.packed else super().image(index)

    def mask(self, index: int) -> Mask:
        if not self.packed:
            return super().mask(index)
        kinds = self.unpack(index, "labels")
        if kinds.max(initial=0) >= len(self.classes):
            raise DataError(
                f"{self.name(index)} has the label {kinds.max()}, but {CLASSES} ends at {len(self.classes) - 1}; {HELP}"
            )
        return self.decode(self.classes[kinds], self.pairs[index][1])

    def depth(self, index: int, mask: Mask) -> NDArray[np.float32]:
        """In metres, (H, W); DataError unless it fits the mask."""
        if self.packed:
            return self.unpack(index, "depths").astype(np.float32)
        path = self.depths[index]
        millimetres = read(path, read_numbers, HELP)
        if millimetres.shape != mask.shape:
            raise DataError(size_message(path, millimetres.shape[::-1], self.pairs[index][1], mask.shape[::-1]))
        return millimetres.astype(np.float32) / np.float32(1000)

    def unpack(self, index: int, what: str) -> NDArray[Any]:
        """One of the pictures in the .mat, (H, W) or (H, W, 3)."""
        path = self.pairs[index][0]
        try:
            with import_package("h5py", NEED).File(path) as file:
                return np.ascontiguousarray(file[what][self.indices[index]].T)  # MATLAB's axes are the other way round
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{self.name(index)} cannot be read: {error}; get {LABELED} anew") from None

    def name(self, index: int) -> str:
        return f"{self.pairs[index][0]}, pair {self.indices[index] + 1}" if self.packed else super().name(index)

    def check(self, index: int) -> None:
        self[index]


def in_val(number: int) -> bool:
    return number // 20 % 10 == 9


def check_packed(path: Path, pairs: int) -> None:
    """DataError unless the .mat has at least so many pairs, whose parts are of one size."""
    try:
        with import_package("h5py", NEED).File(path) as file:
            images, depths, labels = (file[what].shape for what in ("images", "depths", "labels"))
    except (OSError, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}; get it anew; {HELP}") from None
    if not depths == labels == (images[0], *images[2:]) or images[1] != 3:
        raise DataError(f"{path} has images of the shape {images}, depths {depths} and labels {labels}; get it anew; {HELP}")
    if images[0] < pairs:
        raise DataError(f"{path} has {images[0]} pairs, but {SPLITS} counts up to {pairs}; they must belong together; {HELP}")


def read_split(path: Path, part: str) -> list[int]:
    """The numbers of a part's pairs, from 1."""
    numbers = read_mat(path, f"{part}Ndxs").reshape(-1).astype(np.int64)
    if numbers.min(initial=1) < 1:
        raise DataError(f"{path} has the number {numbers.min()}; the pairs count from 1; {HELP}")
    return numbers.tolist()


def read_classes(path: Path) -> NDArray[np.uint8]:
    """From the number of a kind of thing to the number of its class, 1 to 40; void, 0, stays 0."""
    classes = read_mat(path, "mapClass").reshape(-1)
    if classes.min(initial=1) < 1 or classes.max(initial=1) > len(NYUV2):
        raise DataError(f"{path} has classes from {classes.min()} to {classes.max()}; they must be 1 to {len(NYUV2)}; {HELP}")
    return np.concatenate([[0], classes]).astype(np.uint8)


def read_mat(path: Path, name: str) -> NDArray[Any]:
    """One array in a small .mat."""
    loadmat = import_package("scipy.io", NEED).loadmat
    if not path.exists():
        raise DataError(f"there is no file {path}; {HELP}")
    try:
        return np.asarray(loadmat(path)[name])
    except Exception as error:  # scipy has a kind for each fault of a file
        raise DataError(f"{path} cannot be read: {error!r}; get it anew; {HELP}") from None
