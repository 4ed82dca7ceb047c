"""Streets: scenes drawn by the program from a seed and a number, so that a first network trains with no download.

A camera looks along a street of buildings, trees, poles, signs, cars and people, in daylight, dusk, fog or rain. Everything is
placed in metres and painted far to near, so the same scene at another size shows the same street.

Classes: road, sidewalk, building, pole, sign, tree, sky, car, person; 255 (void) around poles, signs, trees, cars and people.
Depth: metres along the camera's axis, at most 256, which the sky has. A pole, sign, tree, car or person is flat: it has one.
Instances: 1 to n for the n cars and people that are seen, 0 elsewhere; each has all the pixels on which it is seen, void or not.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from segue.data.samples import Sample, Samples
from segue.labels import IGNORE, Labels

STREETS = Labels(("road", "sidewalk", "building", "pole", "sign", "tree", "sky", "car", "person"), (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (153, 153, 153), (220, 220, 0), (107, 142, 35), (70, 130, 180), (0, 0, 142),
    (220, 20, 60)))  # fmt: skip
ROAD, SIDEWALK, BUILDING, POLE, SIGN, TREE, SKY, CAR, PERSON = range(9)
COUNTS = {"train": 400, "val": 60, "test": 60}
FAR, KERB, SHIFT = 256.0, 0.15, 4  # metres; image and labels are filled from the same points, in sixteenths of a pixel

Array = NDArray[Any]
Point = tuple[float, ...]
WEATHERS = (  # sky at the top and at the horizon; light; darkness of shadows; clouds; metres to half the colour; lamps; rain
    (((74, 130, 205), (190, 214, 236)), (1.06, 1.03, 0.97), 0.5, 0.5, 600, False, False),  # clear
    (((112, 160, 215), (214, 222, 228)), (1.08, 1.05, 1.0), 0.4, 0.8, 500, False, False),  # cloudy
    (((150, 158, 170), (210, 213, 217)), (0.93, 0.95, 0.98), 0.12, 0.8, 300, False, False),  # overcast
    (((92, 112, 168), (252, 192, 132)), (1.1, 0.92, 0.76), 0.45, 0.6, 320, False, False),  # sunset
    (((40, 52, 100), (168, 140, 160)), (0.64, 0.63, 0.76), 0.1, 0.5, 260, True, False),  # dusk
    (((196, 200, 204), (212, 215, 218)), (0.9, 0.91, 0.92), 0.06, 0.2, 60, False, False),  # fog
    (((124, 132, 144), (182, 188, 194)), (0.78, 0.81, 0.86), 0.08, 0.9, 160, True, True))  # rain  # fmt: skip
WALLS = ((178, 168, 150), (150, 82, 64), (205, 190, 150), (140, 140, 142), (222, 216, 204), (120, 104, 92), (96, 108, 122))
GLASS, PAVING = ((64, 76, 92), (46, 52, 60), (120, 140, 160)), ((168, 164, 158), (178, 160, 146), (140, 138, 134))
ASPHALT, METAL = ((112, 112, 114), (92, 94, 98), (132, 128, 124), (78, 80, 84)), ((120, 124, 124), (70, 74, 74), (60, 84, 72))
LEAVES = ((62, 104, 44), (84, 118, 50), (50, 88, 56), (96, 120, 46), (112, 122, 52), (168, 120, 48))
CARS = ((176, 178, 182), (46, 48, 52), (232, 232, 230), (120, 122, 126), (150, 28, 30), (34, 62, 128), (206, 120, 40))
CLOTHES = ((40, 44, 60), (180, 40, 44), (60, 90, 150), (214, 210, 200), (226, 180, 60), (120, 120, 124), (40, 120, 110))
SKINS, HAIR = ((236, 196, 168), (198, 150, 118), (130, 88, 64)), ((40, 32, 28), (120, 84, 50), (170, 160, 150), (150, 40, 40))
SHAPES = ((16, 0.0), (16, 0.0), (3, 0.25), (4, 0.125), (4, 0.0))  # a sign's corners, and how it is turned
SIGNS = (((190, 30, 34), (236, 236, 232), (30, 30, 30)), ((196, 28, 32), (196, 28, 32), (240, 240, 240)),
         ((232, 232, 236), (30, 80, 170), (240, 240, 240)), ((240, 240, 236), (240, 190, 30), (240, 190, 30)))  # fmt: skip
MODELS = (  # a car's length, width, height, belt; where its cabin begins and ends, at the belt and at the roof
    (4.4, 1.8, 1.45, 0.88, -1.95, 1.0, -1.15, 0.2), (3.9, 1.75, 1.5, 0.9, -1.9, 0.95, -1.6, 0.25),
    (4.6, 1.9, 1.75, 1.0, -2.2, 1.15, -1.95, 0.45), (5.0, 2.0, 2.2, 1.15, -2.45, 2.1, -2.4, 1.5))  # fmt: skip


class Streets(Samples):
    """A scene depends on the seed, the split, its number and the size alone: not on the machine, nor on what else was drawn."""

    labels = STREETS

    def __init__(self, split: str = "train", count: int | None = None, size: tuple[int, int] = (240, 320), seed: int = 0) -> None:
        if split not in COUNTS:
            raise ValueError(f"split (={split!r}) must be one of {', '.join(COUNTS)}")
        if count is not None and count < 1:
            raise ValueError(f"count (={count}) must be at least 1")
        if len(size) != 2 or min(size) < 32:
            raise ValueError(f"size (={size}) must be (height, width), each at least 32")
        if seed < 0:
            raise ValueError(f"seed (={seed}) must be at least 0")
        self.split, self.count, self.size, self.seed = split, count or COUNTS[split], size, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"index (={index}) must be 0 to {self.count - 1}")
        return Scene(np.random.default_rng([self.seed, list(COUNTS).index(self.split), index]), self.size).draw()

    def name(self, index: int) -> str:
        return f"streets/{self.split} scene {index}"


@cache
def polygon(corners: int, turned: float = 0) -> Array:
    angles = [2 * math.pi * (i / corners + turned) for i in range(corners)]
    return np.array([(math.cos(angle), math.sin(angle)) for angle in angles])


def bar(x0: float, y0: float, w0: float, x1: float, y1: float, w1: float) -> list[Point]:  # w0 wide at (x0, y0), w1 at (x1, y1)
    return [(x0 - w0 / 2, y0), (x0 + w0 / 2, y0), (x1 + w1 / 2, y1), (x1 - w1 / 2, y1)]


def strip(s0: float, s1: float, near: float = 1, far: float = FAR, y: float = 0) -> list[Point]:
    """Along the street, following its bend: there on one side and back on the other."""
    steps = 20 if far == FAR else 1
    depths = [near * far / (far + (near - far) * i / steps) for i in range(steps + 1)]  # evenly spaced in the image
    return [(s, y, z) for s, line in ((s0, depths), (s1, depths[::-1])) for z in line]


def fixed(pixels: Array) -> Array:
    return (pixels * (1 << SHIFT)).round().astype(np.int32, order="C")


class Scene:
    """The street, s metres right of the road's middle line, y up, z ahead; the camera; and the picture that is painted."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.rng = rng
        self.sky, self.light, self.dark, self.clouds, self.haze, self.lamps, self.rain = self.pick(WEATHERS[:2] + WEATHERS)
        self.light, self.glow = np.array(self.light), 1 / np.array(self.light) if self.lamps else 1.0  # glowing colours stay
        self.half, self.walks = self.between(3.2, 6.0), {side: self.between(2.4, 5.5) for side in (-1, 1)}  # road, sidewalks
        self.sun = (self.between(0.3, 1.2) * self.pick((-1, 1)), self.between(-0.3, 0.7))  # s, z: the shadow of a metre
        self.zebra = self.between(7, 18) if rng.random() < 0.4 else 0.0
        # To aim the camera, the street is turned and the picture shifted up or down: walls stay upright.
        self.eye, self.right = self.between(1.4, 2.0), self.between(-0.75, 0.75) * self.half
        self.turn, self.bend = self.between(-0.06, 0.06) - self.right / 60, self.between(-1e-3, 1e-3)
        self.focal = self.between(0.88, 1.1) * max(math.sqrt(size[0] * size[1]), 0.6 * size[0])
        self.x, self.y = size[1] / 2 - 0.5, self.between(0.4, 0.52) * size[0] - 0.5  # pixels' centres lie at whole numbers
        self.image, self.seen = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint16)  # seen: the thing's number
        self.things: list[Point] = [(SKY, 0, 0, 1 / FAR, FAR, FAR)]  # class; a, b, c; nearest, farthest
        self.plan: list[tuple[float, Callable[..., None], Any]] = []
        self.shadows: list[tuple[float, list[Point]]] = []

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.random() * len(options))]

    def tint(self, colors: Sequence[Point], by: float) -> Array:  # one of them, somewhat lighter or darker, warmer or colder
        grey, warm, (r, g, b) = self.between(-by, by), self.between(-by, by) / 3, self.pick(colors)
        return np.array((r + grey + warm, g + grey, b + grey - warm))

    def draw(self) -> Sample:
        for step in (self.plan_sides, self.plan_cars, self.draw_sky, self.draw_ground, self.light_ground):
            step()
        for _, draw, values in sorted(self.plan, key=lambda thing: -thing[0]):  # far to near
            draw(self, *values)
        height, width = self.seen.shape
        seen, table = self.seen.astype(np.intp), np.array(self.things, np.float32).T
        label, (a, b, c, near, far) = table[0].astype(np.uint8), table[1:]
        inverse = a[seen] * np.arange(width, dtype=np.float32) + b[seen] * np.arange(height, dtype=np.float32)[:, None] + c[seen]
        depth = 1 / np.clip(inverse, (1 / far)[seen], (1 / near)[seen])
        counted = np.isin(label, (CAR, PERSON)) & (np.bincount(seen.ravel(), minlength=len(label)) > 0)
        instances = np.where(counted, np.cumsum(counted), 0).astype(np.uint16)[seen]
        # Void lies around a thing, on what is behind it: the later thing, of the greater number, is the nearer one.
        outlined = np.where(np.isin(label, (POLE, SIGN, TREE, CAR, PERSON)), np.arange(len(label)), 0).astype(np.uint16)
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(height / 144) + 1,) * 2)
        mask = np.where(cv2.dilate(outlined[seen], brush) > self.seen, np.uint8(IGNORE), label[seen])
        return {"image": self.expose(depth), "mask": mask, "depth": depth, "instances": instances}

    def plan_sides(self) -> None:
        """Buildings, trees, poles and people. Poles end where they are a pixel and a half wide in a picture 144 high."""
        leaves, tall, gaps = LEAVES[int(self.rng.random() * 6) :][:2], self.between(6, 16), self.between(0.05, 0.35)
        lamp, reach, person = self.between(5.5, 8), self.between(1.2, 2.2), (0.35, 0, 1.6)
        for side, width in self.walks.items():
            z, gap, curb = self.between(-12, 1), True, side * self.half
            while z < 90:
                s, near = curb + side * (width + max(0, self.between(-3, 2.5))), max(z, 1.2)
                z, height = max(z + self.between(8, 20), 2.5), tall * self.between(0.7, 1.5)
                self.add(Scene.draw_building, s, z, near, height, gap)
                if side * self.sun[0] < 0:
                    self.shadows.append((self.dark, strip(s, s + self.sun[0] * height * 0.6, near, z)))
                gap = self.rng.random() < gaps
                z += self.between(3, 12) if gap else 0
            for z in np.arange(self.between(9, 20), 75, self.pick((9, 14, 22, 99))).tolist():
                tree = self.between(5, 9)
                self.add(Scene.draw_tree, curb + side * 0.9, z, tree, self.tint(leaves, 12), shadow=(tree / 2, tree / 3, tree))
            for z in np.arange(self.between(8, 16), self.pick((0, 28, 28, 28)), self.between(11, 16)).tolist():
                self.add(Scene.draw_lamp, curb + side * 0.5, z, lamp, -side * reach, shadow=(0.25, 0, lamp))
            for _ in range(int(1.4 + self.rng.random() * 2)):
                self.add(Scene.draw_sign, curb + side * self.between(0.35, 0.9), self.between(8.5, 24), shadow=(0.2, 0, 2.5))
            for _ in range(int(self.rng.random() * 6)):
                s, far = curb + side * self.between(0.6, width - 0.4), float(self.rng.random()) ** 2
                self.add(Scene.draw_person, s, (1.2 * abs(s) + 1.5) * (1 - far) + 36 * far, shadow=person)
        for _ in range(int(self.rng.random() * 3)):  # crossing the road
            z = self.zebra + self.between(0.5, 2.5) if self.zebra else self.between(7, 26)
            self.add(Scene.draw_person, self.between(-1, 1) * self.half, z, shadow=person)

    def plan_cars(self) -> None:
        cars, hand = [], self.pick((-1, 1))  # the side on which one drives
        for side in (-1, 1):
            heading = (0 if side == hand else math.pi) + self.between(-0.04, 0.04)
            parked = np.arange(self.between(8, 14), 55 if self.half > 4.3 else 0, self.between(5.6, 7)).tolist()
            cars += [(side * (self.half - 1.1), z, heading) for z in parked if self.rng.random() < 0.5]
            z = self.between(9, 40)
            while z < 70:
                cars.append((side * self.half * 0.32, z, heading))
                z += self.between(9, 50)
        if self.rng.random() < 0.12:  # turning
            turn = self.between(-0.5, 0.5) * self.half, self.between(10, 22), math.pi * self.between(0.4, 0.6)
            cars = [car for car in cars if abs(car[1] - turn[1]) > 6] + [turn]
        for s, z, heading in cars:
            wide, long = 1 + abs(math.sin(heading)), 1 + abs(math.cos(heading))
            self.add(Scene.draw_car, s, z, heading, shadow=(2 * wide, 0, 1.2))
            self.shadows.append((0.6, strip(s - wide, s + wide, z - long, z + long)))

    def add(self, draw: Callable[..., None], s: float, z: float, *values: Any, shadow: Point = (0, 0, 0)) -> None:
        """Plan a thing. Its shadow is that of something upright, so wide, from so low to so high."""
        self.plan.append((z, draw, (s, z, *values)))
        (ds, dz), (width, low, high) = self.sun, shadow
        ends = ((low, -width / 2), (low, width / 2), (high, width / 2), (high, -width / 2))
        self.shadows.append((self.dark, [(s + ds * y + across, 0.0, z + dz * y) for y, across in ends]))

    def project(self, points: ArrayLike) -> Array:
        p = np.asarray(points, np.float64)
        z, scale = p[..., 2], self.focal / p[..., 2]
        pixels = np.empty((*z.shape, 2))
        pixels[..., 0] = self.x + scale * (p[..., 0] - self.right + z * (self.turn + self.bend * z))
        pixels[..., 1] = self.y + scale * (self.eye - p[..., 1])
        return pixels

    def stand(self, label: int, s: float, y: float, z: float, unit: float = 1) -> None:
        """Begin a thing that faces the camera. Its points are right and up from its foot, in units of so many metres."""
        self.things.append((label, 0, 0, 1 / z, z, z))
        self.foot, self.scale = self.project((s, y, z)), np.array([unit, -unit]) * self.focal / z

    def surface(self, label: int, points: list[Point], color: Array) -> None:
        """Begin a wall, or some ground. In pixels, 1 / depth is a * x + b * y + c: on a wall b is 0, on the ground a."""
        near, far, axis = points[0], points[len(points) // 2 - 1], int(label != BUILDING)
        first, last = self.project([near, far])[:, axis].tolist()
        slope = (1 / far[2] - 1 / near[2]) / (last - first) if abs(last - first) > 0.1 else 0.0  # edge-on
        self.things.append((label, slope * (1 - axis), slope * axis, 1 / near[2] - slope * first, near[2], far[2]))
        self.fill(points, color)

    def fill(self, points: ArrayLike, color: Array, detail: bool = False) -> None:
        """A shape (k, 3), or (k, 2) of what stands, or several (n, k, ...). A detail lies within its thing: no label changes."""
        p = np.asarray(points, np.float64)
        shapes = fixed(self.project(p) if p.shape[-1] == 3 else self.foot + p * self.scale)
        self.paint(shapes if p.ndim == 3 else shapes[None], color, detail)

    def panel(self, quad: ArrayLike, *parts: tuple[ArrayLike, Array]) -> None:
        """Details of a flat face: boxes from u0 to u1 along its first side and v0 to v1 along its last, and their colour."""
        boxes = [np.asarray(part[0], np.float64).reshape(-1, 4) for part in parts]
        box, (p, q, r, s) = np.concatenate(boxes), np.asarray(quad, np.float64)
        u, v = box[:, [0, 1, 1, 0], None], box[:, [2, 2, 3, 3], None]
        shapes = fixed(self.project(p + (q - p) * u + (s - p) * v + (p - q + r - s) * (u * v)))
        for (_, color), count in zip(parts, map(len, boxes), strict=True):
            if count:
                self.paint(shapes[:count], color, detail=True)
            shapes = shapes[count:]

    def paint(self, shapes: Array, color: Array, detail: bool = False) -> None:
        cv2.fillPoly(self.image, list(shapes), (color * self.light).tolist(), cv2.LINE_AA, SHIFT)
        if not detail:
            cv2.fillPoly(self.seen, list(shapes), len(self.things) - 1, cv2.LINE_8, SHIFT)

    def draw_sky(self) -> None:
        rows, columns = int(self.y) + 1, self.image.shape[1]
        top, low = np.array(self.sky, np.float32)
        cloud = np.full((rows, columns), 0.6 * self.clouds - 0.85, np.float32)
        for cells, weight in ((4, 0.4), (9, 0.3), (20, 0.2), (45, 0.1)):
            grid = self.rng.integers(0, 256, (cells, cells), np.uint8)
            cloud += cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_LINEAR_EXACT) * np.float32(weight / 255)
        cover = np.clip(cloud * 4, 0, np.float32(0.8))[..., None]
        sky = top + (low - top) * (np.arange(rows, dtype=np.float32) / np.float32(rows))[:, None, None]
        self.image[:rows] = np.clip(sky + (low * np.float32(1.06) - cover * 20 - sky) * cover, 0, 255)
        for s in np.arange(-320, 320, 24).tolist():  # what stands at the end of the street
            self.stand(BUILDING, s, -3, 0.8 * FAR)
            self.fill(bar(0, 0, 40, 0, self.between(10, 36), 40), self.tint(WALLS, 20))

    def draw_ground(self) -> None:
        half, paving, asphalt = self.half, self.tint(PAVING, 12), self.tint(ASPHALT, 8) * (0.8 if self.rain else 1)
        self.surface(SIDEWALK, strip(-400, 400, y=KERB), paving + self.between(-12, 12))
        self.surface(ROAD, strip(-half, half), asphalt)
        for _ in range(5):  # repairs and stains
            s, z, tone = self.between(-half + 0.5, half - 1.5), self.between(4, 30), self.between(-16, 16)
            self.fill(strip(s, s + self.between(0.5, 1.5), z, z + self.between(1, 5)), asphalt + tone, detail=True)
        white, yellow = self.tint(((216, 216, 210),), 14), self.tint(((222, 180, 60),), 14)
        dashes = [strip(-0.08, 0.08, z, z + 3) for z in np.arange(self.between(2, 6), 90, self.between(6, 9)).tolist()]
        double, edges = ([strip(s, s + 0.13) for s in at] for at in ((-0.2, 0.08), (-half + 0.3, half - 0.43)))
        self.fill(self.pick((dashes, dashes, double, edges, edges + double)), self.pick((white, white, yellow)), detail=True)
        if self.zebra:
            self.fill([strip(s, s + 0.5, self.zebra, self.zebra + 3) for s in np.arange(0.4 - half, half - 0.6)], white, True)
        for side, width in self.walks.items():
            curb, edge, joints = side * half, side * (half + width), np.arange(3, 24, self.between(1, 2)).tolist()
            self.surface(SIDEWALK, strip(curb, edge, y=KERB), paving)
            self.fill([strip(curb, edge, z, z + 0.05, KERB) for z in joints], paving * 0.82, detail=True)
            self.fill(strip(curb, curb + side * 0.25, y=KERB), paving * 1.14, detail=True)

    def light_ground(self) -> None:
        """Shadows and grain, on the ground alone: before anything stands on it."""
        shade = np.full(self.seen.shape, 255, np.uint8)
        self.shadows.sort()
        shapes = fixed(self.project(np.clip([points for _, points in self.shadows], (-99, 0, 1), (99, 0, FAR))))
        for (dark, _), shape in zip(self.shadows, shapes, strict=True):
            cv2.fillPoly(shade, [shape], 255 * (1 - dark), cv2.LINE_AA, SHIFT)
        first = int(self.y) + 2
        z = np.float32(self.focal * self.eye) / (np.arange(first, len(shade), dtype=np.float32)[:, None] - np.float32(self.y))
        s = (np.arange(shade.shape[1], dtype=np.float32) - np.float32(self.x)) * (z / np.float32(self.focal))
        grain = (self.rng.random((64, 64), np.float32) - np.float32(0.5)) * np.float32(0.16)
        fine = grain[(z * 7).astype(np.int32) & 63, (s * 20).astype(np.int32) & 63] * np.minimum(8 / z, 1)
        self.image[first:] = np.clip(self.image[first:] * ((1 + fine) * shade[first:] / 255)[..., None], 0, 255)

    def draw_building(self, s: float, z: float, near: float, height: float, gap: bool) -> None:
        """From near to z along the street; after a gap its end is seen as well."""
        floors, left, low = max(2, round(height / 3.1)), self.between(0.15, 0.3), self.between(0.2, 0.35)
        wall, glass, awning, shops = self.tint(WALLS, 16), self.tint(GLASS, 12), self.tint(CLOTHES, 16), self.pick((0, 99))
        lit, frame = 1 + math.copysign(0.35 * self.dark, s * self.sun[0]), self.pick((0.7, 1, 1, 1.2))
        shop = self.tint(((240, 200, 120),), 16) * self.glow if self.lamps else glass * 0.9
        for s1, z1, width, tone in ((s, z, z - near, lit), (s + math.copysign(10, s), near, 10, 0.86)):
            face: list[Point] = [(s, 0, near), (s1, 0, z1), (s1, height, z1), (s, height, near)]
            self.surface(BUILDING, face, wall * tone)
            if z1 == near and not gap:
                break
            bays = max(1, round(width / 2.8))
            unit = np.array([1 / bays, 1 / bays, 1 / floors, 1 / floors])
            panes = np.array([(b + left, b + 1 - left, f + low, f + 0.85) for f in range(1, floors) for b in range(bays)])
            awake = panes[self.rng.random(len(panes)) < 0.35 * self.lamps]
            fronts = np.array([(b + 0.08, b + 0.92, 0.04, 0.72) for b in range(bays)])[:shops]
            frames, awnings = np.add(panes, (-0.08, 0.08, -0.07, 0.05)), np.add(fronts, (-0.06, 0.06, 0.7, 0.2))
            self.panel(face, ((0, 1, 1 - 0.18 / floors, 1), wall * self.pick((0.75, 1.15))), (frames * unit, wall * frame),
                       (panes * unit, glass), (awake * unit, shop), (fronts * unit, shop), (awnings * unit, awning))  # fmt: skip

    def draw_tree(self, s: float, z: float, height: float, leaf: Array) -> None:
        self.stand(TREE, s, KERB, z, height)
        self.fill(bar(0, 0, 0.06, 0, 0.6, 0.04), self.tint(((86, 68, 52),), 12))
        crown, center = (self.between(0.26, 0.36), 0.32), np.array((0, 0.68))
        self.fill(center + polygon(36) * (0.9 + 0.2 * self.rng.random((36, 1))) * crown, leaf * 0.7)
        # Leaves, lighter and smaller towards the top. Where two cross, neither is painted: that is foliage enough.
        for count, size, reach, tone in ((34, 0.15, 0.88, 0.9), (30, 0.12, 0.84, 1.06), (24, 0.09, 0.7, 1.3)):
            tufts = polygon(count) * reach * np.sqrt(self.rng.random((count, 1))) + (0, 0.8 * (1 - reach))
            self.fill(center + tufts[:, None] * crown + polygon(6) * (size * crown[0]), leaf * tone, detail=True)

    def draw_lamp(self, s: float, z: float, height: float, reach: float) -> None:
        color = self.tint(METAL, 16)
        self.stand(POLE, s, KERB, z)
        arm = bar(0.56 * reach, height - 0.2, 0.88 * reach, 0.56 * reach, height, 0.88 * reach)
        self.fill([bar(0, 0, 0.34, 0, height, 0.24), arm], color)
        head = bar(reach, height - 0.25, 0.7, reach, height + 0.05, 0.6)
        self.fill(head, np.array((255, 236, 190)) * self.glow if self.lamps else color * 1.2)

    def draw_sign(self, s: float, z: float) -> None:
        height, (corners, turned), (rim, face, mark) = self.between(2.3, 3.0), self.pick(SHAPES), np.array(self.pick(SIGNS))
        self.stand(POLE, s, KERB, z)
        self.fill(bar(0, 0, 0.24, 0, height, 0.24), self.tint(METAL, 16))
        self.stand(SIGN, s, KERB + height, z, self.between(0.42, 0.56) * (1.15 if corners < 5 else 1))
        self.fill(polygon(corners, turned), rim)
        self.fill(polygon(corners, turned) * 0.74, face, detail=True)
        self.fill(bar(0, -0.2, 0.8, 0, 0.1, 0.8), mark, detail=True)

    def draw_person(self, s: float, z: float) -> None:
        height = self.between(1.05, 1.3) if self.rng.random() < 0.12 else self.between(1.55, 1.92)
        self.stand(PERSON, s, KERB if abs(s) > self.half else 0, z, height)
        legs, top, step = self.tint(CLOTHES, 16), self.tint(CLOTHES, 16), self.between(-0.02, 0.13)
        self.fill([bar(-0.05 - step, 0, 0.07, -0.04, 0.5, 0.11), bar(0.05 + step, 0, 0.07, 0.04, 0.5, 0.11)], legs)
        self.fill([bar(-0.15 + step, 0.46, 0.06, -0.13, 0.81, 0.07), bar(0.15 - step, 0.46, 0.06, 0.13, 0.81, 0.07)], top * 0.8)
        self.fill([(-0.05, 0.85), (0.05, 0.85), (0.14, 0.8), (0.11, 0.42), (-0.11, 0.42), (-0.14, 0.8)], top)
        self.fill(polygon(10) * 0.072 + (0, 0.92), self.tint(SKINS, 8))
        self.fill([(-0.075, 0.92), (-0.06, 0.985), (0, 1.0), (0.06, 0.985), (0.075, 0.92), (0, 0.95)], self.tint(HAIR, 8))

    def draw_car(self, s: float, z: float, heading: float) -> None:
        """A body and a cabin, both convex; then what is on those sides that the camera sees."""
        length, width, height, belt, back, front, rear, fore = self.pick(MODELS)
        half, axle, w, tyre, white = length / 2, 0.31 * length, width / 2, np.array((26, 26, 28)), np.array((230, 230, 216))
        paint, glass, sin, cos = self.tint(CARS, 12), self.tint(GLASS[:2], 12), math.sin(heading), math.cos(heading)
        turn, at = np.array([(sin, 0, cos), (cos, 0, -sin), (0, 1, 0)]), (s, 0, z)  # from along the car, across it and up
        self.stand(CAR, s, 0, z - abs(cos) * half)
        treads = [[(x, a + u, v) for u, v in bar(0, 0, 0.26, 0, 0.5, 0.26)] for x in (-axle - 0.3, axle + 0.3) for a in (-w, w)]
        self.fill(np.array(treads) * (1, 0.9, 1) @ turn + at, tyre)
        levels = (-half, half, w, 0.24), (-half, half, w, belt * 0.92), (back, front, w, belt), (rear, fore, 0.8 * w, height)
        rings = np.array([[(x, -a, y), (x1, -a, y), (x1, a, y), (x, a, y)] for x, x1, a, y in levels]) @ turn + at
        pixels = fixed(self.project(rings))
        for part in (pixels[:3], pixels[2:]):
            self.paint(cv2.convexHull(part.reshape(-1, 2))[None, :, 0], paint)
        for i, j in ((0, 1), (1, 2), (2, 3), (3, 0)):  # a flank, the front, a flank, the back
            (ax, ay), (bx, by), (cx, cy) = pixels[(0, 0, 1), (i, j, j)].tolist()
            if (bx - ax) * (cy - by) < (by - ay) * (cx - bx):  # turned away
                continue
            side, cabin = rings[(0, 0, 1, 1), (i, j, j, i)], rings[(2, 2, 3, 3), (i, j, j, i)]
            self.panel(side, ((0.01, 0.99, 0.15, 1), paint * (0.92 - i % 2 * 0.12)), ((0.01, 0.99, 0, 0.2), paint * 0.48))
            panes = ((0.08, 0.92, 0.1, 0.9),) if i % 2 else ((0.08, 0.47, 0.12, 0.88), (0.53, 0.92, 0.12, 0.88))
            self.panel(cabin, (panes, glass))
            if i % 2:
                lights = self.glow * (white if i == 1 else np.array((186, 24, 26)))
                self.panel(side, (((0.03, 0.24, 0.52, 0.8), (0.76, 0.97, 0.52, 0.8)), lights), ((0.36, 0.64, 0.34, 0.5), white))
                continue
            for radius, color in ((0.34, tyre), (0.17, tyre * 5.8)):
                rims = [[(x + u * radius, (i - 1) * w, v * radius + 0.34) for u, v in polygon(12)] for x in (-axle, axle)]
                self.fill(np.array(rims) @ turn + at, color)

    def expose(self, depth: Array) -> Array:
        """What the air and the camera do: haze, rain, blur, contrast, colour cast, noise."""
        (height, width), air, most = depth.shape, np.array(self.sky[1], np.float32), 1 + int(self.rng.random() * 7)
        haze = depth / (depth + np.float32(self.haze * self.between(0.7, 1.4))) * (self.seen > 0)
        image: Array = (self.image + (air - self.image) * haze[..., None]).astype(np.uint8)
        if self.rain:
            drops = self.rng.random((160, 1, 2)) * (width, height) + np.array([(0, 0), (0.005 * height, 0.03 * height)])
            wet = cv2.polylines(image.copy(), list(fixed(drops)), False, (214, 218, 222), 1, cv2.LINE_AA, SHIFT)
            image = image // 4 * 3 + wet // 4
        if self.rng.random() < 0.2:
            image = cv2.GaussianBlur(image, (2 * (height // 240) + 1,) * 2, 0)
        levels = (np.arange(256)[:, None] - 112) * self.between(0.9, 1.15) + 112
        levels = levels * [self.between(0.95, 1.05) for _ in range(3)] * self.between(0.92, 1.12)
        image = cv2.LUT(image, np.clip(levels, 0, 255).astype(np.uint8)[:, None])
        noise = self.rng.integers(0, 2 * most + 1, image.shape, np.uint8)
        return cv2.subtract(cv2.add(image, noise), np.full_like(image, most))
