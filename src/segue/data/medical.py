"""Volumes of several modalities in NIfTI, slice by slice: ISLES 2018, BraTS, and one's own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segue.data.files import FileSamples
from segue.data.folder import parse_labels, parse_mapping, strings
from segue.data.nifti import SUFFIXES, check_whole, import_nibabel, mean_and_deviation, read_header, read_volume
from segue.data.samples import DataError, MisplacedError
from segue.images import Raster
from segue.images.masks import StoredMask
from segue.labels import IGNORE, Labels, Mask
from segue.suggest import did_you_mean

KEYS = ("names", "palette", "mapping", "ignore", "modalities", "label", "cases", "averaged")


@dataclass(frozen=True)
class Description:
    """Where the modalities and the labels of a case are, and what the labels mean."""

    labels: Labels
    mapping: Mapping[int, int]
    modalities: Mapping[str, str]
    """The channels in order: a name, and a pattern that one file of each case has."""
    label: str
    """The same for the file of labels."""
    cases: Sequence[str] = ("*",)
    """Patterns of the folders of the cases, from the root; the first that there are counts."""
    averaged: Sequence[str] = ()
    """Modalities over time, of which the mean is taken."""


ISLES = Description(
    labels=Labels(names=("background", "infarct"), palette=((0, 0, 0), (220, 20, 60))),
    mapping={0: 0, 1: 1},
    modalities={
        "CBF": "*.CT_CBF.*", "MTT": "*.CT_MTT.*", "CBV": "*.CT_CBV.*", "Tmax": "*.CT_Tmax.*", "CTP": "*.CT_4DPWI.*",
    },
    label="*.OT.*",
    cases=("TRAINING/case_*", "case_*"),
    averaged=("CTP",),
)  # fmt: skip
ISLES_HELP = (
    "ISLES 2018 has a folder TRAINING with case_1 to case_94, in each SMIR.Brain.XX.O.CT_CBF.NUMBER/*.nii, likewise CT_MTT, "
    "CT_CBV, CT_Tmax, CT_4DPWI and OT: get it from zenodo.org/records/17736412, name the folder above TRAINING with --root"
)
BRATS = Description(
    labels=Labels(
        names=("background", "necrotic core", "edema", "enhancing tumour"),
        palette=((0, 0, 0), (220, 20, 60), (60, 180, 75), (255, 225, 25)),
    ),
    mapping={0: 0, 1: 1, 2: 2, 4: 3},
    modalities={"FLAIR": "*_flair.nii*", "T1": "*_t1.nii*", "T1ce": "*_t1ce.nii*", "T2": "*_t2.nii*"},
    label="*_seg.nii*",
    cases=("BraTS*",),
)
BRATS_HELP = (
    "BraTS 2021 has a folder a case, such as BraTS2021_00000 with BraTS2021_00000_flair.nii.gz, likewise _t1, _t1ce, _t2 and "
    "_seg: register at synapse.org/brats, unpack BraTS2021_Training_Data.tar, name the folder of the cases with --root"
)
VOLUMES_HELP = (
    "a folder of volumes has a segue.yaml, with the entries names, modalities and label, and a folder a case, or else folders "
    "train and val of these; name it with --root"
)


class VolumeSamples(FileSamples):
    """Every axial slice of every case: image float32 (H, W, C), a channel a modality; mask uint8 (H, W).

    Slices go from the feet to the head and are seen as radiologists see them, the front up, the patient's right side left, by
    what the files' heads say. A modality over time counts by its mean. Of each modality of a case the mean is taken off and then
    the standard deviation divided by, both over the voxels that are not 0; so a recipe's mean and std are 0 and 1.

    Only heads of files are read at first. A slice of a .nii is read by itself, a .nii.gz has to be unpacked whole for it: where
    slices come in random order, gunzip the files first.
    """

    splits = ("train", "val")

    def __init__(self, root: str | Path, split: str, description: Description) -> None:
        self.check_split(split)
        import_nibabel()  # to fail early
        self.description = description
        folders = find_cases(Path(root), split, description, self.help)
        self.cases = [find_files(folder, description, self.help) for folder in folders]
        depths = [read_header(case[0]).shape[2] for case in self.cases]
        self.slices = [(case, number) for case, depth in enumerate(depths) for number in range(depth)]
        self.checked: set[int] = set()
        pairs = [(self.cases[case][0], self.cases[case][-1]) for case, _ in self.slices]
        super().__init__(pairs, description.labels, description.mapping)

    def image(self, index: int) -> Raster:
        case, number = self.slices[index]
        self.check_case(case)
        channels = []
        for path in self.cases[case][:-1]:
            mean, deviation = mean_and_deviation(path)
            channels.append((read_volume(path).mean_slice(number) - np.float32(mean)) / np.float32(deviation))
        return np.stack(channels, axis=-1)

    def mask(self, index: int) -> Mask:
        case, number = self.slices[index]
        path = self.cases[case][-1]
        volume = read_volume(path)
        if number >= volume.stored.shape[2]:
            self.check_case(case)
        values = volume.values(number)[..., 0]
        void, finite = np.isnan(values), np.where(np.isfinite(values), values, np.float32(0))
        labels = np.rint(finite)
        # Floats that were saved as integers with a slope come back up to half a step beside what they were.
        step = abs(volume.slope) if abs(volume.slope) < 1 else 0
        wrong = np.isinf(values) | (np.abs(finite - labels) > 0.501 * step)
        if wrong.any():
            raise DataError(
                f"{path} has the label {values[wrong][0]:g}; labels are whole numbers, or nan where there is none: resample it "
                "by nearest neighbour"
            )
        stored, missing = self.as_bytes(StoredMask(labels.astype(np.int64), void if void.any() else None), path)
        mask = self.decode(stored, path)
        return mask if missing is None else np.where(missing, np.uint8(IGNORE), mask)

    def name(self, index: int) -> str:
        case, number = self.slices[index]
        return f"{self.cases[case][0].parent}, slice {number}"

    def check(self, index: int) -> None:
        self.check_case(self.slices[index][0])
        self.mask(index)

    def check_case(self, case: int) -> None:
        """DataError unless the files of a case are whole and belong together; it is looked at once."""
        if case in self.checked:
            return
        files = self.cases[case]
        headers = [read_header(path) for path in files]
        for name, path, header in zip((*self.description.modalities, "label"), files, headers, strict=True):
            if header.shape[:3] != headers[0].shape[:3]:
                raise MisplacedError(
                    f"{path} has the shape {header.shape[:3]}, but {files[0]} has {headers[0].shape[:3]} (right, front, up); "
                    "resample it to the same voxels"
                )
            if np.prod(header.shape[3:]) != 1 and name not in self.description.averaged:
                raise DataError(f"{path} has the shape {header.shape}; {name} must be one volume, not {header.shape[3:]} of them")
            apart = headers[0].distance(header)
            if apart > 1:
                raise MisplacedError(
                    f"{path} lies {apart:.1f} voxels away from {files[0]}, by what their heads say; resample it to the same "
                    "voxels, or correct its head if that is wrong"
                )
            check_whole(path)
        self.checked.add(case)


class Isles(VolumeSamples):
    """ISLES 2018: CT perfusion of 63 patients with a stroke, as 94 cases of 2 to 22 slices of 256 x 256 pixels.

    Layout, as distributed: TRAINING/case_1/SMIR.Brain.XX.O.CT_CBF.345563/SMIR.Brain.XX.O.CT_CBF.345563.nii, likewise CT_MTT,
    CT_CBV, CT_Tmax, CT_4DPWI and OT, the labels. The root is above TRAINING, or is TRAINING itself.

    Channels: CBF, MTT, CBV, Tmax, and CTP, which is the mean over time of CT_4DPWI. The plain CT is left out; for other channels
    take `volumes`. Slices, axes and normalisation: see VolumeSamples. Seconds and millilitres are lost by the latter.

    Splits: segue's; of the cases in the order of their numbers every fifth (case_5, case_10 and so on) is val, the others are
    train. A patient scanned in two slabs has two cases, which the files do not tell, so that he may be in both. The labels of the
    62 cases of TESTING are not public.

    Classes: background; infarct, drawn on diffusion MR soon after. The palette is segue's.

    Hakim et al.: Predicting Infarct Core From Computed Tomography Perfusion in Acute Ischemia With Machine Learning: Lessons From
    the ISLES Challenge, Stroke 2021; Cereda et al.: A benchmarking tool to evaluate computer tomography perfusion infarct core
    predictions against a DWI standard, JCBFM 2016. For research, under the terms of zenodo.org/records/17736412; cite both.
    """

    help = ISLES_HELP

    def __init__(self, root: str | Path, split: str = "train") -> None:
        super().__init__(root, split, ISLES)


class Brats(VolumeSamples):
    """BraTS 2021: MR of 1251 patients with a glioma, 155 slices of 240 x 240 pixels each, 1 mm a voxel, skulls removed.

    Layout, as distributed: BraTS2021_00000/BraTS2021_00000_flair.nii.gz, likewise _t1, _t1ce, _t2 and _seg. Those of 2017 to 2020
    have the same names; those from 2023 on are read as `volumes`.

    Channels: FLAIR, T1, T1ce (with contrast agent), T2. Slices, axes and normalisation: see VolumeSamples.

    Splits: segue's; of the cases in the order of their numbers every fifth is val (250), the others are train (1001). The labels
    of the challenge's own validation and test cases are not public.

    Classes: background (0), necrotic core (1), edema (2), enhancing tumour (4 in the files, 3 here). The challenge scores unions
    of them, per patient: whole tumour, 1 to 3; tumour core, 1 and 3; enhancing tumour, 3. The palette is segue's.

    Baid et al.: The RSNA-ASNR-MICCAI BraTS 2021 Benchmark, arXiv:2107.02314; Menze et al., IEEE TMI 2015; Bakas et al.,
    Scientific Data 2017. After registration, for research; cite all three.
    """

    help = BRATS_HELP

    def __init__(self, root: str | Path, split: str = "train") -> None:
        super().__init__(root, split, BRATS)


class Volumes(VolumeSamples):
    """Volumes of one's own: a folder a case, in it a NIfTI for each modality and one of labels, and a segue.yaml:

        segue.yaml
        patient_01/t1.nii.gz  patient_01/t2.nii.gz  patient_01/labels.nii.gz
        patient_02/...

    segue.yaml, of which `names`, `modalities` and `label` are required:

        names: [background, tumour]       # the classes; the first is number 0
        modalities:                       # the channels in order: a name, and a pattern of its file in the folder of a case
          t1: "*t1.nii*"
          t2: "*t2.nii*"
        label: "*labels.nii*"             # the same for the labels
        mapping: {0: 0, 1: tumour}        # label in the files: class number, class name or "ignore"; as they are if left out
        palette: [[0, 0, 0], [255, 0, 0]] # a colour for each class; and `ignore`, as in a folder of images
        cases: "patient_*"                # a pattern of the folders of the cases; all folders if left out
        averaged: [ctp]                   # modalities over time, of which the mean is taken

    Splits: where there are folders train and val, the cases are below these. If not, in the order of their names (numbers in
    them by their size) every fifth case is val, the others are train. Slices, axes and normalisation: see VolumeSamples.

    BraTS of 2023: modalities {FLAIR: "*-t2f.nii.gz", T1: "*-t1n.nii.gz", T1ce: "*-t1c.nii.gz", T2: "*-t2w.nii.gz"}, label
    "*-seg.nii.gz".
    """

    help = VOLUMES_HELP

    def __init__(self, root: str | Path, split: str = "train") -> None:
        path = Path(root) / "segue.yaml"
        if not path.exists():
            raise DataError(f"there is no file {path}; {self.help}")
        try:
            description = parse(yaml.safe_load(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}; it must be YAML in UTF-8") from None
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None
        super().__init__(root, split, description)


def parse(fields: Any) -> Description:
    """What a segue.yaml of volumes says."""
    if not isinstance(fields, dict):
        raise ValueError(f"it must have the entries names, modalities and label, but it is {fields!r}")
    for key in fields:
        if key not in KEYS:
            raise ValueError(f'no entry "{key}"{did_you_mean(str(key), KEYS)}')
    labels = parse_labels(fields)
    modalities, label, cases = fields.get("modalities"), fields.get("label", ""), fields.get("cases", "*")
    if not isinstance(modalities, dict) or not modalities or not all(isinstance(p, str) for p in modalities.values()):
        raise ValueError(f'modalities (={modalities!r}) must be names with patterns of files, such as {{t1: "*_t1.nii*"}}')
    for what, pattern, example in (("label", label, "*_seg.nii*"), ("cases", cases, "patient_*")):
        if not isinstance(pattern, str) or not pattern:
            raise ValueError(f'{what} (={pattern!r}) must be a pattern, such as "{example}"')
    averaged = strings("averaged", fields.get("averaged", []))
    for name in averaged:
        if name not in modalities:
            raise ValueError(f'averaged has "{name}", which is no modality{did_you_mean(name, modalities)}')
    mapping = parse_mapping(fields, labels.names)
    return Description(labels, mapping, {str(name): p for name, p in modalities.items()}, label, [cases], averaged)


def find_cases(root: Path, split: str, description: Description, help: str) -> list[Path]:
    """The folders of a split's cases, in order."""
    place = root / split if all((root / name).is_dir() for name in VolumeSamples.splits) else root
    for pattern in description.cases:
        folders = [path for path in place.glob(pattern) if path.is_dir() and not path.name.startswith(".")]
        if folders:
            break
    else:
        raise DataError(f"there are no folders {' or '.join(str(place / pattern) for pattern in description.cases)}; {help}")
    folders.sort(key=lambda path: [int(part) if part.isdigit() else part for part in re.split("([0-9]+)", path.name)])
    chosen = folders if place != root else [path for i, path in enumerate(folders) if (i % 5 == 4) == (split == "val")]
    if not chosen:
        raise DataError(f"{place} has {len(folders)} cases, and every fifth is val, so there is none; {help}")
    return chosen


def find_files(folder: Path, description: Description, help: str) -> list[Path]:
    """The files of the modalities, and last that of the labels."""
    files = [path for path in sorted(folder.rglob("*")) if path.name.endswith(SUFFIXES) and not path.name.startswith(".")]
    found = []
    for name, pattern in (*description.modalities.items(), ("label", description.label)):
        paths = [path for path in files if path.is_file() and fnmatchcase(path.name, pattern)]
        if len(paths) != 1:
            several = f"several files {pattern} ({paths[0].name}, {paths[1].name})" if paths else f"no file {pattern}"
            unlabelled = (
                "; to label a case that has no labels, put a volume of zeros there, with the head of the others, and take no "
                "notice of the mask"
            ) * (name == "label" and not paths)
            raise DataError(f"{folder} has {several} for {name}; it must have one{unlabelled}; {help}")
        found += paths
    return found
