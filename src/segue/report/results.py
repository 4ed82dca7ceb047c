"""The table of the small trainings on drawn scenes, made from their records: python -m segue.report.results docs/results"""

import json
import sys
from pathlib import Path
from typing import Any

from segue.data import DRAWN

HEADER = """# All networks learn

Each network, trained by a small recipe with its own loss on scenes that segue draws itself, and scored on scenes that it had not
seen. Most are narrow or have a small trunk, so that two cores need minutes: this shows that every network learns, and not which
one is best. Chance is what the most frequent class alone would score.

Written by `segue evaluate` (the records) and `make docs` (this table). Data need no download:
every command runs as it stands. A recipe may have changed after a row's commit; the record has the values of that day.

| network | command | mean IU | chance | acc | minutes | hardware | seed | commit |
| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | --- |
"""


def chance(confusion: dict[str, Any]) -> float:
    """Mean IU of predicting the most frequent class everywhere."""
    pixels = [sum(row) for row in confusion["counts"]]
    present = [count for count in pixels if count]
    return max(present) / sum(present) / len(present)


def table_row(name: str, record: dict[str, Any]) -> str:
    scores, training = record["scores"], record["training"]
    cells = (
        f"[{record['network']}]({name}/README.md)",
        f"`{training['command']}`",
        f"{scores['mean_iu']:.3f}",
        f"{chance(record['confusion']):.3f}",
        f"{scores['acc']:.3f}",
        f"{60 * training['hours']:.0f}",
        training["hardware"],
        str(training["seed"]),
        training["commit"],
    )
    return "| " + " | ".join(cells) + " |"


def write_results(folder: Path) -> None:
    """Write drawn.md, a row for each record under the folder that was scored on drawn data."""
    records = [(path.parent.name, json.loads(path.read_text())) for path in sorted(folder.glob("*/scores.json"))]
    rows = [table_row(name, record) for name, record in records if record["data"] in DRAWN]
    (folder / "drawn.md").write_text(HEADER + "\n".join(rows) + "\n")


if __name__ == "__main__":
    write_results(Path(sys.argv[1]))
