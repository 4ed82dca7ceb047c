"""Augmentation of samples. A transform is called as transform(image=..., mask=...) and returns such a dict."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segue.images import Raster
from segue.labels import IGNORE

Transform = Callable[..., dict[str, Any]]
"""Takes a sample's arrays by name and returns them by name: Albumentations' convention, so its pipelines fit too."""

# How each array of a sample is moved: its interpolation, and what stands where no picture was.
GEOMETRY = {
    "image": (cv2.INTER_LINEAR, 0),
    "mask": (cv2.INTER_NEAREST, IGNORE),
    "depth": (cv2.INTER_NEAREST, 0),
    "instances": (cv2.INTER_NEAREST, 0),
}
LONGEST = 2**15 - 1  # cv2.remap reads from pictures with shorter sides alone


@dataclass(frozen=True)
class Augment:
    """Random scale, rotation, bending, crop, mirror image and colours. The randomness is that of Python's `random`.

    The geometry is one resize, or one warp where there is a rotation or a bending, so that every array is read once; a mask takes
    its nearest label or, outside the picture, 255.
    """

    crop: tuple[int, int]
    """(height, width) of what comes out, in pixels."""
    scale: tuple[float, float] = (1.0, 1.0)
    """The picture is enlarged by a factor between these two, evenly drawn on a logarithmic axis."""
    flip: bool = True
    """Mirror left and right, half of the time."""
    jitter: float = 0.0
    """Brightness, contrast and saturation are each multiplied by 1 - jitter to 1 + jitter."""
    rotate: float = 0.0
    """The crop is turned about its centre by at most so many degrees to either side."""
    elastic: float = 0.0
    """The crop is bent by shifts drawn on a 3x3 grid, with this standard deviation in pixels (U-Net, section 3.1: 10)."""
    short_side: int = 0
    """The picture is first resized so that its shorter side has so many pixels; 0 leaves it as it is."""

    def __post_init__(self) -> None:
        if min(self.crop) < 1:
            raise ValueError(f"crop (={self.crop}) must be a height and a width of at least 1 pixel")
        if not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise ValueError(f"scale (={self.scale}) must be a smallest and a largest factor, both above 0 and finite")
        for name in ("rotate", "elastic"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} (={getattr(self, name)}) must be a finite number and not negative; 0 leaves it out")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter (={self.jitter}) must be at least 0 and below 1")

    def __call__(self, **sample: NDArray[Any]) -> dict[str, NDArray[Any]]:
        unknown = sample.keys() - GEOMETRY.keys()
        if unknown:
            raise ValueError(f"a sample has {', '.join(sorted(unknown))}, but Augment knows {', '.join(GEOMETRY)} alone")
        height, width = sample["image"].shape[:2]
        scale = float(np.exp(random.uniform(*np.log(self.scale))))
        if self.short_side:
            scale *= self.short_side / min(height, width)
        rows, columns = Window.draw(height, self.crop[0], scale), Window.draw(width, self.crop[1], scale)
        mirror = self.flip and random.random() < 0.5
        if not (self.rotate or self.elastic):
            moved = {name: cut(array, rows, columns, mirror, *GEOMETRY[name]) for name, array in sample.items()}
        else:
            matrix = self.turn(np.array([[1 / scale, 0, columns.place], [0, 1 / scale, rows.place]]), mirror)
            moved = self.bend(sample, matrix) if self.elastic else warp_all(sample, matrix, self.crop)
        if self.jitter:
            moved["image"] = jitter_colors(moved["image"], self.jitter)
        return moved

    def turn(self, matrix: NDArray[np.float64], mirror: bool) -> NDArray[np.float64]:
        """The 2x3 matrix from the crop's pixels to the picture's, with the crop mirrored, and turned by a random angle."""
        if mirror:
            matrix = matrix @ np.array([[-1, 0, self.crop[1] - 1], [0, 1, 0], [0, 0, 1]])
        middle = (self.crop[1] - 1) / 2, (self.crop[0] - 1) / 2
        angle = random.uniform(-self.rotate, self.rotate) if self.rotate else 0.0
        return matrix @ np.vstack([cv2.getRotationMatrix2D(middle, angle, 1), (0, 0, 1)])

    def bend(self, sample: dict[str, NDArray[Any]], matrix: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        height, width = sample["image"].shape[:2]
        if max(height, width) >= LONGEST:
            raise ValueError(
                f"elastic (={self.elastic}) bends images with sides below {LONGEST} pixels, and this one has {width} x {height} "
                "(width x height); cut it to tiles, or take elastic 0"
            )
        x, y = bent_places(matrix, self.crop, self.elastic)
        return {name: bend(array, x, y, *GEOMETRY[name]) for name, array in sample.items()}


@dataclass(frozen=True)
class ObjectCrop:
    """DeconvNet's first stage (section 4.2): a square about one object, 1.2 times as large, in which all else is background.

    It is resized to 250 / 224 of the crop, as in the authors' code, and then augmented. An object is a connected region of one
    class but 0, which must be the background; where an image has none, it is augmented as it is.
    """

    augment: Augment

    def __call__(self, **sample: NDArray[Any]) -> dict[str, NDArray[Any]]:
        mask = sample["mask"]
        classes = [int(label) for label in np.unique(mask) if label not in (0, IGNORE)]
        if not classes:
            return self.augment(**sample)
        _, regions, boxes, _ = cv2.connectedComponentsWithStats((mask == random.choice(classes)).astype(np.uint8))
        chosen = random.randrange(1, len(boxes))
        left, top, width, height = (int(number) for number in boxes[chosen][:4])
        size = round(self.augment.crop[0] * 250 / 224), round(self.augment.crop[1] * 250 / 224)
        step = 1.2 * max(width / size[1], height / size[0])
        first_x, first_y = left + (width - step * size[1]) / 2, top + (height - step * size[0]) / 2
        matrix = np.array([[step, 0, first_x + (step - 1) / 2], [0, step, first_y + (step - 1) / 2]])
        alone = {**sample, "mask": np.where((mask == IGNORE) | (regions == chosen), mask, 0).astype(np.uint8)}
        return self.augment(**warp_all(alone, matrix, size))


class Window(NamedTuple):
    """Where a crop lies in a picture that is enlarged by `scale`, along one axis."""

    length: int
    """Of the crop."""
    scale: float
    first: int
    """The picture's pixel at which the crop begins."""
    padding: int
    """Pixels of the crop that lie before the picture."""
    seen: int
    """Pixels of the crop that show the picture."""

    @classmethod
    def draw(cls, whole: int, length: int, scale: float) -> "Window":
        """Anywhere inside a picture of `whole` pixels, from a whole pixel on; where the crop is longer, anywhere around it."""
        seen = min(length, max(1, round(whole * scale)))
        first = random.randint(0, max(0, math.floor(whole - length / scale + 1e-9)))
        return cls(length, scale, first, random.randint(0, length - seen), seen)

    @property
    def place(self) -> float:
        """Where in the picture the middle of the crop's first pixel lies."""
        return self.first + (0.5 - self.padding) / self.scale - 0.5

    def nearest(self, whole: int) -> NDArray[np.intp]:
        """The picture's pixel that each of the seen ones shows."""
        places = self.first + ((np.arange(self.seen) + 0.5) / self.scale).astype(np.intp)
        return places.clip(max=whole - 1)


def cut(array: NDArray[Any], rows: Window, columns: Window, mirror: bool, interpolation: int, fill: int) -> NDArray[Any]:
    """The crop of an array (H, W) or (H, W, C), enlarged and perhaps mirrored; `fill` outside the picture.

    It reads what is seen and no more, by a resize, which takes a quarter of the time of a warp.
    """
    bottom, right = (axis.first + math.ceil(axis.seen / axis.scale) + 1 for axis in (rows, columns))  # one more, to blend with
    if rows.scale == 1:
        part = array[rows.first : rows.first + rows.seen, columns.first : columns.first + columns.seen].copy()
    elif interpolation == cv2.INTER_NEAREST or min(rows.seen, columns.seen) == 1:
        part = array[rows.nearest(array.shape[0])][:, columns.nearest(array.shape[1])]
    else:
        seen = array[rows.first : bottom, columns.first : right]
        part = cv2.resize(seen, None, fx=columns.scale, fy=rows.scale, interpolation=interpolation)
        part = part[: rows.seen, : columns.seen].reshape(rows.seen, columns.seen, *array.shape[2:])
    if mirror:
        part = cv2.flip(part, 1).reshape(part.shape)
    if part.shape[:2] == (rows.length, columns.length):
        return part
    whole = np.full((rows.length, columns.length, *array.shape[2:]), fill, array.dtype)
    whole[rows.padding : rows.padding + rows.seen, columns.padding : columns.padding + columns.seen] = part
    return whole


def warp_all(sample: dict[str, NDArray[Any]], matrix: NDArray[np.float64], size: tuple[int, int]) -> dict[str, NDArray[Any]]:
    return {name: warp(array, matrix, size, *GEOMETRY[name]) for name, array in sample.items()}


def warp(array: NDArray[Any], matrix: NDArray[np.float64], size: tuple[int, int], interpolation: int, fill: int) -> NDArray[Any]:
    """The array (H, W) or (H, W, C) seen through `matrix` (from the result's pixels to the array's); `fill` outside."""
    flags, outside = interpolation | cv2.WARP_INVERSE_MAP, (fill,) * 4
    parts = [
        cv2.warpAffine(part, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=outside)
        for part in by_channels(array)
    ]
    return join(parts, (*size, *array.shape[2:]))


def bent_places(
    matrix: NDArray[np.float64], size: tuple[int, int], deviation: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel of the result comes from, x and y: shifted as a random 3x3 grid is, bicubically, and then by `matrix`.

    The grid is not enlarged by OpenCV, which may round the places on it to 1/32 of a cell: the shifts would go in steps.
    """
    rows, columns = (cubic_shares(count) for count in size)
    nodes = np.array([[[random.gauss(0, deviation) for _ in range(3)] for _ in range(3)] for _ in range(2)])
    shift_x, shift_y = (rows @ grid @ columns.T for grid in nodes)
    x, y = np.arange(size[1]) + shift_x, np.arange(size[0])[:, None] + shift_y
    places = [(row[0] * x + row[1] * y + row[2]).astype(np.float32) for row in matrix]
    return places[0], places[1]


def cubic_shares(count: int) -> NDArray[np.float64]:
    """The share of each of 3 nodes in `count` places evenly from the first to the last, (count, 3): OpenCV's cubic, a = -0.75.

    Beyond the ends the outer nodes go on.
    """
    a = -0.75
    far = np.abs(np.linspace(0, 2, count)[:, None] - np.arange(-1, 4))  # of each node, one more on either side
    near = (a + 2) * far**3 - (a + 3) * far**2 + 1
    shares = np.where(far <= 1, near, np.where(far < 2, a * (far**3 - 5 * far**2 + 8 * far - 4), 0))
    return np.column_stack([shares[:, :2].sum(axis=1), shares[:, 2], shares[:, 3:].sum(axis=1)])


def bend(array: NDArray[Any], x: NDArray[np.float32], y: NDArray[np.float32], interpolation: int, fill: int) -> NDArray[Any]:
    """The array (H, W) or (H, W, C) read at the places (x, y); `fill` outside."""
    outside = (fill,) * 4
    parts = [
        cv2.remap(part, x, y, interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=outside) for part in by_channels(array)
    ]
    return join(parts, (*x.shape, *array.shape[2:]))


def by_channels(array: NDArray[Any]) -> list[NDArray[Any]]:
    """The channels of an array in threes and ones: OpenCV blends these alike, and other numbers more coarsely or not at all."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if channels in (1, 3, 4):
        return [array]
    threes = channels - channels % 3
    cuts = [*range(3, threes, 3), *range(max(threes, 1), channels)]
    return [np.ascontiguousarray(part) for part in np.split(array, cuts, axis=2)]


def join(parts: list[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[Any]:
    return (parts[0] if len(parts) == 1 else np.dstack(parts)).reshape(shape)


def jitter_colors(image: Raster, amount: float) -> Raster:
    """Random brightness, contrast and (for RGB) saturation, all in one matrix; integers are kept within what their type holds."""
    brightness, contrast, saturation = (random.uniform(1 - amount, 1 + amount) for _ in range(3))
    middle = cv2.mean(image.reshape(len(image), -1))[0] * (1 - contrast)  # contrast turns about the mean
    if image.shape[2] == 3:
        grey = np.array([0.299, 0.587, 0.114])
        colors = saturation * np.eye(3) + (1 - saturation) * grey  # each row adds to 1: grey stays grey
        matrix = np.column_stack([contrast * colors, np.full(3, middle)]) * brightness
        return np.asarray(cv2.transform(image, matrix), image.dtype)
    matrix = np.array([[contrast, middle]]) * brightness
    return np.asarray(cv2.transform(image.reshape(image.shape[0], -1), matrix), image.dtype).reshape(image.shape)
