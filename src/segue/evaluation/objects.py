"""A picture of objects found, merged and split: the true ones and the predicted ones, each with an outline in its colour."""

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray

from segue.images.pictures import GAP, GREY, INK, PAPER, font
from segue.labels import Image
from segue.metrics.instances import FATES, in_order, match

COLOURS = {
    "found": (52, 199, 89), "merged": (255, 59, 48), "split": (255, 204, 0), "missed": (64, 156, 255), "spurious": (200, 120, 255)
}  # fmt: skip
HEAD, FOOT = 26, 30


def outlines(image: Image, truth: NDArray[np.integer], predicted: NDArray[np.integer], width: int = 480) -> Image:
    """An RGB picture of two panels, each `width` pixels wide: true objects and predicted ones on the image (H, W, 1 or 3).

    truth, predicted: (H, W) object numbers, 0 for none. A true object has the colour of its fate; a predicted one that merges,
    splits or is spurious the colour of that, and others that of found. Fates as in segue.metrics.instances.
    """
    matched = match(truth, predicted)
    height = round(width * truth.shape[0] / truth.shape[1])
    kinds = np.select([matched.merging, matched.splitting, matched.spurious], ["merged", "split", "spurious"], "found")
    sheet = PIL.Image.new("RGB", (2 * width + GAP, HEAD + height + FOOT), PAPER)
    draw = PIL.ImageDraw.Draw(sheet)
    panels = (("truth", truth, matched.fates), ("prediction", predicted, kinds))
    for left, (heading, instances, fates) in zip((0, width + GAP), panels, strict=True):
        draw.text((left, 2), heading, GREY, font(16))
        panel = draw_outlines(image, in_order(instances)[1], fates, (width, height))
        sheet.paste(PIL.Image.fromarray(panel), (left, HEAD))
    left, top = 0, HEAD + height + 8
    for kind, colour in COLOURS.items():
        count = (matched.fates == kind).sum() if kind in FATES else matched.spurious.sum()
        draw.rectangle((left, top + 2, left + 14, top + 16), colour)
        text = f"{kind} {count:,}"
        draw.text((left + 20, top), text, INK, font(15))
        left += 20 + int(draw.textlength(text, font(15))) + 22
    return np.array(sheet)


def draw_outlines(image: Image, labels: NDArray[np.int64], kinds: NDArray[np.str_], size: tuple[int, int]) -> Image:
    """The image in another size (width, height) with the edges of objects 1, 2, ... in the colours of their kinds."""
    rgb = image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, 2)
    panel = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR if size[0] > rgb.shape[1] else cv2.INTER_AREA)
    large = cv2.resize(labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST_EXACT)
    square = np.ones((5, 5), np.uint8)
    edge = (large > 0) & ((cv2.dilate(large, square) != large) | (cv2.erode(large, square) != large))
    colours = np.array([(0, 0, 0), *(COLOURS[kind] for kind in kinds)], np.uint8)
    panel[edge] = colours[large[edge].astype(int)]
    return panel.astype(np.uint8)
