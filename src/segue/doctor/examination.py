"""The doctor's full form: opens a data set, however broken, reads it and diagnoses."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segue.data import create_dataset
from segue.data.files import FileSamples, leaving_out_lone_files, pair_files
from segue.data.folder import HELP
from segue.data.samples import DataError, Samples
from segue.doctor.colours import Meaning, guess_meaning
from segue.doctor.diagnosis import diagnose, of_duplicates, of_segments, of_single_samples
from segue.doctor.exports import beside_images, several_a_class
from segue.doctor.faults import KINDS, Fault
from segue.doctor.reading import Legend, Progress, Reading, read_splits
from segue.labels import IGNORE, Labels

HINTED = 500  # lone files whose names are compared


@dataclass(frozen=True)
class Examination:
    """What the doctor found in a data set."""

    name: str
    root: str
    splits: dict[str, Samples]
    """Those that could be opened, without the files that have no partner."""
    readings: dict[str, list[Reading]]
    legend: Legend | None
    """What the labels mean, or seem to mean where nothing says it."""
    faults: list[Fault]
    meaning: Meaning | None = None
    """Of one's own data that want to be converted: what the masks seem to mean."""


def examine(
    data: str, root: str = "", split: str = "train", progress: Callable[[str], Progress] = lambda description: iter
) -> Examination:
    """Read the training split and val of a data set once, and tell what is wrong.

    ValueError if there is no such data set, or if nothing of it can be opened.
    """
    name = data if data != "folder" else Path(root).resolve().name
    own = data == "folder"
    described = not own or Path(root, "segue.yaml").exists()
    splits: dict[str, Samples] = {}
    failures: list[str] = []
    with leaving_out_lone_files() as lone:
        if described:
            for key, part in (("train", split), ("val", "val")):
                try:
                    splits[key] = create_dataset(data, root, part)
                except DataError as error:
                    failures.append(str(error))
        else:
            try:
                splits = undescribed(Path(root))
            except DataError as error:
                raise DataError(f"{error}{folders_in(Path(root))}") from None
    faults = lone_files({str(path): what for path, what in lone})
    if own and any("there is no folder" in failure for failure in failures):
        failures = [failure + folders_in(Path(root)) for failure in failures]
    if failures and not splits and not lone:
        raise DataError(failures[0])
    if not lone:
        faults += [Fault("layout", found=failure) for failure in failures]
    readings = read_splits(splits, progress)
    everything = [reading for part in readings.values() for reading in part]
    if described:
        legend = Legend.of(next(iter(splits.values()))) if splits else None
        meaning = meaning_of(everything, legend) if own and legend else None
        faults += diagnose(readings, legend, own) if legend else []
    else:
        meaning = guess_meaning(everything)
        legend = legend_of(meaning)
        faults += [*of_single_samples(everything), *of_duplicates(readings), no_description(root, meaning, everything)]
        if not Path(root, "images").is_dir() and "val" not in splits:
            faults.append(Fault("layout", found=f"There is no folder {Path(root, 'val', 'images')}{folders_in(Path(root))}"))
    if segments := of_segments(everything, len(legend.labels) if described and legend else 0):
        meaning, faults = None, [segments, *(fault for fault in faults if fault.name not in ("colours", "no-description"))]
    faults = [with_conversion(fault, meaning) for fault in faults]
    faults.sort(key=lambda fault: list(KINDS).index(fault.name))
    return Examination(name, root, splits, readings, legend, faults, meaning)


def lone_files(lone: Mapping[str, str]) -> list[Fault]:
    """lone: files, and what each lacks."""
    if not lone:
        return []
    path, what = next(iter(lone.items()))
    found = f"{path} has no {what}."
    images = [Path(path).stem for path, what in lone.items() if what == "mask"][:HINTED]
    masks = [Path(path).stem for path, what in lone.items() if what == "image"][:HINTED]
    several, way = several_a_class(images, masks)
    ends = Counter(end for image in images for end in {difference(image, mask) for mask in masks} if end)
    if not several and ends and ends.most_common(1)[0][1] > max(1, 0.5 * len(images)):
        found += f' Many names differ by "{ends.most_common(1)[0][0]}" alone.'
    return [Fault("no-partner", [*lone], f"{found} {several}" if several else found, way)]


def difference(one: str, other: str) -> str:
    """What one of two names has more than the other, before or after it; empty if that is a number or all else differs."""
    short, long = sorted((one, other), key=len)
    if not (long.startswith(short) or long.endswith(short)):
        return ""
    more = long.removeprefix(short) if long.startswith(short) else long.removesuffix(short)
    return "" if more.isdigit() else more


def folders_in(root: Path) -> str:
    """The folders of images that there are, in words to put after a message."""
    deep = [path for path in sorted([*root.glob("*/"), *root.glob("*/*/")]) if not path.name.startswith(".")]
    ends = [path for path in deep if path.is_dir() and not any(path in other.parents for other in deep)]
    shown = ", ".join(path.relative_to(root).as_posix() for path in ends[:8])
    return f" (found: {shown or 'no folders'}{', ...' * (len(ends) > 8)}){beside_images(root)}"


def undescribed(root: Path) -> dict[str, Samples]:
    """The pairs of a folder that has no segue.yaml, whatever labels they have."""
    places = {split: root / split for split in ("train", "val") if (root / split / "images").is_dir()} or {"train": root}
    anything = Labels.from_names([f"class_{number}" for number in range(IGNORE)])
    mapping = {number: number for number in range(IGNORE + 1)}
    return {
        split: FileSamples(pair_files(place / "images", place / "masks", HELP), anything, mapping)
        for split, place in places.items()
    }


def meaning_of(readings: Sequence[Reading], legend: Legend) -> Meaning:
    """What the masks mean by their segue.yaml; if they hold colours, by these."""
    if any(reading.colours for reading in readings):
        return guess_meaning([reading for reading in readings if reading.colours], legend.labels)
    numbers = {(label, label, label): int(legend.table[label]) for label in map(int, np.flatnonzero(legend.known))}
    blurred = any(reading.fault in ("jpeg-mask", "anti-aliased") for reading in readings)
    words = "What they mean stands in segue.yaml"
    return Meaning(legend.labels, numbers, words, as_stored=not blurred, said=legend.said, blurred=blurred)


def legend_of(meaning: Meaning) -> Legend:
    known, table = np.zeros(256, bool), np.full(256, IGNORE, np.uint8)
    for color, number in meaning.numbers.items():
        if len({*color}) == 1:
            known[color[0]], table[color[0]] = True, number
    return Legend(meaning.labels, known, table)


def no_description(root: str, meaning: Meaning, readings: Sequence[Reading]) -> Fault:
    found = f"There is no {Path(root) / 'segue.yaml'}."
    others = [path.name for path in sorted(Path(root).iterdir()) if path.name.lower() in ("segue.yml", "segue.yaml")]
    if others:
        return Fault("no-description", found=f"{found} There is {others[0]}.", mending="Rename it to segue.yaml.")
    colours = any(reading.colours for reading in readings)
    if not colours and all(reading.labels is None for reading in readings):
        return Fault("no-description", found=found, mending="Mend all else first; then segue doctor proposes one.")
    lines = meaning.lines(of_masks=not colours) + ("splits: {val: 0.2}\n" if Path(root, "images").is_dir() else "")
    return Fault("no-description", found=found, lines=lines)


def with_conversion(fault: Fault, meaning: Meaning | None) -> Fault:
    """The fault with the way out of writing masks of numbers, where that mends it."""
    if meaning is None or fault.mending or fault.name not in ("colours", "sixteen-bit") or "instances" in fault.found:
        return fault
    mending = "Let segue write masks of numbers into a new folder, with --convert NEW_FOLDER; your files stay as they are."
    if fault.name == "sixteen-bit":
        return replace(fault, mending=mending)
    return replace(fault, mending=f"{mending} {meaning.words}:", lines=meaning.table())
