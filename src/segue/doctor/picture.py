"""The picture that one wants before a training: class shares, sizes, and samples with their labels laid over."""

from collections import Counter
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw

from segue.data.samples import Samples
from segue.doctor.diagnosis import total
from segue.doctor.examination import Examination
from segue.doctor.reading import Legend, Reader, Reading
from segue.images.pictures import GAP, GREY, INK, MARGIN, PAPER, font, overlay, to_rgb
from segue.labels import IGNORE, Image

WIDTH = 1280
TRAIN, VAL, BAD = (46, 94, 170), (236, 151, 62), (190, 30, 45)
LINE = 30  # height of a class in the chart
SHOWN = {"train": 5, "val": 3}  # samples of each split
Size = tuple[int, int]


def picture(found: Examination) -> PIL.Image.Image:
    """The picture of an examination, which read something."""
    legend, readings = found.legend, found.readings
    if legend is None:
        raise ValueError("nothing could be read, so there is nothing to picture")
    parts = [title(found), shares(readings, legend), sizes(readings), samples(found.splits, legend)]
    sheet = PIL.Image.new("RGB", (WIDTH, sum(part.height for part in parts) + MARGIN), PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def title(found: Examination) -> PIL.Image.Image:
    counts = ", ".join(f"{len(readings)} {split}" for split, readings in found.readings.items())
    part, draw = paper(92)
    draw.text((MARGIN, 20), fitted(f"{found.name}: {counts}", 24, WIDTH - 2 * MARGIN), INK, font(24))
    words = ", ".join(fault.name for fault in found.faults) or "no faults found"
    draw.text((MARGIN, 58), fitted(words, 16, WIDTH - 2 * MARGIN), BAD if found.faults else GREY, font(16))
    return part


def shares(readings: Mapping[str, Sequence[Reading]], legend: Legend) -> PIL.Image.Image:
    """A bar for each class and split: its part of all pixels."""
    splits = [split for split, parts in readings.items() if any(reading.labels is not None for reading in parts)]
    pixels = {split: share_of_pixels(readings[split], legend) for split in splits}
    names, palette = [*legend.labels.names], [*legend.labels.palette]
    if any(values[-1] for values in pixels.values()):
        names, palette = [*names, "ignored"], [*palette, (0, 0, 0)]
    lettered = max(int(font(15).getlength(name)) for name in names) + 36
    columns = 1 if len(names) <= 8 else 2 if len(names) <= 24 or lettered > 190 else 3
    rows = -(-len(names) // columns)
    part, draw = heading("class shares, of all pixels" if splits else "class shares: no mask could be read", 56 + rows * LINE)
    left = MARGIN + int(font(18).getlength("class shares, of all pixels")) + 24
    for split, color in (("train", TRAIN), ("val", VAL)):
        if split in splits:
            draw.rectangle((left, 12, left + 14, 24), color)
            draw.text((left + 22, 9), split, GREY, font(15))
            left += 90
    width = (WIDTH - 2 * MARGIN - (columns - 1) * 30) // columns
    wide = min(lettered, width * 3 // 5)
    longest = max((float(values.max()) for values in pixels.values()), default=1) or 1
    for number, (name, swatch) in enumerate(zip(names, palette, strict=True)):
        x, y = MARGIN + number // rows * (width + 30), 44 + number % rows * LINE
        draw.rectangle((x, y + 3, x + 16, y + 19), swatch, outline=GREY)
        draw.text((x + 24, y + 1), fitted(name, 15, wide - 32), INK, font(15))
        room = width - wide - 64
        for place, split in enumerate(splits):
            value = float(pixels[split][number])
            color = TRAIN if split == "train" else VAL
            height = 20 // len(splits)
            above = y + 1 + place * height
            if value:
                draw.rectangle((x + wide, above, x + wide + max(1, round(room * value / longest)), above + height - 2), color)
            draw.text((x + wide + room * value / longest + 6, above - 3), percent(value), INK, font(11))
    return part


def share_of_pixels(readings: Sequence[Reading], legend: Legend) -> np.ndarray:
    """(K + 1,) the share of each class, and of all else."""
    labels = total(reading.labels for reading in readings)
    classes = legend.classes(labels)
    return np.append(classes, labels.sum() - classes.sum()) / max(1, labels.sum())


def percent(value: float) -> str:
    return (
        "never"
        if not value
        else f"{100 * value:.1f} %"
        if value >= 0.0995
        else f"{100 * value:.2g} %"
        if value >= 1e-4
        else "< 0.01 %"
    )


def sizes(readings: Mapping[str, Sequence[Reading]]) -> PIL.Image.Image:
    """The sizes of the images, the most common as text; as dots if there are several."""
    found = {split: Counter(reading.size for reading in parts if any(reading.size)) for split, parts in readings.items()}
    every = sum(found.values(), Counter[Size]())
    if not every:
        return heading("sizes: unknown", 44)[0]
    if len(every) <= 3:
        words = ", ".join(f"{width} x {height} ({count} images)" for (width, height), count in every.most_common())
        return heading(f"sizes, width x height: {words}", 44)[0]
    side = 240
    part, draw = heading(f"sizes: {len(every)} different ones, width x height", side + 84)
    lists = every.most_common(9)
    for row, ((width, height), count) in enumerate(lists):
        draw.text((MARGIN + 520, 50 + row * 24), f"{count:6} x   {width} x {height}", INK, font(15))
    if len(every) > len(lists):
        draw.text((MARGIN + 520, 50 + len(lists) * 24), f"and {len(every) - len(lists)} more sizes", GREY, font(15))
    largest = max(max(size) for size in every)
    x, y = MARGIN + 60, 44 + side
    draw.line((x, 44, x, y, x + 2 * side - 120, y), GREY)
    for split, color in (("train", TRAIN), ("val", VAL)):
        for (width, height), count in found.get(split, Counter()).items():
            spot = 3 + min(6, np.log2(count))
            across, up = x + (2 * side - 140) * width / largest, y - (side - 10) * height / largest
            draw.ellipse((across - spot, up - spot, across + spot, up + spot), outline=color, width=2)
    draw.text((x - 8, 46), f"{largest}", GREY, font(12), anchor="ra")
    draw.text((x - 8, y - 20), "height", GREY, font(12), anchor="ra")
    draw.text((x, y + 8), "width", GREY, font(12))
    draw.text((x + 2 * side - 140, y + 8), f"{largest}", GREY, font(12), anchor="ma")
    return part


def samples(splits: Mapping[str, Samples], legend: Legend) -> PIL.Image.Image:
    """Some samples of each split, at even distances: the image, and beside it the image with its labels laid over."""
    cell = (WIDTH - 2 * MARGIN - 3 * GAP - 12) // 4
    cards = []
    for split, data in splits.items():
        count = min(SHOWN[split] if len(splits) > 1 else sum(SHOWN.values()), len(data))
        cards += [card(data, index, split, legend, cell) for index in np.linspace(0, len(data) - 1, count).round().astype(int)]
    rows = [cards[i : i + 2] for i in range(0, len(cards), 2)]
    part, _ = heading("samples: the image, and with its labels", 44 + sum(max(c.height for c in row) for row in rows))
    top = 44
    for row in rows:
        for place, picture in enumerate(row):
            part.paste(picture, (MARGIN + place * (2 * cell + GAP + 12 + GAP), top))
        top += max(c.height for c in row)
    return part


def card(data: Samples, index: int, split: str, legend: Legend, cell: int) -> PIL.Image.Image:
    """One sample, two pictures wide, with its name."""
    reader = Reader(data)
    reader.legend = legend
    words = f"{split}: {reader.names(index)[0]}"
    try:
        sample = reader.samples[index]
        image = to_rgb(sample["image"])
        pictures = [image, overlay(image, np.where(sample["mask"] < len(legend.labels), sample["mask"], IGNORE), legend.labels)]
    except (ValueError, OSError):
        reading = reader.explain(index, ValueError("it cannot be read"))
        words = f"{reading.fault}: {reading.faulty}"
        pictures = [as_it_is(path) for path in reader.names(index)]
    shown = [fit(picture, cell) for picture in pictures]
    sheet = PIL.Image.new("RGB", (2 * cell + GAP, max(picture.height for picture in shown) + 26), PAPER)
    for place, picture in enumerate(shown):
        sheet.paste(picture, (place * (cell + GAP), 0))
    draw = PIL.ImageDraw.Draw(sheet)
    bad = not words.startswith(split)
    draw.text((0, sheet.height - 23), fitted(words, 12, sheet.width, keep_end=True), BAD if bad else GREY, font(12))
    return sheet


def as_it_is(path: str) -> Image:
    """The picture in a file, or a grey area if there is none."""
    try:
        with PIL.Image.open(path) as file:
            return np.array(file.convert("RGB"))
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return np.full((200, 300, 3), 225, np.uint8)


def fit(picture: Image, cell: int) -> PIL.Image.Image:
    """The picture within a square of `cell` pixels."""
    height, width = picture.shape[:2]
    scale = min(cell / width, cell / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return PIL.Image.fromarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST_EXACT))


def fitted(words: str, size: int, width: float, keep_end: bool = False) -> str:
    """The words, cut to a width."""
    letters = font(size)
    if letters.getlength(words) <= width:
        return words
    while words and letters.getlength(f"{words}...") > width:
        words = words[1:] if keep_end else words[:-1]
    return f"...{words}" if keep_end else f"{words}..."


def heading(words: str, height: int) -> tuple[PIL.Image.Image, PIL.ImageDraw.ImageDraw]:
    part, draw = paper(height)
    draw.text((MARGIN, 6), words, INK, font(18))
    return part, draw


def paper(height: int) -> tuple[PIL.Image.Image, PIL.ImageDraw.ImageDraw]:
    sheet = PIL.Image.new("RGB", (WIDTH, height), PAPER)
    return sheet, PIL.ImageDraw.Draw(sheet)
