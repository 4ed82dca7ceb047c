"""Cells: pictures as of cells under a microscope, drawn by the program, so that U-Net and FusionNet train with no download.

Cells lie in groups and press against each other. A cell has a grain, a nucleus with darker spots, and a membrane that is somewhat
darker; the light is uneven, the picture a little out of focus and noisy; there is dirt between the cells.

Classes: background, cell. Where two cells touch, a line of background two pixels wide lies between them, one of each: the
separation border of U-Net (section 3).
Instances: 1 to n for the n cells, on all of their pixels, the separation borders too; 0 elsewhere.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from segue.data.nuclei import separate
from segue.data.samples import Sample
from segue.data.synthetic.base import Drawn
from segue.data.synthetic.drawing import Array, Chance
from segue.labels import Labels

CELLS = Labels(names=("background", "cell"), palette=((0, 0, 0), (255, 255, 255)))

SMALLEST = 40  # pixels of a cell; what is smaller is left out
PER_CELL = 400  # pixels of the picture for each cell that is tried


class Cells(Drawn):
    """A picture, grey (H, W, 1), depends on the seed, the split, its number and the size alone; a larger one shows more cells."""

    labels = CELLS

    def __init__(self, split: str = "train", count: int | None = None, size: tuple[int, int] = (128, 128), seed: int = 0) -> None:
        super().__init__(split, count, size, seed)

    def draw(self, chance: Chance) -> Sample:
        cells = place_cells(chance, self.size)
        cells, instances = grow(cells, self.size)
        image = photograph(chance, cells, instances)
        return {"image": image, "mask": separate(instances), "instances": instances}

    def name(self, index: int) -> str:
        return f"cells/{self.split} picture {index}"


class Cell(NamedTuple):
    x: float
    y: float
    radius: float
    stretch: float  # longer than wide, by this factor
    turn: float  # of the long axis, radians
    waves: tuple[tuple[float, float], ...]  # strength and phase of 2, 3, ... waves around its edge

    def distance(self, x: Array, y: Array) -> Array:
        """1 on the edge that it would have alone, less inside."""
        dx, dy = x - self.x, y - self.y
        along = (dx * math.cos(self.turn) + dy * math.sin(self.turn)) / self.stretch
        across = (dy * math.cos(self.turn) - dx * math.sin(self.turn)) * self.stretch
        angle = np.arctan2(across, along)
        edge = 1 + sum(strength * np.cos(i * angle + phase) for i, (strength, phase) in enumerate(self.waves, start=2))
        return np.hypot(along, across) / (self.radius * edge)

    def around(self, size: tuple[int, ...], reach: float = 1.8) -> tuple[tuple[slice, slice], Array]:
        """The part of a picture around it, and the distance of each pixel there."""
        far = reach * self.radius + 1
        first = [min(max(0, int(place - far)), end) for place, end in zip((self.y, self.x), size, strict=True)]
        last = [max(0, min(end, int(place + far) + 1)) for place, end in zip((self.y, self.x), size, strict=True)]
        window = (slice(first[0], last[0]), slice(first[1], last[1]))
        rows, columns = np.mgrid[window].astype(np.float32)
        return window, self.distance(columns, rows)


def place_cells(chance: Chance, size: tuple[int, int]) -> list[Cell]:
    """Most of them beside one that is there, so near that the two press against each other."""
    height, width = size
    usual, crowded = chance.between(9, 16), chance.between(0.6, 0.95)
    cells: list[Cell] = []
    for _ in range(max(4, height * width // PER_CELL)):
        radius = usual * chance.between(0.75, 1.25)
        x, y = chance.between(0, width), chance.between(0, height)
        if cells and chance.happens(crowded):
            other, angle = chance.pick(cells), chance.between(0, 2 * math.pi)
            gap = 0.88 * (radius + other.radius)
            x, y = other.x + gap * math.cos(angle), other.y + gap * math.sin(angle)
        stretch, turn = chance.between(1, 1.25), chance.between(0, math.pi)
        waves = tuple((chance.between(0, 0.24 / i), chance.between(0, 2 * math.pi)) for i in range(2, 6))
        free = all(math.hypot(x - cell.x, y - cell.y) > 0.78 * (radius + cell.radius) for cell in cells)
        if free and -radius < x < width + radius and -radius < y < height + radius:
            cells.append(Cell(x, y, radius, stretch, turn, waves))
    return cells


def grow(cells: list[Cell], size: tuple[int, int]) -> tuple[list[Cell], Array]:
    """Each pixel is of the cell that reaches it most. Gives the cells that are seen, and (H, W) numbers: 1 to n, 0 for none."""
    nearest, reach = np.zeros(size, np.int32), np.ones(size, np.float32)
    for number, cell in enumerate(cells, start=1):
        window, distance = cell.around(size)
        nearer = distance < reach[window]
        nearest[window][nearer], reach[window][nearer] = number, distance[nearer]
    seen, instances = [], np.zeros(size, np.uint16)
    for number, cell in enumerate(cells, start=1):
        _, parts, stats, _ = cv2.connectedComponentsWithStats((nearest == number).astype(np.uint8), connectivity=4)
        areas = stats[1:, cv2.CC_STAT_AREA]
        if areas.max(initial=0) >= SMALLEST:
            seen.append(cell)
            instances[parts == 1 + areas.argmax()] = len(seen)
    return seen, instances


def photograph(chance: Chance, cells: list[Cell], instances: Array) -> Array:
    """The cells as a grey picture, (H, W, 1)."""
    size = instances.shape
    ground, bright = chance.between(110, 165), chance.pick((-1, -1, 1))
    body, contrast = ground + bright * chance.between(8, 30), chance.between(0.9, 1.5)
    fine, coarse = noise(chance, size, 2), noise(chance, size, 7)
    grain = np.where(instances > 0, contrast * (16 * fine + 14 * coarse), 3 * fine + 5 * coarse)
    image = np.where(instances > 0, np.float32(body), np.float32(ground)) + grain.astype(np.float32)
    for number, cell in enumerate(cells, start=1):
        paint_inside(chance, cell, image, instances == number, contrast)
    from_edge = cv2.distanceTransform(separate(instances), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    from_cells = cv2.distanceTransform((instances == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    membrane = np.exp(-((from_edge / np.float32(chance.between(1.1, 1.6))) ** 2)) * (instances > 0)
    halo = np.exp(-from_cells / np.float32(chance.between(1.5, 3.5))) * (instances == 0)
    image -= contrast * (chance.between(12, 30) * bright * halo + chance.between(26, 42) * membrane)
    add_dirt(chance, image)
    image = cv2.GaussianBlur(image * uneven_light(chance, size), (0, 0), chance.between(0.5, 0.85))
    image += chance.normal(0, chance.between(2, 7), size).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)[..., None]


def noise(chance: Chance, size: tuple[int, ...], grain: int) -> Array:
    """-1 to 1, with spots of about so many pixels."""
    grid = chance.random((size[0] // grain + 2, size[1] // grain + 2), np.float32) * 2 - 1
    return cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC)


def paint_inside(chance: Chance, cell: Cell, image: Array, inside: Array, contrast: float) -> None:
    """Its own brightness, its nucleus and the spots in it."""
    shade, far, angle = chance.between(-9, 9), 0.2 * cell.radius * chance.random(), chance.between(0, 2 * math.pi)
    x, y = cell.x + far * math.cos(angle), cell.y + far * math.sin(angle)
    nucleus = cell._replace(x=x, y=y, radius=cell.radius * chance.between(0.42, 0.55))
    spots = [(chance.between(-0.5, 0.5), chance.between(-0.5, 0.5)) for _ in range(1 + chance.below(3))]
    image[inside] += contrast * shade
    window, distance = nucleus.around(image.shape)
    here = inside[window]
    edge = np.exp(-(((distance - 1) / 0.14) ** 2))
    change = 12 * np.clip((1 - distance) * 5, 0, 1) - 12 * edge
    for right, down in spots:
        spot = Cell(x + right * nucleus.radius, y + down * nucleus.radius, 0.2 * nucleus.radius + 0.8, 1, 0, ())
        rows, columns = np.mgrid[window].astype(np.float32)
        change = change - 34 * np.exp(-(spot.distance(columns, rows) ** 2))
    image[window][here] += (contrast * change)[here]


def add_dirt(chance: Chance, image: Array) -> None:
    for _ in range(chance.below(2 + image.size // 2000)):
        x, y = chance.between(0, image.shape[1]), chance.between(0, image.shape[0])
        speck = Cell(x, y, chance.between(0.7, 2.2), chance.between(1, 1.5), chance.between(0, math.pi), ())
        window, distance = speck.around(image.shape, reach=3)
        image[window] += chance.pick((-40, -30, 35)) * np.exp(-(distance**2))


def uneven_light(chance: Chance, size: tuple[int, ...]) -> Array:
    """About 1: brighter to one side, darker in the corners."""
    y, x = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    light = 1 + chance.between(-0.16, 0.16) * x + chance.between(-0.16, 0.16) * y - chance.between(0, 0.1) * (x * x + y * y)
    return light.astype(np.float32)
