"""One's own data: folders of images and masks, and a segue.yaml that says what the masks mean."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from segue.data.files import FileSamples, Pair, pair_files, read
from segue.data.samples import DataError, Sample
from segue.images import ImageError, Raster, check_image, find_fault, read_channels
from segue.images.channels import read_with_void
from segue.images.fast_decoding import read_image
from segue.images.photos import read_void
from segue.labels import IGNORE, Labels, Mask
from segue.suggest import did_you_mean

T = TypeVar("T")
SPLITS = ("train", "val", "test")
KEYS = ("names", "palette", "mapping", "ignore", "splits", "channels")
HELP = (
    "a data folder has train/images and train/masks, likewise val and test, or else images and masks and an entry `splits` "
    "in its segue.yaml; a mask has the name of its image"
)


class Folder(FileSamples):
    """Images and masks of one's own, in a folder for each split:

        segue.yaml
        train/images/a.jpg     an image of 8 bits a channel, of any size; of others with the entry `channels`
        train/masks/a.png      its mask: one channel of whole numbers, grey or palette, of the same size and name
        val/images/... val/masks/..., and test/ if there is one

    The same without the folders train, val and test, where segue.yaml says how to split:

        segue.yaml
        images/a.jpg
        masks/a.png

    segue.yaml, of which only `names` is required:

        names: [background, cell]            # the classes; the first is number 0
        palette: [[0, 0, 0], [255, 0, 0]]    # a colour for each, red green blue
        mapping: {0: 0, 255: cell}           # label in the masks: class number, class name or "ignore"; as they are if left out
        ignore: [254, -1]                    # labels in the masks that are ignored; 255 is, unless it is mapped
        splits: {val: 0.2, test: [a, b]}     # a share, or the names (without suffix) of the samples; what remains is train
        channels: 6                          # of every image, as stored: see below; if left out, images are seen as RGB of 8 bits

    What files call nodata, by GDAL's value, nan, transparency or a TIFF's mask, is ignored, unless `mapping` names that label.

    With `channels`, images have that many (1 is grey), of 8 bits, 16 bits or float32, all of one type: TIFF with its channels in
    each pixel, in planes or in pages, or PNG. Integers are seen as shares of what their type can hold, floats as they are. The
    recipe's mean and std then have a number for each channel; where they have not, `segue train` proposes some.

    A share is drawn by a hash of each sample's name: it is the same on every machine, and a sample that is added moves no other.
    Pictures that are alike, such as neighbouring frames of a video, then fall into different splits: list the names instead.
    """

    splits = SPLITS

    def __init__(self, root: str | Path, split: str = "train") -> None:
        root = Path(root)
        self.check_split(split)
        if not root.is_dir():
            raise DataError(
                f"there is no folder {root}; name yours with --root. segue data folder tells how to lay it out, and segue doctor "
                "FOLDER what is wrong with it"
            )
        description = Description.read(root / "segue.yaml")
        if description.splits:
            pairs = pair_files(root / "images", root / "masks", HELP)
            pairs = choose(pairs, split, description.splits, root / "segue.yaml")
        else:
            pairs = pair_files(root / split / "images", root / split / "masks", HELP)
        super().__init__(pairs, description.labels, description.mapping)
        self.channels = description.channels
        self.said = description.said
        self.first: tuple[Path, str] | None = None  # an image with its type, which the others must have

    def image(self, index: int) -> Raster:
        path = self.pairs[index][0]
        return self.wide_image(path)[0] if self.channels else read(path, lambda path: as_photo(path, read_image))

    def __getitem__(self, index: int) -> Sample:
        path = self.pairs[index][0]
        image, void = self.wide_image(path) if self.channels else (self.image(index), self.void(index))
        mask = super().mask(index)
        self.check_sizes(index, image.shape[1::-1], mask)
        return {"image": image, "mask": with_void(mask, void)}

    def mask(self, index: int) -> Mask:
        mask, void = super().mask(index), self.void(index)
        return with_void(mask, void) if void is None or void.shape == mask.shape else mask

    def void(self, index: int) -> NDArray[np.bool_] | None:
        path = self.pairs[index][0]
        return self.wide_image(path)[1] if self.channels else read(path, read_void)

    def wide_image(self, path: Path) -> tuple[Raster, NDArray[np.bool_] | None]:
        """All channels of the image, and where they show nothing; DataError unless they are as many as they should be, and of
        the type of the others."""
        stored = read(path, read_with_void)
        spare = stored.alpha and stored.image.shape[2] == self.channels + 1
        image, void, _ = stored.without_alpha() if spare else stored
        if image.shape[2] != self.channels:
            raise DataError(
                f"{path} has {image.shape[2]} channel(s) of {image.shape[1]} x {image.shape[0]} pixels (width x height), but "
                f"segue.yaml says channels: {self.channels}; correct the entry, or save the image with {self.channels}"
                + (", as planarconfig='contig' does in tifffile.imwrite" if image.shape[1] == self.channels else "")
            )
        fault = find_fault(image)
        if fault:
            raise DataError(f"{path} has {fault}")
        self.first = self.first or (path, image.dtype.name)
        if image.dtype.name != self.first[1]:
            raise DataError(
                f"{path} is of {image.dtype}, but {self.first[0]} is of {self.first[1]}, which is scaled otherwise; save all "
                "images of a data set with one type"
            )
        return image, void

    def check(self, index: int) -> None:
        path = self.pairs[index][0]
        size = self.image(index).shape[1::-1] if self.channels else read(path, lambda path: as_photo(path, check_image))
        self.check_sizes(index, size, super().mask(index))


def with_void(mask: Mask, void: NDArray[np.bool_] | None) -> Mask:
    return mask if void is None else np.where(void, np.uint8(IGNORE), mask)


def as_photo(path: Path, reader: Callable[[Path], T]) -> T:
    """What the reader gives of an image of 8 bits; for another, an ImageError that names the entry `channels`."""
    try:
        return reader(path)
    except ImageError:
        image = read_channels(path)
        raise ImageError(
            f"{path} has more than 8 bits or other channels than a photo: {image.shape[2]} of {image.dtype}; add "
            f"channels: {image.shape[2]} to segue.yaml, or save it as RGB of 8 bits"
        ) from None


@dataclass(frozen=True)
class Description:
    """What a segue.yaml says."""

    labels: Labels
    mapping: Mapping[int, int]
    splits: Mapping[str, float | list[str]]
    channels: int
    """Of an image; 0 for photos, seen as RGB."""
    said: frozenset[int]
    """The labels that it names."""

    @classmethod
    def read(cls, path: Path) -> "Description":
        try:
            fields = yaml.safe_load(path.read_text("utf-8"))
        except FileNotFoundError:
            raise DataError(f"there is no file {path}; write one that names the classes: names: [background, cell]") from None
        except yaml.MarkedYAMLError as error:
            line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
            raise DataError(f"{path} is not YAML{line}: {error.problem}; correct it") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"{path} cannot be read: {error}; it must be YAML in UTF-8") from None
        try:
            return cls.parse(fields)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, fields: Any) -> "Description":
        if not isinstance(fields, dict):
            raise ValueError(f"it must have entries such as names: [background, cell], but it is {fields!r}")
        for key in fields:
            if key not in KEYS:
                raise ValueError(f'no entry "{key}"{did_you_mean(str(key), KEYS)}')
        labels = parse_labels(fields)
        channels = fields.get("channels", 0)
        if "channels" in fields and (type(channels) is not int or channels < 1):
            raise ValueError(f"channels (={channels!r}) must be how many channels an image has, such as 6")
        mapping = parse_mapping(fields, labels.names)
        said = frozenset([*fields.get("mapping", {}), *fields.get("ignore", [])])
        return cls(labels, mapping, parse_splits(fields), channels, said)


def parse_labels(fields: Mapping[str, Any]) -> Labels:
    if "names" not in fields:
        raise ValueError("the entry names is missing: list the classes in order, such as names: [background, cell]")
    names = strings("names", fields["names"])
    if "ignore" in names:
        raise ValueError('names must not have "ignore", which is no class: put the labels to ignore into the entry ignore')
    if "palette" not in fields:
        return Labels.from_names(names)
    palette = fields["palette"]
    if not isinstance(palette, list) or not all(is_color(color) for color in palette):
        raise ValueError(f"palette (={palette!r}) must be a list of colours, each [red, green, blue] of 0 to 255")
    return Labels(tuple(names), tuple((r, g, b) for r, g, b in palette))


def parse_mapping(fields: Mapping[str, Any], names: tuple[str, ...]) -> dict[int, int]:
    numbers: dict[Any, int] = {"ignore": IGNORE} | {name: i for i, name in enumerate(names)} | {i: i for i in range(len(names))}
    mapping = fields.get("mapping", {i: i for i in range(len(names))})
    if not isinstance(mapping, dict) or not all(type(label) is int for label in mapping):
        raise ValueError(
            f"mapping (={mapping!r}) must take labels, whole numbers, to classes, such as {{0: {names[0]}, 255: ignore}}"
        )
    for label, name in mapping.items():
        if isinstance(name, bool) or not isinstance(name, int | str) or name not in numbers:
            allowed = f"a class number, 0 to {len(names) - 1}, a class name ({', '.join(names)}) or ignore"
            raise ValueError(f"mapping takes the label {label} to {name!r}; it must be {allowed}")
    ignore = fields.get("ignore", [])
    if not isinstance(ignore, list) or not all(type(label) is int for label in ignore):
        raise ValueError(f"ignore (={ignore!r}) must be a list of labels, whole numbers")
    result = {IGNORE: IGNORE} | {label: numbers[name] for label, name in mapping.items()}
    for label in ignore:
        if result.get(label, IGNORE) != IGNORE:
            raise ValueError(f"ignore has the label {label}, but it is mapped to {names[result[label]]}; keep one of the two")
        result[label] = IGNORE
    return result


def parse_splits(fields: Mapping[str, Any]) -> dict[str, float | list[str]]:
    splits = fields.get("splits", {})
    if not isinstance(splits, dict) or not splits.keys() <= {"val", "test"}:
        raise ValueError(f"splits (={splits!r}) must be of val and test, such as {{val: 0.2}}; what remains is train")
    for split, part in splits.items():
        if isinstance(part, list):
            strings(f"splits, {split}", part)
        elif isinstance(part, bool) or not isinstance(part, int | float) or not 0 < part < 1:
            raise ValueError(f"splits, {split} (={part!r}) must be a share between 0 and 1, or a list of names")
    shares = sum(part for part in splits.values() if not isinstance(part, list))
    if shares >= 1:
        raise ValueError(f"splits has shares of {shares} together, which leaves nothing to train; they must add to less than 1")
    return splits


def choose(pairs: list[Pair], split: str, splits: Mapping[str, float | list[str]], path: Path) -> list[Pair]:
    """The pairs of one split; DataError if a listed name is not there or is in two lists, or if none are left."""
    stems = [stem_of(image, path.parent) for image, _ in pairs]
    listed: dict[str, str] = {}
    for name, part in splits.items():
        for stem in part if isinstance(part, list) else []:
            if stem not in stems:
                raise DataError(f'{path}: splits, {name} has "{stem}", but no image is called so (without suffix)')
            if listed.setdefault(stem, name) != name:
                raise DataError(f'{path}: splits has "{stem}" in both {listed[stem]} and {name}; keep one of the two')
    chosen = [pair for pair, stem in zip(pairs, stems, strict=True) if (listed.get(stem) or draw(stem, splits)) == split]
    if not chosen:
        raise DataError(f"{path}: splits (={dict(splits)}) leaves {split} none of {len(pairs)} samples; give it more")
    return chosen


def stem_of(image: Path, root: Path) -> str:
    """The name of a sample: that of its image without the suffix, behind those of the folders below `images`."""
    parts = image.relative_to(root).with_suffix("").parts
    return "/".join(parts[parts.index("images") + 1 :])


def draw(stem: str, splits: Mapping[str, float | list[str]]) -> str:
    """The split on whose share the name's hash falls."""
    place = int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8]) / 2**64
    for split, part in splits.items():
        if not isinstance(part, list):
            if place < part:
                return split
            place -= part
    return "train"


def strings(what: str, values: Any) -> list[str]:
    if not isinstance(values, list):
        raise ValueError(f"{what} (={values!r}) must be a list of names")
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{what} has {value!r}, which YAML reads as {type(value).__name__}; put it into quotes")
    return values


def is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


def is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(is_byte, value))
