"""Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials.

Philipp Krähenbühl and Vladlen Koltun, NIPS 2011, https://arxiv.org/abs/1210.5644; put after the network by DeepLab v1
(https://arxiv.org/abs/1412.7062), DeepLab v2 (https://arxiv.org/abs/1606.00915) and DeconvNet (https://arxiv.org/abs/1505.04366).

Every pixel is tied to every other. Two pixels at the places p, in pixels, with the colours I, 0 to 255, want the same label, the
more the larger the sum K of

    gaussian_weight * exp(-|p_i - p_j|² / 2 gaussian_xy²)                                          smoothness
    bilateral_weight * exp(-|p_i - p_j|² / 2 bilateral_xy² - |I_i - I_j|² / 2 bilateral_rgb²)      appearance

With P the network's probabilities, mean field begins with Q = softmax(log P) and then takes Q = softmax(log P + K Q) ten times.
In a softmax it is the same to help a label as to hinder all others alike, which is how the Potts model has it.

Decided as in the code that the authors released later (densecrf 2), where it and the paper differ:
- Each kernel is normalised, D^-1/2 K D^-1/2, with D the sums of its rows.
- The sum includes the pixel itself; in the paper it has j != i.

P is raised to at least 1e-5 before the logarithm, as is the habit of the tools around that code.

The smoothness kernel is summed as it stands, out to 4 standard deviations; the appearance kernel on the permutohedral lattice, as
in the paper, which is approximate (see Bilateral). Against the full sums, on cuttings of CamVid of about 10 000 pixels with
predictions drawn from the truth and the values in CRFS: the label is the same at 97.7 % of the pixels or more, in half of the
cases at 99.7 % or more, where up to 15 % have another label than the prediction. At single pixels near a tie Q may be quite
another.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segue.labels import Image
from segue.machine.compiled import compile_loop

Maps = NDArray[np.float32]
"""(H, W, K) within this file, so that a pixel's classes lie side by side."""

FLOOR = np.float32(1e-5)
AXES = 5  # of the appearance kernel: y, x, red, green, blue
CORNERS = AXES + 1  # of a simplex
CHANNELS = 128  # as many as OpenCV 5 takes at once


@dataclass(frozen=True)
class DenseCRF:
    """The fully connected CRF as one callable, from an image and what a network says of it to better probabilities.

    `CRFS["deeplabv2"](image, probabilities).argmax(axis=0)` is the mask.
    """

    gaussian_weight: float
    """Of the smoothness kernel; 0 switches it off."""
    gaussian_xy: float
    """Its standard deviation in pixels."""
    bilateral_weight: float
    """Of the appearance kernel; 0 switches it off."""
    bilateral_xy: float
    """Its standard deviation in pixels."""
    bilateral_rgb: float
    """Its standard deviation in colour, of 0 to 255."""
    iterations: int = 10
    """Of mean field."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, weight = getattr(self, field.name), field.name.endswith("weight")
            if not 0 <= value < math.inf or (value == 0 and not weight):
                raise ValueError(f"{field.name} (={value}) must be finite and {'at least' if weight else 'above'} 0")

    def __call__(self, image: Image, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities, float32 (K, H, W), from an image uint8 (H, W, 3) and a network's probabilities, float32 (K, H, W).

        The latter are the softmax of the network's logits at the size of the image. They need not add up to 1, since scaling
        those of a pixel changes nothing; the result does. ValueError if a shape, a type or a value is not as said here.
        """
        check(image, probabilities)
        unary = np.log(np.maximum(probabilities.transpose(1, 2, 0), FLOOR, order="C"))  # (H, W, K)
        smoothness = Gaussian(image.shape[:2], self.gaussian_xy, self.gaussian_weight)
        appearance = Bilateral(image, self.bilateral_xy, self.bilateral_rgb, self.bilateral_weight)
        q = softmax(unary)
        for _ in range(self.iterations):
            q = softmax(unary + smoothness(q) + appearance(q))
        return np.ascontiguousarray(q.transpose(2, 0, 1))


CRFS: dict[str, DenseCRF] = {
    "deeplabv1": DenseCRF(gaussian_weight=3, gaussian_xy=3, bilateral_weight=4, bilateral_xy=121, bilateral_rgb=5),
    "deeplabv2": DenseCRF(gaussian_weight=3, gaussian_xy=1, bilateral_weight=4, bilateral_xy=67, bilateral_rgb=3),
    "deeplabv2-vgg16": DenseCRF(gaussian_weight=2, gaussian_xy=2, bilateral_weight=4, bilateral_xy=65, bilateral_rgb=3),
    "deconvnet": DenseCRF(gaussian_weight=3, gaussian_xy=3, bilateral_weight=5, bilateral_xy=20, bilateral_rgb=3),
}
"""By network, with the values chosen on PASCAL VOC 2012.

- deeplabv2 (ResNet-101) and deconvnet: the values of the authors.
- deeplabv2-vgg16 (ASPP): as two reimplementations have them, independently of each other.
- deeplabv1 (LargeFOV) is not settled. The paper fixes the smoothness kernel and says that the appearance kernel was chosen on 100
  images, not what came out. Reimplementations have (weight, xy, rgb) 4, 121, 5 or 5, 140, 5; scripts that go back to the
  authors' have 4, 49, 5 or 5, 50, 3, where a search may just have begun. We took 4, 121, 5: it is what a list that tells the
  variants of v1 apart gives for this one.
"""


def check(image: Image, probabilities: NDArray[np.float32]) -> None:
    """ValueError if they are not what a DenseCRF is called with."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"image has the shape {tuple(image.shape)} and the type {image.dtype}; it must be (H, W, 3) of uint8: "
            "the appearance kernel compares three colours of 0 to 255; of a grey image, repeat the channel"
        )
    height, width = image.shape[:2]
    shape = tuple(probabilities.shape)
    if len(shape) != 3 or shape[1:] != (height, width) or not shape[0] or probabilities.dtype != np.float32:
        raise ValueError(
            f"probabilities has the shape {shape} and the type {probabilities.dtype}; it must be "
            f"(K, {height}, {width}) of NumPy's float32: one map for each of K classes, of the image's size"
        )
    low, high = probabilities.min(), probabilities.max()
    if not (low >= -0.001 and high <= 1.001):  # as rounding or a resize may leave them; neither is true of nan
        raise ValueError(f"probabilities has values of {low} to {high}; they must be 0 to 1: take the softmax of logits over K")


def softmax(x: Maps) -> Maps:
    e = np.exp(x - x.max(axis=2, keepdims=True))
    e /= e.sum(axis=2, keepdims=True)
    return e


class Gaussian:
    """The smoothness kernel, normalised and times its weight: called with Q (H, W, K) it gives K Q, of the same shape."""

    def __init__(self, size: tuple[int, ...], xy: float, weight: float) -> None:
        radius = min(math.ceil(4 * xy), max(size) - 1)
        self.taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / xy) ** 2).astype(np.float32)
        self.norm = np.sqrt(np.float32(weight) / self.sum(np.ones((*size, 1), np.float32)))

    def __call__(self, q: Maps) -> Maps:
        return self.norm * self.sum(self.norm * q)

    def sum(self, q: Maps) -> Maps:
        parts = [np.ascontiguousarray(q[:, :, first : first + CHANNELS]) for first in range(0, q.shape[2], CHANNELS)]
        return np.dstack([cv2.sepFilter2D(part, -1, self.taps, self.taps, borderType=cv2.BORDER_CONSTANT) for part in parts])


class Bilateral:
    """The appearance kernel, normalised and times its weight: called with Q (H, W, K) it gives K Q, of the same shape.

    It is summed on the permutohedral lattice (Adams, Baek and Davis, Eurographics 2010). A pixel is a point in five dimensions,
    y, x, red, green and blue, each in standard deviations; these dimensions are cut into simplices. A pixel's Q is spread over
    the six corners of its simplex by its barycentric coordinates; the sums at the corners are blurred by 1 2 1 along six
    directions; and each pixel gathers from its corners as it was spread.

    Coordinates are chosen so that the corners are at the whole numbers. Then the simplex of a point begins at the low corner of
    its unit cell and takes one step along each axis, the one with the largest fraction first; and the directions are the five
    axes and the diagonal of all five. Corners of no pixel's simplex are left out, and count as 0.
    """

    def __init__(self, image: Image, xy: float, rgb: float, weight: float) -> None:
        height, width = image.shape[:2]
        features = np.empty((height, width, AXES))
        features[:, :, 0] = np.arange(height)[:, None] / xy
        features[:, :, 1] = np.arange(width) / xy
        features[:, :, 2:] = image / rgb
        # Any two of the six directions have the same angle. The squared step of 1.25 gives the variance 1: 3/4 are from the blur
        # and 1/8 each from spreading and gathering.
        products = 1.25 * (CORNERS * np.eye(AXES) - 1) / AXES
        points = features.reshape(-1, AXES) @ np.linalg.inv(np.linalg.cholesky(products))
        points -= np.floor(points.min(axis=0)) - 1  # leaves a cell free for neighbours, as do the 3 below
        extents = [int(extent) + 3 for extent in points.max(axis=0)]
        if math.prod(extents) >= 2**63:
            raise ValueError(
                f"bilateral_rgb (={rgb}) and bilateral_xy (={xy}) are so small that the lattice of {height} x {width} pixels "
                "has more cells than can be numbered; with a bilateral_rgb of 0.3 already no two colours are alike"
            )
        strides = np.array([math.prod(extents[:axis]) for axis in range(AXES)], np.int64)
        table = np.full(1 << (2 * CORNERS * len(points)).bit_length(), -1, np.int32)
        self.corners, self.shares, self.neighbors = compiled()[0](points, strides, table)
        norm = np.sqrt(np.float32(weight) / self(np.ones((height, width, 1), np.float32)))
        self.shares *= norm.reshape(-1, 1)

    def __call__(self, q: Maps) -> Maps:
        flat = q.reshape(-1, q.shape[2])
        summed: Maps = compiled()[1](self.corners, self.shares, self.neighbors, flat)
        return summed.reshape(q.shape)


def find(key: Any, keys: Any, table: Any) -> Any:
    """The slot of the hash table that has the number of this key, or the free one where it belongs."""
    mask = len(table) - 1
    mixed = key * 0x1E3779B97F4A7C15
    slot = (mixed ^ (mixed >> 32)) & mask
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot


def build(points: Any, strides: Any, table: Any) -> Any:
    """The lattice of N points (N, 5): the numbers of each point's corners, (N, 6), its shares in them, (N, 6), and the numbers of
    the two neighbours of each of M corners, (6, M, 2), by direction; M where there is none. A corner's key is its coordinates
    times the strides."""
    corners = np.empty((len(points), CORNERS), np.int32)
    shares = np.empty((len(points), CORNERS), np.float32)
    keys = np.empty(len(points) * CORNERS, np.int64)
    axes, fractions = np.empty(AXES, np.int64), np.zeros(CORNERS)  # by falling fraction; the last stays 0
    count = 0
    for n in range(len(points)):
        key = 0
        for axis in range(AXES):
            cell = int(points[n, axis])
            key += cell * strides[axis]
            fraction = points[n, axis] - cell
            place = axis
            while place > 0 and fractions[place - 1] < fraction:
                fractions[place], axes[place] = fractions[place - 1], axes[place - 1]
                place -= 1
            fractions[place], axes[place] = fraction, axis
        above = 1.0
        for corner in range(CORNERS):
            slot = find(key, keys, table)
            if table[slot] < 0:
                table[slot], keys[count] = count, key
                count += 1
            corners[n, corner] = table[slot]
            shares[n, corner] = above - fractions[corner]
            if corner < AXES:
                above = fractions[corner]
                key += strides[axes[corner]]
    neighbors = np.empty((CORNERS, count, 2), np.int32)
    for direction in range(CORNERS):
        step = strides[direction] if direction < AXES else strides.sum()
        for number in range(count):
            for side in range(2):
                found = table[find(keys[number] + (step if side else -step), keys, table)]
                neighbors[direction, number, side] = found if found >= 0 else count
    return corners, shares, neighbors


def filter_maps(corners: Any, shares: Any, neighbors: Any, q: Any) -> Any:
    """Spread q (N, K) to the corners, blur along each direction, gather: (N, K)."""
    classes = q.shape[1]
    values = np.zeros((neighbors.shape[1] + 1, classes), np.float32)  # the last row, of what is not there, stays 0
    blurred = np.zeros_like(values)
    for n in range(len(q)):
        for corner in range(CORNERS):
            number, share = corners[n, corner], shares[n, corner]
            for k in range(classes):
                values[number, k] += share * q[n, k]
    for direction in range(CORNERS):
        for number in range(neighbors.shape[1]):
            one, other = neighbors[direction, number]
            for k in range(classes):
                blurred[number, k] = values[number, k] + np.float32(0.5) * (values[one, k] + values[other, k])
        values, blurred = blurred, values
    summed = np.empty_like(q)
    for n in range(len(q)):
        for k in range(classes):
            total = np.float32(0)
            for corner in range(CORNERS):
                total += shares[n, corner] * values[corners[n, corner], k]
            summed[n, k] = total
    return summed


@cache
def compiled() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`build` and `filter_maps` as machine code. Each runs on one thread, without Python's lock, so that several images may be at
    work at once."""
    import numba
    from numba.extending import register_jitable

    register_jitable(find)
    maps, numbers = numba.float32[:, ::1], numba.int32[:, ::1]
    first = (numba.float64[:, ::1], numba.int64[::1], numba.int32[::1])
    second = (numbers, maps, numba.int32[:, :, ::1], maps)
    return compile_loop(build, first), compile_loop(filter_maps, second)
