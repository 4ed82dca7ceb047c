"""The page of errors: its numbers and pictures as JSON in one file of HTML, drawn by page.js as the browser shows it."""

import base64
import html
import json
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from segue.checkpoint import Card
from segue.evaluation.error_page.errors import Crop, ErrorReport, Scored, void_color
from segue.evaluation.record import RULE
from segue.machine.provenance import commit
from segue.machine.replacing import replacing
from segue.metrics import ConfusionMatrix
from segue.metrics.boundaries import tolerance
from segue.metrics.confusion import divide

MARK = b'<meta name="generator" content="segue">'
"""Stands at the head of page.html."""


def write_page(folder: Path, report: ErrorReport, matrix: ConfusionMatrix, card: Card, evaluation: dict[str, Any]) -> Path:
    """Write folder/index.html, which needs no other file and no network; gives its path."""
    pictures, names = Pictures(), short_names(report.names)
    what = f"{card.network} on {evaluation['data']} {evaluation['split']}"
    data = {
        "title": what,
        "facts": facts(report, card, evaluation),
        "rule": RULE,
        "scores": {**matrix.scores(), **report.scores()},
        "classes": classes(report, matrix),
        "confusion": matrix.counts.tolist(),
        "pairs": pairs(report, names, pictures),
        "boundary": boundary(report),
        "calibration": calibration(report),
        "images": images(report, names, pictures),
        "count": len(report.images),
        "void": void_color(report.labels.palette),
    }
    parts = {
        "title": html.escape(f"{what}: where it errs"),
        "style": beside("page.css"),
        "script": beside("page.js") + beside("gallery.js"),
        "data": as_json(data),
        "pictures": as_json(pictures.encoded),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], beside("page.html"))  # at once: a part may hold any text
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    with replacing(path) as new:
        new.write_text(page, encoding="utf-8")
    return path


def check_page(folder: Path) -> None:
    """ValueError if a report cannot be written into the folder, or would overwrite a page that is none."""
    path = folder / "index.html"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, and the report needs a folder; choose another --report")
    if path.is_dir() or (path.exists() and MARK not in path.read_bytes()[:2000]):
        raise ValueError(f"{path} is no report of segue, and would be overwritten; choose another --report")


class Pictures:
    """All pictures of the page in base64, each once; `add` gives the number that the data know it by."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def add(self, picture: bytes) -> int:
        self.encoded.append(base64.b64encode(picture).decode())
        return len(self.encoded) - 1


def facts(report: ErrorReport, card: Card, evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    """What the head of the page tells, by name."""
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.get("versions", {}).items())
    known = {
        "network": card.network,
        "data": f"{evaluation['data']}, {evaluation['split']} split, {len(report.images):,} images",
        "scored on": evaluation.get("date") or date.today().isoformat(),
        "command": evaluation.get("command"),
        "took": f"{evaluation['seconds']:,} s" if "seconds" in evaluation else None,
        "machine": evaluation.get("hardware"),
        "versions": versions,
        "commit of segue": evaluation.get("commit") or commit(),
        "trained by": card.training.get("command"),
    }
    return [(name, str(value)) for name, value in known.items() if value]


def classes(report: ErrorReport, matrix: ConfusionMatrix) -> list[dict[str, Any]]:
    pixels = matrix.counts.sum(axis=1)
    precision = divide(matrix.counts.diagonal(), matrix.counts.sum(axis=0))
    columns = zip(matrix.names, report.labels.palette, matrix.iu, matrix.acc_per_class, precision,
                  report.boundaries.bf_per_class, pixels / max(1, pixels.sum()), strict=True)  # fmt: skip
    return [dict(zip(("name", "color", "iu", "recall", "precision", "bf", "share"), row, strict=True)) for row in columns]


def pairs(report: ErrorReport, names: list[str], pictures: Pictures) -> list[dict[str, Any]]:
    """The pairs that crops were kept of; the rest of what is told of them the page takes from the matrix."""

    def shown(crop: Crop) -> dict[str, Any]:
        return {"name": names[crop.index], "pixels": crop.pixels, "picture": pictures.add(crop.picture)}

    return [{"pair": pair, "crops": [shown(crop) for crop in found]} for pair, found in report.crops.items()]


def boundary(report: ErrorReport) -> dict[str, Any]:
    sizes = [image.size for image in report.images]
    commonest = max(set(sizes), key=sizes.count, default=(0, 0))
    parts = {"near": report.boundaries.near, "interior": report.boundaries.interior}
    told = {
        name: {
            "acc": part.acc,
            "mean_iu": part.mean_iu,
            "pixels": int(part.counts.sum()),
            "wrong": int(part.counts.sum() - part.counts.trace()),
        }
        for name, part in parts.items()
    }
    return {**told, "tolerance": tolerance(*commonest), "height": commonest[0], "width": commonest[1]}


def calibration(report: ErrorReport) -> dict[str, Any]:
    counted = report.calibration
    return {
        "pixels": counted.pixels.tolist(),
        "right": counted.right.tolist(),
        "confidence": counted.confidence.tolist(),
        "overconfidence": counted.overconfidence,
    }


def images(report: ErrorReport, names: list[str], pictures: Pictures) -> list[dict[str, Any]]:
    """The images that pictures were kept of, the worst first."""

    def shown(image: Scored) -> dict[str, Any]:
        return {
            "name": names[image.index],
            "height": image.size[0],
            "width": image.size[1],
            "mean_iu": image.mean_iu,
            "wrong": image.wrong,
            "bf": image.bf,
            "classes": image.classes,
            "pictures": [pictures.add(picture) for picture in image.pictures],
        }

    return [shown(image) for image in sorted(report.images, key=lambda image: (image.rank, image.index)) if image.pictures]


def short_names(names: Sequence[str]) -> list[str]:
    """The names without the folders that all have in common."""
    folders = {PurePath(name).parent.parts for name in names}
    common = 0
    while len({parts[: common + 1] for parts in folders}) == 1 and common < min(map(len, folders)):
        common += 1
    return [str(PurePath(*PurePath(name).parts[common:])) for name in names]


def as_json(value: Any) -> str:
    """JSON that may stand inside an element of HTML: nothing in it can end the element. nan becomes null."""
    return json.dumps(plain(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def plain(value: Any) -> Any:
    """The value in what JSON has; numbers to five digits, which is more than is shown."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(f"{value:.5g}")
    return value


def beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
