"""segue compare."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segue.cli.console import print_table

if TYPE_CHECKING:
    from segue.metrics import Comparison, ImageMatrices

PICTURES = (".png", ".jpg", ".jpeg")

Place = tuple[str, str]
"""Data set and split."""


def compare(args: Sequence[str]) -> None:
    """Say whether two runs differ by more than chance: segue compare runs/enet runs/bisenet"""
    import tyro

    def command(
        a: tyro.conf.Positional[Path], b: tyro.conf.Positional[Path], data: str = "", split: str = "", out: Path | None = None
    ) -> None:
        """Compare two evaluations of the same images, class by class, by resampling the images (paired bootstrap).

        Args:
            a: A run's folder, or that of one of its records, such as runs/enet/report/camvid-test.
            b: The run or record that is compared with it; differences are B less A.
            data: The data set, if both runs were scored on several.
            split: The split, if both runs were scored on several.
            out: The file for the picture; by default comparison.png in the record of B.
        """
        compare_records(a, b, data, split, out)

    tyro.cli(command, args=args, prog="segue compare")


def compare_records(a: Path, b: Path, data: str = "", split: str = "", out: Path | None = None) -> None:
    from segue.evaluation.comparison import comparison_table, draw_comparison
    from segue.images import write_image
    from segue.metrics import compare

    record_a, record_b, place = common_record(a, b, data, split)
    if record_a.resolve() == record_b.resolve():
        raise ValueError(f"A and B are both {record_a}; name two evaluations")
    out = out or record_b / "comparison.png"
    check_picture(out)
    comparison = compare(matrices_of(record_a), matrices_of(record_b))
    title = f"A: {a}   B: {b}   {place[0]} {place[1]}, {comparison.images} images"
    write_image(out, draw_comparison(comparison, title))
    print_table(comparison_table(comparison), f"{title}, percent")
    print(verdict(comparison, str(a), str(b)))
    print(
        "\nThis is about these two checkpoints; other seeds give others. Images of one video resemble each other: there the true "
        "interval is wider."
    )
    print(f"picture: {out}")


def verdict(comparison: "Comparison", a: str, b: str) -> str:
    """One sentence: which is better, or that no difference can be shown."""
    from segue.metrics.bootstrap import FEWEST

    low, high = (100 * end for end in comparison.interval)
    points = 100 * comparison.difference
    told = (
        f"mean IU {points:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}; "
        f"B is higher in {comparison.better:.1%} of the resamples"
    )
    if comparison.is_real:
        return f"B ({b}) is {'better' if points > 0 else 'worse'} than A ({a}): {told}."
    if comparison.images < FEWEST:
        return (
            f"No difference can be shown: {comparison.images} images are too few, it takes at least {FEWEST} (B less A: {told})."
        )
    return f"No difference can be shown: the interval holds 0 (B less A: {told})."


def common_record(a: Path, b: Path, data: str, split: str) -> tuple[Path, Path, Place]:
    """The record of each, of the one data set and split that both were scored on."""
    records_a, records_b = records_of(a), records_of(b)
    common = [
        place for place in records_a if place in records_b and data in ("", place[0]) and split in ("", place[1])
    ]  # fmt: skip
    if len(common) == 1:
        return records_a[common[0]], records_b[common[0]], common[0]
    if common:
        raise ValueError(f"both were scored on {listed(common)}; say on which they are compared, with --data and --split")
    wanted = f" of {data} {split}".rstrip() if data or split else ""
    raise ValueError(
        f"{a} and {b} have no record{wanted} in common: A was scored on {listed(records_a)}, B on {listed(records_b)}; "
        "score both on the same split with segue evaluate"
    )


def records_of(path: Path) -> dict[Place, Path]:
    """The folders with a scores.json, by what was scored: the path itself, or those in report/ of a run or a checkpoint in it."""
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}; name a run, or a record that segue evaluate wrote")
    files = [path / "scores.json"] if (path / "scores.json").exists() else sorted(path.glob("report/*/scores.json"))
    if not files:
        raise ValueError(f"{path} has no record of scores; make one: segue evaluate {path} DATA --root ROOT --split SPLIT")
    records: dict[Place, Path] = {}
    for file in files:
        try:
            fields = json.loads(file.read_text())
            place = str(fields["data"]), str(fields["split"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is no record of scores: {type(error).__name__} {error}; score anew") from None
        if place in records:
            raise ValueError(f"{records[place]} and {file.parent} are both of {' '.join(place)}; name one of these folders")
        records[place] = file.parent
    return records


def matrices_of(record: Path) -> "ImageMatrices":
    """The record's images.npz; ValueError with the command that writes it, where it is damaged, or of an older segue."""
    from segue.metrics import ImageMatrices

    path = record / "images.npz"
    words = shlex.split(json.loads((record / "scores.json").read_text()).get("command", ""))
    again = shlex.join(words[1:]) if "evaluate" in words[1:2] else "evaluate CHECKPOINT DATA --root ROOT --split SPLIT"
    if not path.exists():
        raise ValueError(f"{record} was written before the matrix of each image was kept; score again: segue {again}")
    try:
        return ImageMatrices.load(path)
    except ValueError as error:
        raise ValueError(f"{error}; score again: segue {again}") from None


def check_picture(path: Path) -> None:
    """ValueError if no picture can be written there; its folder is made."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; --out names the file for the picture, such as {path / 'comparison.png'}")
    if path.suffix.lower() not in PICTURES:
        raise ValueError(f"{path} is no name of a picture; --out must end in {', '.join(PICTURES)}")
    path.parent.mkdir(parents=True, exist_ok=True)


def listed(places: Sequence[Place] | dict[Place, Path]) -> str:
    return ", ".join(" ".join(place) for place in places)
