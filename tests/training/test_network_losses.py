"""The losses of the networks, each against its formula written out, one pixel after the other."""

import math

import cv2
import numpy as np
import pytest
import torch

from segue.training.border_weights import label_edges
from segue.training.losses import (
    absolute_error,
    cross_entropy,
    online_hard_examples,
    resize_labels,
    sigmoid_focal,
    supervised_loss,
)


def draw(seed: int = 0, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, 6, 8, generator=generator, dtype=torch.float64)
    target = torch.randint(0, classes, (2, 6, 8), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.25] = 255
    return logits, target.to(torch.uint8)


def pixels(logits: torch.Tensor, target: torch.Tensor) -> list[tuple[int, int, int, float]]:
    """(n, y, x, probability of the true class) of each pixel that counts."""
    found = []
    for n, y, x in torch.cartesian_prod(*map(torch.arange, target.shape)).tolist():
        label = int(target[n, y, x])
        if label != 255:
            scores = logits[n, :, y, x].tolist()
            found.append((n, y, x, math.exp(scores[label]) / sum(map(math.exp, scores))))
    return found


def test_border_weights_are_added_to_the_classes_weights() -> None:
    logits, target = draw()
    class_weights = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    border = torch.rand(target.shape, dtype=torch.float64) * 10
    plain = sum(
        -(float(class_weights[target[n, y, x].long()]) + float(border[n, y, x])) * math.log(p)
        for n, y, x, p in pixels(logits, target)
    )
    loss = cross_entropy(logits, target, class_weights, "sum", border)
    assert loss.item() == pytest.approx(plain)


@pytest.mark.parametrize(("threshold", "kept"), [(0.7, 1 / 16), (0.05, 1 / 4), (0.999, 1 / 16)])
def test_online_hard_examples_are_those_below_the_threshold_or_the_hardest(threshold: float, kept: float) -> None:
    logits, target = draw(1)
    probabilities = sorted(p for *_, p in pixels(logits, target))
    count = max(sum(p < threshold for p in probabilities), int(kept * target.numel()))
    plain = -sum(map(math.log, probabilities[:count])) / count
    assert online_hard_examples(logits, target, threshold=threshold, kept=kept).item() == pytest.approx(plain)


def test_online_hard_examples_learn_from_hard_pixels_alone() -> None:
    logits, target = draw(2)
    logits.requires_grad_()
    online_hard_examples(logits, target).backward()
    for n, y, x, p in pixels(logits.detach(), target):
        assert bool(logits.grad[n, :, y, x].abs().sum() > 0) == (p < 0.7)


def test_absolute_error_is_that_of_the_membrane_probability() -> None:
    logits, target = draw(3, classes=2)
    plain = []
    for n, y, x, _ in pixels(logits, target):
        membrane = 1 / (1 + math.exp(float(logits[n, 0, y, x] - logits[n, 1, y, x])))
        plain.append(abs(membrane - int(target[n, y, x])))
    assert absolute_error(logits, target).item() == pytest.approx(sum(plain) / len(plain))
    single = (logits[:, 1:] - logits[:, :1]).clone()
    assert absolute_error(single, target).item() == pytest.approx(absolute_error(logits, target).item())


def test_sigmoid_focal_is_its_formula_and_draws_towards_the_truth() -> None:
    """Equation 5 of the focal loss; DFN's released code draws every pixel towards an edge."""
    _, edges = draw(4, classes=2)
    logits = 3 * torch.randn(2, 1, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    total = count = 0
    for n, y, x in torch.cartesian_prod(*map(torch.arange, edges.shape)).tolist():
        if edges[n, y, x] != 255:
            p = 1 / (1 + math.exp(-logits[n, 0, y, x].item()))
            p, alpha = (p, 0.25) if edges[n, y, x] else (1 - p, 0.75)
            total -= alpha * (1 - p) ** 2 * math.log(p)  # type: ignore[assignment]
            count += 1
    assert sigmoid_focal(logits, edges).item() == pytest.approx(total / count)
    logits.requires_grad_()
    sigmoid_focal(logits, edges).backward()
    gradient = logits.grad[:, 0]
    assert (gradient[edges == 1] < 0).all()
    assert (gradient[edges == 0] > 0).all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda *batch: cross_entropy(*batch, None, "mean", torch.ones(2, 6, 8, dtype=torch.float64)),
        online_hard_examples,
        absolute_error,
        lambda logits, target: sigmoid_focal(logits[:, :1], target),
    ],
)
def test_a_batch_of_void_costs_nothing(loss) -> None:
    logits, target = draw()
    logits.requires_grad_()
    value = loss(logits, torch.full_like(target, 255))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


def test_all_outputs_count_with_their_weights_at_their_own_sizes() -> None:
    """RedNet's sum over scales, BiSeNet's auxiliary heads and DFN's borders are all this sum."""
    logits, target = draw(5)
    edges = (target % 2).to(torch.uint8)
    outputs = {"main": logits, "half": logits[..., ::2, ::2], "border": logits[:, :1]}
    batch = {"mask": target, "edges": edges}
    half = resize_labels(target, torch.Size((3, 4)))
    assert torch.equal(half, target[:, 1::2, 1::2])  # the nearest to a centre between four is the lower right one
    plain = cross_entropy(logits.float(), target) + 0.4 * cross_entropy(outputs["half"].float(), half)
    plain += 0.1 * sigmoid_focal(logits[:, :1].float(), edges)
    assert supervised_loss(outputs, batch, auxiliary=0.4, border=0.1).item() == pytest.approx(plain.item(), rel=1e-5)


def test_label_edges_lie_along_the_edges_between_classes() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 30:] = 5
    mask[30:, :10] = 255
    edges = label_edges(mask)
    distance = cv2.distanceTransform((mask != 5).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert (edges[:, 28:32] == 1).all()
    assert (edges[:28, :24][distance[:28, :24] > 6] == 0).all()
    assert (edges[mask == 255] == 255).all()
    assert set(np.unique(edges)) == {0, 1, 255}


def test_labels_for_deeplabs_maps_are_those_under_their_corners() -> None:
    """321 to 41, as Caffe shrinks them: pixels 0, 8, ... 320."""
    target = torch.arange(321 * 321).reshape(1, 321, 321)
    assert torch.equal(resize_labels(target, torch.Size((41, 41))), target[:, ::8, ::8])
