"""GCN: global convolutions, boundary refinement, and the sizes of Fig. 2."""

import pytest
import torch
import torch.nn.functional as F
import torchvision

from segue.models.gcn import GCN, BoundaryRefinement, GlobalConvolution, double
from segue.models.layers import bilinear_kernel


def test_stages_have_the_sizes_of_figure_2() -> None:
    """Section 4.1: with images of 512 x 512 the deepest map is 16 x 16."""
    with torch.device("meta"):
        model = GCN(21)
        sizes: dict[str, tuple[int, ...]] = {}
        for name, child in model.named_children():
            if name != "backbone":
                child.register_forward_hook(lambda _, x, y, name=name: sizes.update({name: (x[0].shape[1], *y.shape[1:])}))
        assert model(torch.empty(1, 3, 512, 512)).shape == (1, 21, 512, 512)
    maps = {2: 256, 3: 512, 4: 1024, 5: 2048}
    expected = {f"gcn{level}": (maps[level], 21, 512 >> level, 512 >> level) for level in maps}
    expected |= {f"br{level}": (21, 21, 512 >> level, 512 >> level) for level in maps}
    expected |= {f"refine{level}": (21, 21, 512 >> level, 512 >> level) for level in range(5)}
    assert sizes == expected


@pytest.mark.parametrize("k", [1, 7, 15])
def test_a_global_convolution_is_one_dense_convolution_of_k_by_k(k: int) -> None:
    """Linear, and with the whole of k x k in sight, unlike stacked convolutions with activations between them."""
    torch.manual_seed(0)
    module = GlobalConvolution(2, 3, k).double()
    zeros, centre = torch.zeros(2, 2, 2 * k + 1, 2 * k + 1, dtype=torch.float64), k
    impulses = zeros.clone()
    impulses[[0, 1], [0, 1], centre, centre] = 1
    with torch.no_grad():
        response = module(impulses) - module(zeros)
        reach = (response != 0).any(0).any(0).nonzero()
        assert reach.min(0).values.tolist() == [centre - k // 2] * 2
        assert reach.max(0).values.tolist() == [centre + k // 2] * 2
        assert len(reach) == k * k
        inside = slice(centre - k // 2, centre + k // 2 + 1)
        kernel = response[:, :, inside, inside].transpose(0, 1).flip(2, 3)  # (out, in, k, k)
        x = torch.rand(1, 2, 40, 36, dtype=torch.float64)
        bias = module(torch.zeros_like(x))
        torch.testing.assert_close(module(x) - bias, F.conv2d(x, kernel, padding=k // 2))


def test_boundary_refinement_adds_a_residual_to_the_scores() -> None:
    block = BoundaryRefinement(4)
    x = torch.randn(1, 4, 9, 9)
    torch.testing.assert_close(block(x) - x, block.conv2(torch.relu(block.conv1(x))), rtol=1e-4, atol=1e-5)


def test_scores_are_doubled_as_by_a_fixed_transposed_convolution() -> None:
    x = torch.rand(1, 3, 6, 5)
    kernel = bilinear_kernel(4).expand(3, 1, 4, 4)
    transposed = F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=3)
    torch.testing.assert_close(double(x)[..., 1:-1, 1:-1], transposed[..., 1:-1, 1:-1])
    torch.testing.assert_close(double(torch.ones(1, 3, 6, 5)), torch.ones(1, 3, 12, 10))  # and no fading at the border


@pytest.mark.parametrize("k", [0, 6, -3])
def test_an_even_kernel_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k \(={k}\) must be odd"):
        GCN(3, k=k, backbone="resnet18")


def test_the_trunk_takes_the_weights_of_its_classifier() -> None:
    model = GCN(3, k=3, backbone="resnet18")
    weights = torchvision.models.resnet18().state_dict()
    model.load_classifier(weights)
    assert model.classifier == "torchvision/resnet18"
    assert torch.equal(model.backbone.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])
    assert model.trunk() == [model.backbone]
