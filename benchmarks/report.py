"""Writes docs/performance.md and its pictures from the records of the benchmarks.

    python benchmarks/report.py

The page is made of nothing but the records in docs/performance/; a test holds it equal to them. The pictures need matplotlib, and
stay as they are without it.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "performance"
ORDER = ("engines", "upsampling", "tiling", "big_images", "loading", "training", "scoring", "confusion_matrix", "crf")
FIXED = ("case", "side", "unit", "median", "quartile_1", "quartile_3", "ratio", "ratio_quartiles")
TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
COLOURS = (  # Okabe and Ito's, and three more
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000", "#999999", "#882255", "#117733",
)  # fmt: skip

HEAD = """# Performance

What segue does in less time or memory, measured beside the packages that people use for the same. Every section is one script
in `benchmarks/`, whose record in [performance/](performance) holds the figures of this page; nothing here is typed in by hand.
Measure again on your own machine with

    make bench

and a single network, without other packages, with `segue benchmark enet --size 1024x2048`.

How it is measured: all sides of a comparison take turns, in one process unless a section says why not, so that what disturbs the
machine disturbs all of them; memory is measured apart from that. Where sides are to give the same, as all but those of training
are, the text says how that was made sure of or how near they come. A figure is the median of the rounds; in brackets stand the
quartiles, between which half of the rounds lie. The column after them compares with the first side of the same case, round by
round, so that it need not be the quotient of the medians. "1.2 x as fast" and less may be chance: another run can say
otherwise.
"""


def write_report(folder: Path = FOLDER) -> None:
    """Write the page beside `folder`, and the pictures into it."""
    records = read_records(folder)
    folder.with_suffix(".md").write_text(page(records), encoding="utf-8")
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed, so the pictures stay as they are", file=sys.stderr)
        return
    matplotlib.use("svg")
    for name, record in records.items():
        if bars(record):
            draw(record, folder / f"{name}.svg")


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """By name, in the order of the page; those on a GPU after the others."""
    names = sorted((path.stem for path in folder.glob("*.json")), key=lambda name: (name.endswith("-cuda"), place(name), name))
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names}


def place(name: str) -> int:
    name = name.removesuffix("-cuda")
    return ORDER.index(name) if name in ORDER else len(ORDER)


def page(records: dict[str, dict[str, Any]]) -> str:
    contents = [f"- [{record['title']}](#{anchor(record['title'])})" for record in records.values()]
    return "\n".join([HEAD, *contents, "", *(section(name, record) for name, record in records.items())])


def anchor(title: str) -> str:
    """As GitHub makes it."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def section(name: str, record: dict[str, Any]) -> str:
    lines = [f"## {record['title']}", "", record["what"], ""]
    if bars(record):
        lines += [f"![{record['title']}: the figures of the table](performance/{name}.svg)", ""]
    lines += [*table(record["rows"]), ""]
    notes = record.get("notes", [])
    lines += [f"- {note}" for note in ([notes] if isinstance(notes, str) else notes)]
    machine, versions = record["machine"], record["machine"]["versions"]
    threads = ", ".join(f"{key} {value}" for key, value in record["threads"].items() if value != "")
    lines += [
        f"- Command: `{record['command']}`",
        f"- Machine: {machine['hardware']}; threads: {threads}; load at the end {machine['load']}.",
        f"- Versions: {', '.join(f'{package} {number}' for package, number in versions.items())}.",
        f"- {record['date']}, commit {record['commit'] or 'unknown'}; [record](performance/{name}.json).",
        "",
    ]
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A table in Markdown, whose further columns are what the rows hold beside the fixed fields."""
    more = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in FIXED and key != "note"]
    cased = any(row["case"] for row in rows)
    ratios = any("ratio" in row for row in rows)
    firsts = {row["side"] for i, row in enumerate(rows) if "ratio" in row and (not i or row["case"] != rows[i - 1]["case"])}
    header = [
        *(["case"] if cased else []),
        "side",
        "median (quartiles)",
        *([f"beside {firsts.pop() if len(firsts) == 1 else 'the first'}"] if ratios else []),
    ]
    lines = [row_of([*header, *(key.replace("_", " ") for key in more)])]
    lines.append(row_of(["---"] * (1 + cased) + ["---:"] * (len(header) - 1 - cased + len(more))))
    last = None
    for row in rows:
        cells = [row["case"] if row["case"] != last else ""] if cased else []
        last = row["case"]
        cells += [row["side"], figure(row), *([comparison(row)] if ratios else []), *(number(row.get(key)) for key in more)]
        lines.append(row_of(cells))
    return lines


def row_of(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def figure(row: dict[str, Any]) -> str:
    """Median and quartiles, times in a unit that suits them: "600 ms (580 to 640)"."""
    factor, unit = 1.0, row["unit"]
    if unit in TIMES:
        seconds = row["median"] * TIMES[unit]
        name = "s" if seconds >= 1 else "ms" if seconds >= 1e-3 else "us"
        factor, unit = TIMES[unit] / TIMES[name], name
    text = f"{number(row['median'] * factor)} {unit}"
    if "quartile_1" not in row:
        return text
    return f"{text} ({number(row['quartile_1'] * factor)} to {number(row['quartile_3'] * factor)})"


def comparison(row: dict[str, Any]) -> str:
    """With the first side of the case: of times the speed, of all else the amount."""
    ratio = row.get("ratio")
    if ratio is None:
        return ""
    if row["unit"] not in TIMES and not row["unit"].endswith("/s"):
        return f"{number(ratio)} x as much"
    speed = ratio if row["unit"].endswith("/s") else 1 / ratio
    if speed == 1:
        return "1"
    return f"{number(speed)} x as fast" if speed >= 1 else f"{number(1 / speed)} x as slow"


def number(value: Any) -> str:
    """Three digits, or more before the point; lists as ranges."""
    if value is None:
        return ""
    if isinstance(value, bool | str | int):
        return f"{value:,}" if type(value) is int else str(value)
    if isinstance(value, list):
        return " to ".join(map(number, value))
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if 0.9 <= value < 1:  # shares of all, which must not be rounded to 1
        return str(math.floor(value * 1e5) / 1e5)
    return f"{value:.3g}"


def bars(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a picture shows: those of which others are multiples."""
    rows = [row for row in record["rows"] if row.get("ratio") and row["median"] > 0]
    return rows if len({row["side"] for row in rows}) > 1 else []


def draw(record: dict[str, Any], path: Path) -> None:
    """Bars with their quartiles as whiskers, a group a case; points on a logarithmic scale where the sides differ much."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    rows = bars(record)
    sides = list(dict.fromkeys(row["side"] for row in rows))
    unit = rows[0]["unit"]
    factor, unit = (1e3 * TIMES[unit], "ms") if unit in TIMES else (1.0, unit)
    rows = [row for row in rows if (row["unit"] in TIMES) == (rows[0]["unit"] in TIMES)]
    logarithmic = max(row["median"] for row in rows) > 12 * min(row["median"] for row in rows)
    settings = {"svg.hashsalt": "segue", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 9}
    with plt.rc_context(settings):
        places, height = [], 0.0
        for i, row in enumerate(rows):
            height += 0.6 if i and row["case"] != rows[i - 1]["case"] else 0.0
            places.append(height)
            height += 1.0
        figure_, axes = plt.subplots(figsize=(8, 1.2 + 0.2 * height), layout="constrained")
        figure_.patch.set_facecolor("white")
        axes.set_facecolor("white")
        for place_, row in zip(places, rows, strict=True):
            low, middle, high = (factor * row.get(key, row["median"]) for key in ("quartile_1", "median", "quartile_3"))
            colour = COLOURS[sides.index(row["side"]) % len(COLOURS)]
            if not logarithmic:  # where the length of a bar would say nothing
                axes.barh(place_, middle, 0.86, color=colour)
            axes.errorbar(middle, place_, xerr=[[middle - low], [high - middle]], color="#222222", linewidth=0.9, capsize=2)
            axes.plot(middle, place_, "o" if logarithmic else "|", color=colour if logarithmic else "#222222", markersize=7)
            axes.annotate(f"{number(middle)}", (high, place_), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
        cases = list(dict.fromkeys(row["case"] for row in rows))
        middles = [[p for p, row in zip(places, rows, strict=True) if row["case"] == case] for case in cases]
        axes.set_yticks([sum(group) / len(group) for group in middles], cases)
        axes.invert_yaxis()
        axes.set_xlabel(f"{unit}; {'points' if logarithmic else 'bars'} are medians, whiskers go from quartile to quartile")
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.grid(axis="x", color="#dddddd")
            axes.set_axisbelow(True)
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
        patches = [Patch(color=COLOURS[i % len(COLOURS)], label=side) for i, side in enumerate(sides)]
        figure_.legend(handles=patches, loc="outside upper center", ncols=3, frameon=False)
        figure_.savefig(path, metadata={"Date": None, "Creator": None})
        plt.close(figure_)


if __name__ == "__main__":
    write_report()
