"""What docs/upsampling.md teaches is so: its examples, and the rules behind them for more than one size."""

import doctest
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import segue.models
from segue.models.layers import bilinear_kernel

PAGE = Path(__file__).parents[2].joinpath("docs/upsampling.md").read_text()


def test_the_examples_print_what_the_page_says() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("".join(blocks), {}, "upsampling.md", None, None)
    results = doctest.DocTestRunner(verbose=False).run(examples)
    assert results.attempted > 20
    assert results.failed == 0


def test_the_table_says_what_the_networks_have() -> None:
    folder = Path(segue.models.__file__).parent
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 12
    for name, transposed, unpooling, bilinear in rows[2:]:
        files = folder.glob(f"{name.lower().replace('-', '')}*.py")
        source = "\n".join(file.read_text() for file in files)
        assert source, name
        assert bool(transposed) == ("ConvTranspose2d" in source), name
        assert bool(unpooling) == bool(re.search("max_?unpool", source, re.IGNORECASE)), name
        assert bool(bilinear) == bool(re.search(r"bilinear|\bresize\(", source)), name


def scattered(x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    """s - 1 zeros between the pixels, k - p - 1 around, the flipped kernel at stride 1."""
    spread = x.new_zeros(*x.shape[:2], *[stride * (size - 1) + 1 for size in x.shape[2:]])
    spread[..., ::stride, ::stride] = x
    return F.conv2d(spread, kernel.transpose(0, 1).flip(2, 3), padding=kernel.shape[-1] - padding - 1)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "grown"),
    [(2, 2, 0, lambda h: 2 * h), (4, 2, 0, lambda h: 2 * h + 2), (16, 8, 0, lambda h: 8 * h + 8), (4, 2, 1, lambda h: 2 * h),
     (3, 1, 1, lambda h: h), (3, 2, 1, lambda h: 2 * h - 1), (64, 32, 0, lambda h: 32 * h + 32), (7, 3, 2, lambda h: 3 * h)],
)  # fmt: skip
def test_a_transposed_convolution_is_a_convolution_of_spread_pixels(size: int, stride: int, padding: int, grown) -> None:
    torch.manual_seed(0)
    x, kernel = torch.randn(2, 3, 5, 4), torch.randn(3, 2, size, size)
    y = F.conv_transpose2d(x, kernel, stride=stride, padding=padding)
    assert y.shape == (2, 2, grown(5), grown(4))
    torch.testing.assert_close(y, scattered(x, kernel, stride, padding), rtol=1e-4, atol=1e-4)


def test_it_is_the_transpose_of_the_convolution_as_a_matrix() -> None:
    """<convolution of x, y> = <x, transposed convolution of y>."""
    torch.manual_seed(0)
    x, kernel = torch.randn(1, 3, 9, 7), torch.randn(2, 3, 3, 3)
    convolved = F.conv2d(x, kernel, stride=2, padding=1)
    y = torch.randn_like(convolved)
    torch.testing.assert_close((convolved * y).sum(), (x * F.conv_transpose2d(y, kernel, stride=2, padding=1)).sum())


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_a_bilinear_kernel_interpolates_bilinearly(factor: int) -> None:
    """Equal but for half a stride at the border, where nothing stands in for the missing neighbours."""
    x = torch.randn(1, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    y = F.conv_transpose2d(x, bilinear_kernel(2 * factor)[None, None], stride=factor, padding=factor // 2)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear")
    border = factor // 2
    inside = (..., slice(border, -border), slice(border, -border))
    torch.testing.assert_close(y[inside], expected[inside])
    assert not torch.isclose(y, expected)[0, 0, :border].any()


@pytest.mark.parametrize("size", [3, 15, 63])
def test_an_odd_bilinear_kernel_keeps_the_pixels_and_fills_between_them(size: int) -> None:
    factor = (size + 1) // 2
    x = torch.randn(1, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    y = F.conv_transpose2d(x, bilinear_kernel(size)[None, None], stride=factor, padding=factor - 1)
    torch.testing.assert_close(y[..., ::factor, ::factor], x)
    torch.testing.assert_close(y, F.interpolate(x, size=y.shape[-2:], mode="bilinear", align_corners=True))


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 8), (6, 5), (7, 5), (1, 3)])
def test_unpooling_puts_each_maximum_back_where_it_was(height: int, width: int) -> None:
    values = torch.randperm(2 * 3 * height * width, generator=torch.Generator().manual_seed(0)) + 1.0  # all different
    x = values.reshape(2, 3, height, width)
    pooled, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    unpooled = F.max_unpool2d(pooled, indices, [2, 2], output_size=[height, width])
    assert torch.equal(unpooled[unpooled != 0], x[unpooled != 0])
    for n in range(2):
        for c in range(3):
            for i in range(0, height, 2):
                for j in range(0, width, 2):
                    cell, back = x[n, c, i : i + 2, j : j + 2], unpooled[n, c, i : i + 2, j : j + 2]
                    assert torch.equal(back, torch.where(cell == cell.max(), cell, 0))
