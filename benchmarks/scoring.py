"""Scoring label maps in files against Cityscapes' own evaluator.

Pairs of 1024 x 2048 PNGs of label ids under Cityscapes' names: scenes of segue.data.synthetic.streets with ragged edges, and
predictions that are coarse and shifted. All sides read the files, which the system has in memory, and count a whole confusion
matrix; before anything is timed they must have the same one. Figures are of one pair, wall clock.

- segue: evaluate_files over the folder, on one thread and on two, matching of names included;
- segue, decoding alone: the same two files of each pair read and nothing counted, on one thread;
- Pillow, decoding alone: likewise, as the peers read them;
- cityscapesscripts: evaluateImgLists over the same files, without instances and accuracy per image, on its one thread, with its C
  extension if it is built here, which a note says;
- torchmetrics: Pillow and MulticlassJaccardIndex on the labels, as its documentation does it, on torch's threads (--threads).
"""

import copy
import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import torch
from harness import arguments, command_line, compare, summarize, write_record
from torchmetrics.classification import MulticlassJaccardIndex

from segue.data.cityscapes import CLASS_IDS, IMAGE, MASK, Cityscapes
from segue.data.synthetic.streets import Streets
from segue.evaluation import evaluate_files
from segue.images.fast_decoding import read_mask
from segue.labels import IGNORE

UNLABELED, ROAD = 0, 7


def draw_pairs(root: Path, count: int, size: tuple[int, int]) -> None:
    """Cityscapes' folders with masks and pictures to name them, and predictions in the folder `predictions`."""
    random = np.random.default_rng(0)
    scenes = Streets("val", count=count, size=size)
    ids = np.full(256, UNLABELED, np.uint8)
    ids[: len(scenes.labels)] = CLASS_IDS[: len(scenes.labels)]
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    for index in range(count):
        shifts = [14 * cv2.GaussianBlur(random.normal(0, 1, size).astype(np.float32), (0, 0), 2) for _ in range(2)]
        truth = cv2.remap(ids[scenes[index]["mask"]], columns + shifts[0], rows + shifts[1], cv2.INTER_NEAREST)
        coarse = np.roll(truth, (3, 5), (0, 1))[::4, ::4].repeat(4, axis=0).repeat(4, axis=1)
        place = f"aachen/aachen_{index:06}_000019"
        files = {
            f"leftImg8bit/val/{place}{IMAGE}": np.zeros((1, 1), np.uint8),
            f"gtFine/val/{place}{MASK}": truth,
            f"predictions/{place}_pred_labelIds.png": np.where(coarse == UNLABELED, ROAD, coarse).astype(np.uint8),
        }
        for name, array in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(array).save(root / name)


class Sides:
    """Each method scores all pairs once."""

    def __init__(self, root: Path) -> None:
        self.samples = Cityscapes(root, "val")
        self.truths = [mask for _, mask in self.samples.pairs]
        self.folder = root / "predictions"
        self.predictions = sorted(self.folder.rglob("*.png"))
        self.official = import_official()
        self.args = copy.copy(self.official.args)
        self.args.evalInstLevelScore = self.args.evalPixelAccuracy = self.args.JSONOutput = False
        self.args.quiet = True

    def segue(self, threads: int) -> np.ndarray:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        matrix = evaluate_files(self.folder, self.samples)
        torch.set_num_threads(before)
        return matrix.total.counts

    def decoding(self, read: Callable[[Path], Any]) -> None:
        for pair in zip(self.truths, self.predictions, strict=True):
            for path in pair:
                read(path)

    def cityscapesscripts(self) -> np.ndarray:
        lists = [str(path) for path in self.predictions], [str(path) for path in self.truths]
        matrix = self.official.evaluateImgLists(*lists, self.args)["confMatrix"]
        return np.array(matrix)[np.ix_(CLASS_IDS, CLASS_IDS)].astype(np.int64)

    def torchmetrics(self) -> np.ndarray:
        metric = MulticlassJaccardIndex(len(CLASS_IDS), ignore_index=IGNORE, average="none")
        for truth, prediction in zip(self.truths, self.predictions, strict=True):
            labels = [torch.from_numpy(self.samples.table)[torch.from_numpy(pillow(path)).int()] for path in (prediction, truth)]
            metric.update(*labels)
        return metric.confmat.numpy()


def pillow(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as file:
        return np.array(file)


def import_official() -> Any:
    """The official evaluator; NumPy 2.4 no longer has a function that it calls."""
    if not hasattr(np, "in1d"):
        np.in1d = np.isin  # type: ignore[attr-defined]
    return importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


def main() -> None:
    options = arguments(__doc__, rounds=9)
    count, size = (2, (128, 256)) if options.quick else (6, (1024, 2048))
    with tempfile.TemporaryDirectory() as folder:
        draw_pairs(Path(folder), count, size)
        sides = Sides(Path(folder))
        runs: dict[str, Callable[[], Any]] = {
            "segue, 1 thread": lambda: sides.segue(1),
            "segue, 2 threads": lambda: sides.segue(2),
            "cityscapesscripts": sides.cityscapesscripts,
            "torchmetrics": sides.torchmetrics,
        }
        wanted = runs["segue, 1 thread"]()
        for side, run in runs.items():
            if not np.array_equal(run(), wanted):
                raise SystemExit(f"{side} and segue count differently")
        runs["segue, decoding alone"] = lambda: sides.decoding(read_mask)
        runs["Pillow, decoding alone"] = lambda: sides.decoding(pillow)
        times = compare(runs, options.rounds)
        sizes = [path.stat().st_size for path in (*sides.truths, *sides.predictions)]
    per_pair = {side: [seconds / count for seconds in values] for side, values in times.items()}
    notes = [
        f"{count} pairs of {size[0]} x {size[1]}; a file has {np.median(sizes) / 1000:.0f} kB in the median",
        f"cityscapesscripts ran {'with' if sides.official.CSUPPORT else 'without'} its C extension",
    ]
    write_record(options.out, command_line(), {"a pair": summarize(per_pair, "segue, 1 thread")}, notes=notes)


if __name__ == "__main__":
    main()
