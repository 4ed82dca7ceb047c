"""PASCAL VOC 2012, photographs of twenty kinds of things, with or without the labels of SBD."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from segue.data.files import FileSamples, Pair, files_by_stem, import_package, read_lines
from segue.data.samples import DataError
from segue.labels import IGNORE, Labels, Mask, distinct_color

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOC = Labels(NAMES, tuple(distinct_color(i - 1) for i in range(len(NAMES))))

HELP = (
    "VOCdevkit/VOC2012 has the folders JPEGImages, SegmentationClass and ImageSets/Segmentation: segue data fetch voc, or get "
    "VOCtrainval_11-May-2012.tar from host.robots.ox.ac.uk/pascal/VOC/voc2012 and unpack it; name the folder where VOCdevkit is "
    "with --root"
)
SBD_HELP = (
    "train_aug needs the labels of SBD: segue data fetch sbd; or unpack benchmark.tgz from "
    "www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours into the root, where it becomes "
    "benchmark_RELEASE/dataset; or put the folder SegmentationClassAug, of PNGs, into VOC2012; or use the split train"
)


class Voc(FileSamples):
    """1464 training and 1449 validation images of at most 500 x 500 pixels, twenty classes and background; 10,582 with SBD.

    Layout, as the archive unpacks: VOCdevkit/VOC2012 with JPEGImages/ID.jpg, SegmentationClass/ID.png and each split's IDs in
    ImageSets/Segmentation/train.txt, val.txt and trainval.txt. The root is above VOCdevkit, above VOC2012, or is VOC2012 itself.

    Splits: train, val, trainval, and train_aug: VOC's train and all that SBD has, without VOC's val; 10,582 images. SBD's labels
    come from a folder SegmentationClassAug of PNGs in VOC2012, or else from benchmark_RELEASE/dataset (cls/ID.mat, train.txt,
    val.txt) in the root or in VOC2012; the latter needs scipy. An image that VOC's train has keeps VOC's own label. The labels
    of VOC's test split are not public.

    Classes: background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike,
    person, pottedplant, sheep, sofa, train, tvmonitor; 255, the outline of each thing and what is hard to tell, is ignored. Masks
    are palette PNGs, whose numbers count; a mask saved as RGB is a DataError. The palette is VOC's.

    Everingham et al.: The PASCAL Visual Object Classes Challenge: A Retrospective, IJCV 2015; Hariharan et al.: Semantic Contours
    from Inverse Detectors, ICCV 2011. The photographs are from Flickr, under its terms; for research.
    """

    splits = ("train", "val", "trainval", "train_aug")

    def __init__(self, root: str | Path, split: str = "train") -> None:
        root = Path(root)
        self.check_split(split)
        places = (root / "VOCdevkit" / "VOC2012", root / "VOC2012", root)
        voc = next((place for place in places if (place / "JPEGImages").is_dir()), places[0])
        images, masks = files_by_stem(voc / "JPEGImages", HELP), files_by_stem(voc / "SegmentationClass", HELP)
        lists = voc / "ImageSets" / "Segmentation"
        ids = read_lines(lists / f"{split.removesuffix('_aug')}.txt", HELP)
        if split == "train_aug":
            more = find_sbd(root, voc)
            added = sorted(more.keys() - {*ids} - {*read_lines(lists / "val.txt", HELP)})
            ids, masks = ids + added, masks | {name: more[name] for name in added}
        super().__init__(
            [find_pair(name, images, masks) for name in ids], VOC, mapping={i: i for i in range(len(VOC))} | {IGNORE: IGNORE}
        )

    def mask(self, index: int) -> Mask:
        path = self.pairs[index][1]
        return self.decode(read_sbd(path), path) if path.suffix == ".mat" else super().mask(index)


def find_pair(name: str, images: dict[str, Path], masks: dict[str, Path]) -> Pair:
    for files, what in ((images, "image in JPEGImages"), (masks, "mask in SegmentationClass")):
        if name not in files:
            raise DataError(f"{name} is listed in a split, but has no {what}; {HELP}")
    return images[name], masks[name]


def find_sbd(root: Path, voc: Path) -> dict[str, Path]:
    """SBD's labels by the images' IDs."""
    if (voc / "SegmentationClassAug").is_dir():
        return files_by_stem(voc / "SegmentationClassAug", SBD_HELP)
    for place in (root / "benchmark_RELEASE" / "dataset", voc / "benchmark_RELEASE" / "dataset"):
        if place.is_dir():
            import_loadmat()  # to fail early
            ids = read_lines(place / "train.txt", SBD_HELP) + read_lines(place / "val.txt", SBD_HELP)
            return {name: place / "cls" / f"{name}.mat" for name in ids}
    raise DataError(f"there is neither {voc / 'SegmentationClassAug'} nor {root / 'benchmark_RELEASE' / 'dataset'}; {SBD_HELP}")


def import_loadmat() -> Callable[..., Any]:
    need = (
        "SBD's labels are .mat files, which scipy reads: pip install scipy; or put the folder SegmentationClassAug, of PNGs, "
        "into VOC2012"
    )
    loadmat: Callable[..., Any] = import_package("scipy.io", need).loadmat
    return loadmat


def read_sbd(path: Path) -> Mask:
    """The class numbers in a .mat of SBD's folder cls."""
    try:
        return np.asarray(import_loadmat()(path, squeeze_me=True, struct_as_record=False)["GTcls"].Segmentation, np.uint8)
    except DataError:
        raise
    except Exception as error:  # scipy has a kind for each fault of a file
        raise DataError(f"{path} cannot be read as a label of SBD: {error!r}; get the archive anew") from None
