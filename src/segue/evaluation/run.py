"""The run of an evaluation: from a checkpoint, or a folder of label maps, to the record of its scores."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segue.checkpoint import Card, find_checkpoint, read_checkpoint
from segue.data import create_dataset
from segue.data.samples import Samples
from segue.evaluation.error_page.errors import ErrorReport
from segue.evaluation.error_page.page import check_page, write_page
from segue.evaluation.label_maps import LabelMaps
from segue.evaluation.loop import Scorer, check_labels, count_images, create_scorers, evaluate_files, predict_sample
from segue.evaluation.record import evenly, write_record
from segue.evaluation.resume import check_record, keeping, kept, load_part, part_file
from segue.inference import Predictor
from segue.labels import Mask
from segue.machine.processes import joined
from segue.machine.provenance import command_line, describe_machine
from segue.metrics import ConfusionMatrix, ImageMatrices

Progress = Callable[[Iterable[int]], Iterable[int]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gave, and where it is written."""

    title: str
    """What was scored, on what data, and of how many images."""
    matrix: ConfusionMatrix
    """Of all images together; its `scores()` are the summary."""
    images: ImageMatrices
    scorers: list[Scorer]
    """What else the data are judged by, and the error page's own numbers."""
    written: dict[str, Path]
    """The files for people and machines: "scores", "picture", and "report" if one was asked for."""


@dataclass
class Counted:
    """What one process has counted of its share."""

    images: ImageMatrices
    scorers: list[Scorer]
    pictured: dict[int, Mask]
    """The label maps of those samples that the record shows."""

    def merge(self, other: "Counted") -> None:
        self.images += other.images
        for scorer, others in zip(self.scorers, other.scorers, strict=True):
            scorer.merge(others)
        self.pictured |= other.pictured


def evaluate_and_record(
    scored: str | Path,
    data: str,
    root: str | Path = "",
    split: str = "val",
    *,
    out: str | Path | None = None,
    report: str | Path | None = None,
    ids: str = "",
    progress: Progress = iter,
    say: Say = lambda line: None,
) -> Evaluation | None:
    """Score a checkpoint, or label maps, on a split of a data set and write the record: what `segue evaluate` does.

        evaluation = evaluate_and_record("runs/enet", "camvid", "CamVid", "test")
        evaluation.matrix.scores()

    scored: the folder of a checkpoint, a run (its best is taken) or label maps, or the name of a checkpoint that segue has.
    data, root, split: as `segue.create_dataset` takes them.
    out: the folder for scores.json, README.md, sheet.jpg and images.npz; by default report/DATA-SPLIT in the run, by the label
    maps, or here. report: a folder for a page of HTML, index.html, that shows where the network errs.
    ids: of label maps, see LabelMaps.
    progress wraps the sample numbers, as tqdm and rich's track do; say is told what happens beside, such as that it goes on.

    What is counted is kept in `out` while it runs, and the same call goes on with it after it was stopped: not with `report`, on
    data with scores of their own, in several processes, or if the data or the checkpoint have changed. Under torchrun each
    process scores its share, and the first one writes and gives the result; the others give None.

    ValueError if there is no such checkpoint or data, if they do not fit, or if something would be overwritten that is no record.
    """
    folder = find_checkpoint(scored)
    out, report = Path(out) if out else None, Path(report) if report else None
    if folder is None and Path(scored).is_dir() and not Path(scored, "recipe.json").exists():
        if report:
            raise ValueError("--report asks how likely each pixel's class is, which label maps do not say; leave it out")
        return evaluate_label_maps(Path(scored), data, str(root), split, out, ids, progress)
    if folder is None:
        others = "" if Path(scored).exists() else "; nor is there a folder of label maps of that name"
        raise ValueError(
            f"{scored} is no checkpoint, which is a folder with model.json and model.safetensors, such as best/ in a run's "
            f"folder{others}"
        )
    if ids:
        raise ValueError(f"--ids (={ids}) is for label maps, and {scored} is no folder of these; leave it out")
    return evaluate_checkpoint(folder, data, str(root), split, out, report, progress, say)


def evaluate_checkpoint(
    folder: Path, data: str, root: str, split: str, out: Path | None, report: Path | None, progress: Progress, say: Say
) -> Evaluation | None:
    """Evaluate and record the checkpoint in this folder; under torchrun each process its share, the first one all the rest."""
    if out is None:
        run = folder.parent if (folder.parent / "recipe.json").exists() else Path()
        out = run / "report" / f"{data}-{split}"
    check_record(out)
    if report:
        check_page(report)
    with joined() as process:
        model, card = read_checkpoint(folder)
        samples = create_dataset(data, root, split)
        predictor = Predictor.of(model, card, process.device)
        check_labels(predictor, samples)
        page = ErrorReport(samples) if report else None
        scorers: list[Scorer] = create_scorers(data, samples) + ([page] if page else [])
        part = part_file(out, folder, data, root, split, samples) if process.count == 1 and not scorers else None
        images = load_part(part, samples.labels.names, say)
        evaluation = {"data": data, "split": split, "command": command_line(), "processes": process.count}
        if len(images):
            evaluation["resumed_after"] = len(images)
            say(f"going on after {len(images)} images")
        for made in filter(None, (out, report)):
            made.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        shown = keeping(images, part, progress) if process.is_first else iter
        with kept(images, part, len(samples), say):
            counting = count_images(predictor, samples, images, shown, scorers, root, (process.number, process.count))
            chosen = evenly(samples)
            pictured = {index: prediction for index, prediction in counting if index in chosen}
        counted = Counted(images, scorers, pictured)
        for other in process.gather(counted)[1:]:
            counted.merge(other)
    if not process.is_first:
        return None
    evaluation |= {"images": len(counted.images), "seconds": round(time.perf_counter() - start, 1)}
    evaluation |= describe_machine(predictor.device.type)
    for index in chosen:
        if index not in counted.pictured:  # it was counted before an interruption
            counted.pictured[index] = predict_sample(predictor, samples[index])[0]
    recorded = save_record(out, counted, samples, card, evaluation)
    if report and page:
        recorded.written["report"] = write_page(report, page, recorded.matrix, card, evaluation)
    if part:
        part.unlink(missing_ok=True)
    return recorded


def evaluate_label_maps(
    folder: Path, data: str, root: str, split: str, out: Path | None, ids: str, progress: Progress
) -> Evaluation:  # fmt: skip
    """Evaluate and record the label maps in a folder."""
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
    images = evaluate_files(maps, samples, progress, scorers, root=root)
    evaluation = {
        "data": data, "split": split, "command": command_line(), "label_maps": str(folder), "ids": maps.ids,
        "images": len(images), "seconds": round(time.perf_counter() - start, 1), **describe_machine("cpu"),
    }  # fmt: skip
    pictured = {index: maps[index] for index in evenly(samples)}
    card = Card(f"label maps in {folder}", samples.labels)
    return save_record(out, Counted(images, scorers, pictured), samples, card, evaluation)


def save_record(out: Path, counted: Counted, samples: Samples, card: Card, evaluation: dict[str, Any]) -> Evaluation:
    """Write what was counted into the folder."""
    out.mkdir(parents=True, exist_ok=True)
    matrix = counted.images.total
    counted.images.save(out / "images.npz")
    sheet = write_record(out, matrix, counted.pictured, samples, card, evaluation, counted.scorers)
    title = f"{card.network} on {evaluation['data']} {evaluation['split']}, {len(counted.images)} images"
    written = {"scores": out / "scores.json", "picture": sheet}
    return Evaluation(title, matrix, counted.images, counted.scorers, written)
