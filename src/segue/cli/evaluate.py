"""segue evaluate."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from segue.cli.console import print_table, progress

KEEP_EVERY = 30  # seconds between two writings of what is counted so far


def evaluate(args: Sequence[str]) -> None:
    """Score a checkpoint on a split of a data set: segue evaluate runs/enet camvid --root CamVid --split test"""
    import tyro

    def command(
        checkpoint: tyro.conf.Positional[str], data: tyro.conf.Positional[str], root: str = "", split: str = "val",
        out: Path | None = None, report: Path | None = None,
    ) -> None:  # fmt: skip
        """Print the scores of each class, and write them with a contact sheet and the confusion matrix of each image.

        Stopped, the same command goes on, unless the data have scores of their own (cityscapes, em, nuclei, cells) or a report is
        written. On several devices: torchrun --nproc-per-node 4 -m segue evaluate ...

        Args:
            checkpoint: A checkpoint's folder, a run's folder (its best is taken), or the name of one that comes with segue.
            data: The name of a data set; segue data lists them.
            root: The folder of the data set.
            split: train, val, test, or another that the data have, such as voc's trainval.
            out: The folder for scores.json, README.md, sheet.jpg and images.npz; by default report/ in the run, or here.
            report: A folder for a page of HTML that shows where the network errs.
        """
        score(checkpoint, data, root, split, out, report)

    tyro.cli(command, args=args, prog="segue evaluate")


def score(checkpoint: str, data: str, root: str, split: str, out: Path | None, report: Path | None = None) -> None:
    """Evaluate, print and record; with torchrun, each process its share, and the first one all the rest."""
    import time

    from segue.checkpoint import find_checkpoint, load_checkpoint
    from segue.data import create_dataset
    from segue.evaluation import Scorer, check_labels, create_scorers, evaluate_images
    from segue.inference import Predictor
    from segue.metrics import ImageMatrices
    from segue.processes import joined
    from segue.provenance import command_line, describe_machine
    from segue.report.errors import ErrorReport
    from segue.report.record import score_table, write_record

    folder = find_checkpoint(checkpoint)
    if out is None:
        run = folder.parent if folder and (folder.parent / "recipe.json").exists() else Path()
        out = run / "report" / f"{data}-{split}"
    if (out / "README.md").exists() and not (out / "scores.json").exists():
        raise ValueError(f"{out} holds a README.md that is no record of scores, and would be overwritten; choose another --out")
    with joined() as process:
        model, card = load_checkpoint(checkpoint)
        samples = create_dataset(data, root, split)
        predictor = Predictor.of(model, card, process.device)
        check_labels(predictor, samples)
        page = ErrorReport(samples) if report else None
        scorers: list[Scorer] = create_scorers(data, samples) + ([page] if page else [])
        part = None
        if process.count == 1 and folder and not scorers:
            part = part_file(out, (folder / "model.json").read_text(), data, split, str(Path(root).resolve()))
        images = ImageMatrices.load(part) if part and part.exists() else ImageMatrices(samples.labels.names)
        evaluation = {"data": data, "split": split, "command": command_line(), "processes": process.count}
        evaluation |= {"resumed_after": len(images)} if len(images) else {}
        out.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        try:
            shown = keeping(images, part) if process.is_first else iter
            share = process.number, process.count
            evaluate_images(predictor, samples, shown, scorers, into=images, root=root, share=share)
        finally:
            if part and 0 < len(images) < len(samples):
                images.save(part)
                print(f"{len(images)} of {len(samples)} images are scored; the same command goes on from there", flush=True)
        shares = process.gather((images, scorers))
        if not process.is_first:
            return
        for others, counted in shares[1:]:
            images += others
            for scorer, other in zip(scorers, counted, strict=True):
                scorer.merge(other)
    evaluation |= {"seconds": round(time.perf_counter() - start, 1), **describe_machine()}
    matrix = images.total
    print_table(score_table(matrix), f"{card.network} on {data} {split}, {len(samples)} images, percent")
    for scorer in scorers:
        print_table(scorer.table(), scorer.title)
    images.save(out / "images.npz")
    sheet = write_record(out, matrix, predictor, samples, card, evaluation, scorers)
    for old in out.glob("*.part.npz"):
        old.unlink()
    print(f"scores: {out / 'scores.json'}\npicture: {sheet}")
    if report and page:
        print(f"report: {page.write(report, matrix, card, evaluation)}")


def part_file(out: Path, *what: str) -> Path:
    """Where the matrices of an evaluation are kept while it runs: a name that no other checkpoint, data or segue has."""
    import hashlib

    from segue import __version__

    return out / f"{hashlib.sha256(repr((__version__, *what)).encode()).hexdigest()[:16]}.part.npz"


def keeping(images: Any, part: Path | None) -> Callable[[Iterable[int]], Iterable[int]]:
    """A progress bar that writes the matrices counted so far to `part` from time to time."""
    import time

    def shown(indices: Iterable[int]) -> Iterator[int]:
        kept = time.monotonic()
        for index in progress("scoring")(indices):
            yield index
            if part and time.monotonic() - kept > KEEP_EVERY:
                images.save(part)
                kept = time.monotonic()

    return shown
