"""The scores of the ISBI-2012 challenge on membranes under the electron microscope.

Arganda-Carreras et al.: Crowdsourcing the creation of image segmentation algorithms for connectomics, Frontiers in Neuroanatomy
2015, https://doi.org/10.3389/fnana.2015.00142. The warping error is that of Jain et al. (CVPR 2010), the Rand index that of Rand
(Journal of the American Statistical Association 1971).

Cells are what is looked for: where the probability of cell is above a threshold, 0, 0.1, ... 0.9, of which the best counts. A
cell is a 4-connected part of that, so membranes are 8-connected. Pixels that are membrane in the truth are left out of all but
the pixel error and the warping error; a pixel that is predicted as membrane inside a true cell is a segment of its own.

- Pixel error: 1 - F of the pixels of cells.
- Rand error: 1 - F of the pairs of pixels that are in one cell.
- Warping error: the truth is warped towards the prediction by flipping pixels, as long as no cell or membrane is joined, parted,
  made or lost thereby (simple points). Counted, over all pixels, are those that differ still and are a split or a merger, which
  the eight neighbours of the pixel decide: two cells among them make it one. So a cell that is lost as a whole is no error, and
  nor is a prediction without cells! Jain et al. count all that differ still.
- V_rand: F again, of pairs of which both may be the same pixel, after thinning: the predicted cells grow over the membranes, a
  pixel up, down, left and right at a time; what two reach at once, or is reached from there alone, stays membrane. So it does not
  matter how wide a membrane is drawn.
- V_info: after thinning, too, mutual information over entropy, 2 I / (H + H).

Over several slices, pixels, pairs and errors are summed at each threshold and V_info is averaged; then the best threshold is
taken.

What the paper leaves open is as in the program that the challenge gives out (Trainable Segmentation in Fiji): the thresholds,
that cells are 4-connected, that outside of a slice is membrane, that the surest pixels are flipped first, in rounds until none
flips, that two cells among the eight neighbours of a pixel make it a split or a merger, thinning, and sums over slices; but how
V_rand is summed over slices is segue's own reading, not checked against its source. Not as there: the pairs of the Rand error are
of two pixels, as Rand's; there a pixel makes one with itself, which matters as one in the pixels of a cell.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from segue.labels import IGNORE, Mask
from segue.machine.compiled import compile_loop
from segue.metrics.instances import Numbers, Overlaps, components

if TYPE_CHECKING:
    from segue.data.samples import Sample, Samples
    from segue.labels import Confidence

Cells = NDArray[np.bool_]
Floats = NDArray[np.float64]
Segments = tuple[Numbers, Numbers, Numbers]

THRESHOLDS = tuple(i / 10 for i in range(10))
RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))  # the neighbours in turn: rows, columns


def pixel_error(truth: ArrayLike, probability: ArrayLike) -> float:
    """1 - F of pixels. truth: (H, W), 1 or True on cells, 0 on membranes; probability: (H, W) of cell, 0 to 1, or 0 and 1."""
    true, likely = checked(truth, probability)
    return 1 - float(f_score(np.array([count_pixels(true, cells) for cells in sweep(likely)])).max())


def rand_error(truth: ArrayLike, probability: ArrayLike) -> float:
    """1 - F of pairs of pixels; nan if the truth has no cell. Arguments as those of pixel_error."""
    true, likely = checked(truth, probability)
    numbers = components(true)
    sums = [count_pairs(segments(numbers, components(cells))) for cells in sweep(likely)]
    return 1 - float(f_score(np.array(sums)).max()) if true.any() else float("nan")


def warping_error(truth: ArrayLike, probability: ArrayLike) -> float:
    """The share of pixels that part or join cells after warping, as the challenge has it. Arguments as those of pixel_error."""
    true, likely = checked(truth, probability)
    return min(count_topology(true, likely, threshold)[0] for threshold in THRESHOLDS) / true.size


def whole_warping_error(truth: ArrayLike, probability: ArrayLike) -> float:
    """The share of pixels that differ after warping, as Jain et al. have it. Arguments as those of pixel_error."""
    true, likely = checked(truth, probability)
    return min(count_topology(true, likely, threshold)[1] for threshold in THRESHOLDS) / true.size


def v_rand(truth: ArrayLike, probability: ArrayLike) -> float:
    """The Rand score after thinning, 1 at best; nan if the truth has no cell. Arguments as those of pixel_error."""
    true, likely = checked(truth, probability)
    numbers = components(true)
    sums = [count_squares(segments(numbers, thin(components(cells)))) for cells in sweep(likely)]
    return float(f_score(np.array(sums)).max()) if true.any() else float("nan")


def v_info(truth: ArrayLike, probability: ArrayLike) -> float:
    """The information score after thinning, 1 at best; nan if the truth has no cell. Arguments as those of pixel_error."""
    true, likely = checked(truth, probability)
    numbers = components(true)
    return max(information(segments(numbers, thin(components(cells)))) for cells in sweep(likely))


class MembraneScorer:
    """The five scores over a data set of two classes, one of them membrane. It keeps sums at each threshold."""

    title = "membranes, as the ISBI-2012 challenge scores them"
    needs_confidence = True

    def __init__(self, samples: "Samples") -> None:
        names = samples.labels.names
        if len(names) != 2 or "membrane" not in names:
            raise ValueError(
                f"the data have the classes {', '.join(names)}; membranes are scored where there are two classes, one of them "
                "named membrane, as in em"
            )
        self.membrane = names.index("membrane")
        self.pixels, self.pairs, self.squares = (np.zeros((len(THRESHOLDS), 3), np.int64) for _ in range(3))
        self.information: Floats = np.zeros(len(THRESHOLDS))
        self.errors = np.zeros((len(THRESHOLDS), 2), np.int64)  # splits and mergers, all that differs
        self.size = self.slices = 0  # pixels; slices with a cell in the truth

    def update(self, index: int, sample: "Sample", prediction: Mask, confidence: "Confidence | None") -> None:
        if confidence is None:
            raise ValueError("membranes are scored at several thresholds, for which the confidence of each pixel is needed")
        mask = sample["mask"]
        if (mask == IGNORE).any():
            raise ValueError(
                f"the mask has pixels to ignore ({IGNORE}); a cell has no shape unless each of its pixels is labelled"
            )
        truth, probability = checked(mask != self.membrane, np.where(prediction == self.membrane, 1 - confidence, confidence))
        numbers = components(truth)
        for i, (threshold, cells) in enumerate(zip(THRESHOLDS, sweep(probability), strict=True)):
            self.pixels[i] += count_pixels(truth, cells)
            self.errors[i] += count_topology(truth, probability, threshold)
            if truth.any():
                found = components(cells)
                self.pairs[i] += count_pairs(segments(numbers, found))
                thinned = segments(numbers, thin(found))
                self.squares[i] += count_squares(thinned)
                self.information[i] += information(thinned)
        self.size += truth.size
        self.slices += bool(truth.any())

    def merge(self, other: "MembraneScorer") -> None:
        self.pixels += other.pixels
        self.pairs += other.pairs
        self.squares += other.squares
        self.information += other.information
        self.errors += other.errors
        self.size += other.size
        self.slices += other.slices

    def curves(self) -> dict[str, Floats]:
        """Each score at each threshold; nan where nothing was counted."""
        undefined = np.full(len(THRESHOLDS), np.nan)
        return {
            "warping_error": self.errors[:, 0] / self.size if self.size else undefined,
            "whole_warping_error": self.errors[:, 1] / self.size if self.size else undefined,
            "rand_error": 1 - f_score(self.pairs) if self.slices else undefined,
            "pixel_error": 1 - f_score(self.pixels) if self.size else undefined,
            "v_rand": f_score(self.squares) if self.slices else undefined,
            "v_info": self.information / self.slices if self.slices else undefined,
        }

    def best(self) -> dict[str, tuple[float, float]]:
        """Each score at its best threshold, and that threshold."""
        best = {}
        for name, curve in self.curves().items():
            place = int(curve.argmax() if name.startswith("v_") else curve.argmin())
            best[name] = (float(curve[place]), THRESHOLDS[place])
        return best

    def scores(self) -> dict[str, float]:
        """The errors, 0 at best, and v_rand and v_info, 1 at best."""
        return {name: score for name, (score, _) in self.best().items()}

    def table(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("score", "value", "at the threshold")]
        for name, (score, threshold) in self.best().items():
            rows.append((name.replace("_", " "), f"{score:.6f}", f"{threshold:.1f}"))
        return rows


def checked(truth: ArrayLike, probability: ArrayLike) -> tuple[Cells, Floats]:
    true, likely = np.asarray(truth), np.asarray(probability, float)
    if true.ndim != 2 or true.shape != likely.shape or not true.size:
        raise ValueError(f"truth (shape {true.shape}) and probability (shape {likely.shape}) must be of one height and width")
    if not np.isin(true, (0, 1)).all():
        raise ValueError(f"truth (={np.unique(true)[:5]} and so on) must be 1 on cells and 0 on membranes")
    if not ((likely >= 0) & (likely <= 1)).all():
        raise ValueError(f"probability (={likely.min()} to {likely.max()}) must be from 0 to 1")
    return true.astype(bool), likely


def sweep(probability: Floats) -> Iterable[Cells]:
    """The predicted cells at each threshold."""
    return (probability > threshold for threshold in THRESHOLDS)


def f_score(sums: NDArray[Any]) -> Floats:
    """2 both / (true + predicted), of (..., 3); 1 where there is neither."""
    total = sums[..., 1] + sums[..., 2]
    return np.where(total > 0, 2 * sums[..., 0] / np.maximum(total, 1), 1)


def count_pixels(truth: Cells, cells: Cells) -> tuple[int, int, int]:
    """Pixels that are cell in both, in the truth, in the prediction."""
    return int((truth & cells).sum()), int(truth.sum()), int(cells.sum())


def segments(truth: Numbers, predicted: Numbers) -> Segments:
    """Of the pixels in true cells: the sizes of what is one segment in both, in the truth, in the prediction."""
    overlaps = Overlaps.of_ordered(truth, predicted)
    alone = np.ones(overlaps.truth.sum() - overlaps.shared.sum(), np.int64)  # predicted as membrane
    found = np.bincount(overlaps.columns, overlaps.shared).astype(np.int64)
    return np.concatenate([overlaps.shared, alone]), overlaps.truth, np.concatenate([found, alone])


def count_pairs(sizes: Segments) -> list[int]:
    """Pairs of pixels of one segment in both, in the truth, in the prediction."""
    return [int((size * (size - 1) // 2).sum()) for size in sizes]


def count_squares(sizes: Segments) -> list[int]:
    """Likewise, in order, and with each pixel and itself."""
    return [int((size * size).sum()) for size in sizes]


def information(sizes: Segments) -> float:
    """2 I / (H + H); 1 if each has one segment."""
    pixels = sizes[1].sum()
    if pixels == 0:
        return float("nan")
    both, true, found = (-(size[size > 0] / pixels * np.log(size[size > 0] / pixels)).sum() for size in sizes)
    return float(2 * (true + found - both) / (true + found)) if true + found > 0 else 1.0


def count_topology(truth: Cells, probability: Floats, threshold: float) -> tuple[int, int]:
    """Pixels where the warped truth differs from the prediction: those whose flip would part a cell or join two, and all."""
    warped, left = warp(truth, probability, threshold)
    cells = components(warped)
    membranes = cv2.connectedComponents(1 - warped, connectivity=8, ltype=cv2.CV_32S)[1]
    rows, columns = np.divmod(left, warped.shape[1])
    around = [(rows + y, columns + x) for y, x in RING]
    inside, cells_around, membranes_around = (
        np.stack([array[place] for place in around]) for array in (warped, cells, membranes)
    )
    following = np.roll(inside, -1, axis=0)[::2] & np.roll(inside, -2, axis=0)[::2]
    pieces = (inside[::2] & (1 - following)).sum(axis=0)  # the 4-connected parts that the pixel holds together; see flip_simple
    # Without it there are as many cells as pieces, but one less for each two of the membranes between them that are the same
    # elsewhere: so there are more cells than before if the membranes are fewer than the pieces.
    parts = (warped[rows, columns] > 0) & (pieces > count_different(membranes_around))
    return int((parts | (count_different(cells_around) > 1)).sum()), len(left)


def count_different(numbers: NDArray[Any]) -> NDArray[Any]:
    """How many numbers other than 0 each column has."""
    ordered = np.sort(numbers, axis=0)
    return (ordered[0] > 0) + ((np.diff(ordered, axis=0) > 0) & (ordered[1:] > 0)).sum(axis=0)


def warp(truth: Cells, probability: Floats, threshold: float) -> tuple[Mask, Numbers]:
    """The truth warped towards the prediction, 1 on cells, with a rim of membrane, (H + 2, W + 2); flat places that differ."""
    warped, target = (np.pad(cells, 1).astype(np.uint8) for cells in (truth, probability > threshold))
    sureness = np.pad(np.abs(probability - threshold), 1)
    places = np.ravel_multi_index(np.nonzero((warped != target).T)[::-1], warped.shape)  # column by column
    places = places[np.argsort(-sureness.flat[places], kind="stable")].astype(np.int64)
    ring = np.array([y * warped.shape[1] + x for y, x in RING])
    left = compiled()[0](warped.reshape(-1), places, ring)
    return warped, places[:left]


def flip_simple(warped: Any, places: Any, ring: Any) -> int:
    """Flip what can be flipped of the pixels at some places, in rounds; the others are moved to the front, and counted.

    A pixel may be flipped if the cells around it are in one 4-connected part that it touches, and so are the membranes: if of its
    four neighbours exactly one is a cell whose next two in turn are not both cells (Yokoi et al. 1973).
    """
    left = len(places)
    while True:
        kept = 0
        for i in range(left):
            place, pieces = places[i], 0
            for k in range(0, 8, 2):
                if warped[place + ring[k]] and not (warped[place + ring[k + 1]] and warped[place + ring[(k + 2) % 8]]):
                    pieces += 1
            if pieces == 1:
                warped[place] = 1 - warped[place]
            else:
                places[kept] = place
                kept += 1
        if kept == left:
            return kept
        left = kept


def thin(cells: Numbers) -> Numbers:
    """Numbers of cells (H, W), 0 on membranes, after the cells have grown over the membranes."""
    grown = np.pad(cells, 1, constant_values=-1)
    places = np.flatnonzero(grown > 0)
    queue, numbers = np.empty((2, cells.size), np.int64)
    queue[: len(places)] = places
    compiled()[1](grown.reshape(-1), grown.shape[1], queue, len(places), numbers)
    return np.maximum(grown[1:-1, 1:-1], 0)


def grow(cells: Any, width: int, queue: Any, end: int, numbers: Any) -> None:
    """In rounds, a 0 beside a number becomes it, but -3 beside two, or beside -3 alone. The queue begins with the numbers."""
    steps = (-width, -1, 1, width)
    start = 0
    while start < end:
        last = end
        for i in range(start, last):
            for step in steps:
                if cells[queue[i] + step] == 0:
                    cells[queue[i] + step] = -2  # waits in the queue
                    queue[end] = queue[i] + step
                    end += 1
        for i in range(last, end):
            numbers[i] = 0
            for step in steps:
                near = cells[queue[i] + step]
                if near > 0:
                    numbers[i] = near if numbers[i] in (0, near) else -3
        for i in range(last, end):
            cells[queue[i]] = numbers[i] if numbers[i] else -3
        start = last


@cache
def compiled() -> tuple[Callable[..., int], Callable[..., None]]:
    """`flip_simple` and `grow` as machine code, kept on the disk between runs where that can be; numba is slow to import."""
    import numba

    places, width = numba.int64[::1], numba.int64
    first = numba.int64(numba.uint8[::1], places, places)
    second = numba.void(places, width, places, width, places)
    return compile_loop(flip_simple, first), compile_loop(grow, second)
