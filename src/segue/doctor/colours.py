"""Masks of one's own that hold colours or odd numbers: what they seem to mean, and the same as numbers in a new folder."""

import itertools
import math
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from segue.data.camvid import CAMVID
from segue.data.cityscapes import CITYSCAPES
from segue.data.files import Pair, leaving_out_lone_files, pair_files
from segue.data.folder import HELP, SPLITS
from segue.data.samples import DataError
from segue.doctor.diagnosis import BACKGROUND, names_line, total, yaml_line
from segue.doctor.reading import Progress, Reading, in_parallel
from segue.images import ImageError, write_image
from segue.images.files import opened
from segue.labels import IGNORE, Color, Labels, Mask, distinct_color

MANY = 64  # colours: more are smooth edges
CLOSE = 12  # so far JPEG moves a colour, in red, green and blue together, where it is even
NEAR = 48  # so far from a colour of the table a pixel of a blurred mask may lie; one further off is ignored
VOC_NUMBERS = {distinct_color(i - 1): i for i in range(IGNORE)}
VOC_OUTLINE = (224, 224, 192)
VOIDS = ((0, 0, 0), VOC_OUTLINE)  # colours that mean no class where no table has them
LOST = 0.01  # share of the pixels that may be no class unasked
LOST_BLURRED = 0.5  # the same, where edges are blurred


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
    found = main_colours(colours)
    blurred = len(colours) > MANY or any(reading.fault in ("jpeg-mask", "anti-aliased") for reading in readings)
    if all(red == green == blue for red, green, blue in found):
        return replace(guess_numbers([color[0] for color in found], labels), as_stored=not blurred, blurred=blurred)
    return replace(guess_table(found, labels, blurred), blurred=blurred)


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
        if not known:
            continue
        fits = labels is None or known is labels or len(known) == len(labels) or len(found) >= 5
        meant = {color: nearest(color, known.palette) for color in found}
        matches = [color for color, table_color in meant.items() if distance(color, table_color) <= CLOSE]
        if fits and len(matches) >= max(2, 0.75 * len(found)):
            named_so = in_order_of(labels, known) if labels else known
            if labels and named_so.names != labels.names:
                words += "; its names stand for those of segue.yaml, of which nobody knows the colours"
            table = {color: number for number, color in enumerate(named_so.palette)}
            numbers = dict.fromkeys((color for color in found if not (blurred and color in matches)), IGNORE) | table
            numbers |= {color: table[meant[color]] for color in matches if not blurred}
            unknown = frozenset(color for color, number in numbers.items() if number == IGNORE and color not in VOIDS)
            return Meaning(named_so, numbers, words, unknown)
    inner = [color for color in found if color != VOC_OUTLINE]
    count = 1 + max(VOC_NUMBERS.get(color, IGNORE) for color in inner)
    on_black = labels is not None and labels.names[0].lower() in BACKGROUND
    if len(inner) > 1 and count <= (len(labels) if labels else 21):
        numbers = {**dict.fromkeys(found, IGNORE), **{color: VOC_NUMBERS[color] for color in inner}}
        names = labels.names if labels and on_black else classes(count) if labels else numbered(count)
        words = "The colours are those of VOC, in their order"
        return replace(named(names, numbers, words), is_guess=labels is not None and not on_black)
    order = sorted(found, key=lambda color: color != (0, 0, 0))  # black first
    numbers = {color: place for place, color in enumerate(order)}
    if labels and on_black and len(order) == len(labels) == 2 and order[0] == (0, 0, 0):
        return named(labels.names, numbers, f"Black is taken for {labels.names[0]}")
    words = "The colours are not known: it is a guess that each is a class, and nobody knows its name"
    return replace(named(classes(len(order)) if labels else numbered(len(order)), numbers, words), is_guess=True)


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


def to_numbers(mask: NDArray[np.integer], meaning: Meaning) -> tuple[Mask, int]:
    """The class of each pixel of a mask (H, W) or (H, W, 3), and how many are 255 because the meaning does not know them."""
    bands = [mask] * 3 if mask.ndim == 2 else [mask[..., band] for band in range(3)]
    packed = sum(band.astype(np.int64).clip(0, 999) * 1000**place for place, band in enumerate(bands))
    found, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colors = np.stack([found // 1000**place % 1000 for place in range(3)], axis=1)
    known = np.array([*meaning.numbers])
    distances = np.array([np.abs(known - color).sum(axis=1) for color in colors])
    nearby = distances.argmin(axis=1)
    numbers = np.array([*meaning.numbers.values()])[nearby]
    strange = distances.min(axis=1) > (NEAR if meaning.blurred and meaning.is_clear else 0)
    numbers[strange] = IGNORE
    lost = strange | np.array([color in meaning.unknown for color in meaning.numbers])[nearby]
    return numbers.astype(np.uint8)[places].reshape(mask.shape[:2]), int(counts[lost].sum())


def as_they_are(mask: NDArray[Any], path: Path) -> Mask:
    """Numbers that fit into 8 bits; of grey colours, those of one band."""
    if mask.ndim == 3:
        if (mask != mask[..., :1]).any():
            raise DataError(f"{path} holds colours, but other masks hold numbers; segue doctor cannot convert them together")
        mask = mask[..., 0]
    if mask.min(initial=0) < 0 or mask.max(initial=0) > 255 or (mask != mask.astype(np.int64)).any():
        raise DataError(
            f"{path} has numbers of {mask.min()} to {mask.max()}, which do not fit into 8 bits: they look like instance numbers; "
            "write a mask of class numbers, 0 to 254"
        )
    return mask.astype(np.uint8)


def is_blend(color: Color, one: Color, other: Color) -> bool:
    """Whether the colour lies nearly on the line between two others."""
    return math.dist(one, color) + math.dist(color, other) < math.dist(one, other) + 8


def distance(one: Color, other: Color) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))


def convert(root: Path, out: Path, meaning: Meaning, progress: Progress = iter) -> tuple[int, list[str]]:
    """Write the pairs below `root` into the new folder `out`, with masks of numbers and a segue.yaml; the originals stay.

    Gives how many pairs it wrote, and why the others were left out. ValueError, and no folder, if labels would be lost: numbers
    that do not fit into 8 bits, or more than a hundredth of the pixels of colours that are not known.
    """
    check_new(out)
    if meaning.blurred and not meaning.is_clear:
        raise DataError("labels that lie so near each other cannot be told apart in blurred masks; export the masks anew")
    new = out.with_name(f"{out.name}.new")  # always this, so that what an interrupted conversion left is found and removed
    empty(new, root)
    try:
        result = write_pairs(root, new, meaning, progress)
        if out.exists():
            out.rmdir()
        new.rename(out)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return result


def write_pairs(root: Path, out: Path, meaning: Meaning, progress: Progress) -> tuple[int, list[str]]:
    pairs: list[Pair] = []
    with leaving_out_lone_files() as lone:
        for place in (root, *(root / split for split in SPLITS)):
            if (place / "images").is_dir() and (place / "masks").is_dir():
                pairs += pair_files(place / "images", place / "masks", HELP)
    if not pairs:
        raise DataError(f"{root} has no pairs of an image and a mask; {HELP}")

    def write(pair: Pair) -> tuple[str, int, int]:
        """Why it is left out, how many pixels it has, and how many of them were lost."""
        image, mask = pair
        try:
            with opened(mask) as file:
                stored = np.array(
                    file if file.mode in ("L", "P", "1") or file.mode.startswith(("I", "F")) else file.convert("RGB")
                )
        except ImageError as error:
            return str(error), 0, 0
        if meaning.as_stored:
            numbers, lost = as_they_are(stored, mask), 0
        else:
            numbers, lost = to_numbers(stored.astype(int), meaning)
        target = out / mask.relative_to(root).with_suffix(".png")
        copied = out / image.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        copied.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, numbers)
        shutil.copyfile(image, copied)
        return "", numbers.size, lost

    written = in_parallel(write, pairs, progress)
    share = sum(lost for *_, lost in written) / max(1, sum(size for _, size, _ in written))
    limit = LOST_BLURRED if meaning.blurred else LOST
    if share > limit:
        raise DataError(
            f"{share:.1%} of the pixels have colours or numbers that nobody knows, and would be ignored; at most "
            f"{limit:.0%} may be. Put all colours into segue.yaml, as names and palette, or export the masks anew; nothing was "
            "written"
        )
    if share:
        print(f"{share:.2%} of the pixels are of no known class, and ignored")
    left_out = [f"{path} has no {what}" for path, what in lone] + [words for words, *_ in written if words]
    names = {image.stem for (image, _), (words, *_) in zip(pairs, written, strict=True) if not words}
    (out / "segue.yaml").write_text(description(root, meaning, names), "utf-8")
    return sum(not words for words, *_ in written), left_out


def description(root: Path, meaning: Meaning, names: Collection[str]) -> str:
    """The segue.yaml of what was converted: the entries of the user's own that still hold. names: of the samples."""
    path = root / "segue.yaml"
    fields: dict[str, Any] = yaml.safe_load(path.read_text("utf-8")) if path.exists() else {}
    if (root / "images").is_dir():
        fields.setdefault("splits", {"val": 0.2})
    if "splits" in fields:
        fields["splits"] = {
            split: [name for name in part if name in names] if isinstance(part, list) else part
            for split, part in fields["splits"].items()
        }
    if meaning.as_stored and path.exists():
        kept, lines = fields, ""
    else:
        kept = {key: fields[key] for key in ("channels", "splits") if key in fields}
        lines = meaning.lines(of_masks=meaning.as_stored)
    return lines + "".join(yaml_line({key: value}) for key, value in kept.items())


def check_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already; choose a new folder")


def empty(new: Path, root: Path) -> None:
    """Remove what an interrupted conversion has left, and nothing else."""
    ours = {*SPLITS, "images", "masks", "segue.yaml"}
    if new.exists():
        inside = root.resolve().is_relative_to(new.resolve())
        if inside or not new.is_dir() or not {path.name for path in new.iterdir()} <= ours:
            raise DataError(f"{new} is there already, which segue doctor needs while it converts; move it away")
        shutil.rmtree(new)
    new.mkdir(parents=True)
