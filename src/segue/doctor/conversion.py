"""Masks of one's own, written as masks of class numbers into a new folder."""

import shutil
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from segue.data.files import Pair, leaving_out_lone_files, pair_files
from segue.data.folder import HELP, SPLITS, stem_of
from segue.data.samples import DataError
from segue.doctor.colours import NEAR, Meaning
from segue.doctor.diagnosis import of_palettes, yaml_line
from segue.doctor.examination import Examination
from segue.doctor.reading import Progress, in_parallel
from segue.images import ImageError, write_image
from segue.images.files import opened
from segue.images.masks import ColourError, read_stored
from segue.labels import IGNORE, Mask

LOST = 0.01  # share of the pixels that may be no class unasked
LOST_BLURRED = 0.5  # the same, where edges are blurred


class Converted(NamedTuple):
    """What became of a folder's pairs."""

    pairs: int
    """How many were written."""
    left_out: list[str]
    """Why others were not."""
    ignored: float
    """The share of the pixels that are of no known class, 0 to 1."""


class Written(NamedTuple):
    """What became of a pair."""

    fault: str
    """Why it is left out, if it is."""
    size: int = 0
    """Its pixels."""
    lost: int = 0
    """Those that are of no known class."""


def find_meaning(found: Examination) -> Meaning:
    """What the masks mean, to be converted by; DataError if labels would be lost by that, or nothing is known of it."""
    if not found.meaning:
        colours = [fault for fault in found.faults if fault.name == "colours"]
        said = colours[0].sentence() if colours else f"nothing of {found.root} could be read, so there is nothing to convert"
        raise DataError(f"nothing was converted. {said}" if colours else said)
    palettes = of_palettes(reading for readings in found.readings.values() for reading in readings)
    if palettes:
        raise DataError(f"nothing was converted. {palettes[0].sentence()}")
    blurred = [fault.name for fault in found.faults if fault.name in ("jpeg-mask", "anti-aliased")]
    if blurred and not found.meaning.is_clear:
        raise DataError(f"{blurred[0]}: labels that lie so near each other cannot be told apart any more; export the masks anew")
    return found.meaning


def convert(root: Path, out: Path, meaning: Meaning, progress: Progress = iter) -> Converted:
    """Write the pairs below `root` into the new folder `out`, with masks of numbers and a segue.yaml; the originals stay.

    ValueError, and no folder, if labels would be lost: numbers that do not fit into 8 bits, or more than a hundredth of the
    pixels of colours that are not known.
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


def write_pairs(root: Path, out: Path, meaning: Meaning, progress: Progress) -> Converted:
    """Write each pair, and then the segue.yaml of those that could be read."""
    with leaving_out_lone_files() as lone:
        pairs = find_pairs(root)
    written = in_parallel(partial(write_pair, root, out, meaning), pairs, progress)
    ignored = sum(part.lost for part in written) / max(1, sum(part.size for part in written))
    check_loss(ignored, meaning)
    whole = [stem_of(image, root) for (image, _), part in zip(pairs, written, strict=True) if not part.fault]
    if not whole:
        raise DataError(f"nothing was converted: {written[0].fault}")
    (out / "segue.yaml").write_text(description(root, meaning, {*whole}), "utf-8")
    left_out = [f"{path} has no {what}" for path, what in lone] + [part.fault for part in written if part.fault]
    return Converted(len(whole), left_out, ignored)


def find_pairs(root: Path) -> list[Pair]:
    """Those of all splits; DataError if there are none."""
    places = [root, *(root / split for split in SPLITS)]
    there = [place for place in places if (place / "images").is_dir() and (place / "masks").is_dir()]
    pairs = [pair for place in there for pair in pair_files(place / "images", place / "masks", HELP)]
    if not pairs:
        raise DataError(f"{root} has no pairs of an image and a mask; {HELP}")
    return pairs


def write_pair(root: Path, out: Path, meaning: Meaning, pair: Pair) -> Written:
    """Copy an image, and write its mask as numbers."""
    image, mask = pair
    try:
        stored, void = read_any(mask, meaning)
    except ImageError as error:
        return Written(str(error))
    if meaning.as_stored:
        numbers, lost = as_they_are(stored, mask), 0
    else:
        numbers, lost = to_numbers(stored.astype(int), meaning)
    if void is not None:
        numbers[void] = IGNORE
    target = out / mask.relative_to(root).with_suffix(".png")
    copied = out / image.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    copied.parent.mkdir(parents=True, exist_ok=True)
    write_image(target, numbers)
    shutil.copyfile(image, copied)
    return Written("", numbers.size, lost)


def read_any(mask: Path, meaning: Meaning) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The numbers of a mask (H, W), or its colours (H, W, 3), and where it has none, which is 0 there; ImageError if it cannot
    be read."""
    try:
        numbers, void, nodata = read_stored(mask)
    except ColourError:
        with opened(mask) as file:
            return np.array(file.convert("RGB")), None
    if nodata is not None and nodata not in meaning.said:
        void = numbers == nodata if void is None else void | (numbers == nodata)
    if void is None:
        return numbers, None
    if meaning.as_stored and meaning.numbers.get((IGNORE,) * 3, IGNORE) != IGNORE:
        raise ImageError(
            f"{mask} has pixels without data, for which {IGNORE} stands, but that is mapped to a class; write another"
        )
    return np.where(void, numbers.dtype.type(0), numbers), void


def check_loss(ignored: float, meaning: Meaning) -> None:
    """DataError if so large a share of the pixels may not be ignored unasked."""
    limit = LOST_BLURRED if meaning.blurred else LOST
    if ignored > limit:
        raise DataError(
            f"{ignored:.1%} of the pixels have colours or numbers that nobody knows, and would be ignored; at most "
            f"{limit:.0%} may be. Put all colours into segue.yaml, as names and palette, or export the masks anew; nothing was "
            "written"
        )


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
    if mask.min(initial=0) < 0 or mask.max(initial=0) > 255:
        below = mask.min(initial=0) < 0 and mask.max(initial=0) < 256
        why = "name those below 0 in segue.yaml, in ignore or mapping" if below else "they look like instance numbers"
        raise DataError(
            f"{path} has numbers of {mask.min()} to {mask.max()}, which do not fit into 8 bits: {why}; or write a mask of class "
            "numbers, 0 to 254"
        )
    return mask.astype(np.uint8)


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
