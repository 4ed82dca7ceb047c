"""Masks of one's own that hold colours or odd numbers: what they seem to mean."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segue.data.camvid import CAMVID
from segue.data.cityscapes import CITYSCAPES
from segue.doctor.diagnosis import BACKGROUND, names_line, total, yaml_line
from segue.doctor.reading import Reading
from segue.labels import IGNORE, Color, Labels, distinct_color

MANY = 64  # colours: more are smooth edges
CLOSE = 12  # so far JPEG moves a colour, in red, green and blue together, where it is even
NEAR = 48  # so far from a colour of the table a pixel of a blurred mask may lie; one further off is ignored
VOC_NUMBERS = {distinct_color(i - 1): i for i in range(IGNORE)}
VOC_OUTLINE = (224, 224, 192)
FEW = 64  # numbers below this may be classes where no names say how many there are; VOC's colours begin here
VOIDS = ((0, 0, 0), VOC_OUTLINE)  # colours that mean no class where no table has them


@dataclass(frozen=True)
class Meaning:
    """What the masks seem to mean: the class of each colour, a grey one standing for its number, and the classes."""

    labels: Labels
    numbers: Mapping[Color, int]
    """A class number, or 255."""
    words: str
    """Where it is from, in a sentence without its full stop."""
    unknown: frozenset[Color] = frozenset()
    """Colours that are ignored because nothing says what they are."""
    is_guess: bool = False
    """Whether nobody knows which colour has which name."""
    as_stored: bool = False
    """Whether the masks hold numbers, which are written as they are."""
    said: frozenset[int] = frozenset()
    """Numbers that the user's segue.yaml names, which hold something even where a file calls them nodata."""
    blurred: bool = False
    """Whether there are colours or numbers along the edges that nobody has drawn."""

    @property
    def is_clear(self) -> bool:
        """Whether the colours lie so far apart that one which was blurred a little can be told."""
        return all(distance(one, other) > 2 * NEAR for one, other in itertools.combinations(self.numbers, 2))

    def table(self) -> str:
        """The colours and their classes, a line each."""
        return "".join(
            f"{' '.join(f'{part:3}' for part in color)}  {self.word(color, number)}\n" for color, number in self.numbers.items()
        )

    def word(self, color: Color, number: int) -> str:
        if number != IGNORE:
            return self.labels.names[number]
        return "not known" if color in self.unknown else "ignored"

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
    found = sorted(main_colours(colours))
    blurred = len(colours) > MANY or any(reading.fault in ("jpeg-mask", "anti-aliased") for reading in readings)
    if all(red == green == blue for red, green, blue in found):
        return replace(guess_numbers([color[0] for color in found], labels), as_stored=not blurred, blurred=blurred)
    if channel := numbering_channel(found, labels):
        return by_channel(found, channel, labels)
    return replace(guess_table(found, labels, blurred), blurred=blurred)


def numbering_channel(found: Sequence[Color], labels: Labels | None) -> list[int]:
    """The values of the one channel that varies, where the others are 0 and these are class numbers, as CARLA writes them; else
    nothing."""
    channels = [channel for channel in zip(*found, strict=True) if any(channel)]
    top = len(labels) if labels else FEW
    numbers = list(channels[0]) if len(channels) == 1 else []
    return numbers if len(numbers) > 1 and all(number < top or number == IGNORE for number in numbers) else []


def by_channel(found: Sequence[Color], values: Sequence[int], labels: Labels | None) -> Meaning:
    """Each colour as the number that one of its channels is."""
    names = labels.names if labels else classes(1 + max(value for value in values if value != IGNORE))
    palette = labels.palette if labels else Labels.from_names(names).palette
    words = "One channel of the colours varies alone: its values are taken for the class numbers"
    return Meaning(Labels(tuple(names), palette), dict(zip(found, values, strict=True)), words)


def main_colours(colours: Mapping[Color, int]) -> list[Color]:
    """The colours, most common first; of very many, as smooth edges make them, those that are no blend of two others."""
    order = sorted(colours, key=lambda color: (-colours[color], color))
    if len(order) <= MANY:
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


def guess_table(found: Sequence[Color], labels: Labels | None, blurred: bool) -> Meaning:
    """Colours: of the palette that is given, of Cityscapes, of CamVid, of VOC's colour map, or else a class each."""
    given = labels and (labels.palette != Labels.from_names(labels.names).palette or (0, 0, 0) not in found)
    for known, words in (
        (labels if given else None, "The colours are the palette"),
        (CITYSCAPES, "The colours are those of Cityscapes"),
        (CAMVID, "The colours are those of CamVid"),
    ):
        if known and (meaning := as_known(found, known, words, labels, blurred)):
            return meaning
    return as_voc(found, labels) or as_classes(found, labels)


def as_known(found: Sequence[Color], known: Labels, words: str, labels: Labels | None, blurred: bool) -> Meaning | None:
    """By a palette that is known; None if too few of the colours are of it."""
    fits = labels is None or known is labels or len(known) == len(labels) or len(found) >= 5
    meant = {color: nearest(color, known.palette) for color in found}
    matches = [color for color, table_color in meant.items() if distance(color, table_color) <= CLOSE]
    if not fits or len(matches) < max(2, 0.75 * len(found)):
        return None
    named_so = in_order_of(labels, known) if labels else known
    if labels and named_so.names != labels.names:
        words += "; its names stand for those of segue.yaml, of which nobody knows the colours"
    table = {color: number for number, color in enumerate(named_so.palette)}
    numbers = dict.fromkeys((color for color in found if not (blurred and color in matches)), IGNORE) | table
    numbers |= {color: table[meant[color]] for color in matches if not blurred}
    unknown = frozenset(color for color, number in numbers.items() if number == IGNORE and color not in VOIDS)
    return Meaning(named_so, numbers, words, unknown)


def as_voc(found: Sequence[Color], labels: Labels | None) -> Meaning | None:
    """By VOC's colour map, whose names are known if the first of `labels` is a background; None for other or too many colours."""
    inner = [color for color in found if color != VOC_OUTLINE]
    if len(inner) < 2:
        return None
    count = 1 + max(VOC_NUMBERS.get(color, IGNORE) for color in inner)
    if count > (len(labels) if labels else 21):
        return None
    numbers = {**dict.fromkeys(found, IGNORE), **{color: VOC_NUMBERS[color] for color in inner}}
    words = "The colours are those of VOC, in their order"
    if labels is None:
        return named(numbered(count), numbers, words)
    if begins_with_background(labels):
        return named(labels.names, numbers, words)
    return replace(named(classes(count), numbers, words), is_guess=True)


def as_classes(found: Sequence[Color], labels: Labels | None) -> Meaning:
    """Each colour as a class; of two, black is the background that the labels have."""
    order = sorted(found, key=lambda color: color != (0, 0, 0))  # black first
    numbers = {color: place for place, color in enumerate(order)}
    if labels and begins_with_background(labels) and len(order) == len(labels) == 2 and order[0] == (0, 0, 0):
        return named(labels.names, numbers, f"Black is taken for {labels.names[0]}")
    words = "The colours are not known: it is a guess that each is a class, and nobody knows its name"
    return replace(named(classes(len(order)) if labels else numbered(len(order)), numbers, words), is_guess=True)


def begins_with_background(labels: Labels) -> bool:
    return labels.names[0].lower() in BACKGROUND


def nearest(color: Color, others: Sequence[Color]) -> Color:
    return min(others, key=lambda other: distance(color, other))


def in_order_of(labels: Labels, known: Labels) -> Labels:
    """The known classes by the names and in the order of `labels`, if these are the same names; or else as they are known."""
    colors = {name.lower(): color for name, color in zip(known.names, known.palette, strict=True)}
    if {name.lower() for name in labels.names} != colors.keys():
        return Labels(known.names, known.palette)
    return Labels(labels.names, tuple(colors[name.lower()] for name in labels.names))


def classes(count: int) -> tuple[str, ...]:
    return tuple(f"class_{number}" for number in range(count))


def numbered(count: int) -> tuple[str, ...]:
    return ("background", "object") if count == 2 else classes(count)


def named(names: Sequence[str], numbers: Mapping[Color, int], words: str) -> Meaning:
    """With the masks' own colours as the palette."""
    palette = list(Labels.from_names(names).palette)
    for color, number in numbers.items():
        if number != IGNORE and any(len({*other}) > 1 for other in numbers):
            palette[number] = color
    return Meaning(Labels(tuple(names), tuple(palette)), numbers, words)


def is_blend(color: Color, one: Color, other: Color) -> bool:
    """Whether the colour lies nearly on the line between two others."""
    return math.dist(one, color) + math.dist(color, other) < math.dist(one, other) + 8


def distance(one: Color, other: Color) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))
