"""`make bench-compare` tells what has become slower, and is not misled by a slower machine or a changed peer."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "compare_records.py"


def rows(**seconds: float) -> list[dict[str, Any]]:
    """Sides whose rounds lie within a twentieth of these figures; their ratios are to the first."""
    first, reference = next(iter(seconds.items()))
    return [
        {
            "case": "street", "side": name.replace("_", " "), "unit": "s", "median": value,
            "quartile_1": 0.95 * value, "quartile_3": 1.05 * value, "ratio": value / reference,
            "ratio_quartiles": [value / reference * edge for edge in ((1, 1) if name == first else (0.95, 1.05))],
        }
        for name, value in seconds.items()
    ]  # fmt: skip


def compare(folder: Path, old: list[dict[str, Any]], new: list[dict[str, Any]], hardware: str = "a machine") -> tuple[int, str]:
    for name, record, where in (("old", old, "a machine"), ("new", new, hardware)):
        fields = {"rows": record, "threads": {}, "command": "python it.py", "machine": {"hardware": where}}
        (folder / name).mkdir()
        (folder / name / "it.json").write_text(json.dumps(fields))
    command = [sys.executable, SCRIPT, folder / "old", folder / "new"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.stderr
    return done.returncode, done.stdout


OLD = rows(segue=1, peer=2, other=4)


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        (OLD, rows(segue=1.03, peer=2, other=4), 0, []),  # within the spread
        (OLD, rows(segue=3, peer=6, other=12), 0, []),  # a slower machine
        (OLD, rows(segue=2, peer=2, other=4), 1, ["street, segue: longer, 0.952 to 1.05 of peer", "0.476 to 0.526 of other"]),
        (OLD, rows(segue=0.5, peer=2, other=4), 0, ["shorter", "shorter"]),
        (OLD, rows(segue=1, peer=1, other=4), 0, ["longer, 0.952 to 1.05 of peer"]),  # it is the peer that has changed
        (rows(peer=2, segue=1, segue_fast=0.5), rows(peer=2, segue=1, segue_fast=0.9), 1, ["segue fast: longer"]),
        (rows(small=1, large=2), rows(small=1, large=3), 1, ["street, large: longer, 2.85 to 3.15, before 1.9 to 2.1"]),
    ],
)  # fmt: skip
def test_what_has_changed(
    tmp_path: Path, old: list[dict[str, Any]], new: list[dict[str, Any]], code: int, says: list[str]
) -> None:
    found, text = compare(tmp_path, old, new)
    assert found == code
    lines = text.splitlines()
    assert len(lines) == len(says)
    assert all(words in line for words, line in zip(says, lines, strict=True))


def test_figures_without_a_peer_say_nothing_of_another_machine(tmp_path: Path) -> None:
    assert compare(tmp_path, rows(small=1, large=2), rows(small=1, large=3), "another machine") == (0, "")


def test_more_memory_is_told_and_is_no_longer_time(tmp_path: Path) -> None:
    old, new = ([{**row, "unit": "MB"} for row in rows(segue=amount, peer=4)] for amount in (1, 2))
    assert compare(tmp_path, old, new) == (0, "it, street, segue: more, 0.476 to 0.526 of peer, before 0.238 to 0.263\n")
