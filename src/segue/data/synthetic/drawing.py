"""What streets are painted on, and how each thing that stands there is drawn.

Points are (s, y, z) in metres: s to the right of the road's middle line, y up, z ahead, along the street as it bends. What stands
and faces the camera is flat: its points are (right, up) from its foot.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

ROAD, SIDEWALK, BUILDING, POLE, SIGN, TREE, SKY, CAR, PERSON = range(9)
FAR = 256.0  # metres: the depth of the sky
KERB = 0.15  # metres: the height of a sidewalk
SHIFT = 4  # points are painted at sixteenths of a pixel, the same in image and labels

Array = NDArray[Any]
Point = tuple[float, ...]

WALLS = ((178, 168, 150), (150, 82, 64), (205, 190, 150), (140, 140, 142), (222, 216, 204), (120, 104, 92), (96, 108, 122))
GLASS = ((64, 76, 92), (46, 52, 60), (120, 140, 160))
LIT_GLASS = ((240, 200, 120),)
LAMP = np.array((255, 236, 190))
METAL = ((120, 124, 124), (70, 74, 74), (60, 84, 72))
BARK = ((86, 68, 52),)
CLOTHES = ((40, 44, 60), (180, 40, 44), (60, 90, 150), (214, 210, 200), (226, 180, 60), (120, 120, 124), (40, 120, 110))
SKINS = ((236, 196, 168), (198, 150, 118), (130, 88, 64))
HAIR = ((40, 32, 28), (120, 84, 50), (170, 160, 150), (150, 40, 40))
CARS = ((176, 178, 182), (46, 48, 52), (232, 232, 230), (120, 122, 126), (150, 28, 30), (34, 62, 128), (206, 120, 40))
TYRE, HEADLIGHT, TAIL_LIGHT = np.array((26, 26, 28)), np.array((230, 230, 216)), np.array((186, 24, 26))
SIGN_SHAPES = ((16, 0.0), (16, 0.0), (3, 0.25), (4, 0.125), (4, 0.0))  # corners; how far turned, 1 being a full turn
SIGN_COLORS = (  # rim, face, mark
    ((190, 30, 34), (236, 236, 232), (30, 30, 30)),
    ((196, 28, 32), (196, 28, 32), (240, 240, 240)),
    ((232, 232, 236), (30, 80, 170), (240, 240, 240)),
    ((240, 240, 236), (240, 190, 30), (240, 190, 30)),
)


class CarModel(NamedTuple):
    length: float
    width: float
    height: float
    belt: float  # the height at which the cabin begins
    belt_ends: tuple[float, float]  # the cabin's back and front at the belt, from the middle of the car
    roof_ends: tuple[float, float]


CAR_MODELS = (
    CarModel(4.4, 1.8, 1.45, 0.88, (-1.95, 1.0), (-1.15, 0.2)),
    CarModel(3.9, 1.75, 1.5, 0.9, (-1.9, 0.95), (-1.6, 0.25)),
    CarModel(4.6, 1.9, 1.75, 1.0, (-2.2, 1.15), (-1.95, 0.45)),
    CarModel(5.0, 2.0, 2.2, 1.15, (-2.45, 2.1), (-2.4, 1.5)),
)


class Chance(np.random.Generator):
    """The random choices of one scene."""

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def below(self, end: int) -> int:
        return int(self.random() * end)

    def happens(self, probability: float) -> bool:
        return self.random() < probability

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]

    def tint(self, colors: Sequence[Point], by: float) -> Array:
        """One of the colours, somewhat lighter or darker, warmer or colder."""
        grey = self.between(-by, by)
        warm = self.between(-by, by) / 3
        red, green, blue = self.pick(colors)
        return np.array((red + grey + warm, green + grey, blue + grey - warm))


@cache
def polygon(corners: int, turned: float = 0) -> Array:
    """On a circle of radius 1."""
    angles = [2 * math.pi * (i / corners + turned) for i in range(corners)]
    return np.array([(math.cos(angle), math.sin(angle)) for angle in angles])


def bar(x0: float, y0: float, width0: float, x1: float, y1: float, width1: float) -> list[Point]:
    """From (x0, y0) to (x1, y1), with level ends of these widths."""
    return [(x0 - width0 / 2, y0), (x0 + width0 / 2, y0), (x1 + width1 / 2, y1), (x1 - width1 / 2, y1)]


def strip(s0: float, s1: float, near: float = 1, far: float = FAR, y: float = 0) -> list[Point]:
    """Level, along the street: there on one side and back on the other. A long one follows the bend."""
    steps = 20 if far == FAR else 1
    depths = [near * far / (far + (near - far) * i / steps) for i in range(steps + 1)]  # evenly spaced in the image
    return [*((s0, y, z) for z in depths), *((s1, y, z) for z in reversed(depths))]


def to_fixed(pixels: Array) -> Array:
    """As OpenCV takes points that are not at whole pixels."""
    return (pixels * (1 << SHIFT)).round().astype(np.int32, order="C")


class Camera(NamedTuple):
    """To aim it, the street is turned and the picture shifted up or down: walls stay upright."""

    height: float
    right: float  # of the road's middle line
    turn: float
    bend: float
    focal: float  # in pixels
    x: float  # the picture's middle column
    horizon: float  # the row of the horizon

    def project(self, points: Array) -> Array:
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0], pixels[..., 1] = self.pixel(points[..., 0], points[..., 1], points[..., 2])
        return pixels

    def pixel(self, s: Any, y: Any, z: Any) -> tuple[Any, Any]:
        """Of one point, in floats, or of many, in arrays."""
        scale = self.focal / z
        return self.x + scale * (s - self.right + z * (self.turn + self.bend * z)), self.horizon + scale * (self.height - y)


class Thing(NamedTuple):
    """At pixel (x, y), 1 / depth is a * x + b * y + c, and depth is kept within near and far."""

    label: int
    a: float
    b: float
    c: float
    near: float
    far: float


class Canvas:
    def __init__(self, size: tuple[int, int], camera: Camera, light: Array, lamps: bool) -> None:
        self.camera = camera
        self.light = light  # every colour is multiplied by it
        self.lamps = lamps
        self.glow = 1 / light if lamps else np.ones(3)  # a colour times this keeps its brightness in the dark
        self.image = np.zeros((*size, 3), np.uint8)
        self.things = [Thing(SKY, 0, 0, 1 / FAR, FAR, FAR)]
        self.seen = np.zeros(size, np.uint16)  # which of the things is seen at each pixel

    def stand(self, label: int, s: float, y: float, z: float, unit: float = 1) -> None:
        """Begin a thing that faces the camera. Its points are given in units of so many metres."""
        self.things.append(Thing(label, 0, 0, 1 / z, z, z))
        self.foot = np.array(self.camera.pixel(s, y, z))
        self.scale = np.array([unit, -unit]) * self.camera.focal / z

    def surface(self, label: int, points: Sequence[Point], color: Array) -> None:
        """Paint a wall or some ground. It begins at the first point and ends at the last of the first half."""
        pixels = self.camera.project(np.array(points, np.float64))
        end = len(points) // 2 - 1
        near, far = points[0][2], points[end][2]
        axis = 0 if label == BUILDING else 1  # along which 1 / depth changes
        first, last = pixels[0, axis].item(), pixels[end, axis].item()
        edge_on = abs(last - first) <= 0.1
        slope = 0.0 if edge_on else (1 / far - 1 / near) / (last - first)
        a, b = (slope, 0.0) if label == BUILDING else (0.0, slope)
        self.things.append(Thing(label, a, b, 1 / near - slope * first, near, far))
        self.paint(to_fixed(pixels)[None], color)

    def fill(self, points: ArrayLike, color: Array, detail: bool = False) -> None:
        """A shape (k, 3), or (k, 2) of what stands, or several (n, k, ...)."""
        points = np.asarray(points, np.float64)
        shapes = to_fixed(self.camera.project(points) if points.shape[-1] == 3 else self.foot + points * self.scale)
        self.paint(shapes if points.ndim == 3 else shapes[None], color, detail)

    def panel(self, quad: ArrayLike, *parts: tuple[ArrayLike, Array]) -> None:
        """Details of a flat face: boxes (u0, u1, v0, v1), u along its first side and v along its last, and their colour."""
        boxes = [np.asarray(part[0], np.float64).reshape(-1, 4) for part in parts]
        every = np.concatenate(boxes)
        u, v = every[:, [0, 1, 1, 0], None], every[:, [2, 2, 3, 3], None]
        p, q, r, s = np.asarray(quad, np.float64)
        shapes = to_fixed(self.camera.project(p + (q - p) * u + (s - p) * v + (p - q + r - s) * (u * v)))
        start = 0
        for box, (_, color) in zip(boxes, parts, strict=True):
            end = start + len(box)
            if end > start:
                self.paint(shapes[start:end], color, detail=True)
            start = end

    def paint(self, shapes: Array, color: Array, detail: bool = False) -> None:
        """A detail lies within the thing it belongs to, so that it changes no label."""
        polygons = list(shapes)
        cv2.fillPoly(self.image, polygons, (color * self.light).tolist(), cv2.LINE_AA, SHIFT)
        if not detail:
            cv2.fillPoly(self.seen, polygons, len(self.things) - 1, cv2.LINE_8, SHIFT)

    def depth(self) -> Array:
        height, width = self.seen.shape
        x = np.arange(width, dtype=np.float32)
        y = np.arange(height, dtype=np.float32)[:, None]
        seen = self.seen.astype(np.intp)
        _, a, b, c, near, far = np.array(self.things, np.float32).T
        inverse = a.take(seen) * x + b.take(seen) * y + c.take(seen)
        return 1 / np.clip(inverse, (1 / far).take(seen), (1 / near).take(seen))

    def labels(self) -> Array:
        """Of each thing, in the order of their numbers in seen."""
        return np.array([thing.label for thing in self.things], np.uint8)


def skyline(canvas: Canvas, chance: Chance) -> None:
    """What stands at the end of the street."""
    for s in range(-320, 320, 24):
        canvas.stand(BUILDING, s, -3, 0.8 * FAR)
        canvas.fill(bar(0, 0, 40, 0, chance.between(10, 36), 40), chance.tint(WALLS, 20))


class Facade(NamedTuple):
    """What the walls of a building have in common."""

    floors: int
    beside: float  # a window, as a part of a bay
    below: float  # a window, as a part of a floor
    shops: bool
    wall: Array
    glass: Array
    frame: Array
    shop: Array
    awning: Array


def building(canvas: Canvas, chance: Chance, s: float, z: float, near: float, height: float, lit: float, gap: bool) -> None:
    """From near to z along the street, where the light makes its front so bright; after a gap its end is seen as well."""
    facade = choose_facade(canvas, chance, height)
    back = s + math.copysign(10, s)
    front = ((s, 0, near), (s, 0, z), (s, height, z), (s, height, near))
    end = ((s, 0, near), (back, 0, near), (back, height, near), (s, height, near))
    canvas.surface(BUILDING, front, facade.wall * lit)
    windows(canvas, chance, facade, front, z - near)
    canvas.surface(BUILDING, end, facade.wall * 0.86)
    if gap:
        windows(canvas, chance, facade, end, 10)


def choose_facade(canvas: Canvas, chance: Chance, height: float) -> Facade:
    beside, below = chance.between(0.15, 0.3), chance.between(0.2, 0.35)
    wall, glass, awning = chance.tint(WALLS, 16), chance.tint(GLASS, 12), chance.tint(CLOTHES, 16)
    shops = chance.pick((False, True))
    frame = wall * chance.pick((0.7, 1, 1, 1.2))
    shop = chance.tint(LIT_GLASS, 16) * canvas.glow if canvas.lamps else glass * 0.9
    return Facade(max(2, round(height / 3.1)), beside, below, shops, wall, glass, frame, shop, awning)


def windows(canvas: Canvas, chance: Chance, facade: Facade, face: Sequence[Point], width: float) -> None:
    """With a cornice above them, and shops on the ground floor."""
    floors, bays = facade.floors, max(1, round(width / 2.8))
    columns = [(bay + facade.beside, bay + 1 - facade.beside) for bay in range(bays)]
    rows = [(floor + facade.below, floor + 0.85) for floor in range(1, floors)]
    panes = np.array([column + row for row in rows for column in columns])
    frames = panes + np.array((-0.08, 0.08, -0.07, 0.05))
    lit = panes[chance.random(len(panes)) < 0.35 * canvas.lamps]
    fronts = np.array([(bay + 0.08, bay + 0.92, 0.04, 0.72) for bay in range(bays)])[: bays * facade.shops]
    awnings = fronts + np.array((-0.06, 0.06, 0.7, 0.2))
    cornice = facade.wall * chance.pick((0.75, 1.15))
    unit = np.array([1 / bays, 1 / bays, 1 / floors, 1 / floors])  # boxes are given in bays and floors
    canvas.panel(
        face,
        ((0, 1, 1 - 0.18 / floors, 1), cornice),
        (frames * unit, facade.frame),
        (panes * unit, facade.glass),
        (lit * unit, facade.shop),
        (fronts * unit, facade.shop),
        (awnings * unit, facade.awning),
    )


def tree(canvas: Canvas, chance: Chance, s: float, z: float, height: float, leaf: Array) -> None:
    canvas.stand(TREE, s, KERB, z, height)
    canvas.fill(bar(0, 0, 0.06, 0, 0.6, 0.04), chance.tint(BARK, 12))
    center, radius = np.array((0, 0.68)), (chance.between(0.26, 0.36), 0.32)
    canvas.fill(center + polygon(36) * (0.9 + 0.2 * chance.random((36, 1))) * radius, leaf * 0.7)
    # Leaves, lighter and smaller towards the top. Where two cross, neither is painted: that is foliage enough.
    for count, size, reach, tone in ((34, 0.15, 0.88, 0.9), (30, 0.12, 0.84, 1.06), (24, 0.09, 0.7, 1.3)):
        tufts = polygon(count) * reach * np.sqrt(chance.random((count, 1))) + (0, 0.8 * (1 - reach))
        canvas.fill(center + tufts[:, None] * radius + polygon(6) * (size * radius[0]), leaf * tone, detail=True)


def lamp(canvas: Canvas, chance: Chance, s: float, z: float, height: float, reach: float) -> None:
    color = chance.tint(METAL, 16)
    post = bar(0, 0, 0.34, 0, height, 0.24)
    arm = bar(0.56 * reach, height - 0.2, 0.88 * reach, 0.56 * reach, height, 0.88 * reach)
    head = bar(reach, height - 0.25, 0.7, reach, height + 0.05, 0.6)
    canvas.stand(POLE, s, KERB, z)
    canvas.fill([post, arm], color)
    canvas.fill(head, LAMP * canvas.glow if canvas.lamps else color * 1.2)


def sign(canvas: Canvas, chance: Chance, s: float, z: float) -> None:
    height = chance.between(2.3, 3.0)
    corners, turned = chance.pick(SIGN_SHAPES)
    rim, face, mark = np.array(chance.pick(SIGN_COLORS))
    canvas.stand(POLE, s, KERB, z)
    canvas.fill(bar(0, 0, 0.24, 0, height, 0.24), chance.tint(METAL, 16))
    canvas.stand(SIGN, s, KERB + height, z, chance.between(0.42, 0.56) * (1.15 if corners < 5 else 1))
    canvas.fill(polygon(corners, turned), rim)
    canvas.fill(polygon(corners, turned) * 0.74, face, detail=True)
    canvas.fill(bar(0, -0.2, 0.8, 0, 0.1, 0.8), mark, detail=True)


def person(canvas: Canvas, chance: Chance, s: float, z: float, y: float) -> None:
    child = chance.happens(0.12)
    canvas.stand(PERSON, s, y, z, chance.between(1.05, 1.3) if child else chance.between(1.55, 1.92))
    trousers, coat = chance.tint(CLOTHES, 16), chance.tint(CLOTHES, 16)
    step = chance.between(-0.02, 0.13)
    legs = [bar(-0.05 - step, 0, 0.07, -0.04, 0.5, 0.11), bar(0.05 + step, 0, 0.07, 0.04, 0.5, 0.11)]
    arms = [bar(-0.15 + step, 0.46, 0.06, -0.13, 0.81, 0.07), bar(0.15 - step, 0.46, 0.06, 0.13, 0.81, 0.07)]
    trunk = [(-0.05, 0.85), (0.05, 0.85), (0.14, 0.8), (0.11, 0.42), (-0.11, 0.42), (-0.14, 0.8)]
    head = polygon(10) * 0.072 + (0, 0.92)
    hair = [(-0.075, 0.92), (-0.06, 0.985), (0, 1.0), (0.06, 0.985), (0.075, 0.92), (0, 0.95)]
    canvas.fill(legs, trousers)
    canvas.fill(arms, coat * 0.8)
    canvas.fill(trunk, coat)
    canvas.fill(head, chance.tint(SKINS, 8))
    canvas.fill(hair, chance.tint(HAIR, 8))


def car(canvas: Canvas, chance: Chance, s: float, z: float, heading: float) -> None:
    """A body and a cabin, both convex; then what is on those sides that the camera sees."""
    model = chance.pick(CAR_MODELS)
    paint, glass = chance.tint(CARS, 12), chance.tint(GLASS[:2], 12)
    sin, cos = math.sin(heading), math.cos(heading)
    axes = np.array([(sin, 0, cos), (cos, 0, -sin), (0, 1, 0)])  # along the car, across it, up
    canvas.stand(CAR, s, 0, z - abs(cos) * model.length / 2)
    canvas.fill(car_treads(model) @ axes + (s, 0, z), TYRE)
    rings = car_rings(model) @ axes + (s, 0, z)
    pixels = to_fixed(canvas.camera.project(rings))
    for part in (pixels[:3], pixels[2:]):
        canvas.paint(cv2.convexHull(part.reshape(-1, 2))[None, :, 0], paint)
    for i, j in ((0, 1), (1, 2), (2, 3), (3, 0)):  # a flank, the front, a flank, the back
        if not is_seen(pixels[(0, 0, 1), (i, j, j)]):
            continue
        body, cabin = rings[(0, 0, 1, 1), (i, j, j, i)], rings[(2, 2, 3, 3), (i, j, j, i)]
        if i % 2:
            car_end(canvas, body, cabin, paint, glass, HEADLIGHT if i == 1 else TAIL_LIGHT)
        else:
            tyres, hubs = (car_wheels(model, i - 1, radius) @ axes + (s, 0, z) for radius in (0.34, 0.17))
            car_flank(canvas, body, cabin, paint, glass, tyres, hubs)


def car_flank(canvas: Canvas, body: Array, cabin: Array, paint: Array, glass: Array, tyres: Array, hubs: Array) -> None:
    canvas.panel(body, ((0.01, 0.99, 0.15, 1), paint * 0.92), ((0.01, 0.99, 0, 0.2), paint * 0.48))
    canvas.panel(cabin, (((0.08, 0.47, 0.12, 0.88), (0.53, 0.92, 0.12, 0.88)), glass))
    canvas.fill(tyres, TYRE)
    canvas.fill(hubs, TYRE * 5.8)


def car_end(canvas: Canvas, body: Array, cabin: Array, paint: Array, glass: Array, light: Array) -> None:
    lights, plate = ((0.03, 0.24, 0.52, 0.8), (0.76, 0.97, 0.52, 0.8)), (0.36, 0.64, 0.34, 0.5)
    canvas.panel(body, ((0.01, 0.99, 0.15, 1), paint * 0.8), ((0.01, 0.99, 0, 0.2), paint * 0.48))
    canvas.panel(cabin, ((0.08, 0.92, 0.1, 0.9), glass))
    canvas.panel(body, (lights, light * canvas.glow), (plate, HEADLIGHT))


def is_seen(corners: Array) -> bool:
    """Whether a side of a car, given by three corners in pixels, is turned to the camera: they then go round as they should."""
    (ax, ay), (bx, by), (cx, cy) = corners.tolist()
    return bool((bx - ax) * (cy - by) >= (by - ay) * (cx - bx))


def car_rings(model: CarModel) -> Array:
    """The corners of the body's bottom and top, and of the cabin's."""
    body, half_width = (-model.length / 2, model.length / 2), model.width / 2
    levels = (
        (body, half_width, 0.24),
        (body, half_width, model.belt * 0.92),
        (model.belt_ends, half_width, model.belt),
        (model.roof_ends, 0.8 * half_width, model.height),
    )
    return np.array([[(back, -w, y), (front, -w, y), (front, w, y), (back, w, y)] for (back, front), w, y in levels])


def car_treads(model: CarModel) -> Array:
    """The four tyres as they are seen from ahead or behind."""
    places = [(x, side) for x in (-0.31 * model.length - 0.3, 0.31 * model.length + 0.3) for side in (-1, 1)]
    tread = bar(0, 0, 0.26, 0, 0.5, 0.26)
    return np.array([[(x, (side * model.width / 2 + u) * 0.9, v) for u, v in tread] for x, side in places])


def car_wheels(model: CarModel, side: int, radius: float) -> Array:
    """The two circles on one side."""
    circle = (polygon(12) * radius).tolist()
    axles = (-0.31 * model.length, 0.31 * model.length)
    return np.array([[(x + u, side * model.width / 2, v + 0.34) for u, v in circle] for x in axles])
