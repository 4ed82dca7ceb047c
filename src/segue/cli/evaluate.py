"""segue evaluate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segue.cli.console import print_evaluation, say
from segue.machine.progress import progress


def evaluate(args: Sequence[str]) -> None:
    """Score a checkpoint, or label maps, on a split of a data set: segue evaluate runs/enet camvid --root CamVid --split test"""
    import tyro

    def command(
        checkpoint: tyro.conf.Positional[str], data: tyro.conf.Positional[str], root: str = "", split: str = "val",
        out: Path | None = None, report: Path | None = None, ids: Literal["", "train", "label"] = "",
    ) -> None:  # fmt: skip
        """Print the scores of each class, and write them with a contact sheet and the confusion matrix of each image.

        On several devices: torchrun --nproc-per-node 4 -m segue evaluate ...

        Stopped, the same command goes on. It begins anew under torchrun, with --report, on data with scores of their own
        (cityscapes, em, nuclei, cells), and if files of the data or the checkpoint have changed.

        Label maps of any program are scored likewise, by naming their folder in place of a checkpoint: one PNG of one channel of
        8 bits for each image, of the image's name; in cityscapes, of a name that begins with its city, sequence and frame.

        Args:
            checkpoint: The folder of a checkpoint, a run (its best is taken) or label maps, or the name of one that segue has.
            data: The name of a data set; segue data lists them.
            root: The folder of the data set.
            split: train, val, test, or another that the data have, such as voc's trainval.
            out: For scores.json, README.md, sheet.jpg and images.npz; by default report/ in the run, by the label maps, or here.
            report: A folder for a page of HTML, index.html, that shows where the network errs.
            ids: Numbers in label maps: train are classes from 0 on, label those in the data's masks; *labelIds, *trainIds tell.
        """
        from segue.evaluation import evaluate_and_record

        evaluation = evaluate_and_record(
            checkpoint, data, root, split, out=out, report=report, ids=ids, progress=progress("scoring"), say=say
        )
        if evaluation:
            print_evaluation(evaluation)

    tyro.cli(command, args=args, prog="segue evaluate")
