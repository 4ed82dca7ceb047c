"""Contact sheets: image, truth, prediction and errors side by side, with a legend."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray

from segue.images.files import Raster
from segue.labels import IGNORE, Image, Labels, Mask

INK, GREY, PAPER = (32, 33, 36), (110, 113, 118), (255, 255, 255)
WRONG, UNCOUNTED = np.array([226, 27, 60]), np.array([0, 0, 0])
GAP, MARGIN = 6, 24
STRENGTH = 0.55  # of the labels' colours in an overlay


@dataclass(frozen=True)
class Row:
    """One image with what it should be and what it was taken for; all of one height and width."""

    image: Raster
    truth: Mask
    prediction: Mask
    name: str = ""


def contact_sheet(rows: Sequence[Row], labels: Labels, title: str, iu: Sequence[float] | None = None, width: int = 1280) -> Image:
    """An RGB picture, `width` pixels wide, with a row of four pictures for each of `rows` and a legend of the classes.

    Errors are red on the pale image; what is not counted is black there. `iu` puts each class's score into the legend.
    """
    cell = (width - 2 * MARGIN - 3 * GAP) // 4
    pictures = [row_of_pictures(row, labels, cell) for row in rows]
    columns = max(1, (width - 2 * MARGIN) // 190)
    legend_height = 28 * -(-len(labels) // columns)
    height = 116 + sum(p.shape[0] + 22 for p in pictures) + legend_height + MARGIN
    sheet = PIL.Image.new("RGB", (width, height), PAPER)
    draw = PIL.ImageDraw.Draw(sheet)
    draw.text((MARGIN, 20), title, INK, font(24))
    for column, heading in enumerate(("image", "truth", "prediction", "errors (red)")):
        draw.text((MARGIN + column * (cell + GAP), 66), heading, GREY, font(16))
    top = 92
    for row, picture in zip(rows, pictures, strict=True):
        sheet.paste(PIL.Image.fromarray(picture), (MARGIN, top))
        top += picture.shape[0]
        draw.text((MARGIN, top + 2), row.name, GREY, font(12))
        top += 22
    top += 8
    for number, name in enumerate(labels.names):
        left = MARGIN + number % columns * 190
        line = top + number // columns * 28
        draw.rectangle((left, line, left + 18, line + 18), labels.palette[number], outline=GREY)
        score = "" if iu is None or np.isnan(iu[number]) else f"  {iu[number]:.2f}"
        draw.text((left + 26, line), f"{name}{score}", INK, font(15))
    return np.array(sheet)


def row_of_pictures(row: Row, labels: Labels, cell: int) -> Image:
    """The four pictures of a row, each `cell` pixels wide."""
    height, width = row.truth.shape
    size = (cell, max(1, round(cell * height / width)))
    smooth = cv2.INTER_AREA if cell < width else cv2.INTER_LINEAR
    gap = np.full((size[1], GAP, 3), 255, np.uint8)
    pictures = [cv2.resize(to_rgb(row.image), size, interpolation=smooth)]
    for picture in (labels.colorize(row.truth), labels.colorize(row.prediction), error_map(row)):
        pictures += [gap, cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST_EXACT)]
    return np.concatenate(pictures, axis=1)


def error_map(row: Row) -> Image:
    """Red where the prediction is wrong, black where the truth is void, the image in pale grey elsewhere."""
    grey = to_rgb(row.image).mean(axis=2, keepdims=True).repeat(3, axis=2)
    picture: Image = (160 + grey * (95 / 255)).astype(np.uint8)
    picture[row.prediction != row.truth] = WRONG
    picture[row.truth == IGNORE] = UNCOUNTED
    return picture


def to_rgb(image: Raster) -> Image:
    """An image (H, W, C) as a picture (H, W, 3): its first three channels, or its first as grey if there are fewer.

    Each channel of an image of 16 bits or floats is stretched so that 2 % of its pixels are black and 2 % are full.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, axis=2)
    if shown.dtype == np.uint8:
        return np.ascontiguousarray(shown, np.uint8)
    step = -(-max(shown.shape) // 1000)  # a million pixels tell the percentiles
    low, high = np.percentile(shown[::step, ::step], (2, 98), axis=(0, 1)).astype(np.float32)
    stretched = (shown.astype(np.float32) - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    return (255 * stretched.clip(0, 1)).round().astype(np.uint8)


def overlay(image: Raster, mask: Mask, labels: Labels, strength: float = STRENGTH) -> Image:
    """The image (H, W, C), as to_rgb shows it, tinted with the colours of its labels (H, W)."""
    return tint(to_rgb(image), labels.colorize(mask), strength)


def tint(picture: Image, colors: Image, strength: float = STRENGTH) -> Image:
    """A picture (H, W, 3) with as much of other colours (H, W, 3) as `strength` says, 0 to 1."""
    return cv2.addWeighted(picture, 1 - strength, colors, strength, 0).astype(np.uint8, copy=False)


def heat_map(variance: NDArray[np.float32]) -> Image:
    """A variance of probabilities (H, W) as colours: black where all samples agree, pale yellow from a deviation of 0.25 on."""
    deviation = np.sqrt(np.clip(variance, 0, None)) / 0.25
    colors = cv2.applyColorMap((255 * deviation.clip(0, 1)).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(colors[..., ::-1])


def font(size: int) -> PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont:
    return PIL.ImageFont.load_default(size)
