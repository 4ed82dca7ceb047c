"""From what was read to what is wrong."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from segue.data.cityscapes import LABEL_IDS
from segue.data.em import EM
from segue.data.files import ranges
from segue.doctor.faults import KINDS, Fault
from segue.doctor.reading import Counts, Legend, Reading
from segue.labels import IGNORE, Color, Labels

BACKGROUND = ("background", "bg", "none", "nothing", "other", "unlabeled", "unlabelled")
PASTE = "Put this into segue.yaml:"


def diagnose(readings: Mapping[str, Sequence[Reading]], legend: Legend, own: bool = False) -> list[Fault]:
    """The faults, by kind, of the samples of train and of val, which share a legend.

    own: a segue.yaml says what the labels mean, so lines for it are among the ways out.
    """
    everything = [reading for split in readings.values() for reading in split]
    faults = of_single_samples(everything, legend)
    mixed = bool(of_palettes(everything))
    legible = [
        reading
        for reading in everything
        if reading.labels is not None and reading.fault not in ("jpeg-mask", "anti-aliased") and not (mixed and reading.palette)
    ]
    wrong = of_labels(legible, legend, own)
    faults += wrong
    if not any(fault.broken for fault in wrong):
        train = {id(reading) for reading in readings.get("train", [])}
        faults += of_emptiness(legible, legend, train) + of_classes(readings, legend, own)
    faults += of_duplicates(readings)
    return sorted(faults, key=lambda fault: list(KINDS).index(fault.name))


def of_single_samples(readings: Sequence[Reading], legend: Legend | None = None) -> list[Fault]:
    """The faults that masks have whatever the names are: those of samples by themselves, in one fault a kind; and palettes.

    Edges that seem smooth are a mere doubt where the legend knows all labels along them: classes may lie so.
    """
    kinds: dict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        if reading.fault:
            kinds[reading.fault].append(reading)
    faults = []
    for name, faulty in kinds.items():
        counts = total(reading.labels for reading in faulty)
        doubtful = name == "anti-aliased" and legend and not labels_of(counts * ~legend.known)
        stops = False if doubtful else None
        faults.append(Fault(name, [reading.faulty for reading in faulty], faulty[0].found, stops=stops))
    return faults + of_palettes(readings)


def of_palettes(readings: Iterable[Reading]) -> list[Fault]:
    """Palettes in which a number has another colour than in other files, as when colours were quantized file by file."""
    first: dict[int, tuple[Color, str]] = {}
    files, found = [], ""
    for reading in readings:
        for label, colour in reading.palette.items():
            usual, file = first.setdefault(label, (colour, reading.mask))
            if colour != usual:
                files.append(reading.mask)
                found = found or (
                    f"The number {label} has the colour {usual} in {file}, but {colour} in {reading.mask}: each file numbers its "
                    "own palette, so a number is no class."
                )
                break
    way = "Save the masks as RGB, such as by PIL's convert('RGB'); then segue doctor makes numbers of the colours."
    return [Fault("colours", files, found, way)] if files else []


def of_segments(readings: Iterable[Reading], classes: int) -> Fault | None:
    """Colours that number segments over all images, as in COCO's panoptic PNGs: nearly each is in one mask alone.

    classes: how many names there are, where that is known, else 0.
    """
    coloured = [reading for reading in readings if reading.colours]
    uses = Counter(colour for reading in coloured for colour in reading.colours if any(colour))
    alone = sum(count == 1 for count in uses.values())
    if len(coloured) < 3 or alone < 0.9 * len(uses) or alone <= max(classes, len(coloured)):
        return None
    found = (
        f"{alone} of {len(uses)} colours are in one mask alone, so they number segments and not classes: as in COCO's panoptic "
        "PNGs, where a segment's id is R + 256 G + 65536 B, and its class stands in the JSON beside them."
    )
    way = "Write for each segment its class number: by the category_id that segments_info in the JSON has for its id."
    return Fault("colours", [reading.mask for reading in coloured], found, way)


def of_labels(readings: Sequence[Reading], legend: Legend, own: bool) -> list[Fault]:
    """What is wrong with the labels of all masks, taken together: the first that fits of a table of faults."""
    if not readings:
        return []
    held = Held(readings, legend, own)
    for judge in (of_zero_255, of_one_class, of_some_zero_255, of_train_ids):
        if fault := judge(held):
            return [fault]
    if not held.unknown:
        return []
    for judge in (of_label_ids, of_counting_from_1, of_background, of_instance_numbers, of_other_numbers):
        if fault := judge(held):
            return [fault]
    return [of_unknown_labels(held)]


class Held:
    """The labels that the masks hold, taken together, and those that they may hold."""

    def __init__(self, readings: Sequence[Reading], legend: Legend, own: bool) -> None:
        self.readings, self.legend, self.own = readings, legend, own
        self.names, self.number = legend.labels.names, len(legend.labels)
        self.counts = total(reading.labels for reading in readings)
        self.found, self.known = labels_of(self.counts), labels_of(legend.known)
        self.unknown = self.found - self.known
        self.top = len(self.known)
        """The first number that is too high, if the labels are counted 0, 1, 2."""
        self.files = [reading.mask for reading in readings]

    @property
    def is_one_too_many(self) -> bool:
        return self.known == set(range(self.top)) and self.unknown == {self.top}

    @property
    def holders(self) -> list[str]:
        """The masks that hold labels which are not known."""
        unknown = list(self.unknown)
        return [reading.mask for reading in self.readings if reading.labels is not None and reading.labels[unknown].any()]

    @property
    def words(self) -> str:
        return f"The masks hold the labels {listed(self.counts)}; the names, from 0 on, are {short(self.names)}."

    @property
    def unknown_words(self) -> str:
        return f"Found is {listed(self.counts * ~self.legend.known)}; allowed are {listed(self.legend.known)}."

    def shifted(self) -> str:
        """The mapping of labels that are counted from 1."""
        return mapping_line({0: "ignore"} | {label + 1: name for label, name in enumerate(self.names)})

    def mended(self, name: str, files: Sequence[str], words: str, lines: str, way: str = PASTE) -> Fault:
        """A fault that lines of a segue.yaml mend, if there is one."""
        return Fault(name, files, words, way, lines) if self.own else Fault(name, files, words)


def of_zero_255(held: Held) -> Fault | None:
    """Black and white, where 255 is what is ignored."""
    names, number, legend = held.names, held.number, held.legend
    black_and_white = held.found == {0} and held.counts[IGNORE] and number <= 2
    if not (black_and_white and legend.known[0] and legend.table[IGNORE] == IGNORE) or IGNORE in legend.said:
        return None
    if names == EM.names:
        way = "In the challenge's files 255 is cell and 0 is membrane; here 1 is membrane. Write 0 for cell, 1 for membrane."
        return Fault("zero-255", held.files, held.words, way)
    two = names if number == 2 else ("background", *names)
    lines = names_line(two) * (number == 1) + mapping_line({0: two[0], 255: two[1]})
    return held.mended("zero-255", held.files, held.words, lines)


def of_one_class(held: Held) -> Fault | None:
    """A single name, from which a network learns nothing."""
    if held.number != 1:
        return None
    name, marked = held.names[0], max(held.found, default=1) or 1
    two = ("background", name) if name.lower() not in BACKGROUND else (name, "object")
    lines = names_line(two) + mapping_line({0: two[0], marked: two[1]})
    return held.mended("one-class", held.files, held.words, lines, f"Put both lines into segue.yaml, if {marked} is {two[1]}:")


def of_some_zero_255(held: Held) -> Fault | None:
    """Of two classes, masks of 0 and 255 alone, where others hold 1; but if 255 stands beside 1, it is void.

    A mere doubt: 255 may be void there, and 1 not in view.
    """
    readings, names = held.readings, held.names
    if held.found != {0, 1} or held.number != 2 or held.legend.table[IGNORE] != IGNORE or IGNORE in held.legend.said:
        return None
    each = [{int(label) for label in np.flatnonzero(reading.labels)} for reading in readings if reading.labels is not None]
    if any({1, IGNORE} <= labels for labels in each):
        return None
    some = [reading.mask for reading, labels in zip(readings, each, strict=True) if labels == {0, IGNORE}]
    words = "These masks hold 0 and 255 alone, others hold 1 and no 255. Perhaps 255 is the second class there; else it is void."
    if not some or not held.own:
        return Fault("zero-255", some, words, stops=False) if some else None
    way = (
        "Only you know which it is. Put one of these lines into segue.yaml: the first says void, the second that it is the class:"
    )
    lines = "ignore: [255]\n" + mapping_line({0: names[0], 1: names[1], 255: names[1]})
    return Fault("zero-255", some, words, way, lines, stops=False)


def of_train_ids(held: Held) -> Fault | None:
    """Cityscapes' training ids where its label ids should be: much has one of 0 to 6, which are void there."""
    are_wanted = held.number == 19 and held.known >= set(range(34))
    there = are_wanted and held.found <= set(range(19)) and share(held.counts, range(7)) > 0.25
    return Fault("train-ids", held.files, held.words) if there else None


def of_label_ids(held: Held) -> Fault | None:
    """Cityscapes' label ids where its training ids should be."""
    are_wanted = held.number == 19 and held.known == set(range(19))
    if not (are_wanted and held.found <= set(range(34)) and max(held.found) > 19):
        return None
    lines = mapping_line({label: held.names[place] for label, _, place, _ in LABEL_IDS if place != IGNORE})
    lines += f"ignore: {[label for label, _, place, _ in LABEL_IDS if place == IGNORE and label >= 0]}\n"
    return held.mended("label-ids", held.files, held.words, lines)


def of_counting_from_1(held: Held) -> Fault | None:
    """One label too many, and hardly any 0."""
    there = held.is_one_too_many and share(held.counts, [0]) < 0.005
    return held.mended("off-by-one", held.files, held.words, held.shifted()) if there else None


def of_background(held: Held) -> Fault | None:
    """One label too many in more than a few masks, and all from 0 on are there: the first is a background without a name."""
    names, top = held.names, held.top
    if not (held.is_one_too_many and held.found == set(range(top + 1)) and names[0].lower() not in BACKGROUND):
        return None
    if len(held.holders) < max(min(2, len(held.readings)), 0.1 * len(held.readings)):
        return None
    way = (
        "Only you know which it is. Put one of these lines into segue.yaml: the first names 0 as background, the second "
        f"ignores 0, the third ignores {top} and leaves the others as they are."
    )
    lines = names_line(("background", *names)) + held.shifted() + f"ignore: [{top}]\n"
    return held.mended("background-is-a-class", held.files, held.words, lines, way)


def of_instance_numbers(held: Held) -> Fault | None:
    if len(held.unknown) <= max(8, held.number):
        return None
    words = f"{held.unknown_words} So many may number instances, such as cells, instead of classes."
    way = "Write class numbers in their place; masks that number instances are read with --data nuclei (segue data nuclei)."
    return Fault("unknown-label", held.holders, words, way if held.own else "")


def of_other_numbers(held: Held) -> Fault | None:
    """As many labels as there are names, with other numbers; 255 may be one of them."""
    ordered = sorted(held.found)
    unsaid = held.legend.table[IGNORE] == IGNORE and IGNORE not in held.legend.said
    if len(held.found) == held.number - 1 and held.counts[IGNORE] and unsaid:
        ordered.append(IGNORE)
    if not held.own or len(ordered) != held.number or len(held.found & held.known) >= 2:
        return None
    way = "If these labels are the names in their order, put this into segue.yaml; or else correct the masks:"
    lines = mapping_line(dict(zip(ordered, held.names, strict=True)))
    return Fault("unknown-label", held.holders, held.unknown_words, way, lines)


def of_unknown_labels(held: Held) -> Fault:
    way = "Correct the masks, or say in segue.yaml what the labels mean: in mapping the class, or else:"
    return held.mended("unknown-label", held.holders, held.unknown_words, f"ignore: {sorted(held.unknown)}\n", way)


def of_emptiness(readings: Sequence[Reading], legend: Legend, train: Set[int] = frozenset()) -> list[Fault]:
    """Masks in which everything is ignored; and masks of background alone, where these are few.

    train: the ids of the readings of the training split, of which nothing can be learnt if all are void.
    """
    void, bare = [], []
    trained = [reading for reading in readings if id(reading) in train]
    blank = bool(trained) and not legend.classes(total(reading.labels for reading in trained)).any()
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
    way = "All of train is ignored, so nothing can be learnt: correct the masks, or what maps their labels." if blank else ""
    return [Fault("empty-mask", void + bare, words, way, stops=blank or None)] if void or bare else []


def of_classes(readings: Mapping[str, Sequence[Reading]], legend: Legend, own: bool) -> list[Fault]:
    """Classes that train lacks; nothing is said where more than a few masks cannot be read."""
    present = {}
    for split, parts in readings.items():
        legible = [reading.labels for reading in parts if reading.labels is not None]
        if len(legible) < 0.9 * len(parts) or not legible:
            return []
        present[split] = legend.classes(total(legible)) > 0
    if "train" not in present or not present["train"].any():  # which is an empty-mask
        return []
    stops = bool(present["train"].sum() < min(2, len(legend.labels))) or None
    elsewhere = present.get("val", np.zeros(len(legend.labels), bool))
    faults = []
    for name, lacking, where in (
        ("class-missing", ~present["train"] & ~elsewhere, "nowhere"),
        ("class-only-in-val", ~present["train"] & elsewhere, "in val alone"),
    ):
        if lacking.any():
            lost = [f"{legend.labels.names[i]} ({i})" for i in np.flatnonzero(lacking)]
            found = f"It is found {where}: {short(lost)}."
            if lacking[0] and name == "class-missing":
                found += " Perhaps the labels are counted from 1: then take 1 from each, and drop nothing."
            dropped = without(lacking, legend) if own and not stops and name == "class-missing" else ("", "")
            faults.append(Fault(name, (), found, *dropped, stops=stops))
    return faults


def without(lacking: NDArray[np.bool_], legend: Legend) -> tuple[str, str]:
    """The way out of classes that nothing shows, and its lines: they are dropped, and the labels of the others stay right."""
    labels = legend.labels
    kept = [number for number in range(len(labels)) if not lacking[number]]
    names = [labels.names[number] for number in kept]
    lines = names_line(names)
    if labels.palette != Labels.from_names(labels.names).palette:
        lines += yaml_line({"palette": [[*labels.palette[number]] for number in kept]})
    meant = {int(label): int(legend.table[label]) for label in np.flatnonzero(legend.known)}
    mapping = {label: labels.names[number] for label, number in meant.items() if number in kept}
    mapping |= {label: "ignore" for label, number in meant.items() if number == IGNORE and label != IGNORE}
    way = "Add images that show it. Or drop its name by all of these lines of segue.yaml, which keep the other labels right:"
    return way, lines + mapping_line(mapping)


def of_duplicates(readings: Mapping[str, Sequence[Reading]]) -> list[Fault]:
    """Images that are in train and in val: by their pixels where these were read, else byte by byte.

    A training split such as trainval, which has val's own files, has them on purpose.
    """
    train, val = readings.get("train", []), readings.get("val", [])
    own = {reading.image for reading in train}
    val = [reading for reading in val if reading.image not in own]
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
        hashlib.blake2b(path.read_bytes()).hexdigest() if size and common[size] > 1 and uses[str(path)] == 1 else ""
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
