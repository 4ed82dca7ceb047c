"""The last step: upsampling 19 class maps to 1024 x 2048 and taking the argmax.

    python benchmarks/upsampling.py

Measured is the time from a network's float32 scores in memory to the label map, uint8, or to labels and confidence; nothing is
left out. "torch" is F.interpolate(mode="bilinear") and argmax, or softmax and max for the confidence, as most libraries do it;
"torch, channels last" the same on scores in that memory format, for which torch has another kernel; "plain loop" interpolation
and argmax fused in numba, without any look at which classes can win, its rows split over as many threads, on the CPU alone.
Labels of all sides must be equal, but for ties of two classes to the last bits, before anything is timed. The sides take turns;
before each a rest, for torch's threads look for more work for some milliseconds and would hold up the next side, and a run that
is not measured.

Maps: "network", 128 x 256 scores of the ENet that ships with segue, on a drawn street. Since its scores are of full size, they
are averaged over 8 x 8 pixels; 8 more classes, which it does not have, are 8 of its 11 less 3, so that they win nowhere.
"noise", normal random numbers: the worst that can come, since no two neighbours agree. "full size" has nothing to interpolate.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from harness import arguments, command_line, compare, enet_of_classes, summarize, write_record
from torch import Tensor

from segue.data.synthetic.streets import Streets
from segue.inference import Normalize
from segue.inference.upsampling import Taps, taps, upsample_argmax, upsample_confident

CLASSES = 19


@numba.njit(nogil=True, fastmath={"contract"})
def plain_rows(scores: Any, row_first: Any, row_share: Any, first: Any, share: Any, start: int, stop: int, labels: Any) -> None:
    classes, height, width = scores.shape
    wide, held = np.empty((2, classes, len(first)), np.float32), np.array([-1, -1])
    best, label = np.empty(len(first), np.float32), np.empty(len(first), np.float32)
    for y in range(start, stop):
        above = np.int64(row_first[y])
        below = min(above + 1, height - 1)
        for row in range(above, below + 1):
            if held[row % 2] != row:
                held[row % 2] = row
                for k in range(classes):
                    line, target = scores[k, row], wide[row % 2, k]
                    for x in range(len(first)):
                        left = first[x]
                        target[x] = line[left] * (np.float32(1) - share[x]) + line[min(left + 1, width - 1)] * share[x]
        best[:] = -np.inf
        down = row_share[y]
        up = np.float32(1) - down
        for k in range(classes):
            upper, lower, number = wide[above % 2, k], wide[below % 2, k], np.float32(k)
            for x in range(len(first)):
                score = upper[x] * up + lower[x] * down
                label[x] = number if score > best[x] else label[x]
                best[x] = score if score > best[x] else best[x]
        for x in range(len(first)):
            labels[y, x] = np.uint8(label[x])


def plain_loop(scores: Tensor, rows: Taps, columns: Taps, pool: ThreadPoolExecutor) -> Tensor:
    labels = np.empty((len(rows), len(columns)), np.uint8)
    given = (scores[0].numpy(), rows.first, rows.share, columns.first.astype(np.int64), columns.share)
    edges = np.linspace(0, len(rows), torch.get_num_threads() + 1).astype(int).tolist()
    list(pool.map(lambda part: plain_rows(*given, *part, labels), itertools.pairwise(edges)))
    return torch.from_numpy(labels)[None]


@torch.inference_mode()
def network_scores(height: int, width: int) -> Tensor:
    """(1, 19, height, width), as said above."""
    network, card = enet_of_classes(CLASSES)
    image = Streets("val", count=1, size=(8 * height, 8 * width))[0]["image"]
    x = Normalize(card.mean, card.std)(torch.tensor(image).permute(2, 0, 1)[None])
    return F.avg_pool2d(network(x), 8)


def torch_labels(scores: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(scores, size=size, mode="bilinear").argmax(dim=1).to(torch.uint8)


def torch_confident(scores: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    best, labels = F.interpolate(scores, size=size, mode="bilinear").softmax(dim=1).max(dim=1)
    return labels.to(torch.uint8), best


def check(labels: dict[str, Callable[[], Any]], scores: Tensor, size: tuple[int, int]) -> None:
    """Raise SystemExit unless all sides have the highest of the upsampled scores, but for rounding."""
    stack = F.interpolate(scores, size=size, mode="bilinear")
    for side, run in labels.items():
        result = run()
        found = result[0] if isinstance(result, tuple) else result
        missed = (stack.amax(dim=1) - stack.gather(1, found.long()[:, None])[:, 0]).max()
        if missed > 1e-5 * scores.abs().max():
            raise SystemExit(f"{side} has other labels than torch: by {missed:.2g}")


def mixed(scores: Tensor) -> float:
    """The share of cells whose four corners do not have one label."""
    labels = scores[0].argmax(dim=0)
    first = labels[:-1, :-1]
    return float(((first != labels[1:, 1:]) | (first != labels[:-1, 1:]) | (first != labels[1:, :-1])).float().mean())


def main() -> None:
    options = arguments(__doc__, devices=("cpu", "cuda"))
    height, width = (16, 32) if options.quick else (128, 256)
    pool = ThreadPoolExecutor(torch.get_num_threads())
    maps = {"network": network_scores(height, width), "noise": torch.randn(1, CLASSES, height, width)}
    maps = {name: scores.to(options.device) for name, scores in maps.items()}
    results = {}
    for name, scores in maps.items():
        for factor in (2, 4, 8, 16):
            size = (factor * height, factor * width)
            given = (scores, taps(height, size[0]), taps(width, size[1]))
            last = scores.contiguous(memory_format=torch.channels_last)
            sides: dict[str, Callable[[], Any]] = {
                "segue": lambda given=given: upsample_argmax(*given),
                "plain loop": lambda given=given: plain_loop(*given, pool),
                "torch": lambda scores=scores, size=size: torch_labels(scores, size),
                "torch, channels last": lambda last=last, size=size: torch_labels(last, size),
            }
            if options.device == "cuda":
                del sides["plain loop"]
            check(sides, scores, size)
            results[f"{name}, {factor} times"] = summarize(compare(sides, options.rounds, rest=0.02), "segue")
        size = (8 * height, 8 * width)
        given = (scores, taps(height, size[0]), taps(width, size[1]))
        sides = {
            "segue": lambda given=given: upsample_confident(*given),
            "torch": lambda scores=scores, size=size: torch_confident(scores, size),
        }
        check(sides, scores, size)
        results[f"{name}, 8 times, with confidence"] = summarize(compare(sides, options.rounds, rest=0.02), "segue")
    size = (8 * height, 8 * width)
    full = F.interpolate(maps["network"], size=size, mode="bilinear")
    given = (full, taps(size[0], size[0]), taps(size[1], size[1]))
    sides = {"segue": lambda: upsample_argmax(*given), "torch": lambda: torch_labels(full, size)}
    check(sides, full, size)
    results["network, full size"] = summarize(compare(sides, options.rounds, rest=0.02), "segue")
    share = mixed(maps["network"])
    notes = [f"Of the network's cells {share:.1%} are mixed."]
    write_record(options.out, command_line(), results, device=options.device, notes=notes)


if __name__ == "__main__":
    main()
