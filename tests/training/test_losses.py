"""Cross entropy against its formula written out, one pixel after the other."""

import math

import pytest
import torch
import torch.nn.functional as F

from segue.training.losses import cross_entropy

WEIGHTS = torch.tensor([0.25, 4.0, 1.5, 0.0], dtype=torch.float64)


def draw_batch(seed=0, dtype=torch.uint8):
    """Logits for four classes, float64 and asking for gradients, and labels of which a quarter is ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 4, (2, 5, 6), generator=generator)
    target[torch.rand(2, 5, 6, generator=generator) < 0.25] = 255
    return logits.requires_grad_(), target.to(dtype)


def plain_cross_entropy(logits, target, weights, reduction):
    total = pixels = weight_sum = 0
    for n, y, x in torch.cartesian_prod(*map(torch.arange, target.shape)).tolist():
        label = int(target[n, y, x])
        if label == 255:
            continue
        scores = logits[n, :, y, x].tolist()
        probability = math.exp(scores[label]) / sum(math.exp(score) for score in scores)
        weight = float(weights[label]) if weights is not None else 1
        total -= weight * math.log(probability)  # type: ignore[assignment]
        pixels += 1
        weight_sum += weight  # type: ignore[assignment]
    return total / {"mean": pixels, "sum": 1, "weights": weight_sum}[reduction]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "weights"])
def test_it_is_the_plain_formula(reduction, weights):
    logits, target = draw_batch()
    loss = cross_entropy(logits, target, weights, reduction)
    assert loss.item() == pytest.approx(plain_cross_entropy(logits, target, weights, reduction))


@pytest.mark.parametrize("reduction", ["mean", "sum", "weights"])
def test_its_gradient_is_the_plain_one(reduction):
    """weight * (softmax - one-hot), divided as the loss is; 0 where ignored."""
    logits, target = draw_batch(1)
    cross_entropy(logits, target, WEIGHTS, reduction).backward()
    counted = target != 255
    label = target.where(counted, 0).long()
    weight = WEIGHTS[label] * counted
    divisor = {"mean": counted.sum(), "sum": 1, "weights": weight.sum()}[reduction]
    one_hot = F.one_hot(label, 4).movedim(-1, 1)
    torch.testing.assert_close(logits.grad, weight[:, None] * (logits.detach().softmax(1) - one_hot) / divisor)
    assert (logits.grad.movedim(1, -1)[~counted] == 0).all()


def test_weights_is_what_torch_calls_mean():
    logits, target = draw_batch(2)
    expected = F.cross_entropy(logits, target.long(), WEIGHTS, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits, target, WEIGHTS, "weights"), expected)


def test_a_mean_does_not_change_when_the_batch_is_doubled_or_ignored_pixels_are_added():
    logits, target = draw_batch(3)
    loss = cross_entropy(logits, target, WEIGHTS)
    torch.testing.assert_close(cross_entropy(logits.repeat(2, 1, 1, 1), target.repeat(2, 1, 1), WEIGHTS), loss)
    padded = F.pad(logits, (0, 7, 0, 3)), F.pad(target, (0, 7, 0, 3), value=255)
    torch.testing.assert_close(cross_entropy(*padded, WEIGHTS), loss)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_targets_may_be_of_any_integers(dtype):
    logits, target = draw_batch(4)
    assert cross_entropy(logits, target.to(dtype), WEIGHTS, "weights") == cross_entropy(logits, target, WEIGHTS, "weights")


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "weights"])
def test_where_no_pixel_counts_the_loss_and_its_gradient_are_0(reduction, weights):
    logits, target = draw_batch(5)
    loss = cross_entropy(logits, torch.full_like(target, 255), weights, reduction)
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_where_all_that_counts_has_weight_0_the_loss_is_0():
    logits, target = draw_batch(6)
    assert cross_entropy(logits, torch.full_like(target, 3), WEIGHTS, "weights") == 0


def test_an_unknown_reduction_is_named():
    with pytest.raises(ValueError, match=r"reduction \(='none'\) must be 'mean', 'sum' or 'weights'"):
        cross_entropy(*draw_batch(), reduction="none")
