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
from segue.doctor.diagnosis import diagnose, of_duplicates, of_single_samples
from segue.doctor.faults import KINDS, Fault
from segue.doctor.reading import Legend, Progress, Reading, read_splits
from segue.labels import IGNORE, Labels


@dataclass(frozen=True)
class Examination:
    """What the doctor found in a data set."""

    name: str
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
            splits = undescribed(Path(root))
    faults = lone_files({str(path): what for path, what in lone})
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
            faults.append(Fault("layout", found=f"There is no folder {Path(root, 'val', 'images')}"))
    faults = [with_conversion(fault, meaning) for fault in faults]
    faults.sort(key=lambda fault: list(KINDS).index(fault.name))
    return Examination(name, splits, readings, legend, faults, meaning)


def lone_files(lone: Mapping[str, str]) -> list[Fault]:
    """lone: files, and what each lacks."""
    if not lone:
        return []
    stems = Counter(Path(path).stem for path in lone)
    path, what = next(iter(lone.items()))
    found = f"{path} has no {what}."
    ends = Counter(
        long.removeprefix(short_).removesuffix(short_) for short_ in stems for long in stems if long != short_ and short_ in long
    )
    if ends and ends.most_common(1)[0][1] > 1:
        found += f' Many names differ by "{ends.most_common(1)[0][0]}" alone.'
    return [Fault("no-partner", [*lone], found)]


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
    return Meaning(legend.labels, numbers, "What they mean stands in segue.yaml")


def legend_of(meaning: Meaning) -> Legend:
    known, table = np.zeros(256, bool), np.full(256, IGNORE, np.uint8)
    for color, number in meaning.numbers.items():
        if len({*color}) == 1:
            known[color[0]], table[color[0]] = True, number
    return Legend(meaning.labels, known, table)


def no_description(root: str, meaning: Meaning, readings: Sequence[Reading]) -> Fault:
    found = f"There is no {Path(root) / 'segue.yaml'}."
    colours = any(reading.colours for reading in readings)
    if not colours and all(reading.labels is None for reading in readings):
        return Fault("no-description", found=found, mending="Mend all else first; then segue doctor proposes one.")
    lines = meaning.lines(of_masks=not colours) + ("splits: {val: 0.2}\n" if Path(root, "images").is_dir() else "")
    return Fault("no-description", found=found, lines=lines)


def with_conversion(fault: Fault, meaning: Meaning | None) -> Fault:
    """The fault with the way out of writing masks of numbers, where that mends it."""
    if meaning is None or fault.name not in ("colours", "sixteen-bit") or "instances" in fault.found:
        return fault
    mending = "Let segue write masks of numbers into a new folder, with --convert NEW_FOLDER; your files stay as they are."
    if fault.name == "sixteen-bit":
        return replace(fault, mending=mending)
    table = "".join(
        f"{' '.join(f'{part:3}' for part in color)}  {'ignored' if number == IGNORE else meaning.labels.names[number]}\n"
        for color, number in meaning.numbers.items()
    )
    return replace(fault, mending=f"{mending} {meaning.words}:", lines=table)
