"""The doctor's quick form, before a training."""

from collections.abc import Callable
from typing import Any

from segue.data.contract import check_samples
from segue.data.files import FileSamples
from segue.data.folder import Folder
from segue.data.samples import DataError
from segue.doctor.diagnosis import diagnose
from segue.doctor.faults import KINDS
from segue.doctor.reading import Legend, Progress, read_splits
from segue.labels import IGNORE, Labels


def quick_check(
    train_data: Any,
    val_data: Any,
    progress: Callable[[str], Progress] = lambda description: iter,
    labels: Labels | None = None,
) -> None:
    """DataError, naming the first fault, if a data set is broken; what is merely doubtful is printed.

    Every mask is read, and every image checked without decoding it. Data that are not in pairs of files are asked to `check`
    themselves, or else read.
    """
    splits = {"train": train_data, "val": val_data}
    in_files = {split: samples for split, samples in splits.items() if isinstance(samples, FileSamples) and len(samples)}
    for split, samples in splits.items():
        if split not in in_files:
            part = {"train": "training", "val": "validation"}[split]
            number = len(labels or getattr(samples, "labels", None) or range(IGNORE))
            if number == 1:
                raise DataError(f"one-class: the {part} data: {KINDS['one-class'].meaning} {KINDS['one-class'].mending}")
            check_samples(samples, part, progress(f"checking the {split} split"), number)
    if len({(samples.labels, samples.table.tobytes()) for samples in in_files.values()}) == 1:
        groups = [in_files]
    else:
        groups = [{split: samples} for split, samples in in_files.items()]
    for group in groups:
        samples = next(iter(group.values()))
        faults = diagnose(read_splits(group, progress, quick=True), Legend.of(samples), isinstance(samples, Folder))
        broken = [fault for fault in faults if fault.broken]
        if broken:
            others = ", ".join(fault.name for fault in faults if fault is not broken[0])
            more = f" There is also: {others}." if others else ""
            raise DataError(f"{broken[0].sentence()}{more} To see all that is wrong: segue doctor")
        for fault in faults:
            print(fault.page(), flush=True)
