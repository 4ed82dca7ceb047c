"""Streets: scenes drawn by the program from a seed and a number, so that a first network trains with no download.

A camera looks along a street of buildings, trees, poles, signs, cars and people, in daylight, dusk, fog or rain. Everything is
placed in metres and painted far to near, so the same scene at another size shows the same street.

Classes: road, sidewalk, building, pole, sign, tree, sky, car, person; 255 (void) around poles, signs, trees, cars and people.
Depth: metres along the camera's axis, at most 256, which the sky has. A pole, sign, tree, car or person is flat: it has one.
Instances: 1 to n for the n cars and people that are seen, 0 elsewhere; each has all the pixels on which it is seen, void or not.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np

from segue.data.samples import Sample
from segue.data.synthetic import drawing as draw
from segue.data.synthetic.base import Drawn
from segue.data.synthetic.drawing import FAR, KERB, ROAD, SHIFT, SIDEWALK, Array, Camera, Canvas, Chance, Point, strip, to_fixed
from segue.labels import IGNORE, Labels

COLORS = {  # in the order of the labels' numbers in streets_drawing
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "pole": (153, 153, 153),
    "sign": (220, 220, 0),
    "tree": (107, 142, 35),
    "sky": (70, 130, 180),
    "car": (0, 0, 142),
    "person": (220, 20, 60),
}
STREETS = Labels(tuple(COLORS), tuple(COLORS.values()))
OUTLINED = (draw.POLE, draw.SIGN, draw.TREE, draw.CAR, draw.PERSON)  # with void around them
COUNTED = (draw.CAR, draw.PERSON)  # with instances
PAVING = ((168, 164, 158), (178, 160, 146), (140, 138, 134))
ASPHALT = ((112, 112, 114), (92, 94, 98), (132, 128, 124), (78, 80, 84))
WHITE_LINES, YELLOW_LINES = ((216, 216, 210),), ((222, 180, 60),)
LEAVES = ((62, 104, 44), (84, 118, 50), (50, 88, 56), (96, 120, 46), (112, 122, 52), (168, 120, 48))


class Weather(NamedTuple):
    sky: tuple[Point, Point]  # at the top and at the horizon
    light: Point
    shadow: float  # how dark shadows are
    clouds: float
    haze: float  # the metres of air that take half of a colour
    lamps: bool = False
    rain: bool = False


CLEAR = Weather(((74, 130, 205), (190, 214, 236)), (1.06, 1.03, 0.97), shadow=0.5, clouds=0.5, haze=600)
CLOUDY = Weather(((112, 160, 215), (214, 222, 228)), (1.08, 1.05, 1.0), shadow=0.4, clouds=0.8, haze=500)
OVERCAST = Weather(((150, 158, 170), (210, 213, 217)), (0.93, 0.95, 0.98), shadow=0.12, clouds=0.8, haze=300)
SUNSET = Weather(((92, 112, 168), (252, 192, 132)), (1.1, 0.92, 0.76), shadow=0.45, clouds=0.6, haze=320)
DUSK = Weather(((40, 52, 100), (168, 140, 160)), (0.64, 0.63, 0.76), shadow=0.1, clouds=0.5, haze=260, lamps=True)
FOG = Weather(((196, 200, 204), (212, 215, 218)), (0.9, 0.91, 0.92), shadow=0.06, clouds=0.2, haze=60)
RAIN = Weather(((124, 132, 144), (182, 188, 194)), (0.78, 0.81, 0.86), shadow=0.08, clouds=0.9, haze=160, lamps=True, rain=True)
WEATHERS = (CLEAR, CLOUDY, CLEAR, CLOUDY, OVERCAST, SUNSET, DUSK, FOG, RAIN)


class Streets(Drawn):
    """A scene depends on the seed, the split, its number and the size alone: not on the machine, nor on what else was drawn."""

    labels = STREETS

    def __init__(self, split: str = "train", count: int | None = None, size: tuple[int, int] = (120, 160), seed: int = 0) -> None:
        super().__init__(split, count, size, seed)

    def draw(self, chance: Chance) -> Sample:
        return Scene(chance, self.size).draw()

    def name(self, index: int) -> str:
        return f"streets/{self.split} scene {index}"


class Scene:
    """What stands where on a street, and in what light."""

    def __init__(self, chance: Chance, size: tuple[int, int]) -> None:
        self.chance = chance
        self.weather = chance.pick(WEATHERS)
        self.half = chance.between(3.2, 6.0)  # of the road's width
        self.walks = {side: chance.between(2.4, 5.5) for side in (-1, 1)}  # the sidewalks' widths
        self.sun = (chance.between(0.3, 1.2) * chance.pick((-1, 1)), chance.between(-0.3, 0.7))  # the shadow of a metre: s, z
        self.zebra = chance.between(7, 18) if chance.happens(0.4) else None
        self.canvas = Canvas(size, self.aim_camera(size), np.array(self.weather.light), self.weather.lamps)
        self.plan: list[tuple[float, Callable[[], None]]] = []  # how far, and how to draw it
        self.shadows: list[tuple[float, list[Point]]] = []  # how dark, and where on the ground

    def aim_camera(self, size: tuple[int, int]) -> Camera:
        chance = self.chance
        height, width = size
        eye, right = chance.between(1.4, 2.0), chance.between(-0.75, 0.75) * self.half
        turn, bend = chance.between(-0.06, 0.06) - right / 60, chance.between(-1e-3, 1e-3)
        focal = chance.between(1.1, 1.35) * max(math.sqrt(height * width), 0.6 * height)
        horizon = chance.between(0.4, 0.52) * height - 0.5  # pixels' centres lie at whole numbers
        return Camera(eye, right, turn, bend, focal, width / 2 - 0.5, horizon)

    def draw(self) -> Sample:
        canvas, chance = self.canvas, self.chance
        self.plan_sides()
        self.plan_crossing()
        self.plan_cars()
        draw_sky(canvas, chance, self.weather)
        draw.skyline(canvas, chance)
        self.draw_ground()
        shade_ground(canvas, chance, self.shadows)
        for _, draw_thing in sorted(self.plan, key=lambda item: -item[0]):  # far to near
            draw_thing()
        depth = canvas.depth()
        image = expose(canvas, chance, self.weather, depth)
        return {"image": image, "mask": make_mask(canvas), "depth": depth, "instances": make_instances(canvas)}

    def add(self, draw_thing: Callable[..., None], s: float, z: float, *details: Any, shadow: Point | None = None) -> None:
        """Its shadow is that of something upright: so wide, from so low to so high."""
        self.plan.append((z, partial(draw_thing, self.canvas, self.chance, s, z, *details)))
        if shadow:
            ds, dz = self.sun
            width, low, high = shadow
            corners = ((low, -width / 2), (low, width / 2), (high, width / 2), (high, -width / 2))
            self.shadows.append((self.weather.shadow, [(s + ds * y + across, 0.0, z + dz * y) for y, across in corners]))

    def plan_sides(self) -> None:
        """A street has its kind of trees, lamps and buildings, alike on both sides."""
        chance = self.chance
        leaves = LEAVES[chance.below(6) :][:2]
        tall, gaps = chance.between(6, 16), chance.between(0.05, 0.35)
        lamp, reach = chance.between(5.5, 8), chance.between(1.2, 2.2)
        for side in self.walks:
            self.plan_buildings(side, tall, gaps)
            self.plan_trees(side, leaves)
            self.plan_lamps(side, lamp, reach)
            self.plan_signs(side)
            self.plan_people(side)

    def plan_buildings(self, side: int, tall: float, gaps: float) -> None:
        chance, sun = self.chance, self.sun[0]
        lit = 1 + math.copysign(0.35 * self.weather.shadow, side * sun)
        z, gap = chance.between(-12, 1), True
        while z < 90:
            s = side * self.half + side * (self.walks[side] + max(0, chance.between(-3, 2.5)))
            near = max(z, 1.2)
            z = max(z + chance.between(8, 20), 2.5)
            height = tall * chance.between(0.7, 1.5)
            self.add(draw.building, s, z, near, height, lit, gap)
            if side * sun < 0:  # the sun is behind it
                self.shadows.append((self.weather.shadow, strip(s, s + sun * height * 0.6, near, z)))
            gap = chance.happens(gaps)
            if gap:
                z += chance.between(3, 12)

    def plan_trees(self, side: int, leaves: tuple[Point, ...]) -> None:
        chance = self.chance
        s = side * self.half + side * 0.9
        for z in np.arange(chance.between(9, 20), 75, chance.pick((9, 14, 22, 99))).tolist():
            height = chance.between(5, 9)
            self.add(draw.tree, s, z, height, chance.tint(leaves, 12), shadow=(height / 2, height / 3, height))

    def plan_lamps(self, side: int, height: float, reach: float) -> None:
        """Only where a post is at least a pixel and a half wide in a picture 144 high."""
        chance = self.chance
        s = side * self.half + side * 0.5
        for z in np.arange(chance.between(8, 16), chance.pick((0, 24, 24, 24)), chance.between(11, 16)).tolist():
            self.add(draw.lamp, s, z, height, -side * reach, shadow=(0.25, 0, height))

    def plan_signs(self, side: int) -> None:
        chance = self.chance
        for _ in range(int(chance.between(1.4, 3.4))):
            s = side * self.half + side * chance.between(0.35, 0.9)
            self.add(draw.sign, s, chance.between(8.5, 17), shadow=(0.2, 0, 2.5))

    def plan_people(self, side: int) -> None:
        """On the sidewalk, most of them near."""
        chance = self.chance
        for _ in range(chance.below(6)):
            s = side * self.half + side * chance.between(0.6, self.walks[side] - 0.4)
            far = chance.random() ** 2
            nearest = 1.2 * abs(s) + 1.5
            self.add(draw.person, s, nearest * (1 - far) + 20 * far, KERB, shadow=(0.35, 0, 1.6))

    def plan_crossing(self) -> None:
        """People on the road."""
        chance = self.chance
        for _ in range(chance.below(3)):
            z = self.zebra + chance.between(0.5, 2.5) if self.zebra else chance.between(7, 18)
            self.add(draw.person, chance.between(-1, 1) * self.half, z, 0, shadow=(0.35, 0, 1.6))

    def plan_cars(self) -> None:
        chance = self.chance
        driving_side = chance.pick((-1, 1))
        cars = []
        for side in (-1, 1):
            heading = (0 if side == driving_side else math.pi) + chance.between(-0.04, 0.04)
            parked = np.arange(chance.between(8, 14), 55 if self.half > 4.3 else 0, chance.between(5.6, 7)).tolist()
            cars += [(side * (self.half - 1.1), z, heading) for z in parked if chance.happens(0.5)]
            z = chance.between(9, 40)
            while z < 70:
                cars.append((side * self.half * 0.32, z, heading))
                z += chance.between(9, 50)
        if chance.happens(0.12):
            turning = chance.between(-0.5, 0.5) * self.half, chance.between(10, 22), math.pi * chance.between(0.4, 0.6)
            cars = [car for car in cars if abs(car[1] - turning[1]) > 6] + [turning]
        for s, z, heading in cars:
            self.add_car(s, z, heading)

    def add_car(self, s: float, z: float, heading: float) -> None:
        """It also darkens the ground below itself."""
        half_width, half_length = 1 + abs(math.sin(heading)), 1 + abs(math.cos(heading))
        self.add(draw.car, s, z, heading, shadow=(2 * half_width, 0, 1.2))
        self.shadows.append((0.6, strip(s - half_width, s + half_width, z - half_length, z + half_length)))

    def draw_ground(self) -> None:
        canvas, chance = self.canvas, self.chance
        paving = chance.tint(PAVING, 12)
        asphalt = chance.tint(ASPHALT, 8) * (0.8 if self.weather.rain else 1)
        canvas.surface(SIDEWALK, strip(-400, 400, y=KERB), paving + chance.between(-12, 12))
        draw_road(canvas, chance, self.half, asphalt)
        draw_markings(canvas, chance, self.half, self.zebra)
        for side, width in self.walks.items():
            draw_sidewalk(canvas, chance, side * self.half, side * (self.half + width), paving)


def draw_road(canvas: Canvas, chance: Chance, half: float, asphalt: Array) -> None:
    canvas.surface(ROAD, strip(-half, half), asphalt)
    for _ in range(5):  # repairs and stains
        s, z = chance.between(-half + 0.5, half - 1.5), chance.between(4, 30)
        tone = chance.between(-16, 16)
        patch = strip(s, s + chance.between(0.5, 1.5), z, z + chance.between(1, 5))
        canvas.fill(patch, asphalt + tone, detail=True)


def draw_markings(canvas: Canvas, chance: Chance, half: float, zebra: float | None) -> None:
    white, yellow = chance.tint(WHITE_LINES, 14), chance.tint(YELLOW_LINES, 14)
    starts = np.arange(chance.between(2, 6), 90, chance.between(6, 9)).tolist()
    dashes = [strip(-0.08, 0.08, z, z + 3) for z in starts]
    double = [strip(s, s + 0.13) for s in (-0.2, 0.08)]
    edges = [strip(s, s + 0.13) for s in (-half + 0.3, half - 0.43)]
    lines = chance.pick((dashes, dashes, double, edges, edges + double))
    canvas.fill(lines, chance.pick((white, white, yellow)), detail=True)
    if zebra:
        bars = [strip(s, s + 0.5, zebra, zebra + 3) for s in np.arange(0.4 - half, half - 0.6).tolist()]
        canvas.fill(bars, white, detail=True)


def draw_sidewalk(canvas: Canvas, chance: Chance, curb: float, edge: float, paving: Array) -> None:
    joints = np.arange(3, 24, chance.between(1, 2)).tolist()
    canvas.surface(SIDEWALK, strip(curb, edge, y=KERB), paving)
    canvas.fill([strip(curb, edge, z, z + 0.05, KERB) for z in joints], paving * 0.82, detail=True)
    canvas.fill(strip(curb, curb + math.copysign(0.25, curb), y=KERB), paving * 1.14, detail=True)


def shade_ground(canvas: Canvas, chance: Chance, shadows: list[tuple[float, list[Point]]]) -> None:
    """Shadows and grain, on the ground alone: before anything stands on it."""
    shadows = sorted(shadows)
    corners = np.clip([points for _, points in shadows], (-99, 0, 1), (99, 0, FAR))
    shade = np.full(canvas.seen.shape, 255, np.uint8)
    for (dark, _), shape in zip(shadows, to_fixed(canvas.camera.project(corners)), strict=True):
        cv2.fillPoly(shade, [shape], 255 * (1 - dark), cv2.LINE_AA, SHIFT)
    first = int(canvas.camera.horizon) + 2
    ground = canvas.image[first:]
    light = (1 + ground_grain(canvas, chance, first)) * shade[first:] / 255
    canvas.image[first:] = np.clip(ground * light[..., None], 0, 255)


def ground_grain(canvas: Canvas, chance: Chance, first: int) -> Array:
    """The roughness of the ground, from this row down: fainter with distance."""
    camera = canvas.camera
    height, width = canvas.seen.shape
    rows, columns = np.arange(first, height, dtype=np.float32), np.arange(width, dtype=np.float32)
    z = np.float32(camera.focal * camera.height) / (rows[:, None] - np.float32(camera.horizon))
    s = (columns - np.float32(camera.x)) * (z / np.float32(camera.focal))
    tile = (chance.random((64, 64), np.float32) - np.float32(0.5)) * np.float32(0.16)
    return tile[(z * 7).astype(np.int32) & 63, (s * 20).astype(np.int32) & 63] * np.minimum(8 / z, 1)


def draw_sky(canvas: Canvas, chance: Chance, weather: Weather) -> None:
    rows, columns = int(canvas.camera.horizon) + 1, canvas.image.shape[1]
    top, low = np.array(weather.sky, np.float32)
    cloud = np.full((rows, columns), 0.6 * weather.clouds - 0.85, np.float32)
    for cells, weight in ((4, 0.4), (9, 0.3), (20, 0.2), (45, 0.1)):
        grid = chance.integers(0, 256, (cells, cells), np.uint8)
        cloud += cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_LINEAR_EXACT) * np.float32(weight / 255)
    cover = np.clip(cloud * 4, 0, np.float32(0.8))[..., None]
    sky = top + (low - top) * (np.arange(rows, dtype=np.float32) / np.float32(rows))[:, None, None]
    canvas.image[:rows] = np.clip(sky + (low * np.float32(1.06) - cover * 20 - sky) * cover, 0, 255)


def expose(canvas: Canvas, chance: Chance, weather: Weather, depth: Array) -> Array:
    """What the air and the camera do to the picture."""
    noise = 1 + chance.below(7)
    haze = depth / (depth + np.float32(weather.haze * chance.between(0.7, 1.4))) * (canvas.seen > 0)
    air = np.array(weather.sky[1], np.float32)
    image: Array = (canvas.image + (air - canvas.image) * haze[..., None]).astype(np.uint8)
    if weather.rain:
        image = add_rain(image, chance)
    if chance.happens(0.2):
        image = cv2.GaussianBlur(image, (2 * (len(image) // 240) + 1,) * 2, 0)
    image = cv2.LUT(image, tone_curve(chance))
    added = chance.integers(0, 2 * noise + 1, image.shape, np.uint8)
    return cv2.subtract(cv2.add(image, added), np.full_like(image, noise))


def add_rain(image: Array, chance: Chance) -> Array:
    height, width = image.shape[:2]
    fall = np.array([(0, 0), (0.005 * height, 0.03 * height)])
    drops = to_fixed(chance.random((160, 1, 2)) * (width, height) + fall)
    wet = cv2.polylines(image.copy(), list(drops), False, (214, 218, 222), 1, cv2.LINE_AA, SHIFT)
    return image // 4 * 3 + wet // 4


def tone_curve(chance: Chance) -> Array:
    """Contrast, a cast of colour, brightness: the new levels of each channel."""
    levels = (np.arange(256)[:, None] - 112) * chance.between(0.9, 1.15) + 112
    cast = [chance.between(0.95, 1.05) for _ in range(3)]
    levels = levels * cast * chance.between(0.92, 1.12)
    return np.clip(levels, 0, 255).astype(np.uint8)[:, None]


def make_mask(canvas: Canvas) -> Array:
    """Void lies around a thing, on what is behind it: the later thing, of the greater number, is the nearer one."""
    labels, seen = canvas.labels(), canvas.seen
    outlined = np.where(np.isin(labels, OUTLINED), np.arange(len(labels)), 0).astype(np.uint16)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(len(seen) / 144) + 1,) * 2)
    return np.where(cv2.dilate(outlined[seen], brush) > seen, np.uint8(IGNORE), labels[seen])


def make_instances(canvas: Canvas) -> Array:
    labels, seen = canvas.labels(), canvas.seen
    counted = np.isin(labels, COUNTED) & (np.bincount(seen.ravel(), minlength=len(labels)) > 0)
    return np.where(counted, np.cumsum(counted), 0).astype(np.uint16)[seen]
