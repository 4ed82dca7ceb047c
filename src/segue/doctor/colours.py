"""Masks of one's own that hold colours or odd numbers: what they seem to mean, and the same as numbers in a new folder."""

import itertools
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segue.data.camvid import CAMVID
from segue.data.cityscapes import CITYSCAPES
from segue.data.files import Pair, leaving_out_lone_files, pair_files
from segue.data.folder import HELP, SPLITS, Description
from segue.data.samples import DataError
from segue.doctor.diagnosis import names_line, total, yaml_line
from segue.doctor.reading import Progress, Reading, in_parallel
from segue.images import ImageError, opened, write_image
from segue.labels import IGNORE, Color, Labels, Mask, distinct_color

NEAR = 48  # so far from a colour of the table a pixel may lie, in red, green and blue together; one further off is ignored
VOC_NUMBERS = {distinct_color(i - 1): i for i in range(IGNORE)}
VOC_OUTLINE = (224, 224, 192)


@dataclass(frozen=True)
class Meaning:
    """What the masks seem to mean: the class of each colour, a grey one standing for its number, and the classes."""

    labels: Labels
    numbers: Mapping[Color, int]
    """A class number, or 255."""
    words: str
    """Where it is from, in a sentence without its full stop."""

    @property
    def is_clear(self) -> bool:
        """Whether the colours lie so far apart that one which was blurred a little can be told."""
        return all(distance(one, other) > 2 * NEAR for one, other in itertools.combinations(self.numbers, 2))

    def lines(self, of_masks: bool) -> str:
        """Entries of segue.yaml: for masks that hold numbers as they are, or else for those that `convert` writes."""
        names = self.labels.names
        if not of_masks:
            return names_line(names) + yaml_line({"palette": [[*color] for color in self.labels.palette]})
        mapping = {color[0]: names[number] for color, number in sorted(self.numbers.items()) if number != IGNORE}
        return names_line(names) + yaml_line({"mapping": mapping}) * (mapping != dict(enumerate(names)))


def guess_meaning(readings: Sequence[Reading], labels: Labels | None = None) -> Meaning:
    """From the colours of the masks, or else from their numbers. labels: what the classes are, where that is known."""
    colours: Counter[Color] = Counter()
    for reading in readings:
        colours.update(reading.colours)
    if not colours:
        counts = total(reading.labels for reading in readings)
        colours.update({(label, label, label): int(counts[label]) for label in map(int, np.flatnonzero(counts))})
    found = main_colours(colours)
    if all(red == green == blue for red, green, blue in found):
        return guess_numbers([color[0] for color in found], labels)
    return guess_table(found, labels)


def main_colours(colours: Mapping[Color, int]) -> list[Color]:
    """The colours, most common first; of very many, as smooth edges make them, those that are no blend of two others."""
    order = sorted(colours, key=lambda color: (-colours[color], color))
    if len(order) <= 64:
        return order
    least = sum(colours.values()) / 1000
    kept: list[Color] = []
    for color in order:
        if colours[color] < least or any(distance(color, other) <= NEAR for other in kept):
            continue
        if not any(is_blend(color, one, other) for one, other in itertools.combinations(kept, 2)):
            kept.append(color)
    return kept[:IGNORE]


def guess_numbers(found: Sequence[int], labels: Labels | None) -> Meaning:
    """Grey masks: black and white, or class numbers."""
    values = sorted(found)
    if set(values) == {0, 255}:
        names = labels.names if labels and len(labels) == 2 else ("background", "object")
        return named(names, {(0, 0, 0): 0, (255, 255, 255): 1}, "They are black and white")
    classes = [value for value in values if value != IGNORE]
    if labels and set(classes) <= set(range(len(labels))):
        number = {value: value for value in classes}
        names = labels.names
    else:
        number = {value: place for place, value in enumerate(classes)}
        names = numbered(max(1, len(classes)))
    numbers = {(value, value, value): number.get(value, IGNORE) for value in values}
    return named(names, numbers, "They are grey, and hold numbers")


def guess_table(found: Sequence[Color], labels: Labels | None) -> Meaning:
    """Colours: of the palette that is given, of Cityscapes, of CamVid, of VOC's colour map, or else in some order."""
    given = labels and (labels.palette != Labels.from_names(labels.names).palette or (0, 0, 0) not in found)
    for known, words in (
        (labels if given else None, "The colours are the palette"),
        (CITYSCAPES, "The colours are those of Cityscapes"),
        (CAMVID, "The colours are those of CamVid"),
    ):
        table = {color: number for number, color in enumerate(known.palette)} if known else {}
        fits = labels is None or known is labels or (known and len(known) == len(labels))
        if known and fits and sum(color in table for color in found) >= max(2, 0.75 * len(found)):
            meant = Labels(labels.names if labels else known.names, known.palette)
            return Meaning(meant, {**dict.fromkeys(found, IGNORE), **table}, words)
    inner = [color for color in found if color != VOC_OUTLINE]
    count = 1 + max(VOC_NUMBERS.get(color, IGNORE) for color in inner)
    if len(inner) > 1 and count <= (len(labels) if labels else 21):
        numbers = {**dict.fromkeys(found, IGNORE), **{color: VOC_NUMBERS[color] for color in inner}}
        return named(labels.names if labels else numbered(count), numbers, "The colours are those of VOC, in their order")
    order = sorted(found, key=lambda color: color != (0, 0, 0))  # black first
    if labels and len(order) == len(labels) + 1 and order[0] == (0, 0, 0):
        numbers = {color: place - 1 if place else IGNORE for place, color in enumerate(order)}
        return named(
            labels.names,
            numbers,
            "The colours are not known: it is a guess that black is ignored, and the most common has the first name",
        )
    names = labels.names if labels and len(labels) >= len(order) else numbered(len(order))
    numbers = {color: place for place, color in enumerate(order)}
    return named(
        names, numbers, "The colours are not known: it is a guess that black, and then the most common, has the first name"
    )


def numbered(count: int) -> tuple[str, ...]:
    return ("background", "object") if count == 2 else tuple(f"class_{number}" for number in range(count))


def named(names: Sequence[str], numbers: Mapping[Color, int], words: str) -> Meaning:
    """With the masks' own colours as the palette."""
    palette = list(Labels.from_names(names).palette)
    for color, number in numbers.items():
        if number != IGNORE and any(len({*other}) > 1 for other in numbers):
            palette[number] = color
    return Meaning(Labels(tuple(names), tuple(palette)), numbers, words)


def to_numbers(mask: NDArray[np.integer], meaning: Meaning) -> Mask:
    """The class of each pixel of a mask (H, W) or (H, W, 3); 255 where it lies too far from what the meaning knows."""
    bands = [mask] * 3 if mask.ndim == 2 else [mask[..., band] for band in range(3)]
    packed = sum(band.astype(np.int64).clip(0, 999) * 1000**place for place, band in enumerate(bands))
    found, places = np.unique(packed, return_inverse=True)
    colors = np.stack([found // 1000**place % 1000 for place in range(3)], axis=1)
    known = np.array([*meaning.numbers])
    distances = np.array([np.abs(known - color).sum(axis=1) for color in colors])
    classes = np.array([*meaning.numbers.values()])[distances.argmin(axis=1)]
    classes[distances.min(axis=1) > (NEAR if meaning.is_clear else 0)] = IGNORE
    return classes.astype(np.uint8)[places].reshape(mask.shape[:2])


def is_blend(color: Color, one: Color, other: Color) -> bool:
    """Whether the colour lies nearly on the line between two others."""
    return math.dist(one, color) + math.dist(color, other) < math.dist(one, other) + 8


def distance(one: Color, other: Color) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))


def convert(root: Path, out: Path, meaning: Meaning, progress: Progress = iter) -> tuple[int, list[str]]:
    """Write the pairs below `root` into the new folder `out`, with masks of numbers and a segue.yaml; the originals stay.

    Gives how many pairs it wrote, and why the others were left out.
    """
    check_new(out)
    pairs: list[Pair] = []
    with leaving_out_lone_files() as lone:
        for place in (root, *(root / split for split in SPLITS)):
            if (place / "images").is_dir() and (place / "masks").is_dir():
                pairs += pair_files(place / "images", place / "masks", HELP)

    def write(pair: Pair) -> str:
        image, mask = pair
        try:
            with opened(mask) as file:
                stored = np.array(
                    file if file.mode in ("L", "P", "1") or file.mode.startswith(("I", "F")) else file.convert("RGB")
                )
            target = out / mask.relative_to(root).with_suffix(".png")
            copied = out / image.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            copied.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, to_numbers(stored.astype(int), meaning))
            shutil.copyfile(image, copied)
        except ImageError as error:
            return str(error)
        return ""

    left_out = [f"{path} has no {what}" for path, what in lone] + [
        words for words in in_parallel(write, pairs, progress) if words
    ]
    if not pairs:
        raise DataError(f"{root} has no pairs of an image and a mask; {HELP}")
    lines = meaning.lines(of_masks=False)
    if (root / "images").is_dir():
        lines += yaml_line({"splits": splits_of(root / "segue.yaml") or {"val": 0.2}})
    (out / "segue.yaml").write_text(lines, "utf-8")
    return len(pairs) + len(lone) - len(left_out), left_out


def check_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already; choose a new folder")


def splits_of(path: Path) -> Mapping[str, float | list[str]]:
    return Description.read(path).splits if path.exists() else {}
