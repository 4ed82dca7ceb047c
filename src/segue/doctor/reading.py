"""Reads the files of a data set once, in parallel, and keeps what tells of their faults."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import local
from typing import Any, NamedTuple

import cv2
import numpy as np
import PIL.ExifTags
from numpy.typing import NDArray

from segue.data.files import FileSamples, read
from segue.data.samples import DamagedError, DataError, MisplacedError, Samples
from segue.images import ImageError
from segue.images.files import DamagedImageError, opened
from segue.images.masks import read_stored
from segue.labels import IGNORE, Color, Labels, Mask

Counts = NDArray[np.int64]
Progress = Callable[[Iterable[Any]], Iterable[Any]]

SOFT = 0.15  # share of steps between labels that are half steps: below 0.11 in masks as drawn, above in blended ones
COLOURS = 4096  # that are remembered of a mask


@dataclass(frozen=True)
class Legend:
    """What the labels in the masks of a data set mean."""

    labels: Labels
    known: NDArray[np.bool_]
    """(256,) whether a label may stand in a mask."""
    table: Mask
    """(256,) the class of each label, or 255."""
    said: frozenset[int] = frozenset()
    """The labels that the user's segue.yaml names."""

    @classmethod
    def of(cls, samples: Samples) -> "Legend":
        if isinstance(samples, FileSamples):
            return cls(samples.labels, samples.known, samples.table, samples.said)
        table = np.arange(256, dtype=np.uint8)
        table[len(samples.labels) :] = IGNORE
        return cls(samples.labels, (table != IGNORE) | (np.arange(256) == IGNORE), table)

    def classes(self, counts: Counts) -> Counts:
        """Pixels of each class, from the pixels of each label."""
        return np.bincount(self.table, counts * self.known, IGNORE + 1)[: len(self.labels)].astype(np.int64)


@dataclass(frozen=True)
class Reading:
    """What was found in one sample."""

    image: str
    """Its file, or another name."""
    mask: str
    fault: str = ""
    """The kind of fault that this sample has by itself, if any."""
    found: str = ""
    size: tuple[int, int] = (0, 0)
    """(width, height) of the mask."""
    labels: Counts | None = None
    """(256,) pixels of each label as it stands in the mask; None where it could not be read."""
    digest: bytes = b""
    """Of the image's pixels; empty where they were not looked at."""
    colours: Mapping[Color, int] = field(default_factory=dict)
    """Pixels of each colour, where the mask holds colours."""
    palette: Mapping[int, Color] = field(default_factory=dict)
    """The colours of the labels that occur, where the mask has a palette that is not grey."""

    @property
    def faulty(self) -> str:
        """The file at fault."""
        return self.image if self.fault in ("unreadable", "unsuitable") and self.found.startswith(self.image) else self.mask


def read_splits(
    splits: Mapping[str, Samples], progress: Callable[[str], Progress] = lambda description: iter, quick: bool = False
) -> dict[str, list[Reading]]:
    """One reading for each sample of each split. quick: images are checked, but not decoded, and so have no digest."""
    return {
        split: in_parallel(Reader(samples, quick), range(len(samples)), progress(f"checking the {split} split"))
        for split, samples in splits.items()
    }


def in_parallel(function: Callable[[Any], Any], items: Iterable[Any], progress: Progress = iter) -> list[Any]:
    """The function's results in order; an interruption stops at once."""
    items = list(items)
    pool = ThreadPoolExecutor()
    try:
        return [result for _, result in zip(progress(items), pool.map(function, items), strict=True)]
    finally:
        pool.shutdown(cancel_futures=True)


class Reader:
    """Reads the sample of a number, whatever labels are in its mask."""

    def __init__(self, samples: Samples, quick: bool = False) -> None:
        self.quick = quick
        self.legend = Legend.of(samples)
        self.seen = local()  # of each thread, the labels as they stand in the mask that it reads
        self.samples = copy.copy(samples)
        if isinstance(self.samples, FileSamples):
            self.one_each = len({*self.samples.pairs}) == len(self.samples)  # and not pages of one file
            self.samples.decode = self.see  # type: ignore[method-assign]

    def see(self, stored: Mask, path: Path) -> Mask:
        """Stands in for FileSamples.decode, which stops at a label that is not known."""
        self.seen.mask = stored
        return self.legend.table[stored]

    def __call__(self, index: int) -> Reading:
        image, mask = self.names(index)
        self.seen.mask = None
        digest, labels = b"", None
        try:
            if self.quick:
                self.samples.check(index)
                stored = self.seen.mask
            else:
                sample = self.samples[index]
                digest = digest_of(sample["image"])
                stored = sample["mask"] if self.seen.mask is None else self.seen.mask
        except (ValueError, OSError) as error:
            return self.explain(index, error)
        if stored is None:
            return Reading(image, mask)
        labels = np.bincount(stored.reshape(-1), minlength=256)
        size = (stored.shape[1], stored.shape[0])
        fault, found = "", ""
        told = header(mask) if image != mask else Header()
        if told.format == "JPEG":
            fault = "jpeg-mask"
        elif is_smeared(stored, self.legend.known):
            fault = "anti-aliased"
            found = describe_labels(labels)
        palette = palette_of(mask, labels) if told.mode == "P" else {}
        return Reading(image, mask, fault, found, size, labels, digest, palette=palette)

    def names(self, index: int) -> tuple[str, str]:
        if isinstance(self.samples, FileSamples) and self.one_each:
            image, mask = self.samples.pairs[index]
            return str(image), str(mask)
        return (self.samples.name(index),) * 2

    def explain(self, index: int, error: Exception) -> Reading:
        """Why a sample cannot be read."""
        image, mask = self.names(index)
        if not isinstance(self.samples, FileSamples):
            return Reading(image, mask, kind_of(error), str(error))
        try:
            mask_size = self.samples.mask(index).shape[::-1]
        except (ValueError, OSError) as mask_error:
            return self.explain_mask(image, mask, mask_error) if self.one_each else self.told(image, mask, mask_error)
        labels = None if self.seen.mask is None else np.bincount(self.seen.mask.reshape(-1), minlength=256)
        try:
            image_size = self.samples.image(index).shape[1::-1]
        except (ValueError, OSError) as image_error:
            return self.told(image, mask, image_error, labels)
        if image_size == mask_size:
            return self.told(image, mask, error, labels)
        found = f"{image} is {size_text(image_size)} pixels (width x height), its mask is {size_text(mask_size)}"
        turned = mask_size == image_size[::-1]
        if turned and header(image).turned:
            found += ", as the image was before it was turned by its EXIF tag"
        return Reading(image, mask, "orientation" if turned else "size-differs", f"{found}.", mask_size, labels)

    def told(self, image: str, mask: str, error: Exception, labels: Counts | None = None) -> Reading:
        """The reading of a sample of which the error tells what is wrong."""
        return Reading(image, mask, kind_of(error), str(error), labels=labels)

    def explain_mask(self, image: str, mask: str, error: Exception) -> Reading:
        """Why a mask cannot be read."""
        try:
            numbers, void, nodata = read(Path(mask), read_stored)
        except DataError as unread:
            return self.explain_colours(image, mask, unread)
        shown = numbers != nodata if nodata is not None else np.ones(numbers.shape, bool)
        held = numbers[shown if void is None else shown & ~void]
        if held.min(initial=0) >= 0 and held.max(initial=0) < 256:
            return self.told(image, mask, error)
        return Reading(image, mask, "sixteen-bit", describe_numbers(held), numbers.shape[::-1])

    def explain_colours(self, image: str, mask: str, error: Exception) -> Reading:
        """Of a mask that holds no numbers: which colours, if it holds such."""
        told = header(mask)
        if told.mode in ("", "L", "P", "1", "LA") or told.mode.startswith(("I", "F")):
            return self.told(image, mask, error)
        try:
            with opened(mask) as file:
                colours = count_colours(np.array(file.convert("RGB")))
        except ImageError as unread:
            return self.told(image, mask, unread)
        found = f"{mask} has {len(colours)}{' or more' * (len(colours) == COLOURS)} colours"
        fault = "jpeg-mask" if told.format == "JPEG" else "colours"
        return Reading(image, mask, fault, f"{found}.", told.size, colours=colours)


def kind_of(error: Exception) -> str:
    """The kind of fault that an error tells of."""
    if isinstance(error, MisplacedError):
        return "misplaced"
    return "unreadable" if isinstance(error, DamagedError | DamagedImageError | OSError) else "unsuitable"


class Header(NamedTuple):
    format: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    """(width, height) as stored."""
    turned: bool = False
    """Whether EXIF turns it by a quarter."""


def header(path: str) -> Header:
    """What a picture says of itself; empty if it is none."""
    try:
        with opened(path) as file:
            tag = file.getexif().get(PIL.ExifTags.Base.Orientation, 1) if "exif" in file.info else 1
            return Header(file.format or "", file.mode, file.size, tag >= 5)
    except ImageError:
        return Header()


def palette_of(path: str, labels: Counts) -> dict[int, Color]:
    """The colours of the labels that occur; none if each label has the grey of its number."""
    with opened(path) as file:
        stored = file.getpalette("RGB") or []
    colours = {
        label: (stored[3 * label], stored[3 * label + 1], stored[3 * label + 2])
        for label in map(int, np.flatnonzero(labels))
        if 3 * label + 2 < len(stored)
    }
    return {} if all(colour == (label,) * 3 for label, colour in colours.items()) else colours


def size_text(size: tuple[int, ...]) -> str:
    return f"{size[0]} x {size[1]}"


def digest_of(image: NDArray[Any]) -> bytes:
    digest = hashlib.blake2b(f"{image.shape} {image.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def is_smeared(stored: Mask, known: NDArray[np.bool_]) -> bool:
    """Whether labels blend into each other along the edges: by drawing with smooth edges, by resizing, by JPEG.

    Of the steps from a pixel to the next that change the label, some rise or fall twice in a row. In masks as they are drawn
    these are few; a blended edge is made of them. Labels that are not known and only lie along edges are another sign.
    """
    steps, between = 0, 0
    for rows in (stored, stored.T):
        before, here, after = rows[:, :-2], rows[:, 1:-1], rows[:, 2:]
        between += int((((before < here) & (here < after)) | ((before > here) & (here > after))).sum())
        steps += int((before != here).sum())
    odd = ~known[stored]
    if not odd.any() and np.count_nonzero(known[:IGNORE]) <= 3:
        return False  # the middle one of three may be a contour
    if not 30 <= steps < 0.6 * stored.size:  # too few to judge by, or no regions at all
        return False
    if between > 0.5 * steps:
        return True
    if steps > 0.4 * stored.size:  # noise has a third of half steps
        return False
    if np.count_nonzero(np.bincount(stored[odd], minlength=256)) >= 4:
        inside = cv2.erode(odd.astype(np.uint8), np.ones((3, 3), np.uint8))
        if np.count_nonzero(inside) < 0.5 * np.count_nonzero(odd):
            return True
    return between > SOFT * steps


def count_colours(pixels: NDArray[np.uint8]) -> dict[Color, int]:
    """Pixels of each of the most common colours of a picture (H, W, 3)."""
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:COLOURS]
    return {(int(c >> 16), int(c >> 8 & 255), int(c & 255)): int(n) for c, n in zip(colours[order], counts[order], strict=True)}


def describe_numbers(numbers: NDArray[Any]) -> str:
    """What numbers a mask has that are not 0 to 255."""
    low, top = numbers.min(initial=0), numbers.max(initial=0)
    below = np.unique(numbers[numbers < 0])[:8]
    if len(below) and top < 256:
        return (
            f"The numbers are {low} to {top}; those below 0 are {', '.join(map(str, below))}, which segue.yaml can ignore or map."
        )
    return f"The numbers are {low} to {top}: they may number instances."


def describe_labels(counts: Counts, shown: int = 8) -> str:
    labels = np.flatnonzero(counts)
    more = f" and {len(labels) - shown} more" if len(labels) > shown else ""
    return f"There are the labels {', '.join(map(str, labels[:shown]))}{more}."
