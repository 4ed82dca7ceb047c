"""segue evaluate."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segue.cli.console import print_table, progress

if TYPE_CHECKING:
    from segue.data.samples import Samples
    from segue.evaluation import Scorer
    from segue.metrics import ConfusionMatrix, ImageMatrices

KEEP_EVERY = 30  # seconds between two writings of what is counted so far


def evaluate(args: Sequence[str]) -> None:
    """Score a checkpoint, or label maps, on a split of a data set: segue evaluate runs/enet camvid --root CamVid --split test"""
    import tyro

    def command(
        checkpoint: tyro.conf.Positional[str], data: tyro.conf.Positional[str], root: str = "", split: str = "val",
        out: Path | None = None, report: Path | None = None, ids: Literal["", "train", "label"] = "",
    ) -> None:  # fmt: skip
        """Print the scores of each class, and write them with a contact sheet and the confusion matrix of each image.

        On several devices: torchrun --nproc-per-node 4 -m segue evaluate ...

        Stopped, the same command goes on. It begins anew under torchrun, with --report, with a checkpoint that comes with segue,
        on data with scores of their own (cityscapes, em, nuclei, cells), and if files of the data or the checkpoint have changed.

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
        from segue.checkpoint import find_checkpoint

        if are_label_maps(checkpoint):
            score_files(Path(checkpoint), data, root, split, out, report, ids)
        elif find_checkpoint(checkpoint) is None and not Path(checkpoint).exists():
            raise ValueError(
                f"{checkpoint} is no checkpoint, which is a folder with model.json and model.safetensors, such as best/ in a "
                "run's folder; nor is there a folder of label maps of that name"
            )
        elif ids:
            raise ValueError(f"--ids (={ids}) is for label maps, and {checkpoint} is no folder of these; leave it out")
        else:
            score(checkpoint, data, root, split, out, report)

    tyro.cli(command, args=args, prog="segue evaluate")


def are_label_maps(checkpoint: str) -> bool:
    """Whether that names a folder that is neither a checkpoint nor a run."""
    from segue.checkpoint import find_checkpoint

    return Path(checkpoint).is_dir() and find_checkpoint(checkpoint) is None and not Path(checkpoint, "recipe.json").exists()


def score_files(folder: Path, data: str, root: str, split: str, out: Path | None, report: Path | None, ids: str) -> None:
    """Score the label maps in a folder, print and record."""
    import time

    from segue.checkpoint import Card
    from segue.data import create_dataset
    from segue.evaluation import create_scorers, evaluate_files
    from segue.evaluation.label_maps import LabelMaps
    from segue.evaluation.record import write_record
    from segue.machine.provenance import command_line, describe_machine

    if report:
        raise ValueError("--report asks how likely each pixel's class is, which label maps do not say; leave it out")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("label maps are scored by one process on several threads; leave out torchrun")
    samples = create_dataset(data, root, split)
    maps = LabelMaps(folder, samples, ids)
    out = out or folder / "report" / f"{data}-{split}"
    if out.resolve() == folder.resolve():
        raise ValueError(f"--out (={out}) is the folder of the label maps; choose another for their scores")
    check_record(out)
    scorers = [scorer for scorer in create_scorers(data, samples) if not scorer.needs_confidence]
    start = time.perf_counter()
    images = evaluate_files(maps, samples, progress("scoring"), scorers, root=root)
    evaluation = {
        "data": data, "split": split, "command": command_line(), "label_maps": str(folder), "ids": maps.ids,
        "images": len(images), "seconds": round(time.perf_counter() - start, 1), **describe_machine("cpu"),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    images.save(out / "images.npz")
    card = Card(f"label maps in {folder}", samples.labels)
    sheet = write_record(out, images.total, maps, samples, card, evaluation, scorers)
    print_scores(images.total, f"{card.network} on {data} {split}, {len(images)} images, percent", scorers)
    print(f"scores: {out / 'scores.json'}\npicture: {sheet}")


def score(checkpoint: str, data: str, root: str, split: str, out: Path | None, report: Path | None = None) -> None:
    """Evaluate, print and record; with torchrun, each process its share, and the first one all the rest."""
    import time

    from segue.checkpoint import find_checkpoint, load_checkpoint
    from segue.data import create_dataset
    from segue.evaluation import Scorer, create_scorers, evaluate_images
    from segue.evaluation.error_page.errors import ErrorReport
    from segue.evaluation.error_page.page import check_page, write_page
    from segue.evaluation.loop import check_labels
    from segue.evaluation.record import write_record
    from segue.inference import Predictor
    from segue.machine.processes import joined
    from segue.machine.provenance import command_line, describe_machine

    folder = find_checkpoint(checkpoint)
    if out is None:
        run = folder.parent if folder and (folder.parent / "recipe.json").exists() else Path()
        out = run / "report" / f"{data}-{split}"
    check_record(out)
    if report:
        check_page(report)
    with joined() as process:
        model, card = load_checkpoint(checkpoint)
        samples = create_dataset(data, root, split)
        predictor = Predictor.of(model, card, process.device)
        check_labels(predictor, samples)
        page = ErrorReport(samples) if report else None
        scorers: list[Scorer] = create_scorers(data, samples) + ([page] if page else [])
        part = None
        if process.count == 1 and folder and not scorers:
            told = (folder / "model.json").read_text(), data, split, str(Path(root).resolve()), files_of(samples)
            part = part_file(out, *map(str, told))
        images = load_part(part, samples.labels.names)
        evaluation = {"data": data, "split": split, "command": command_line(), "processes": process.count}
        if len(images):
            evaluation["resumed_after"] = len(images)
            print(f"going on after {len(images)} images", flush=True)
        for made in filter(None, (out, report)):
            made.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        try:
            shown = keeping(images, part) if process.is_first else iter
            share = process.number, process.count
            evaluate_images(predictor, samples, shown, scorers, into=images, root=root, share=share)
        finally:
            if part and len(images):
                images.save(part)
            if part and 0 < len(images) < len(samples):
                print(f"{len(images)} of {len(samples)} images are scored; the same command goes on from there", flush=True)
        shares = process.gather((images, scorers))
        if not process.is_first:
            return
        for others, counted in shares[1:]:
            images += others
            for scorer, other in zip(scorers, counted, strict=True):
                scorer.merge(other)
    evaluation |= {"images": len(images), "seconds": round(time.perf_counter() - start, 1)}
    evaluation |= describe_machine(predictor.device.type)
    matrix = images.total
    images.save(out / "images.npz")  # all is written before anything is printed: whoever reads may have gone
    sheet = write_record(out, matrix, predictor, samples, card, evaluation, scorers)
    written = [f"scores: {out / 'scores.json'}", f"picture: {sheet}"]
    if report and page:
        written.append(f"report: {write_page(report, page, matrix, card, evaluation)}")
    if part:
        part.unlink(missing_ok=True)
    print_scores(matrix, f"{card.network} on {data} {split}, {len(images)} images, percent", scorers)
    print("\n".join(written))


def check_record(out: Path) -> None:
    """ValueError if a record would overwrite what is none, or lie in what is no folder."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file, so no scores can be written into {out}; choose another --out")
    if (out / "README.md").exists() and not (out / "scores.json").exists():
        raise ValueError(f"{out} holds a README.md that is no record of scores, and would be overwritten; choose another --out")


def print_scores(matrix: "ConfusionMatrix", title: str, scorers: "Sequence[Scorer]") -> None:
    from segue.evaluation.record import score_table

    print_table(score_table(matrix), title)
    for scorer in scorers:
        print_table(scorer.table(), scorer.title)


def part_file(out: Path, *what: str) -> Path:
    """Where the matrices of an evaluation are kept while it runs: a name that no other checkpoint, data or segue has."""
    import hashlib

    from segue._version import __version__

    return out / f"{hashlib.sha256(repr((__version__, *what)).encode()).hexdigest()[:16]}.part.npz"


def files_of(samples: "Samples") -> list[Any]:
    """What tells whether the data are still the same: their names, and of files the size, the time and how masks are read."""
    from segue.data.files import FileSamples

    told = [samples.labels, [samples.name(index) for index in range(len(samples))]]
    if isinstance(samples, FileSamples):
        paths = {path for pair in samples.pairs for path in pair} | {*getattr(samples, "depths", ())}
        found = [(str(path), path.stat()) for path in sorted(paths) if path.exists()]  # some name a part of a file
        told += [(path, status.st_size, status.st_mtime_ns) for path, status in found]
        told += samples.table.tolist()
    return told


def load_part(part: Path | None, names: Sequence[str]) -> "ImageMatrices":
    """What is kept of this evaluation; nothing if there is none, or if it is damaged."""
    from segue.metrics import ImageMatrices

    if part and part.exists():
        try:
            return ImageMatrices.load(part)
        except ValueError as error:
            print(f"{error}; beginning anew", flush=True)
    return ImageMatrices(names)


def keeping(images: "ImageMatrices", part: Path | None) -> Callable[[Iterable[int]], Iterable[int]]:
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
