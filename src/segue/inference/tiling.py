"""Label maps tile by tile: of images of any size, in memory that does not grow with their height.

Tiles begin at multiples of the network's period, and each gives scores at the network's own resolution. Where no score depends on
pixels further away than the network's reach, tiles see so much more than they keep, and the result is that of the whole image.
Where the reach is too far for that (or endless, as behind a mean over the image), tiles share a quarter of their side, over which
the scores of one fade into those of the next. Upsampling and the choice of the class come once, from the joined scores.
"""

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from segue.images import Raster
from segue.inference.predictor import Predictor
from segue.inference.upsampling import Taps, taps, upsample_argmax
from segue.labels import Mask
from segue.machine.memory import peak_memory, return_freed_memory
from segue.models.base import SegmentationModel, as_segmentation_model, pad_to_multiple

PERIODS = (16, 32, 64)  # one of them is that of a network that names no stride
MOST = 768  # pixels; a greater reach is not looked for, as tiles cannot afford it
SHARE = 4  # tiles are exact where their side is so many times the reach: they see at most four times the pixels that they keep
OVERLAP = 4  # blended tiles share this part of their side
SIDES = (512, 1024, 2048, 4096)  # of tiles: at least, where the reach is small, where tiles are blended, at most
ROOM = 1400 * 2**20  # bytes that a tile may take in a network on a CPU
LEEWAY = 1.1  # by which a tile may be larger if it is exact then: measured twice, a network's memory differs by a fifth
BAND = 300 * 2**20  # bytes of the image's rows that are in memory at a time
BYTES = 400  # a pixel takes in a network, where that cannot be measured

Network = Callable[[Tensor], Tensor]
Read = Callable[[int, int], Raster]
"""The rows of an image from one to another, (rows, W, C)."""


@dataclass(frozen=True)
class Traits:
    """What tiles must know of a network."""

    period: int
    """An image that is moved by so many pixels has its scores moved, and not changed."""
    stride: int
    """Images are padded to multiples of it, plus `plus`."""
    plus: int
    """1 where corners lie on corners, else 0."""
    ratio: Fraction
    """Scores for each pixel, along a side."""
    reach: int | None
    """How many pixels away a score's furthest cause can be, in periods, rounded up; None if further than MOST."""


KNOWN: weakref.WeakKeyDictionary[nn.Module, Traits] = weakref.WeakKeyDictionary()
MEASURED: weakref.WeakKeyDictionary[Predictor, float] = weakref.WeakKeyDictionary()  # see `measure`


@torch.inference_mode()
def examine(network: Network, channels: int = 3, device: str | torch.device = "cpu") -> Traits:
    """Find a network's traits, in evaluation mode, by running it on strips. ValueError if its scores fit no grid of tiles."""
    if isinstance(network, nn.Module) and network in KNOWN:
        return KNOWN[network]
    model = as_segmentation_model(network)
    run, plus, least = model.score, int(model.aligned), model.min_size
    stride = model.stride if isinstance(network, SegmentationModel) else PERIODS[-1]  # others do not tell theirs
    periods: tuple[int, ...] = (stride,) if 1 < stride < PERIODS[-1] else PERIODS
    small = max(2, -(-least // periods[-1])) * periods[-1]
    scores = run(torch.zeros(1, channels, small + plus, small + plus, device=device)).shape[-2] - plus
    ratio = Fraction(scores, small)
    if scores < 1 or 1 not in (ratio.numerator, ratio.denominator) or (ratio * periods[-1]).denominator > 1:
        raise ValueError(
            f"the network gives {scores + plus} rows of scores for {small + plus} rows of an image; tiles need one for each "
            f"pixel, or for every so many that divide {periods[-1]}, so label the image whole"
        )
    periods = tuple(period for period in periods if (ratio * period).denominator == 1)
    with torch.backends.cudnn.flags(enabled=False):  # whose Fourier transforms would carry nan everywhere
        period, reach = find_reach(run, channels, periods, plus, ratio, small, torch.device(device))
    traits = Traits(period, stride if (ratio * stride).denominator == 1 else period, plus, ratio, reach)
    if isinstance(network, nn.Module):
        KNOWN[network] = traits
    return traits


def find_reach(
    run: Network, channels: int, periods: tuple[int, ...], plus: int, ratio: Fraction, breadth: int, device: torch.device
) -> tuple[int, int | None]:
    """The first of some periods that is the network's, and how many pixels away a score's furthest cause is; the last, and None.

    No layer takes nan away, so it spreads from a stripe across a strip as far as causes do, or in a layer that unpools a pixel
    less: a value goes to one place in its window, and all places depend on it. So a period is added. A strip that begins a period
    later must then have the same scores, beyond the reach of its beginning.
    """
    noise = torch.rand(1, channels, 2 * MOST + periods[-1] + plus, breadth + plus, generator=torch.Generator().manual_seed(0))
    strips = [(noise.to(device), 2), (noise.transpose(2, 3).contiguous().to(device), 3)]
    spread = 0
    for strip, dim in strips:
        stained = strip.clone()
        stained.narrow(dim, MOST, periods[-1]).fill_(torch.nan)
        lost = run(stained).isnan().amax(dim=(0, 1, 5 - dim))
        first, last = int(MOST * ratio), int((MOST + periods[-1]) * ratio)
        if not lost[first:last].all() or lost[0] or lost[-1]:
            return periods[-1], None
        places = lost.nonzero()
        spread = max(spread, math.ceil((first - int(places[0])) / ratio), math.ceil((int(places[-1]) + 1 - plus - last) / ratio))
    wholes = [run(strip) for strip, _ in strips]
    if wholes[0].min() == wholes[0].max():  # as of an untrained FCN: that tells no period
        periods = periods[-1:]
    for period in periods:
        reach = (-(-spread // period) + 1) * period
        if reach <= MOST and all(
            equal_beyond(whole, run(strip.narrow(dim, period, strip.shape[dim] - period).contiguous()), int(reach * ratio), dim)
            for whole, (strip, dim) in zip(wholes, strips, strict=True)
        ):
            return period, reach
    return periods[-1], None


def equal_beyond(whole: Tensor, later: Tensor, skip: int, dim: int) -> bool:
    """Whether the scores of the later strip are the last of the whole, `skip` cells at its beginning aside."""
    rest = later.shape[dim] - skip
    difference = (whole.narrow(dim, whole.shape[dim] - rest, rest) - later.narrow(dim, skip, rest)).abs().max()
    return bool(difference <= 1e-3 * whole.abs().max() + 1e-9)


def reach(network: Network, channels: int = 3, device: str | torch.device = "cpu") -> int | None:
    """How many pixels away a score's furthest cause can be, rounded up to the network's period; None if beyond 768 or endless."""
    return examine(network, channels, device).reach


@dataclass(frozen=True)
class Axis:
    """How tiles lie along the rows, or the columns, of an image; a cell is one of the network's scores."""

    starts: list[int]
    """Of each tile, in pixels."""
    stops: list[int]
    kept: list[tuple[int, int]]
    """What is taken of each tile, in its own cells."""
    firsts: list[int]
    """The same, where that begins in the cells of the image."""
    overlap: int
    """Cells that two tiles share."""
    halo: int
    """Cells before its own that a tile's first pixel is interpolated from."""
    cuts: list[int]
    """The pixel with which the result of each tile begins, and the end."""
    taps: Taps

    def __len__(self) -> int:
        return len(self.starts)

    def local(self, i: int) -> Taps:
        """How the pixels of tile i's result are interpolated from its joined scores."""
        part = self.taps[self.cuts[i] : self.cuts[i + 1]]
        return Taps((part.first - (self.firsts[i] - (self.halo if i else 0))).astype(np.int32), part.share)


def lay_out(size: int, tile: int, overlap: int, blended: bool, traits: Traits) -> Axis:
    """Cover `size` pixels with tiles of `tile` that share `overlap` at least; both are rounded to periods."""
    period, plus, ratio = traits.period, traits.plus, traits.ratio
    length = max(1, -(-(size - plus) // period))  # in periods, as all up to `middles`
    side, shared = min(tile // period, length), -(-overlap // period)
    count = 1 if side == length else -(-(length - shared) // (side - shared))
    starts = [i * (length - side) // max(1, count - 1) for i in range(count)]
    half = shared // 2 if blended else 0
    middles = [(start + side + after) // 2 for start, after in pairwise(starts)]
    unit = int(period * ratio)  # cells
    padded = size + (plus - size) % traits.stride
    total = int((padded - plus) * ratio) + plus
    firsts = [0, *(unit * (middle - half) for middle in middles)]
    lasts = [*(unit * (middle + half) for middle in middles), total]
    mapping = taps(total, size, bool(plus), seen=size, padded=padded)
    halo = int(mapping.share.any())
    return Axis(
        [start * period for start in starts],
        [min((start + side) * period + plus, size) for start in starts[:-1]] + [size],
        [(first - unit * start, last - unit * start) for first, last, start in zip(firsts, lasts, starts, strict=True)],
        firsts,
        2 * half * unit,
        halo,
        [0, *(int(np.searchsorted(mapping.first, first - halo)) for first in firsts[1:]), size],
        mapping,
    )


@dataclass(frozen=True)
class Plan:
    """How an image is cut."""

    rows: Axis
    columns: Axis
    traits: Traits
    tile: tuple[int, int]
    """Its rows and columns, at most."""
    exact: bool
    """Whether the result is that of the whole image."""


def make_plan(predictor: Predictor, height: int, width: int, tile: tuple[int, int] | None = None, row_bytes: int = 0) -> Plan:
    """Choose how to cut an image of this size; a row of it has `row_bytes` to be kept in memory. ValueError if it cannot be.

    tile: rows and columns of a tile, if not by what the network was measured to take.
    """
    if predictor.uses_depth:
        raise ValueError("this network takes depth beside the image, which tiles do not; label the image whole, in Python")
    if predictor.views != [(1.0, False)]:
        raise ValueError("tiles are seen at the image's own size alone; leave out scales and flip, or label the image whole")
    if predictor.device.type == "cpu":
        return_freed_memory()  # kept, it is in pieces, and grows beyond what a tile is given
    traits = examine(predictor.network, predictor.channels, predictor.device)
    if tile is None:
        tile = choose_tile(predictor, traits, height, width, row_bytes)
    tall, wide = (max(side // traits.period, 4) * traits.period for side in tile)
    single = [side >= size - traits.plus for side, size in ((tall, height), (wide, width))]
    needed = min((side for side, alone in zip((tall, wide), single, strict=True) if not alone), default=0)
    exact = all(single) or (traits.reach is not None and SHARE * traits.reach <= needed)
    shared = [2 * (traits.reach or 0)] * 2 if exact else [tall // OVERLAP, wide // OVERLAP]
    rows, columns = (lay_out(*along, not exact, traits) for along in ((height, tall, shared[0]), (width, wide, shared[1])))
    return Plan(rows, columns, traits, (tall, wide), exact)


def choose_tile(predictor: Predictor, traits: Traits, height: int, width: int, row_bytes: int) -> tuple[int, int]:
    """Large where the reach is, as context is a loss, but within the memory that there is for the network and for rows."""
    least, usual, blended, largest = SIDES
    if max(height, width) <= usual:
        return usual, usual
    room = ROOM if predictor.device.type == "cpu" else torch.cuda.mem_get_info(predictor.device)[0] // 2
    bytes_each = measure(predictor, traits, min(height, usual), min(width, usual))
    most = min(largest, max(least, math.isqrt(int(room / bytes_each))))
    side = min(most, blended)
    if traits.reach is not None and SHARE * traits.reach <= LEEWAY * most:
        most = max(most, SHARE * traits.reach)
        side = min(most, max(usual, 16 * traits.reach))
    tall = min(side, max(least, BAND // max(1, row_bytes)))
    return tall, side if tall == side else min(2 * largest, most * most // tall)


@torch.inference_mode()
def measure(predictor: Predictor, traits: Traits, height: int, width: int) -> float:
    """The bytes that each pixel of a tile takes in the network, found on a first tile; a guess where the system does not tell."""
    if predictor not in MEASURED:
        image = np.zeros((height, width, predictor.channels), np.uint8)
        tile_scores(predictor, image, traits)  # an engine gets ready
        taken = peak_memory(lambda: tile_scores(predictor, image, traits), predictor.device)
        MEASURED[predictor] = BYTES if taken is None else max(64.0, taken / (height * width))
    return MEASURED[predictor]


def tile_scores(predictor: Predictor, image: Raster, traits: Traits) -> Tensor:
    """The network's scores of a tile, (K, h, w)."""
    x = predictor.prepare(image, None)
    as_segmentation_model(predictor.network).check_input(x)
    return predictor.engine(pad_to_multiple(x, traits.stride, plus=traits.plus))[0]


def join(scores: Tensor, before: Tensor | None, last: bool, axis: Axis, dim: int) -> tuple[Tensor, Tensor | None]:
    """Fade what the tile before left into the scores (K, h, w) of a tile; the cells that are done, and what is left for the next.

    What is left begins with `halo` cells that are done, since pixels lie between two cells.
    """
    overlap, halo = axis.overlap, axis.halo
    if overlap and before is not None:
        place = (torch.arange(overlap, device=scores.device) + 0.5) / overlap
        ramp = (0.5 - 0.5 * torch.cos(torch.pi * place)).view(-1, *[1] * (2 - dim))
        shared = scores.narrow(dim, 0, overlap)
        torch.lerp(before.narrow(dim, halo, overlap), shared, ramp, out=shared)
    if before is not None and halo:
        scores = torch.cat([before.narrow(dim, 0, halo), scores], dim)
    if last:
        return scores, None
    done = scores.shape[dim] - overlap
    return scores.narrow(dim, 0, done), scores.narrow(dim, done - halo, overlap + halo).clone()


@torch.inference_mode()
def label_bands(
    predictor: Predictor, plan: Plan, read: Read, top: int = 0, progress: Callable[[float], object] = lambda share: None
) -> Iterator[tuple[int, Mask]]:
    """The label map from row `top` on, a cut of the plan's rows, as bands: the first row of each, and its labels (rows, W).

    progress: called after each tile with the share of the image that is done.
    """
    rows, columns = plan.rows, plan.columns
    begin = rows.cuts.index(top)
    joined = rows.overlap + rows.halo > 0
    below: list[Tensor | None] = [None] * len(columns)
    for i in range(max(0, begin - int(joined)), len(rows)):  # what the band above left is made again
        band = read(rows.starts[i], rows.stops[i])
        labels = np.empty((rows.cuts[i + 1] - rows.cuts[i], band.shape[1]), np.uint8)
        left: Tensor | None = None
        for j in range(len(columns)):
            scores = tile_scores(predictor, band[:, columns.starts[j] : columns.stops[j]], plan.traits)
            (up, down), (near, far) = rows.kept[i], columns.kept[j]
            check_cells(scores, rows.stops[i] - rows.starts[i], down, plan.traits)
            scores = scores[:, up:down, near:far].float()
            scores, left = join(scores, left, j + 1 == len(columns), columns, dim=2)
            scores, below[j] = join(scores, below[j], i + 1 == len(rows), rows, dim=1)
            if i >= begin:
                part = upsample_argmax(scores[None], rows.local(i), columns.local(j))
                labels[:, columns.cuts[j] : columns.cuts[j + 1]] = part[0].cpu().numpy()
            progress((rows.cuts[i] + (rows.cuts[i + 1] - rows.cuts[i]) * (j + 1) / len(columns)) / rows.cuts[-1])
            del scores
        if i >= begin:
            yield rows.cuts[i], labels


def check_cells(scores: Tensor, height: int, down: int, traits: Traits) -> None:
    """ValueError if the scores of a tile of `height` pixels are not as the traits say, or end before row `down`."""
    padded = height + (traits.plus - height) % traits.stride
    if scores.shape[1] != (padded - traits.plus) * traits.ratio + traits.plus or down > scores.shape[1]:
        raise ValueError(
            f"the network gives {scores.shape[1]} rows of scores for {padded} rows of an image, where a smaller one had "
            f"{traits.ratio} for each; such a network cannot see an image in tiles, so label it whole"
        )


def predict_tiled(predictor: Predictor, image: Raster, tile: int = 0) -> Mask:
    """The class number of each pixel, uint8 (H, W), of an image (H, W, C) at its own size; it may be memory-mapped.

    tile: the side of a tile in pixels, by default chosen by the network's reach and memory. ValueError if the image is none, if
    the predictor has several views or takes depth, or if the network's scores cannot be cut into tiles.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"image has the shape {image.shape}; it must be (H, W, {predictor.channels})")
    plan = make_plan(predictor, image.shape[0], image.shape[1], (tile, tile) if tile else None)
    labels = np.empty(image.shape[:2], np.uint8)
    for top, band in label_bands(predictor, plan, lambda start, stop: image[start:stop]):
        labels[top : top + len(band)] = band
    return labels
