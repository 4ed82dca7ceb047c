"""The tables of results, made from their records: python -m network_pages.results docs/results"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segue.data import DRAWN

Record = dict[str, Any]
Columns = dict[str, Callable[[Record], str]]
"""The cells of a record's row, by the heading of their column."""

DRAWN_HEADER = """# All networks learn

Each network, trained by a small recipe with its own loss on scenes that segue draws itself, and scored on scenes that it had not
seen. Most are narrow or have a small trunk, so that two cores need minutes: this shows that every network learns, and not which
one is best. Chance is what the most frequent class alone would score.

Written by `segue evaluate` (the records) and `make docs` (this table). Data need no download:
every command runs as it stands. A recipe may have changed after a row's commit; the record has the values of that day.
"""
EM_HEADER = """# Membranes: ISBI-2012 EM

U-Net and FusionNet at a quarter of the paper's width, trained for less than an hour of one core on 24 of the 30 slices and
scored on the other 6. **The split is segue's**: the papers trained on all 30 slices and were scored on 30 others, whose
labels are not public, with the mean of predictions of several turned or mirrored images; here each slice is predicted once.
So the rows of the papers are no match, and stand here to tell what is possible.

Errors are better when small, V_rand and V_info when large. Mean IU is not the challenge's. Two sources give FusionNet's
V_info differently, so it is left out. Written by `segue evaluate` (the records) and `make docs` (this table).
"""
# U-Net: the paper's table 1; V_rand and V_info as the leaderboard in FusionNet's paper quotes them.
EM_PAPERS = (
    ("U-Net, its paper", "0.000353", "0.0382", "0.0611", "0.97276", "0.98662"),
    ("FusionNet, its paper", "-", "-", "-", "0.97804", "-"),
)
NUCLEI_HEADER = """# Nuclei: what U-Net's border weights do

The same small U-Net, recipe, data and seed, trained once with the weights that U-Net puts on the background between cells
that touch (w0 = 10, sigma = 5 pixels) and once without, and scored on images that it had not seen: 40 of the Data Science
Bowl, trained in two stages, and 60 with cells that segue draws, most of which touch. Both learn from the same masks, in which
objects that touch are held apart by a line of background.

An object is merged if more than half of it lies in a predicted object that holds another one likewise. Written by `segue
evaluate` (the records) and `make docs` (this table). Minutes are those of all stages, beside other work.

Cells that segue draws, with the weights:

![most cells come apart](unet-cells/objects.jpg)

and without:

![nearly all cells that touch are merged](unet-cells-no-border/objects.jpg)
"""


def chance(record: Record) -> float:
    """Mean IU of predicting the most frequent class everywhere."""
    pixels = [sum(row) for row in record["confusion"]["counts"]]
    present = [count for count in pixels if count]
    return max(present) / sum(present) / len(present)


def hours(training: dict[str, Any]) -> float:
    """Of all stages."""
    return float(training.get("hours", 0)) + (hours(training["started_from"]) if "started_from" in training else 0)


def special(record: Record) -> dict[str, float]:
    """The scores that the data set has of its own."""
    scores: dict[str, float] = next(iter(record.get("scorers", {}).values()), {})
    return scores


def share(record: Record, part: str, whole: str) -> str:
    scores = special(record)
    return f"{scores[part]:.0f} of {scores[whole]:.0f} ({scores[part] / scores[whole]:.1%})"


TRAINING: Columns = {
    "minutes": lambda record: f"{60 * hours(record['training']):.0f}",
    "hardware": lambda record: record["training"]["hardware"],
    "seed": lambda record: str(record["training"]["seed"]),
    "commit": lambda record: record["training"]["commit"],
}
COMMAND: Columns = {"command": lambda record: f"`{record['training']['command']}`"}
MEAN_IU: Columns = {"mean IU": lambda record: f"{record['scores']['mean_iu']:.3f}"}
DRAWN_COLUMNS: Columns = {
    **COMMAND, **MEAN_IU, "chance": lambda record: f"{chance(record):.3f}",
    "acc": lambda record: f"{record['scores']['acc']:.3f}", **TRAINING,
}  # fmt: skip
EM_COLUMNS: Columns = {
    "warping error": lambda record: f"{special(record)['warping_error']:.6f}",
    "Rand error": lambda record: f"{special(record)['rand_error']:.4f}",
    "pixel error": lambda record: f"{special(record)['pixel_error']:.4f}",
    "V_rand": lambda record: f"{special(record)['v_rand']:.5f}",
    "V_info": lambda record: f"{special(record)['v_info']:.5f}",
    **MEAN_IU, **COMMAND, **TRAINING,
}  # fmt: skip
NUCLEI_COLUMNS: Columns = {
    "data": lambda record: record["data"],
    "border weights": lambda record: "with" if record["recipe"]["border_weights"] else "without",
    "merged": lambda record: share(record, "merged", "objects"),
    "merged of those that touch": lambda record: share(record, "touching_merged", "touching"),
    "split": lambda record: share(record, "split", "objects"),
    "found": lambda record: share(record, "found", "objects"),
    "spurious": lambda record: f"{special(record)['spurious']:.0f}",
    "F1": lambda record: f"{special(record)['f1']:.3f}",
    "DSB": lambda record: f"{special(record)['dsb']:.3f}",
    **MEAN_IU, **COMMAND, **TRAINING,
}  # fmt: skip


TEXTS = ("command", "hardware", "commit", "border weights", "data")


def table(records: dict[str, Record], columns: Columns, others: tuple[tuple[str, ...], ...] = ()) -> str:
    """A row for each record, by the name of its folder; then rows of others, whose last cells may be missing."""
    lines = [("network", *columns), ("---", *("---" if name in TEXTS else "---:" for name in columns))]
    for folder, record in records.items():
        lines.append((f"[{record['network']}]({folder}/README.md)", *(cell(record) for cell in columns.values())))
    lines += [(*row, *[""] * (1 + len(columns) - len(row))) for row in others]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_results(folder: Path) -> None:
    """Write drawn.md, em.md and nuclei.md, with a row for each record under the folder that belongs there."""
    records = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/scores.json"))}
    drawn = {name: record for name, record in records.items() if record["data"] in DRAWN}
    em = {name: record for name, record in records.items() if record["data"] == "em"}
    counted = {name: record for name, record in records.items() if "touching" in special(record)}
    (folder / "drawn.md").write_text(f"{DRAWN_HEADER}\n{table(drawn, DRAWN_COLUMNS)}")
    (folder / "em.md").write_text(f"{EM_HEADER}\n{table(em, EM_COLUMNS, EM_PAPERS)}")
    (folder / "nuclei.md").write_text(f"{NUCLEI_HEADER}\n{table(counted, NUCLEI_COLUMNS)}")


if __name__ == "__main__":
    write_results(Path(sys.argv[1]))
