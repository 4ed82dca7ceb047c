"""The loops of `upsampling` for CPUs, compiled by numba.

Plain code in numba is fast where a loop runs over many neighbours in memory. So the pixels of a row are worked on in this order:
the first of each piece, the second of each, and so on; a piece being the pixels between the same two scores. Then a row of scores
is interpolated along the columns without looking anything up, and all that follows goes through whole rows.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np

from segue.machine.compiled import compile_loop

BLOCK = 2048  # pixels of a row that are worked on at once
LARGE = 1e38  # in place of infinity, which a weight of 0 would make nan


def label_plain(scores: Any, rows: Any, columns: Any, y: int, stop: int, labels: Any, shares: Any) -> None:
    """Labels of the rows from y to `stop`, and confidence where `shares` is not empty, where nothing is interpolated."""
    best, total, label = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint8)
    for row in range(y, stop):
        for start in range(0, len(columns), BLOCK):
            size = min(BLOCK, len(columns) - start)
            choose(scores, rows[row], columns[start], size, best, label)
            for i in range(size):
                labels[row, start + i] = label[i]
            if shares.size:
                total[:size] = 0
                for k in range(len(scores)):
                    line = scores[k, rows[row], columns[start] :]
                    for i in range(size):
                        total[i] += small_exp(finite(line[i]) - finite(best[i]))
                for i in range(size):
                    shares[row, start + i] = np.float32(1) / max(total[i], np.float32(1))


def label_mixed(
    scores: Any, row_first: Any, row_share: Any, share: Any, starts: Any, cells: Any, y: int, stop: int, labels: Any, shares: Any
) -> None:
    """The same of any taps. A piece goes from one of `starts` to the next, and `cells` has its first score.

    Where many pieces are mixed, that is, have different labels at their corners, all are interpolated, and the lower of two rows
    of scores serves as the upper one of the next two. Where few are, these alone, and of the classes only those that can win; to
    find them costs as much as some rows of pixels, so the fewer rows there are between two rows of scores, the sooner it is all.
    """
    classes, height, width = scores.shape
    scores = finite_scores(scores, row_first[y:stop].min(), min(row_first[y:stop].max() + 2, height))
    longest = 1
    for piece in range(len(cells)):
        longest = max(longest, starts[piece + 1] - starts[piece])
    many = -(-len(cells) // max(1, round(len(cells) * longest / BLOCK)))  # even blocks, for a last one of few takes as long
    coarse, known = np.empty((2, width), np.uint8), np.empty(2, np.int64)  # labels of rows of scores, and of which
    wide, held = np.empty((2, classes, many * longest), np.float32), np.empty(2, np.int64)  # rows interpolated along columns
    left, right = np.empty(many, np.float32), np.empty(many, np.float32)
    chosen, kept = np.empty(many, np.int32), np.empty(classes, np.uint8)  # pieces; classes
    corners, bar = np.empty((classes, 4, many), np.float32), np.empty(many, np.float32)
    lefts, rights, pixels = np.empty(many, np.uintp), np.empty(many, np.uintp), np.empty(many * longest, np.uintp)
    weights, best = np.empty((2, many * longest), np.float32), np.empty(max(width, many * longest), np.float32)
    label, total = np.empty(many * longest, np.uint8), np.empty(many * longest, np.float32)
    for begin in range(0, len(cells), many):
        finish = min(begin + many, len(cells))
        low, high = cells[begin], min(cells[finish - 1] + 2, width)
        known[0] = known[1] = held[0] = held[1] = -1
        all_chosen = even = False
        top = y
        while top < stop:  # the rows between the same two rows of scores
            above = np.int64(row_first[top])
            below = min(above + 1, height - 1)
            bottom = top + 1
            while bottom < stop and row_first[bottom] == above:
                bottom += 1
            up, down = coarse[above % 2], coarse[below % 2]
            count = finish - begin
            if not shares.size:
                for row in range(above, below + 1):
                    if known[row % 2] != row:
                        known[row % 2] = row
                        choose(scores, row, low, high - low, best, coarse[row % 2, low:])
                count = 0
                for piece in range(begin, finish):
                    x, x_next = cells[piece], min(cells[piece] + 1, width - 1)
                    if up[x] != up[x_next] or up[x] != down[x] or up[x] != down[x_next]:
                        chosen[count] = piece
                        count += 1
            if (bottom - top + 3) * count > (bottom - top) * (finish - begin):
                if not all_chosen:
                    all_chosen = True
                    count = finish - begin
                    for i in range(count):
                        chosen[i] = begin + i
                    lay_out(chosen, count, longest, starts, cells, share, width, lefts, rights, pixels, weights)
                    even = in_a_row(lefts, rights, count)
                count, slots = finish - begin, classes
                for row in range(above, below + 1):
                    if held[row % 2] != row:
                        held[row % 2] = row
                        for k in range(classes):
                            kept[k] = k
                            if even:
                                copy(scores[k, row], lefts, rights, count, left, right)
                            else:
                                gather(scores[k, row], lefts, rights, count, left, right)
                            widen(left, right, weights, longest, count, wide[row % 2, k])
            else:
                all_chosen = False
                held[0] = held[1] = -1
                for piece in range(begin, finish):
                    k = up[cells[piece]]
                    for x in range(starts[piece], starts[piece + 1]):
                        labels[top, x] = k
                filled = labels[top, starts[begin] : starts[finish]]
                for row in range(top + 1, bottom):
                    line = labels[row, starts[begin] : starts[finish]]
                    for x in range(len(line)):
                        line[x] = filled[x]
                lay_out(chosen, count, longest, starts, cells, share, width, lefts, rights, pixels, weights)
                bar[:count] = -np.inf
                for k in range(classes):
                    gather(scores[k, above], lefts, rights, count, corners[k, 0], corners[k, 1])
                    gather(scores[k, below], lefts, rights, count, corners[k, 2], corners[k, 3])
                    raise_bar(corners[k], count, bar)
                slots = 0
                for k in range(classes):
                    if reaches(corners[k], count, bar):
                        widen(corners[k, 0], corners[k, 1], weights, longest, count, wide[above % 2, slots])
                        widen(corners[k, 2], corners[k, 3], weights, longest, count, wide[below % 2, slots])
                        kept[slots] = k
                        slots += 1
            upper, lower, size = wide[above % 2], wide[below % 2], count * longest
            for row in range(top, bottom if size else top):
                upper_weight, lower_weight = np.float32(1) - row_share[row], row_share[row]
                best[:size], label[:size] = -np.inf, 0
                for slot in range(0, slots, 4):
                    blend_four(upper, lower, upper_weight, lower_weight, slot, slots, kept, size, best, label)
                for i in range(size):
                    labels[row, pixels[i]] = label[i]
                if shares.size:
                    total[:size] = 0
                    for slot in range(slots):
                        add_exp(upper[slot], lower[slot], upper_weight, lower_weight, best, size, total)
                    for i in range(size):
                        shares[row, pixels[i]] = np.float32(1) / max(total[i], np.float32(1))
            top = bottom


def finite_scores(scores: Any, low: int, high: int) -> Any:
    """The scores, if the rows from `low` to `high` are all finite; if not, these rows made so, and nothing in the others."""
    found = True
    for k in range(len(scores)):
        for row in range(low, high):
            line = scores[k, row]
            for i in range(len(line)):
                found &= abs(line[i]) < np.inf
    if found:
        return scores
    made = np.empty_like(scores)
    for k in range(len(scores)):
        for row in range(low, high):
            for i in range(scores.shape[2]):
                made[k, row, i] = finite(scores[k, row, i])
    return made


def finite(score: Any) -> Any:
    large = np.float32(LARGE)
    score = score if score > -large else -large  # nan too
    return score if score < large else large


def lay_out(
    chosen: Any, count: int, longest: int, starts: Any, cells: Any, share: Any, width: int,
    lefts: Any, rights: Any, pixels: Any, weights: Any,
) -> None:  # fmt: skip
    """The pixels of the chosen pieces, in their order, and what they are made of. A short piece has its last pixel repeatedly."""
    for i in range(count):
        piece = chosen[i]
        lefts[i], rights[i] = cells[piece], min(cells[piece] + 1, width - 1)
        for j in range(longest):
            x = min(starts[piece] + j, starts[piece + 1] - 1)
            pixels[j * count + i] = x
            weights[0, j * count + i], weights[1, j * count + i] = np.float32(1) - share[x], share[x]


def gather(line: Any, lefts: Any, rights: Any, count: int, left: Any, right: Any) -> None:
    for i in range(count):
        left[i] = line[lefts[i]]
        right[i] = line[rights[i]]


def in_a_row(lefts: Any, rights: Any, count: int) -> bool:
    """Whether all pieces but the first and the last lie between one score and the next, one after the other."""
    found = count > 2
    for i in range(1, count - 1):
        found &= (lefts[i] == lefts[1] + np.uintp(i - 1)) & (rights[i] == lefts[i] + np.uintp(1))
    return found


def copy(line: Any, lefts: Any, rights: Any, count: int, left: Any, right: Any) -> None:
    """`gather` of pieces in a row, where most scores need not be looked up."""
    inner = line[lefts[1] : lefts[1] + np.uintp(count - 1)]
    for i in range(len(inner) - 1):
        left[i + 1], right[i + 1] = inner[i], inner[i + 1]
    left[0], right[0] = line[lefts[0]], line[rights[0]]
    left[count - 1], right[count - 1] = line[lefts[count - 1]], line[rights[count - 1]]


def choose(scores: Any, row: int, start: int, size: int, best: Any, label: Any) -> None:
    """The likeliest class of some scores of a row."""
    best[:size], label[:size] = -np.inf, 0
    for k in range(0, len(scores), 2):
        a, b = scores[k, row, start : start + size], scores[min(k + 1, len(scores) - 1), row, start : start + size]
        for i in range(size):
            v, k_v = (a[i] if a[i] > best[i] else best[i]), (np.uint8(k) if a[i] > best[i] else label[i])  # nan is never ahead
            label[i] = np.uint8(k + 1) if b[i] > v else k_v
            best[i] = b[i] if b[i] > v else v


def raise_bar(corners: Any, count: int, bar: Any) -> None:
    """Raise the bar of each piece to the lowest of a class's scores at its corners."""
    a, b, c, d = corners[0], corners[1], corners[2], corners[3]
    for i in range(count):
        low, other = (a[i] if a[i] < b[i] else b[i]), (c[i] if c[i] < d[i] else d[i])
        low = low if low < other else other
        bar[i] = low if low > bar[i] else bar[i]


def reaches(corners: Any, count: int, bar: Any) -> bool:
    """Whether the highest of a class's scores at the corners of any piece is not below its bar."""
    a, b, c, d = corners[0], corners[1], corners[2], corners[3]
    found = False
    for i in range(count):
        found |= not ((a[i] < bar[i]) & (b[i] < bar[i]) & (c[i] < bar[i]) & (d[i] < bar[i]))
    return found


def widen(left: Any, right: Any, weights: Any, longest: int, count: int, line: Any) -> None:
    for j in range(longest):
        for i in range(count):
            line[j * count + i] = left[i] * weights[0, j * count + i] + right[i] * weights[1, j * count + i]


def blend_four(
    upper: Any, lower: Any, up: Any, down: Any, slot: int, slots: int, kept: Any, size: int, best: Any, label: Any
) -> None:
    """Four classes at once, so that what is best so far is read and written once; the last class again where there are fewer."""
    s1, s2, s3 = min(slot + 1, slots - 1), min(slot + 2, slots - 1), min(slot + 3, slots - 1)
    a0, a1, a2, a3 = upper[slot], upper[s1], upper[s2], upper[s3]
    b0, b1, b2, b3 = lower[slot], lower[s1], lower[s2], lower[s3]
    k0, k1, k2, k3 = kept[slot], kept[s1], kept[s2], kept[s3]
    for i in range(size):
        v, w = a0[i] * up + b0[i] * down, a1[i] * up + b1[i] * down
        k = k1 if w > v else k0
        v = w if w > v else v
        w, z = a2[i] * up + b2[i] * down, a3[i] * up + b3[i] * down
        k_w = k3 if z > w else k2
        w = z if z > w else w
        k = k_w if w > v else k
        v = w if w > v else v
        label[i] = k if v > best[i] else label[i]
        best[i] = v if v > best[i] else best[i]


def add_exp(upper: Any, lower: Any, up: Any, down: Any, best: Any, size: int, total: Any) -> None:
    for i in range(size):
        total[i] += small_exp(upper[i] * up + lower[i] * down - best[i])


def small_exp(x: Any) -> Any:
    """exp(x) of x from -87 to 0, else of the nearer end, in float32: 2 ** whole * exp(rest), the latter by its series."""
    x = x if x > np.float32(-87) else np.float32(-87)  # nan too
    t = (x if x < np.float32(0) else np.float32(0)) * np.float32(1.44269504)
    whole = np.floor(t + np.float32(0.5))
    rest = (t - whole) * np.float32(0.69314718)
    series = np.float32(1 / 5040) * rest + np.float32(1 / 720)
    series = series * rest + np.float32(1 / 120)
    series = series * rest + np.float32(1 / 24)
    series = series * rest + np.float32(1 / 6)
    series = (series * rest + np.float32(0.5)) * rest * rest + rest + np.float32(1)
    return series * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@cache
def compiled(plain: bool, layout: Literal["C", "A"]) -> Callable[..., None]:
    """`label_plain` or `label_mixed` as machine code, for scores (K, h, w) that are contiguous ("C") or not ("A")."""
    import numba
    from numba.extending import register_jitable

    for part in (finite_scores, finite, lay_out, in_a_row, gather, copy, choose, raise_bar, reaches, widen, blend_four, add_exp,
                 small_exp):  # fmt: skip
        register_jitable(part)
    scores, numbers, floats = numba.types.Array(numba.float32, 3, layout), numba.int32[::1], numba.float32[::1]
    results = (numba.int64, numba.int64, numba.uint8[:, ::1], numba.float32[:, ::1])
    if plain:
        return compile_loop(label_plain, numba.void(scores, numbers, numbers, *results), contract=True)
    return compile_loop(label_mixed, numba.void(scores, numbers, floats, floats, numbers, numbers, *results), contract=True)
