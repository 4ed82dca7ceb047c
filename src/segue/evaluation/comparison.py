"""Two evaluations side by side: the table and the picture of their differences, class by class."""

import numpy as np
import PIL.Image
import PIL.ImageDraw

from segue.evaluation.record import percent
from segue.images.pictures import GREY, INK, PAPER, font
from segue.labels import Image
from segue.metrics import Comparison

BETTER, WORSE, UNDECIDED, FAINT = (32, 110, 180), (200, 62, 50), (150, 153, 158), (226, 228, 231)
LINE = 28  # pixels from row to row
NAMES, PLOT, NUMBERS = 200, 560, 190  # the widths of the columns
MARGIN, TOP = 24, 96


def rows_of(comparison: Comparison) -> list[tuple[str, float, float, tuple[float, float]]]:
    """(class, IU of A, of B, interval of the difference), the mean first."""
    classes = zip(comparison.names, *comparison.iu, comparison.class_intervals, strict=True)
    mean = ("mean IU", *comparison.mean_iu, comparison.interval)
    return [mean, *((name, float(a), float(b), (float(low), float(high))) for name, a, b, (low, high) in classes)]


def comparison_table(comparison: Comparison) -> list[tuple[str, ...]]:
    """Rows of (class, IU of A, of B, difference, interval), in percent, with a header, the mean last."""
    mean, *classes = rows_of(comparison)
    rows: list[tuple[str, ...]] = [("class", "A", "B", "B - A", "95 % interval")]
    for name, a, b, (low, high) in (*classes, mean):
        difference = ("-", "-") if np.isnan(b - a) else (f"{100 * (b - a):+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}")
        rows.append((name, percent(a), percent(b), *difference))
    return rows


def draw_comparison(comparison: Comparison, title: str) -> Image:
    """A line for each class: the difference in IU and its interval, blue where B is better, red where it is worse."""
    rows = rows_of(comparison)
    ends = [abs(end) for _, a, b, interval in rows for end in (*interval, b - a) if not np.isnan(end)]
    reach = max([0.01, *ends])
    step = next(step for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if reach / step <= 5)
    reach = step * np.ceil(reach / step)
    left = MARGIN + NAMES
    size = (left + PLOT + NUMBERS + MARGIN, TOP + LINE * (len(rows) + 1) + 40)
    canvas = PIL.Image.new("RGB", (2 * size[0], 2 * size[1]), PAPER)  # drawn at twice the size, for smooth discs
    draw = PIL.ImageDraw.Draw(canvas)

    def text(x: float, y: float, words: str, colour: tuple[int, int, int] = INK, points: int = 15, anchor: str = "lm") -> None:
        draw.text((2 * x, 2 * y), words, colour, font(2 * points), anchor=anchor)

    def across(difference: float) -> float:
        return left + PLOT / 2 * (1 + difference / reach)

    bottom = TOP + LINE * len(rows) + 8
    for tick in np.arange(-reach, reach + step / 2, step):
        x = across(tick)
        draw.line((2 * x, 2 * (TOP - 6), 2 * x, 2 * bottom), GREY if abs(tick) < step / 2 else FAINT, 3)
        text(x, bottom + 14, f"{100 * tick:+.3g}" if abs(tick) > step / 2 else "0", GREY, 13, "mm")
    text(MARGIN, 28, shortened(title, 100), points=17)
    text(MARGIN, 56, "Difference in IU, B less A, in points, with its 95 % interval over resampled images", GREY, 14)
    text(left + PLOT + 20, TOP - 18, "A", GREY, 13)
    text(left + PLOT + 80, TOP - 18, "B", GREY, 13)
    text(left + PLOT + 130, TOP - 18, "B - A", GREY, 13)
    for number, (name, a, b, (low, high)) in enumerate(rows):
        y = TOP + LINE * number + LINE / 2
        text(MARGIN, y, shortened(name, 24), points=17 if number == 0 else 15)
        text(left + PLOT + 20, y, percent(a))
        text(left + PLOT + 80, y, percent(b))
        if np.isnan(b - a):
            text(left + PLOT + 130, y, "-", GREY)
            continue
        colour = BETTER if low > 0 else WORSE if high < 0 else UNDECIDED
        radius, thick = (6, 10) if number == 0 else (5, 6)
        draw.line((2 * across(low), 2 * y, 2 * across(high), 2 * y), colour, thick)
        x = across(b - a)
        draw.ellipse((2 * x - 2 * radius, 2 * y - 2 * radius, 2 * x + 2 * radius, 2 * y + 2 * radius), colour, PAPER, 3)
        text(left + PLOT + 130, y, f"{100 * (b - a):+.1f}", colour if colour != UNDECIDED else GREY)
        if number == 0:
            draw.line((2 * MARGIN, 2 * (TOP + LINE), 2 * (size[0] - MARGIN), 2 * (TOP + LINE)), FAINT, 3)
    legend = ((BETTER, "B is better"), (WORSE, "B is worse"), (UNDECIDED, "no difference can be shown"))
    for number, (colour, words) in enumerate(legend):
        x, y = left + 160 * number, bottom + 42
        draw.ellipse((2 * x - 10, 2 * y - 10, 2 * x + 10, 2 * y + 10), colour)
        text(x + 12, y, words, GREY, 13)
    return np.array(canvas.resize(size, PIL.Image.Resampling.LANCZOS))


def shortened(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 3]}..."
