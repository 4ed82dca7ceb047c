"""From what was read to what is wrong."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segue.data.cityscapes import LABEL_IDS
from segue.data.files import ranges
from segue.doctor.faults import KINDS, Fault
from segue.doctor.reading import Counts, Legend, Reading
from segue.labels import IGNORE

BACKGROUND = ("background", "bg", "none", "nothing", "other", "unlabeled", "unlabelled")
PASTE = "Put this into segue.yaml:"


def diagnose(readings: Mapping[str, Sequence[Reading]], legend: Legend, own: bool = False) -> list[Fault]:
    """The faults, by kind, of the samples of train and of val, which share a legend.

    own: a segue.yaml says what the labels mean, so lines for it are among the ways out.
    """
    everything = [reading for split in readings.values() for reading in split]
    faults = of_single_samples(everything)
    legible = [
        reading for reading in everything if reading.labels is not None and reading.fault not in ("jpeg-mask", "anti-aliased")
    ]
    strange = of_labels(legible, legend, own)
    faults += strange or of_emptiness(legible, legend) + of_classes(readings, legend)
    faults += of_duplicates(readings)
    return sorted(faults, key=lambda fault: list(KINDS).index(fault.name))


def of_single_samples(readings: Iterable[Reading]) -> list[Fault]:
    """The faults that samples have by themselves, in one fault a kind."""
    kinds: dict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        if reading.fault:
            kinds[reading.fault].append(reading)
    return [Fault(name, [reading.faulty for reading in faulty], faulty[0].found) for name, faulty in kinds.items()]


def of_labels(readings: Sequence[Reading], legend: Legend, own: bool) -> list[Fault]:
    """What is wrong with the labels of all masks, taken together."""
    if not readings:
        return []
    counts = total(reading.labels for reading in readings)
    names, number = legend.labels.names, len(legend.labels)
    found, known = labels_of(counts), labels_of(legend.known)
    unknown = found - known
    every = [reading.mask for reading in readings]
    words = f"The masks hold the labels {listed(counts)}; the names, from 0 on, are {short(names)}."

    if found == {0} and counts[IGNORE] and number <= 2 and legend.known[0] and legend.table[IGNORE] == IGNORE:
        two = names if number == 2 else ("background", *names)
        lines = names_line(two) * (number == 1) + mapping_line({0: two[0], 255: two[1]})
        return [Fault("zero-255", every, words, *((PASTE, lines) if own else ()))]

    trained = set(range(19))
    if number == 19 and known >= set(range(34)) and found <= trained and share(counts, range(7)) > 0.25:
        return [Fault("train-ids", every, words)]
    if not unknown:
        return []
    if number == 19 and known == trained and found <= set(range(34)) and max(found) > 19:
        lines = mapping_line({label: names[place] for label, _, place, _ in LABEL_IDS if place != IGNORE})
        lines += f"ignore: {[label for label, _, place, _ in LABEL_IDS if place == IGNORE and label >= 0]}\n"
        return [Fault("label-ids", every, words, *((PASTE, lines) if own else ()))]

    top = len(known)  # the first number that is too high, if the labels are counted 0, 1, 2
    holders = [reading.mask for reading in readings if reading.labels is not None and reading.labels[list(unknown)].any()]
    if known == set(range(top)) and unknown == {top}:
        shifted = mapping_line({0: "ignore"} | {label + 1: name for label, name in enumerate(names)})
        if share(counts, [0]) < 0.005:
            return [Fault("off-by-one", every, words, *((PASTE, shifted) if own else ()))]
        if names[0].lower() not in BACKGROUND and len(holders) >= max(min(2, len(readings)), 0.1 * len(readings)):
            way = "Put one of these lines into segue.yaml: the first names the background, the second ignores it."
            lines = names_line(("background", *names)) + shifted
            return [Fault("background-is-a-class", every, words, *((way, lines) if own else ()))]
    words = f"Found is {listed(counts * ~legend.known)}; allowed are {listed(legend.known)}."
    if len(unknown) > max(8, number):
        words += " So many may number instances, such as cells, instead of classes."
    way = "Correct the masks, or say in segue.yaml what the labels mean: in mapping the class, or else:" if own else ""
    return [Fault("unknown-label", holders, words, way, f"ignore: {sorted(unknown)}\n" if own else "")]


def of_emptiness(readings: Sequence[Reading], legend: Legend) -> list[Fault]:
    """Masks in which everything is ignored; and masks of background alone, where these are few."""
    void, bare = [], []
    background = legend.labels.names[0].lower() in BACKGROUND
    for reading in readings:
        if reading.labels is None:
            continue
        classes = legend.classes(reading.labels)
        if not classes.any() and not labels_of(reading.labels * ~legend.known):
            void.append(reading.mask)
        elif background and classes[0] and not classes[1:].any():
            bare.append(reading.mask)
    if len(bare) > max(1, 0.05 * len(readings)) or len(bare) == len(readings):
        bare = []  # that is how these data are
    words = f"Ignored everywhere: {len(void)}; {legend.labels.names[0]} everywhere: {len(bare)}."
    return [Fault("empty-mask", void + bare, words)] if void or bare else []


def of_classes(readings: Mapping[str, Sequence[Reading]], legend: Legend) -> list[Fault]:
    """Classes that train lacks; nothing is said where more than a few masks cannot be read."""
    present = {}
    for split, parts in readings.items():
        legible = [reading.labels for reading in parts if reading.labels is not None]
        if len(legible) < 0.9 * len(parts) or not legible:
            return []
        present[split] = legend.classes(total(legible)) > 0
    if "train" not in present:
        return []
    elsewhere = present.get("val", np.zeros(len(legend.labels), bool))
    faults = []
    for name, lacking, where in (
        ("class-missing", ~present["train"] & ~elsewhere, "nowhere"),
        ("class-only-in-val", ~present["train"] & elsewhere, "in val alone"),
    ):
        if lacking.any():
            lost = [f"{legend.labels.names[i]} ({i})" for i in np.flatnonzero(lacking)]
            faults.append(Fault(name, found=f"It is found {where}: {short(lost)}."))
    return faults


def of_duplicates(readings: Mapping[str, Sequence[Reading]]) -> list[Fault]:
    """Images that are in train and in val: by their pixels where these were read, else byte by byte."""
    train, val = readings.get("train", []), readings.get("val", [])
    digests = [*train, *val]
    if all(reading.digest for reading in digests):
        keys: list[Any] = [reading.digest for reading in digests]
    else:
        keys = file_keys([reading.image for reading in digests])
    first: dict[Any, str] = {}
    for key, reading in zip(keys, train, strict=False):
        first.setdefault(key, reading.image)
    pairs = [(first[key], reading.image) for key, reading in zip(keys[len(train) :], val, strict=True) if key and key in first]
    if not pairs:
        return []
    return [Fault("duplicate", [image for _, image in pairs], f"{pairs[0][1]} is the same as {pairs[0][0]}.")]


def file_keys(names: Sequence[str]) -> list[str]:
    """For each file its digest; empty where no other has its size, or there is no such file, or it holds several samples."""
    uses = Counter(names)
    paths = [Path(name) for name in names]
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    common = Counter(sizes)
    return [
        hashlib.blake2b(path.read_bytes()).hexdigest() if size and common[size] > 1 and uses[str(path)] <= 2 else ""
        for path, size in zip(paths, sizes, strict=True)
    ]


def total(counts: Iterable[Counts | None]) -> Counts:
    return sum((part for part in counts if part is not None), np.zeros(256, np.int64))


def labels_of(counts: Any) -> set[int]:
    """The labels that occur, 255 aside."""
    return {int(label) for label in np.flatnonzero(counts)} - {IGNORE}


def share(counts: Counts, labels: Iterable[int]) -> float:
    """What part of the pixels has these labels, 255 aside."""
    return float(counts[[*labels]].sum() / max(1, counts[:IGNORE].sum()))


def listed(counts: Any) -> str:
    return ", ".join(ranges(np.flatnonzero(counts)))


def short(names: Sequence[str], shown: int = 8) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def names_line(names: Sequence[str]) -> str:
    return yaml_line({"names": [*names]})


def mapping_line(mapping: Mapping[int, str]) -> str:
    return yaml_line({"mapping": {**mapping}})


def yaml_line(entry: Mapping[str, Any]) -> str:
    """An entry of segue.yaml in one line."""
    (key, value), *_ = entry.items()
    return f"{key}: {yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True).strip()}\n"
