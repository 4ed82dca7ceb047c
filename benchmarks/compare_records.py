"""Tells where new records say other than old ones how long segue takes.

    python benchmarks/compare_records.py            # the records of the working tree beside those of the last commit
    python benchmarks/compare_records.py OLD NEW    # those of two folders

Each side of segue is compared by its ratio to the other packages of its case, which were measured in the same run, so that a
busier machine, or another one, makes little difference; where a case has none, by its own figure, if the machine is the same. A
change is told where the quartiles of then and now do not overlap. If it is so beside all packages, it is segue that has changed.
Ends with 1 if something of segue's takes longer.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from report import FOLDER, TIMES, read_records

Record = dict[str, Any]
Row = dict[str, Any]
Range = tuple[float, float]  # from quartile to quartile, of what is better small


def main() -> int:
    old, new = map(read_records, map(Path, sys.argv[1:3])) if len(sys.argv) == 3 else (committed(), read_records(FOLDER))
    slower = False
    for name in new:
        for change, worse in compare(old[name], new[name]) if name in old else []:
            print(f"{name}, {change}")
            slower |= worse
    return int(slower)


def committed() -> dict[str, Record]:
    """The records of the last commit."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=FOLDER, capture_output=True, text=True, check=True).stdout

    names = git("ls-tree", "--name-only", "HEAD", ".").split()
    return {Path(name).stem: json.loads(git("show", f"HEAD:./{name}")) for name in names if name.endswith(".json")}


def compare(old: Record, new: Record) -> list[tuple[str, bool]]:
    """What has changed beyond its spread, and for each change whether it is a longer time of segue's."""
    same_machine = all(old[key] == new[key] for key in ("threads", "command")) and hardware(old) == hardware(new)
    before, after = by_side(old), by_side(new)
    changes = []
    for case, side in (key for key in after if key in before and of_segue(key[1], new)):
        others = [other for case_, other in after if case_ == case and not of_segue(other, new) and (case, other) in before]
        if not others and not same_machine:
            continue
        then, now = (measured(rows, case, side, others) for rows in (before, after))
        more = [what for what in now if now[what][0] > then[what][1]]
        less = [what for what in now if now[what][1] < then[what][0]]
        unit = after[case, side]["unit"]
        timed = unit in TIMES or unit.endswith("/s")
        label = ", ".join(filter(None, (case, side)))
        for what in [*more, *less]:
            word = ("longer" if timed else "more") if what in more else ("shorter" if timed else "less")
            text = f"{label}: {word}, {words(now[what])}{what}, before {words(then[what])}"
            changes.append((text, timed and len(more) == len(now)))
    return changes


def measured(rows: dict[tuple[str, str], Row], case: str, side: str, others: list[str]) -> dict[str, Range]:
    """What a side takes of what each of the others does; by itself, if there are none."""
    row = rows[case, side]
    return {f" of {other}": beside(row, rows[case, other]) for other in others} or {"": spread(row)}


def by_side(record: Record) -> dict[tuple[str, str], Row]:
    """The rows that have a spread, by case and side."""
    return {(row["case"], row["side"]): row for row in record["rows"] if "quartile_1" in row}


def of_segue(side: str, record: Record) -> bool:
    """Whether a side is segue's, as all are of a benchmark that names none so."""
    return side.startswith("segue") or not any(row["side"].startswith("segue") for row in record["rows"])


def beside(row: Row, other: Row) -> Range:
    """The row's ratio to another of its case; both have theirs to the first."""
    (low, high), (other_low, other_high) = (upright(*row_["ratio_quartiles"], row_["unit"]) for row_ in (row, other))
    return low / other_high, high / other_low


def spread(row: Row) -> Range:
    return upright(row["quartile_1"], row["quartile_3"], row["unit"])


def upright(low: float, high: float, unit: str) -> Range:
    """Of a rate, which is better large, the inverse."""
    return (1 / high, 1 / low) if unit.endswith("/s") else (low, high)


def words(values: Range) -> str:
    return " to ".join(f"{value:.3g}" for value in values)


def hardware(record: Record) -> str:
    return str(record["machine"]["hardware"])


if __name__ == "__main__":
    sys.exit(main())
