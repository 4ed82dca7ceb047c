"""Where a network errs, gathered image by image for one page of HTML that opens from the disk."""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from segue.data.samples import Sample, Samples
from segue.images.pictures import UNCOUNTED, WRONG, to_rgb
from segue.labels import IGNORE, Color, Confidence, Image, Labels, Mask
from segue.metrics import ConfusionMatrix
from segue.metrics.boundaries import Boundaries
from segue.metrics.calibration import Calibration
from segue.metrics.confusion import mean

PICTURED = 500
"""Pictures are kept of so many images, the worst by their mean IU."""
REGIONS, REGIONS_AN_IMAGE = 6, 2
"""Crops are kept of so many regions for each pair of classes, and of so many from one image: of the larger ones, of those images
that were seen since the pair is among the worst."""
PAIRS = 12
"""Crops are kept for so many pairs of classes that cost the most pixels, and as many that cost their class the most."""
CROP = 240
"""The width of a crop, in pixels."""
TRUTH_LINE, TAKEN = (64, 160, 255), np.array([255, 150, 0])
VOIDS: tuple[Color, ...] = tuple((r, g, b) for r in (0, 127, 255) for g in (0, 127, 255) for b in (0, 127, 255))
ALIKE = 24
"""Colours are told apart if red, green or blue differs by more."""

Pair = tuple[int, int]
"""A class of the truth and what it was taken for."""


@dataclass(frozen=True)
class Crop:
    """A region of one pair of classes: neighbours that are wrong in the same way, among the largest of their image."""

    pixels: int
    index: int
    picture: bytes = field(repr=False)


@dataclass
class Scored:
    """One image: its scores, 0 to 1, and as long as it is among the worst its pictures."""

    index: int
    size: tuple[int, int]
    mean_iu: float
    wrong: float
    """The share of the counted pixels that are wrong."""
    bf: float
    classes: list[tuple[int, float, float]]
    """Of each class in the truth or the prediction: its number, IU, and the share of counted pixels missed or invented."""
    pictures: tuple[bytes, ...] = field(default=(), repr=False)
    """Image, truth, prediction and errors, as files."""

    @property
    def rank(self) -> float:
        """Low for what is to be seen first; an image without counted pixels comes last."""
        return math.inf if math.isnan(self.mean_iu) else self.mean_iu


class ErrorReport:
    """Gathers what the page shows; a scorer for `segue.evaluate`. Its memory is bounded by PICTURED and PAIRS."""

    title = "boundaries and calibration"
    needs_confidence = True

    def __init__(self, samples: Samples) -> None:
        self.labels = samples.labels
        self.names = [samples.name(index) for index in range(len(samples))]
        self.matrix = ConfusionMatrix(self.labels.names)
        self.boundaries = Boundaries(self.labels.names)
        self.calibration = Calibration()
        self.images: list[Scored] = []
        self.crops: dict[Pair, list[Crop]] = {}
        self.width = round(np.clip(7200 / math.sqrt(min(max(1, len(self.names)), PICTURED)), 320, 640))
        """Of the pictures: so that all together stay below some 20 MB."""

    def update(self, index: int, sample: Sample, prediction: Mask, confidence: Confidence | None) -> None:
        """Count one image, and keep its pictures if it is among the worst."""
        truth = sample["mask"]
        matrix = ConfusionMatrix(self.labels.names)
        matrix.update(truth, prediction)
        if confidence is not None:
            self.calibration.update(truth, prediction, confidence)
        f1 = self.boundaries.update(truth, prediction)
        self.matrix += matrix
        scored = score_image(index, truth, matrix, mean(f1))
        rgb = to_rgb(sample["image"])
        self.images.append(scored)
        if len(self.images) <= PICTURED or scored.rank < max(image.rank for image in self.images if image.pictures):
            scored.pictures = pictures(rgb, truth, prediction, self.labels, self.width)
        self.add_crops(crops(index, rgb, truth, prediction, self.wanted(matrix)))
        self.trim()

    def merge(self, other: Self) -> None:
        """Take in what another report has gathered on other images."""
        self.matrix += other.matrix
        self.boundaries.merge(other.boundaries)
        self.calibration.merge(other.calibration)
        self.images = sorted(self.images + other.images, key=lambda image: image.index)
        self.add_crops((pair, crop) for pair, found in other.crops.items() for crop in found)
        self.trim()

    def wanted(self, matrix: ConfusionMatrix) -> dict[Pair, int]:
        """The pairs that an image may give crops for, with the size that a region must exceed."""
        wanted = {}
        for pair in worst_pairs(self.matrix):
            kept = self.crops.get(pair, [])
            smallest = kept[-1].pixels if len(kept) == REGIONS else 0
            if matrix.counts[pair] > smallest:
                wanted[pair] = smallest
        return wanted

    def add_crops(self, found: Iterable[tuple[Pair, Crop]]) -> None:
        for pair, crop in found:
            kept = [*self.crops.get(pair, []), crop]
            self.crops[pair] = sorted(kept, key=lambda crop: (-crop.pixels, crop.index))[:REGIONS]

    def trim(self) -> None:
        """Let go of pictures that are no longer among the worst."""
        pictured = [image for image in self.images if image.pictures]
        for image in sorted(pictured, key=lambda image: image.rank)[PICTURED:]:
            image.pictures = ()
        worst = worst_pairs(self.matrix)
        self.crops = {pair: self.crops[pair] for pair in worst if pair in self.crops}

    def scores(self) -> dict[str, float]:
        """Mean IU near boundaries and away from them, bf (boundary F1), ece (expected calibration error); nan if uncounted."""
        near, interior = self.boundaries.near.mean_iu, self.boundaries.interior.mean_iu
        return {"boundary_mean_iu": near, "interior_mean_iu": interior, "bf": self.boundaries.bf, "ece": self.calibration.ece}

    def table(self) -> list[tuple[str, ...]]:
        """Rows of (score, percent)."""
        titles = ("mean IU near boundaries", "mean IU away from them", "boundary F1", "calibration error (ECE)")
        shares = zip(titles, self.scores().values(), strict=True)
        return [("score", "percent"), *((title, "-" if math.isnan(share) else f"{100 * share:.1f}") for title, share in shares)]


def score_image(index: int, truth: Mask, matrix: ConfusionMatrix, bf: float) -> Scored:
    counts = matrix.counts
    total = max(1, int(counts.sum()))
    missed_or_invented = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    present = np.flatnonzero(~np.isnan(matrix.iu))
    classes = [(int(k), float(matrix.iu[k]), float(missed_or_invented[k] / total)) for k in present]
    return Scored(index, (truth.shape[0], truth.shape[1]), matrix.mean_iu, 1 - matrix.acc, bf, classes)


def worst_pairs(matrix: ConfusionMatrix) -> list[Pair]:
    """The pairs of classes most confused, by pixels and by share of the true class: PAIRS of either, those of pixels first."""
    errors = matrix.counts.copy()
    np.fill_diagonal(errors, 0)
    shares = errors / np.maximum(1, matrix.counts.sum(axis=1, keepdims=True))
    pairs: dict[Pair, None] = {}
    for costs in (errors, shares):
        for flat in np.argsort(-costs, axis=None, kind="stable")[:PAIRS]:
            truth, prediction = divmod(int(flat), len(matrix.names))
            if costs[truth, prediction] > 0:
                pairs[truth, prediction] = None
    return list(pairs)


def crops(
    index: int, rgb: Image, truth: Mask, prediction: Mask, wanted: dict[Pair, int]
) -> Iterable[tuple[Pair, Crop]]:  # fmt: skip
    """The largest regions of each pair of classes, of more pixels than `wanted` says."""
    for pair, smallest in wanted.items():
        wrong = ((truth == pair[0]) & (prediction == pair[1])).view(np.uint8)
        left, top, width, height = cv2.boundingRect(wrong)
        _, _, stats, _ = cv2.connectedComponentsWithStats(wrong[top : top + height, left : left + width])
        regions = sorted(stats[1:].tolist(), key=lambda region: -region[cv2.CC_STAT_AREA])
        for x, y, w, h, pixels in regions[:REGIONS_AN_IMAGE]:
            if pixels > smallest:
                yield pair, Crop(pixels, index, crop_picture(rgb, truth, prediction, pair, (left + x, top + y, w, h)))


def crop_picture(rgb: Image, truth: Mask, prediction: Mask, pair: Pair, box: tuple[int, int, int, int]) -> bytes:
    """The image around a region (left, top, width, height), the true class outlined, tinted where taken for the other."""
    height, width = truth.shape
    left, top, w, h = box
    side = max(round(1.5 * max(w, h)), min(height, width) // 4, 24)
    rows = window(top + h / 2, min(side, height), height)
    columns = window(left + w / 2, min(round(side * 4 / 3), width), width)
    view = rgb[rows, columns]
    size = (CROP, max(1, round(CROP * view.shape[0] / view.shape[1])))
    picture = cv2.resize(view, size, interpolation=cv2.INTER_AREA if view.shape[1] > CROP else cv2.INTER_CUBIC)
    true = truth[rows, columns] == pair[0]
    taken = true & (prediction[rows, columns] == pair[1])
    tinted = shrink(taken.view(np.uint8), size) > 0
    picture[tinted] = (0.45 * picture[tinted] + 0.55 * TAKEN).astype(np.uint8)
    outline, _ = cv2.findContours(shrink(true.view(np.uint8), size), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outline, -1, (0, 0, 0), 3)
    cv2.drawContours(picture, outline, -1, TRUTH_LINE, 1, cv2.LINE_AA)
    return encode(PIL.Image.fromarray(picture), "JPEG", quality=80)  # far quicker than WebP


def window(center: float, length: int, limit: int) -> slice:
    """`length` pixels about a center, moved into 0 to `limit`."""
    start = min(max(0, round(center - length / 2)), limit - length)
    return slice(start, start + length)


def pictures(rgb: Image, truth: Mask, prediction: Mask, labels: Labels, width: int) -> tuple[bytes, ...]:
    """Image, truth, prediction, and the errors as a layer to lay over the image, at most `width` pixels wide."""
    width = min(width, rgb.shape[1])
    size = (width, max(1, round(width * rgb.shape[0] / rgb.shape[1])))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    true, predicted = (shrink(mask, size) for mask in (truth, prediction))
    layer: Mask = (true != predicted).astype(np.uint8)
    layer[true == IGNORE] = 2
    return (
        encode(PIL.Image.fromarray(small), "WEBP", quality=75, method=3),
        encode(in_colors(true, labels.palette, void_color(labels.palette)), "PNG", optimize=False),
        encode(in_colors(predicted, labels.palette), "PNG", optimize=False),
        encode(in_colors(layer, [(255, 255, 255), tuple(WRONG), tuple(UNCOUNTED)]), "PNG", transparency=0),
    )


def shrink(mask: Mask, size: tuple[int, int]) -> Mask:
    """Labels at another (width, height), each the nearest."""
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def void_color(palette: Sequence[Color]) -> Color:
    """A colour for what is no class: black, or if a class is nearly black the one of a few that is least like any class."""
    table = np.array(palette)
    away = [int(np.abs(table - color).max(axis=1).min()) for color in VOIDS]
    return VOIDS[0] if away[0] > ALIKE else VOIDS[int(np.argmax(away))]


def in_colors(mask: Mask, palette: Iterable[tuple[int, ...]], beyond: Color = (0, 0, 0)) -> PIL.Image.Image:
    """The mask with a palette, and a colour for whatever is beyond it."""
    picture = PIL.Image.fromarray(mask)
    colors: NDArray[np.uint8] = np.full((256, 3), beyond, np.uint8)
    table = list(palette)
    colors[: len(table)] = table
    picture.putpalette(colors.tobytes())
    return picture


def encode(picture: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
