"""What the commands show on a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segue.evaluation import Evaluation


def print_table(rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """A table whose first row is the header and whose first column is text; what looks like markup in it is text as well."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for column, heading in enumerate(rows[0]):
        table.add_column(Text(heading), justify="right" if column and heading != "paper" else "left")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    if title:
        print(title)
    Console().print(table)


def print_evaluation(evaluation: "Evaluation") -> None:
    """Its scores, and the files that have them."""
    from segue.evaluation.record import score_table

    print_table(score_table(evaluation.matrix), f"{evaluation.title}, percent")
    for scorer in evaluation.scorers:
        print_table(scorer.table(), scorer.title)
    print("\n".join(f"{what}: {path}" for what, path in evaluation.written.items()))


def say(line: str) -> None:
    """Print it at once, also where the output is no terminal."""
    print(line, flush=True)
