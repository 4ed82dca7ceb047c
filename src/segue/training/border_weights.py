"""Weights of pixels between cells (U-Net), and edges between classes (DFN)."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segue.labels import IGNORE, Mask
from segue.machine.compiled import compile_loop


def label_edges(mask: Mask) -> Mask:
    """DFN's truth for its border network: 1 within 3 pixels of an edge between classes, 0 elsewhere, 255 where the mask is void.

    Canny's edges of the label map (thresholds 5, aperture 7), widened by 7x7, with void as class 0 beside them: the authors' way,
    but that they find edges before the crop and count void as no edge.
    """
    edges = cv2.Canny(np.where(mask == IGNORE, 0, mask).astype(np.uint8), 5, 5, apertureSize=7)
    wide = cv2.dilate(edges, np.ones((7, 7), np.uint8)) > 0
    return np.where(mask == IGNORE, IGNORE, wide).astype(np.uint8)


def border_weights(instances: NDArray[Any], w0: float = 10.0, sigma: float = 5.0) -> NDArray[np.float32]:
    """U-Net's weights between cells (equation 2, the border term alone): w0 exp(-(d1 + d2)^2 / (2 sigma^2)), float32 (H, W).

    instances: (H, W) integers, 0 background and one number a cell. d1, d2: the distances of a background pixel to the nearest
    pixel of the nearest cell and of the second nearest, in pixels. Inside cells, and where there are fewer than two, the weight
    is 0. Exact to 1e-5. Cells that touch have no background between them; the paper first cuts a line of it there.
    """
    if instances.ndim != 2 or instances.dtype.kind not in "iu" or ((instances < 0) | (instances >= 2**31)).any():
        what = f"shape {instances.shape} of {instances.dtype}"
        raise ValueError(f"instances ({what}) must be (height, width) of integers, 0 for background and 1 to 2^31 - 1 for cells")
    if not 0 <= w0 < math.inf or not 0 < sigma < math.inf:
        raise ValueError(
            f"w0 (={w0}) must not be negative, and sigma (={sigma}) must be above 0, both finite; U-Net has 10 and 5"
        )
    # Further away than this, even one of the two distances alone makes the weight less than 1e-6. (46,000^2 is still an int32.)
    reach = min(sigma * math.sqrt(2 * math.log(max(w0 / 1e-6, 1))), 46_000)
    # The two cells nearest within each column first, then along the rows over what the columns found: of three cells in one
    # column the furthest is never among a pixel's nearest two, as the same columns lie between.
    cells = np.zeros((*instances.T.shape, 2), np.int32)
    cells[..., 0] = instances.T
    squares = np.where(cells > 0, 0, math.ceil(reach**2)).astype(np.int32)
    for _ in range(2):
        found, distances = np.empty_like(cells), np.empty_like(squares)
        compiled_nearest_two()(cells, squares, math.ceil(reach**2), found, distances)
        cells, squares = (np.ascontiguousarray(array.swapaxes(0, 1)) for array in (found, distances))
    sums = np.sqrt(distances, dtype=np.float32).sum(axis=2)
    weights = w0 * np.exp(-(sums**2) / (2 * sigma**2))
    return np.where((instances == 0) & (found[..., 1] > 0), weights, 0).astype(np.float32)


def nearest_two(cells: Any, squares: Any, far: int, found: Any, distances: Any) -> None:
    """For each pixel the two nearest of the cells along its row, and the squares of their distances.

    All arrays are (H, W, 2), the nearer cell first: `cells` and `squares` tell of two cells at each place how far off the row
    they are. Where there is no cell nearer than `far`, a square, the cell is 0.
    """
    height, width = cells.shape[:2]
    for y in range(height):
        for x in range(width):
            cell1, square1, cell2, square2 = 0, far, 0, far
            offset = 0
            while offset < width and offset * offset < square2:
                for place in (x - offset, x + offset):
                    if 0 <= place < width:
                        for rank in range(2):
                            cell, square = cells[y, place, rank], squares[y, place, rank] + offset * offset
                            if square >= square2:
                                break
                            if cell == cell1:
                                square1 = min(square1, square)
                            elif square < square1:
                                cell1, square1, cell2, square2 = cell, square, cell1, square1
                            else:
                                cell2, square2 = cell, square
                offset += 1
            found[y, x, 0], found[y, x, 1] = cell1, cell2
            distances[y, x, 0], distances[y, x, 1] = square1, square2


@cache
def compiled_nearest_two() -> Callable[..., None]:
    """`nearest_two` as machine code, kept on the disk between runs where that can be; numba is slow to import."""
    import numba

    array = numba.int32[:, :, ::1]
    signature = numba.void(array, array, numba.int64, array, array)
    return compile_loop(nearest_two, signature)


def sample_borders(sample: Mapping[str, Any]) -> NDArray[np.float32]:
    """The border weights of a sample with instances; the line that its mask draws between two of them is background.

    They are those of the sample as it is: of a crop, a cell just outside does not count.
    """
    return border_weights(np.where(sample["mask"] == 0, 0, sample["instances"]))


def sample_edges(sample: Mapping[str, Any]) -> Mask:
    return label_edges(sample["mask"])
