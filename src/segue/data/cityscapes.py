"""Cityscapes, the street scenes of fifty cities, with the nineteen classes that its benchmark scores."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segue.data.files import FileSamples, pair, read, read_numbers
from segue.data.samples import DataError, Sample
from segue.labels import IGNORE, Labels, Mask

# id in the masks, name, class number (IGNORE: not scored), category. The licence plate, -1, is 255 in a file of 8 bits.
LABEL_IDS = (
    (0, "unlabeled", IGNORE, "void"),
    (1, "ego vehicle", IGNORE, "void"),
    (2, "rectification border", IGNORE, "void"),
    (3, "out of roi", IGNORE, "void"),
    (4, "static", IGNORE, "void"),
    (5, "dynamic", IGNORE, "void"),
    (6, "ground", IGNORE, "void"),
    (7, "road", 0, "flat"),
    (8, "sidewalk", 1, "flat"),
    (9, "parking", IGNORE, "flat"),
    (10, "rail track", IGNORE, "flat"),
    (11, "building", 2, "construction"),
    (12, "wall", 3, "construction"),
    (13, "fence", 4, "construction"),
    (14, "guard rail", IGNORE, "construction"),
    (15, "bridge", IGNORE, "construction"),
    (16, "tunnel", IGNORE, "construction"),
    (17, "pole", 5, "object"),
    (18, "polegroup", IGNORE, "object"),
    (19, "traffic light", 6, "object"),
    (20, "traffic sign", 7, "object"),
    (21, "vegetation", 8, "nature"),
    (22, "terrain", 9, "nature"),
    (23, "sky", 10, "sky"),
    (24, "person", 11, "human"),
    (25, "rider", 12, "human"),
    (26, "car", 13, "vehicle"),
    (27, "truck", 14, "vehicle"),
    (28, "bus", 15, "vehicle"),
    (29, "caravan", IGNORE, "vehicle"),
    (30, "trailer", IGNORE, "vehicle"),
    (31, "train", 16, "vehicle"),
    (32, "motorcycle", 17, "vehicle"),
    (33, "bicycle", 18, "vehicle"),
    (-1, "license plate", IGNORE, "vehicle"),
)
CLASS_IDS = np.array([label for label, _, number, _ in LABEL_IDS if number != IGNORE], np.uint8)
"""The id of each class, by its number."""
MAPPING = {label % 256: number for label, _, number, _ in LABEL_IDS}

CITYSCAPES = Labels(
    names=tuple(name for _, name, number, _ in LABEL_IDS if number != IGNORE),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
        (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
        (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
    categories=tuple(category for _, _, number, category in LABEL_IDS if number != IGNORE),
)  # fmt: skip

IMAGE, MASK, INSTANCES = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_instanceIds.png"
FRAME = re.compile(r"[^_]+_\d{6}_\d{6}(?=[_.])")
"""City, sequence and frame, with which the name of each file begins."""
HELP = (
    f"images are leftImg8bit/SPLIT/CITY/*{IMAGE}, masks gtFine/SPLIT/CITY/*{MASK} (not *_color.png): register at "
    "cityscapes-dataset.com, unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip into one folder, name it with --root"
)


class Cityscapes(FileSamples):
    """2975 training, 500 validation and 1525 test images, 2048 x 1024 (width x height), nineteen classes.

    Layout: leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png with
    gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png, likewise val and test, as the two archives unpack.

    Classes: road, sidewalk (flat); building, wall, fence (construction); pole, traffic light, traffic sign (object); vegetation,
    terrain (nature); sky; person, rider (human); car, truck, bus, train, motorcycle, bicycle (vehicle). The other 16 of the 35
    labels in the masks are ignored, as the benchmark does. The palette is the benchmark's.

    The benchmark's iIoU is counted over the instances in gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png, which
    the archive holds beside the masks; without these files all else works.

    The labels of the test split are not public: its masks, where the archive has them, hold void alone. `len` and `name` list its
    images, for predicting; reading a sample or a mask is a DataError, since only the server at cityscapes-dataset.com can score.

    Cordts et al.: The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016. For non-commercial use, such as
    research and teaching, after registration; not to be passed on.
    """

    splits = ("train", "val", "test")
    help = HELP
    label_ids = LABEL_IDS

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.check_split(split)
        images, masks = Path(root, "leftImg8bit", split), Path(root, "gtFine", split)
        found = files_by_place(images, IMAGE)
        self.split = split
        if split == "test":
            pairs = [(image, masks / (place + MASK)) for place, image in found.items()]
        else:
            pairs = pair(found, files_by_place(masks, MASK), HELP)
        super().__init__(pairs, CITYSCAPES, MAPPING)

    def mask(self, index: int) -> Mask:
        if self.split == "test":
            raise DataError(
                f"{self.name(index)} has no public labels: cityscapes-dataset.com scores predictions of the test split; "
                "score the val split instead"
            )
        return super().mask(index)

    def truth(self, index: int) -> Sample:
        """The mask, and as `instance_ids` what the method of that name gives, if there is such a file."""
        instances = self.instance_ids(index)
        return {"mask": self.mask(index)} | ({} if instances is None else {"instance_ids": instances})

    def instance_ids(self, index: int) -> NDArray[np.uint16] | None:
        """The numbers of the file *_instanceIds.png, uint16 (H, W); None if there is no such file.

        1000 * label + a running number for an instance, the label alone elsewhere and where a group could not be told apart.
        """
        mask = self.pairs[index][1]
        path = mask.with_name(mask.name.removesuffix(MASK) + INSTANCES)
        return read(path, read_numbers) if path.exists() else None


def files_by_place(folder: Path, ending: str) -> dict[str, Path]:
    """The files */*`ending` in order, by what comes before the ending: aachen/aachen_000000_000019."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; {HELP}")
    files = sorted(folder.glob(f"*/[!.]*{ending}"))
    if not files:
        raise DataError(f"{folder} has no files */*{ending}; {HELP}")
    return {path.relative_to(folder).as_posix().removesuffix(ending): path for path in files}


def submission_name(image: Path) -> str:
    """What the benchmark's server takes a label map for by its name, CITY_SEQUENCE_FRAME*.png; DataError if the image has none.

    berlin_000000_000019_leftImg8bit.png becomes berlin_000000_000019_pred_labelIds.png.
    """
    frame = FRAME.match(image.name)
    if not frame:
        raise DataError(
            f"{image} has no name of Cityscapes' kind, such as berlin_000000_000019{IMAGE}, and the server asks for its city, "
            "sequence and frame; name the images of leftImg8bit/test, or leave out --cityscapes-submission"
        )
    return f"{frame[0]}_pred_labelIds.png"
