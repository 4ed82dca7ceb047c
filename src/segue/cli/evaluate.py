"""segue evaluate."""

from collections.abc import Sequence
from pathlib import Path

from segue.cli.console import print_table, progress


def evaluate(args: Sequence[str]) -> None:
    """Score a checkpoint on a split of a data set: segue evaluate runs/enet camvid --root CamVid --split test"""
    import tyro

    def command(
        checkpoint: tyro.conf.Positional[str], data: tyro.conf.Positional[str], root: str = "", split: str = "val",
        out: Path | None = None,
    ) -> None:  # fmt: skip
        """Print the scores of each class, and write them with a contact sheet.

        Args:
            checkpoint: A checkpoint's folder, a run's folder (its best is taken), or the name of one that comes with segue.
            data: camvid, cells, cityscapes, em, folder, nuclei, streets, sunrgbd or voc.
            root: The folder of the data set.
            split: train, val, test, or another that the data have, such as voc's trainval.
            out: The folder for scores.json, README.md and sheet.jpg; by default report/ in the run, or here.
        """
        score(checkpoint, data, root, split, out)

    tyro.cli(command, args=args, prog="segue evaluate")


def score(checkpoint: str, data: str, root: str, split: str, out: Path | None) -> Path:
    """Evaluate, print and record; gives the path of the contact sheet."""
    import time

    from segue.checkpoint import find_checkpoint, load_checkpoint
    from segue.data import create_dataset
    from segue.evaluation import check_labels, evaluate
    from segue.inference import Predictor
    from segue.provenance import command_line, describe_machine
    from segue.report.record import score_table, write_record

    if out is None:
        folder = find_checkpoint(checkpoint)
        run = folder.parent if folder and (folder.parent / "recipe.json").exists() else Path()
        out = run / "report" / f"{data}-{split}"
    if (out / "README.md").exists() and not (out / "scores.json").exists():
        raise ValueError(f"{out} holds a README.md that is no record of scores, and would be overwritten; choose another --out")
    model, card = load_checkpoint(checkpoint)
    samples = create_dataset(data, root, split)
    predictor = Predictor.of(model, card)
    check_labels(predictor, samples)
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    matrix = evaluate(predictor, samples, progress("scoring"))
    seconds = round(time.perf_counter() - start, 1)
    print_table(score_table(matrix), f"{card.network} on {data} {split}, {len(samples)} images, percent")
    evaluation = {"data": data, "split": split, "command": command_line(), "seconds": seconds, **describe_machine()}
    sheet = write_record(out, matrix, predictor, samples, card, evaluation)
    print(f"scores: {out / 'scores.json'}\npicture: {sheet}")
    return sheet
