"""Upsampling and argmax in one give what torch's two calls give, whatever the sizes, the types and the order in memory."""

import multiprocessing
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import segue.inference.upsampling
from segue.inference.upsampling import (
    Taps,
    fused_labels,
    fused_shares,
    label_on_device,
    taps,
    to_tensors,
    upsample,
    upsample_argmax,
    upsample_confident,
)
from segue.machine.compiled import compile_loop

EPS = torch.finfo(torch.float32).eps


def draw(kind: str, classes: int, height: int, width: int, images: int = 1) -> Tensor:
    """Scores that are alike over regions, as a network's, or noise."""
    generator = torch.Generator().manual_seed(classes * height + width)
    noise = torch.randn(images, classes, height, width, generator=generator)
    if kind == "noise":
        return noise
    regions = torch.randn(images, classes, -(-height // 8), -(-width // 8), generator=generator)
    return F.interpolate(regions, size=(height, width), mode="bicubic") + 0.05 * noise


def assert_labels(labels: Tensor, stack: Tensor, tolerance: float) -> None:
    """The labels are those of the highest scores, but for ties within the tolerance."""
    assert labels.dtype == torch.uint8
    assert labels.shape == (len(stack), *stack.shape[2:])
    given = stack.gather(1, labels.long()[:, None])[:, 0]
    assert (stack.amax(dim=1) - given).max() <= tolerance
    assert (labels != stack.argmax(dim=1)).float().mean() < 1e-3


SIZES = [((8, 12), (64, 96)), ((16, 24), (32, 48)), ((16, 24), (61, 100)), ((9, 13), (36, 52)), ((5, 6), (80, 96)),
         ((3, 4), (96, 128)), ((17, 23), (129, 177)), ((40, 50), (21, 17)), ((20, 30), (20, 60)), ((20, 30), (27, 30)),
         ((1, 1), (70, 150)), ((1, 7), (1, 31)), ((7, 1), (1, 1)), ((16, 16), (17, 15)), ((4, 300), (8, 2400))]  # fmt: skip


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("kind", ["regions", "noise"])
@pytest.mark.parametrize(("scores", "size"), SIZES)
def test_labels_are_those_of_torch(scores: tuple[int, int], size: tuple[int, int], kind: str, aligned: bool) -> None:
    x = draw(kind, 19, *scores)
    rows, columns = (taps(n, m, aligned) for n, m in zip(scores, size, strict=True))
    stack = F.interpolate(x, size=size, mode="bilinear", align_corners=aligned)
    rounding = 4 * EPS * float(x.abs().max())
    coordinates = rounding * max(scores)  # torch's kernels differ in the last bit of a coordinate
    torch.testing.assert_close(upsample(x, rows, columns), stack, atol=coordinates, rtol=0)
    labels = upsample_argmax(x, rows, columns)
    assert_labels(labels, upsample(x, rows, columns), rounding)
    assert_labels(labels, stack, coordinates)
    confident, shares = upsample_confident(x, rows, columns)
    assert_labels(confident, stack, coordinates)
    torch.testing.assert_close(shares, stack.softmax(dim=1).gather(1, confident.long()[:, None])[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_noise_and_areas_in_turn(factor: int, aligned: bool) -> None:
    """From row to row another of the loop's ways may be the cheaper one; none leaves anything behind for the next."""
    noise, areas = draw("noise", 19, 24, 300), draw("regions", 19, 24, 300)
    for shares in (torch.arange(24.0) // 2 % 2, torch.arange(24.0) // 5 % 2, torch.linspace(0, 1, 24)):
        x = torch.lerp(areas, noise, shares[:, None])
        rows, columns = taps(24, 24 * factor, aligned), taps(300, 300 * factor, aligned)
        assert_labels(upsample_argmax(x, rows, columns), upsample(x, rows, columns), 4 * EPS * float(x.abs().max()))


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 7, 8, 64, 65, 256])
@pytest.mark.parametrize("size", [(72, 96), (9, 12)])
def test_any_number_of_classes(classes: int, size: tuple[int, int]) -> None:
    x = draw("regions", classes, 9, 12, images=2)
    rows, columns = taps(9, size[0]), taps(12, size[1])
    assert_labels(upsample_argmax(x, rows, columns), upsample(x, rows, columns), 4 * EPS * float(x.abs().max()))
    shares = upsample_confident(x, rows, columns)[1]
    torch.testing.assert_close(shares, upsample(x, rows, columns).softmax(dim=1).amax(dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(48, 80), (6, 10)])
@pytest.mark.parametrize("form", ["channels_last", "transposed", "sliced", "expanded", "bfloat16", "half", "double", "grad"])
def test_types_and_orders_in_memory(form: str, size: tuple[int, int]) -> None:
    x = draw("regions", 6, 6, 10, images=2)
    given = {
        "channels_last": lambda: x.contiguous(memory_format=torch.channels_last),
        "transposed": lambda: x.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": lambda: torch.cat([x, x], dim=3)[..., :10],
        "expanded": lambda: x[:1].expand(3, -1, -1, -1),
        "bfloat16": lambda: x.bfloat16(),
        "half": lambda: x.half().contiguous(memory_format=torch.channels_last),
        "double": lambda: x.double(),
        "grad": lambda: x.clone().requires_grad_(),
    }[form]()
    pixels = taps(6, size[0]), taps(10, size[1])
    expected = given.detach().float().contiguous()
    assert torch.equal(upsample_argmax(given, *pixels), upsample_argmax(expected, *pixels))
    for one, other in zip(upsample_confident(given, *pixels), upsample_confident(expected, *pixels), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("scores", "seen", "padded"), [(7, 50, 56), (64, 57, 64), (5, 129, 129), (3, 1, 3)])
def test_padding_is_cut_off(scores: int, seen: int, padded: int, aligned: bool) -> None:
    x = draw("noise", 4, scores, 5)
    expected = F.interpolate(x, size=(padded, 5), mode="bilinear", align_corners=aligned)[:, :, :seen]
    result = upsample(x, taps(scores, seen, aligned, padded=padded), taps(5, 5))
    torch.testing.assert_close(result, expected, atol=4 * EPS * scores * float(x.abs().max()), rtol=0)


def test_an_image_that_was_seen_at_another_size() -> None:
    """A score that says where it lies among the seen pixels says so of the image's pixels, but not beyond the seen ones."""
    for size in (37, 100, 250):
        places = (np.arange(size) + 0.5) * 100 / size - 0.5
        for aligned, padded, at in ((False, 104, np.arange(13) * 8 + 3.5), (True, 105, np.arange(14) * 8.0)):
            x = torch.tensor(at, dtype=torch.float32).view(1, 1, 1, -1)
            found = upsample(x, taps(1, 1), taps(len(at), size, aligned, seen=100, padded=padded))[0, 0, 0]
            expected = np.clip(places, max(0, at[0]), 99)
            torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(60, 77), (15, 11), (40, 11)])
def test_slices_of_taps_are_parts_of_the_result(size: tuple[int, int]) -> None:
    x = draw("regions", 5, 15, 11)
    rows, columns = taps(15, size[0]), taps(11, size[1])
    labels, shares = upsample_confident(x, rows, columns)
    for a, b in ((0, 4), (3, 9), (10, size[0])):
        part = upsample_confident(x, rows[a:b], columns[2:9])
        assert torch.equal(part[0], labels[:, a:b, 2:9])
        torch.testing.assert_close(part[1], shares[:, a:b, 2:9], atol=1e-6, rtol=0)
        assert torch.equal(upsample_argmax(x, rows[a:b], columns[2:9]), labels[:, a:b, 2:9])
        torch.testing.assert_close(upsample(x, rows[a:b], columns[2:9]), upsample(x, rows, columns)[:, :, a:b, 2:9])


@pytest.mark.parametrize("size", [(40, 56), (5, 7)])
def test_of_equal_classes_the_first_wins(size: tuple[int, int]) -> None:
    whole = torch.randint(0, 2, (1, 9, 5, 7), generator=torch.Generator().manual_seed(0)).float()
    for x in (torch.zeros(1, 9, 5, 7), whole.repeat_interleave(2, dim=1), torch.full((1, 9, 5, 7), -torch.inf)):
        pixels = taps(5, size[0]), taps(7, size[1])
        labels = upsample_argmax(x, *pixels)
        if x.isfinite().all():  # eighths of small whole numbers are exact
            assert torch.equal(labels, upsample(x, *pixels).argmax(dim=1).byte())
        else:
            assert not labels.any()


def test_pixels_may_go_backwards() -> None:
    for width, size in ((12, 96), (12, 31), (12, 12), (12, 4), (12, 1), (1, 1), (300, 2400)):
        x = draw("regions", 19, 8, width)
        rows, columns = taps(8, 64), taps(width, size)
        labels, shares = upsample_confident(x, rows, columns)
        for dims, turned in (((2,), (rows, columns[::-1])), ((1,), (rows[::-1], columns)), ((1, 2), (rows[::-1], columns[::-1]))):
            assert torch.equal(upsample_argmax(x, *turned), labels.flip(dims))
            assert torch.equal(upsample_confident(x, *turned)[0], labels.flip(dims))
            assert torch.allclose(upsample_confident(x, *turned)[1], shares.flip(dims), atol=1e-5)
            assert torch.allclose(upsample(x, *turned), upsample(x, rows, columns).flip([dim + 1 for dim in dims]), atol=1e-5)


@pytest.mark.parametrize("masked", [0, 1, 5, 18])
@pytest.mark.parametrize("kind", ["regions", "noise"])
@pytest.mark.parametrize("label", [upsample_confident, lambda *given: label_on_device(*given, confident=True)])
def test_a_class_that_is_ruled_out_changes_no_other(label, kind: str, masked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segue.inference.upsampling, "uncompiled", {"cpu"})
    x = draw(kind, 19, 16, 16)
    x[:, masked] = -torch.inf
    rest = torch.tensor([k for k in range(19) if k != masked])
    for size in (128, 16, 40):
        labels, shares = label(x, taps(16, size), taps(16, size))
        expected, expected_shares = label(x[:, rest], taps(16, size), taps(16, size))
        assert torch.equal(labels, rest.to(torch.uint8)[expected.long()])
        assert torch.allclose(shares, expected_shares, atol=1e-5)


@pytest.mark.parametrize("fill", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_no_numbers_give_some_class(fill: float) -> None:
    x = draw("regions", 5, 6, 8)
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.3] = fill
    x[:, :, 2] = fill
    for size in ((48, 64), (6, 8)):
        labels, shares = upsample_confident(x, taps(6, size[0]), taps(8, size[1]))
        assert labels.max() < 5
        assert upsample_argmax(x, taps(6, size[0]), taps(8, size[1])).max() < 5
        assert ((shares >= 0) & (shares <= 1)).all()


@pytest.mark.parametrize("fill", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("factor", [1, 3, 8])
def test_a_score_that_is_no_number_changes_only_the_pixels_around_it(factor: int, fill: float) -> None:
    x = draw("noise", 8, 24, 24)
    pixels = taps(24, 24 * factor), taps(24, 24 * factor)
    spot = torch.zeros(1, 1, 24, 24)
    spot[..., 16, 7] = 1
    near = upsample(spot, *pixels)[:, 0] > 0
    spoilt = x.clone()
    spoilt[0, 2, 16, 7] = fill
    expected, expected_shares = upsample_confident(x, *pixels)
    labels, shares = upsample_confident(spoilt, *pixels)
    assert torch.equal(upsample_argmax(spoilt, *pixels), labels)
    assert torch.equal(labels[~near], expected[~near])
    assert torch.allclose(shares[~near], expected_shares[~near], atol=1e-5)
    if fill == torch.inf:
        assert (labels[near] == 2).all()
    else:
        without, without_shares = upsample_confident(torch.cat([x[:, :2], x[:, 3:]], dim=1), *pixels)
        assert torch.equal(labels[near], (without + (without >= 2))[near])
        assert torch.allclose(shares[near], without_shares[near], atol=1e-5)


def test_threads_change_nothing() -> None:
    x = draw("regions", 19, 32, 48, images=3)
    pixels = taps(32, 256), taps(48, 384)
    expected = upsample_argmax(x, *pixels)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: upsample_argmax(x, *pixels), range(8)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, expected) for result in results)


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 257, 6, 7), (1, 0, 6, 7), (0, 3, 6, 7)])
def test_scores_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    for call in (upsample, upsample_argmax, upsample_confident):
        with pytest.raises(ValueError, match=r"scores have the shape .* \(N, K, h, w\)"):
            call(torch.zeros(shape), taps(6, 12), taps(7, 14))


def test_what_cannot_be_is_refused() -> None:
    x = torch.zeros(1, 3, 6, 7)
    with pytest.raises(ValueError, match="int64"):
        upsample_argmax(x.long(), taps(6, 12), taps(7, 14))
    with pytest.raises(ValueError, match=r"rows .*taps\(6, size\)"):
        upsample_argmax(x, taps(8, 12), taps(7, 14))
    with pytest.raises(ValueError, match="columns"):
        upsample_argmax(x, taps(6, 12), Taps(np.array([-1], np.int32), np.zeros(1, np.float32)))
    with pytest.raises(ValueError, match="rows"):
        upsample(x, taps(6, 12)[:0], taps(7, 14))
    for wrong in (lambda: taps(0, 5), lambda: taps(5, 0), lambda: taps(5, 9, seen=9, padded=8), lambda: taps(5, 9, seen=-1)):
        with pytest.raises(ValueError, match="must be at least 1"):
            wrong()


def test_the_form_for_a_compiler_gives_the_same() -> None:
    for aligned in (False, True):
        x = draw("regions", 7, 9, 11, images=2)
        rows, columns = taps(9, 50, aligned), taps(11, 40, aligned)
        given = (x, *to_tensors(rows, 9, x.device), *to_tensors(columns, 11, x.device))
        labels, shares = upsample_confident(x, rows, columns)
        assert_labels(fused_labels(*given), upsample(x, rows, columns), 4 * EPS * float(x.abs().max()))
        torch.testing.assert_close(fused_shares(labels, *given), shares, atol=1e-5, rtol=1e-5)


def test_without_a_compiler_it_goes_in_bands_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(segue.inference.upsampling, "uncompiled", set())
    monkeypatch.setattr(segue.inference.upsampling, "STACK", 4 * 5 * 40 * 3)  # 3 rows
    x = draw("regions", 5, 9, 11)
    with pytest.warns(UserWarning, match="no compiler here"):
        label_on_device(x, taps(9, 50), taps(11, 40), confident=False)
    labels, shares = label_on_device(x, taps(9, 50), taps(11, 40), confident=True)  # a warning would be an error
    stack = upsample(x, taps(9, 50), taps(11, 40))
    assert torch.equal(labels, stack.argmax(dim=1).byte())
    torch.testing.assert_close(shares, stack.softmax(dim=1).amax(dim=1))
    plain = label_on_device(x, taps(9, 9), taps(11, 11), confident=False)[0]
    assert torch.equal(plain, x.argmax(dim=1).byte())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compiled_it_gives_the_same_and_has_no_stack() -> None:
    """In a process of its own: what a C++ compiler makes brings threads that do not bear those of other runtimes."""
    process = multiprocessing.get_context("spawn").Process(target=check_compiled)
    process.start()
    process.join()
    assert process.exitcode == 0


def check_compiled() -> None:
    from torch._inductor.utils import run_and_get_code

    segue.inference.upsampling.uncompiled = set()
    x, rows, columns = draw("regions", 6, 9, 11), taps(9, 50), taps(11, 40)
    (labels, shares), programs = run_and_get_code(label_on_device, x, rows, columns, confident=True)
    stack = upsample(x, rows, columns)
    assert_labels(labels, stack, 4 * EPS * float(x.abs().max()))
    torch.testing.assert_close(shares, stack.softmax(dim=1).amax(dim=1), atol=1e-5, rtol=1e-5)
    made = [line for program in programs for line in program.splitlines() if "= empty_strided" in line]
    assert made
    assert not [line for line in made if re.search(r"empty_strided\w*\(\(\w+, \w+, \w+, \w+\)", line)], "class maps of full size"


def double(values) -> None:
    for i in range(len(values)):
        values[i] *= 2


def test_a_loop_is_compiled_where_what_was_kept_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    signature = numba.void(numba.float64[::1])
    compile_loop(double, signature)
    index = next(tmp_path.rglob("*.nbi"))
    whole = index.read_bytes()
    for damaged in (b"", b"no pickle", whole[:-20]):
        index.write_bytes(damaged)
        values = np.arange(3.0)
        compile_loop(double, signature)(values)
        assert values.tolist() == [0, 2, 4]


def test_a_loop_is_compiled_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def without_cache(*args, cache: bool = False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*args, **options)

    monkeypatch.setattr(numba, "njit", without_cache)
    values = np.arange(3.0)
    compile_loop(double, numba.void(numba.float64[::1]))(values)
    assert values.tolist() == [0, 2, 4]
