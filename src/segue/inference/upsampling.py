"""The last step: from a network's own scores to the likeliest class of each pixel, without the stack of full-size class maps.

Bilinear interpolation, as torch's F.interpolate, and argmax in one. Where the weights are convex and rounding keeps the order, a
class that is ahead at the four scores around a pixel is ahead in between; so where one class is first at all four, the pixels
between them are filled with it, and elsewhere only those classes are looked at whose highest score there is not below the lowest
score of some other class. What comes out is equal to torch's two calls, but for pixels where two classes tie to the last bits.

On a CPU this is a loop in machine code; elsewhere torch.compile makes one kernel of it.
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.inference.upsampling_loops import LARGE, compiled

SMALL = 200_000  # scores of the result (classes times pixels) below which a second thread costs more than it gives
PART = 1_000_000  # scores of the result that are enough for a part of its own
STACK = 1 << 26  # bytes that the stack of class maps may take where there is no kernel
ONE_KERNEL: Any = {"realize_acc_reads_threshold": 64, "realize_opcount_threshold": 500}  # else Inductor stores the stack


@dataclass(frozen=True)
class Taps:
    """Where the pixels along one axis take their scores from, of n that there are.

    Pixel i is (1 - share[i]) * scores[first[i]] + share[i] * scores[min(first[i] + 1, n - 1)]. A slice of taps is some of the
    pixels.
    """

    first: NDArray[np.int32]
    share: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, pixels: slice) -> "Taps":
        return Taps(self.first[pixels].copy(), self.share[pixels].copy())  # torch takes no negative strides

    @property
    def plain(self) -> bool:
        """Whether nothing is interpolated: pixel i is score first[0] + i."""
        return not self.share.any() and bool((np.diff(self.first) == 1).all())


def taps(scores: int, size: int, aligned: bool = False, *, seen: int = 0, padded: int = 0) -> Taps:
    """The taps of `size` pixels along one axis on which the network gave `scores` scores.

    The network saw `padded` pixels (0: as many as `seen`), of which the first `seen` (0: `size`) were the image. aligned: the
    first and the last score lie on the first and the last of the padded pixels; if not, both cover the same field.

    Where `size` is `seen`, the coordinates are torch's, in float32; where not, pixel i of the image lies at
    (i + .5) * seen / size - .5 among the seen ones, but not outside of them. ValueError if a size is below 1, or more pixels are
    seen than there are.
    """
    seen = seen or size
    padded = padded or seen
    if min(scores, size, seen) < 1 or padded < seen:
        raise ValueError(f"scores (={scores}), size (={size}) and seen (={seen}) must be at least 1, padded (={padded}) >= seen")
    places = np.clip((np.arange(size) + 0.5) * seen / size - 0.5, 0, seen - 1)
    if aligned:
        ratio = np.float32(scores - 1) / np.float32(padded - 1) if padded > 1 else np.float32(0)
        at = ratio * places.astype(np.float32)
    else:
        ratio = np.float32(scores) / np.float32(padded)
        at = np.maximum(ratio * (places + 0.5).astype(np.float32) - np.float32(0.5), np.float32(0))
    first = np.minimum(at.astype(np.int32), np.int32(scores - 1))
    return Taps(first, np.clip(at - first.astype(np.float32), np.float32(0), np.float32(1)))


def upsample(scores: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Scores (N, K, h, w) at the pixels of the taps, (N, K, H, W) in float32. ValueError if the taps reach beyond the scores."""
    check(scores, rows, columns)
    x = scores.float()
    for dim, pixels in ((2, rows), (3, columns)):  # first only what is needed, then columns before rows, as torch does
        x = x.narrow(dim, low := int(pixels.first.min()), min(int(pixels.first.max()) + 2, x.shape[dim]) - low)
    for dim, pixels in ((3, columns), (2, rows)):
        if pixels.plain:
            x = x.narrow(dim, 0, len(pixels))
        else:
            first, second, share = to_tensors(pixels, scores.shape[dim], x.device)
            low, share = int(pixels.first.min()), share.view(-1, *[1] * (3 - dim))
            x = x.index_select(dim, first - low) * (1 - share) + x.index_select(dim, second - low) * share
    return x


def upsample_argmax(scores: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """The likeliest class at the pixels of the taps, uint8 (N, H, W), of scores (N, K, h, w) of up to 256 classes.

    The first one where classes are equal. Scores of -inf lose, and so do those that are nan. ValueError if the taps reach beyond
    the scores.
    """
    check(scores, rows, columns)
    with torch.no_grad():
        if scores.device.type == "cpu":
            return label_on_cpu(scores, rows, columns, confident=False)[0]
        return label_on_device(scores, rows, columns, confident=False)[0]


def upsample_confident(scores: Tensor, rows: Taps, columns: Taps) -> tuple[Tensor, Tensor]:
    """The likeliest class, as by `upsample_argmax`, and its softmax, float32 (N, H, W), of the interpolated scores."""
    check(scores, rows, columns)
    with torch.no_grad():
        if scores.device.type == "cpu":
            return label_on_cpu(scores, rows, columns, confident=True)
        return label_on_device(scores, rows, columns, confident=True)


def check(scores: Tensor, rows: Taps, columns: Taps) -> None:
    if scores.ndim != 4 or not 1 <= scores.shape[1] <= 256 or not scores.is_floating_point() or 0 in scores.shape:
        raise ValueError(
            f"scores have the shape {tuple(scores.shape)} of {scores.dtype}; they must be floats (N, K, h, w), none of these 0, "
            "and K at most 256, the labels that a byte can hold; give a single image as scores[None]"
        )
    for name, pixels, many in (("rows", rows, scores.shape[2]), ("columns", columns, scores.shape[3])):
        if not len(pixels) or pixels.first.min() < 0 or pixels.first.max() >= many:
            reach = f"{pixels.first.min()} to {pixels.first.max()}" if len(pixels) else "none"
            raise ValueError(
                f"{name} (on the scores {reach}) must be on 0 to {many - 1} of them; make them with taps({many}, size)"
            )


def label_on_cpu(scores: Tensor, rows: Taps, columns: Taps, confident: bool) -> tuple[Tensor, Tensor]:
    """Labels and, if confident, shares, by machine code on torch's number of threads, each at a few rows at a time."""
    if columns.first[-1] < columns.first[0]:  # the loop goes from left to right
        mirrored, mirrored_shares = label_on_cpu(scores, rows, columns[::-1], confident)
        return mirrored.flip(2), mirrored_shares.flip(2)
    plain = rows.plain and columns.plain
    scores = scores.detach().float()
    images = (scores if plain else scores.contiguous()).numpy()
    labels = np.empty((len(images), len(rows), len(columns)), np.uint8)
    shares = np.empty(labels.shape if confident else (len(images), 0, 0), np.float32)
    loop = compiled(plain, "C" if images.flags.c_contiguous else "A")
    given = [rows.first, columns.first] if plain else [rows.first, rows.share, columns.share, *pieces(columns)]
    given = [np.require(values, requirements=["C", "W"]) for values in given]
    size = labels.size * images.shape[1]
    threads = torch.get_num_threads() if size > SMALL else 1
    turns = min(max(size // (threads * PART), 1), 4)  # parts for a thread: with more than one, none waits long for the last
    step = len(rows) if threads == 1 else max(8, -(-len(rows) // (turns * threads)))

    def work(part: tuple[int, int]) -> None:
        i, start = part
        loop(images[i], *given, start, min(start + step, len(rows)), labels[i], shares[i])

    parts = [(i, start) for i in range(len(images)) for start in range(0, len(rows), step)]
    for _ in map(work, parts) if threads == 1 else workers(threads).map(work, parts):
        pass
    return torch.from_numpy(labels), torch.from_numpy(shares)


def pieces(columns: Taps) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Runs of pixels between the same two scores: where each starts, and at last the end; and its first score. Those that are
    longer than most, as at the borders, are cut, for the loop takes the time of the longest for each."""
    turns = np.flatnonzero(np.diff(columns.first, prepend=-1))
    lengths = np.diff(turns, append=len(columns))
    longest = min(-(-len(columns) // len(turns)), 64)
    starts = np.flatnonzero((np.arange(len(columns)) - np.repeat(turns, lengths)) % longest == 0)
    return np.append(starts, len(columns)).astype(np.int32), columns.first[starts]


@cache
def workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="segue-upsampling")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=workers.cache_clear)


def label_on_device(scores: Tensor, rows: Taps, columns: Taps, confident: bool) -> tuple[Tensor, Tensor]:
    """The same by one compiled kernel for each result, or where that cannot be, and where nothing is interpolated, in bands."""
    kind, fits = scores.device.type, rows.plain and columns.plain
    scores = scores.float().nan_to_num(-LARGE, LARGE, -LARGE)
    if not fits and kind not in uncompiled:
        given = (scores, *to_tensors(rows, scores.shape[2], scores.device), *to_tensors(columns, scores.shape[3], scores.device))
        try:
            labels = torch.compile(fused_labels, dynamic=True, options=ONE_KERNEL)(*given)
            shares = torch.compile(fused_shares, dynamic=True, options=ONE_KERNEL)(labels, *given) if confident else labels[:0]
            return labels, shares
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # no Triton, no C compiler, a Python that is too new, ...
            uncompiled.add(kind)
            warnings.warn(f"no kernel could be compiled for {kind}, so upsampling is slower: {str(error)[:200]}", stacklevel=3)
    step = max(1, STACK // (4 * scores[:, :, 0, 0].numel() * len(columns)))
    bands = []
    for start in range(0, len(rows), step):
        stack = upsample(scores, rows[start : start + step], columns)
        best, chosen = stack.max(dim=1)
        bands.append((chosen.to(torch.uint8), (best - stack.logsumexp(dim=1)).exp() if confident else best[:0]))
    labels, shares = (torch.cat(parts, dim=1) for parts in zip(*bands, strict=True))
    return labels, shares


uncompiled: set[str] = set()  # kinds of devices for which torch.compile failed


def to_tensors(pixels: Taps, scores: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The first and the second score of each pixel, and the share of the second."""
    first = torch.from_numpy(pixels.first.astype(np.int64)).to(device)
    return first, (first + 1).clamp(max=scores - 1), torch.from_numpy(np.ascontiguousarray(pixels.share)).to(device)


def blend(scores: Tensor, up: Tensor, down: Tensor, v: Tensor, left: Tensor, right: Tensor, u: Tensor) -> Tensor:
    """(N, K, h, w) -> (N, K, H, W), in a form of which a compiler makes no stack if one sum or argmax over K follows."""
    up, down, v = up[:, None], down[:, None], v[:, None]
    upper = scores[:, :, up, left].float() * (1 - u) + scores[:, :, up, right].float() * u
    lower = scores[:, :, down, left].float() * (1 - u) + scores[:, :, down, right].float() * u
    return upper * (1 - v) + lower * v


def fused_labels(scores: Tensor, *pixels: Tensor) -> Tensor:
    return blend(scores, *pixels).argmax(dim=1).to(torch.uint8)


def fused_shares(labels: Tensor, scores: Tensor, *pixels: Tensor) -> Tensor:
    """The softmax of the labels: 1 / sum of exp(score - score of the label)."""
    up, down, v, left, right, u = pixels
    n, k = torch.arange(len(scores), device=scores.device)[:, None, None], labels.long()
    up, down, v = up[:, None], down[:, None], v[:, None]
    upper = scores[n, k, up, left].float() * (1 - u) + scores[n, k, up, right].float() * u
    lower = scores[n, k, down, left].float() * (1 - u) + scores[n, k, down, right].float() * u
    best = upper * (1 - v) + lower * v
    return 1 / (blend(scores, *pixels) - best[:, None]).exp().sum(dim=1)
