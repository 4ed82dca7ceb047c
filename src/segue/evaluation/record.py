"""The record of an evaluation: scores.json for machines, README.md and a contact sheet for people."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segue.checkpoint import Card
from segue.data.samples import Samples
from segue.evaluation.loop import Scorer
from segue.evaluation.objects import outlines
from segue.images import write_image
from segue.images.pictures import Row, contact_sheet
from segue.labels import Image, Mask
from segue.metrics import ConfusionMatrix
from segue.metrics.instances import InstanceScorer, components

RULE = (
    "Shares of the pixels that are not void, from one confusion matrix over all images. "
    "A class in neither truth nor prediction is left out of the means."
)
PICTURED = 6


def score_table(matrix: ConfusionMatrix) -> list[tuple[str, str, str, str]]:
    """Rows of (class, IU, accuracy, share of the pixels), in percent, with a header and the means."""
    pixels = matrix.counts.sum(axis=1)
    share = pixels / max(1, pixels.sum())
    rows = [("class", "IU", "accuracy", "pixels")]
    for name, iu, acc, part in zip(matrix.names, matrix.iu, matrix.acc_per_class, share, strict=True):
        rows.append((name, percent(iu), percent(acc), percent(float(part))))
    rows.append(("mean of the classes", percent(matrix.mean_iu), percent(matrix.acc_cls), ""))
    rows.append(("weighted by pixels", percent(matrix.fw_iu), percent(matrix.acc), ""))
    return rows


def write_record(
    folder: Path, matrix: ConfusionMatrix, pictured: Mapping[int, Mask], samples: Samples, card: Card,
    evaluation: dict[str, Any], scorers: Sequence[Scorer] = (),
) -> Path:  # fmt: skip
    """Write scores.json, sheet.jpg, README.md, and objects.jpg where objects are scored, into the folder; gives the sheet's path.

    `pictured` has the predicted label map (H, W) of each sample that `evenly` chooses, by its number. `evaluation` tells what was
    scored: data, split, command, seconds, hardware, versions, and images, if it was not all of the samples. `scorers` are those
    that saw it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "images": len(samples),
        **evaluation,
        "rule": RULE,
        "scores": matrix.scores(),
        "iu": {name: none_if_nan(iu) for name, iu in zip(matrix.names, matrix.iu, strict=True)},
        "scorers": {scorer.title: {name: none_if_nan(score) for name, score in scorer.scores().items()} for scorer in scorers},
        "confusion": matrix.to_json(),
        "network": card.network,
        "recipe": card.recipe,
        "training": card.training,
    }
    (folder / "scores.json").write_text(json.dumps(fields, indent=1) + "\n")
    where = f"{card.network} on {evaluation['data']} {evaluation['split']}"
    title = f"{where}: mean IU {matrix.mean_iu:.3f} over {fields['images']} images"
    sheet = folder / "sheet.jpg"
    write_image(sheet, contact_sheet(rows_of(pictured, samples), samples.labels, title, matrix.iu.tolist()))
    if any(isinstance(scorer, InstanceScorer) for scorer in scorers):
        write_image(folder / "objects.jpg", draw_objects(pictured, samples))
    (folder / "README.md").write_text(as_markdown(title, matrix, scorers, fields, card.training))
    return sheet


def evenly(samples: Samples) -> list[int]:
    """Samples at even distances from the first to the last, not chosen by how well they go."""
    return sorted({round(i) for i in np.linspace(0, len(samples) - 1, PICTURED)})


def draw_objects(pictured: Mapping[int, Mask], samples: Samples) -> Image:
    """What becomes of each object in a sample: of those that are pictured, the one with the most objects."""
    index = max(evenly(samples), key=lambda index: len(np.unique(samples[index]["instances"])))
    sample = samples[index]
    return outlines(sample["image"], sample["instances"], components(pictured[index] == 1))


def rows_of(pictured: Mapping[int, Mask], samples: Samples) -> list[Row]:
    """Those of the sheet, one a sample."""
    rows = []
    for index in evenly(samples):
        sample = samples[index]
        rows.append(Row(sample["image"], sample["mask"], pictured[index], Path(samples.name(index)).name))
    return rows


def as_markdown(
    title: str, matrix: ConfusionMatrix, scorers: Sequence[Scorer], fields: dict[str, Any], training: dict[str, Any]
) -> str:
    lines = [f"# {title}", "", "![contact sheet](sheet.jpg)", ""]
    lines += [*markdown_table(score_table(matrix)), "", f"In percent. {RULE}"]
    for scorer in scorers:
        lines += ["", f"## {scorer.title}", "", *markdown_table(scorer.table())]
        if isinstance(scorer, InstanceScorer):
            lines += ["", "![true and predicted objects, each in the colour of its fate](objects.jpg)"]
    lines += ["", "| scored | |", "| --- | --- |"]
    lines += [f"| {name} | {cell(fields[name])} |" for name in ("command", "images", "seconds", "hardware")]
    while training:
        lines += ["", "| trained | |", "| --- | --- |"]
        names = ("command", "commit", "seed", "epochs", "hours", "hardware")
        lines += [f"| {name} | {cell(training[name])} |" for name in names if name in training]
        versions = ", ".join(f"{name} {version}" for name, version in training.get("versions", {}).items())
        lines += [f"| versions | {versions} |"]
        training = training.get("started_from", {})
        lines += ["", "It started from the weights of:"] if training else []
    return "\n".join(lines) + "\n"


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose first row is the header and whose first column is text."""
    header, *body = rows
    rule = ("---", *("---:" for _ in header[1:]))
    return ["| " + " | ".join(map(cell, row)) + " |" for row in (header, rule, *body)]


def cell(text: Any) -> str:
    """Text that ends no cell of a table."""
    return str(text).replace("|", "\\|")


def percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


def none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
