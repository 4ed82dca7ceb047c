"""Losses over logits (N, K, H, W) and label maps (N, H, W) of 0 to K-1, or 255 where a pixel does not count."""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from segue.labels import IGNORE

Reduction = Literal["mean", "sum", "weights"]
Loss = Literal["mean", "sum", "weights", "ohem", "absolute"]


def supervised_loss(
    outputs: dict[str, Tensor], batch: dict[str, Tensor], class_weights: Tensor | None = None, *,
    loss: Loss = "mean", auxiliary: float = 1.0, border: float = 0.1,
) -> Tensor:  # fmt: skip
    """The loss of all outputs of a network's `supervise`, main, auxiliary and borders, each with its weight: a single number.

    batch: mask (N, H, W); edges (N, H, W) where an output is a border, see `segue.training.border_weights.label_edges`;
    border_weights (N, H, W), if cross entropy is to have them. The truth is resized to each output's size.
    class_weights: (K,), or None for 1 each; "absolute" has none.
    loss: mean, sum or weights, cross entropy divided as `cross_entropy` says; ohem, `online_hard_examples`; absolute,
    `absolute_error`.
    auxiliary: the weight of each auxiliary output, beside 1 of the main one.
    border: the weight of each output that draws the borders of the classes, whose loss is `sigmoid_focal`.
    """
    if loss not in get_args(Loss):
        raise ValueError(f"loss (={loss!r}) must be one of {', '.join(get_args(Loss))}")
    total = torch.zeros((), device=batch["mask"].device)
    for name, logits in outputs.items():
        logits, size = logits.float(), logits.shape[-2:]
        if name.startswith("border"):
            total = total + border * sigmoid_focal(logits, resize_labels(batch["edges"], size))
            continue
        target = resize_labels(batch["mask"], size)
        if loss == "ohem":
            own = online_hard_examples(logits, target, class_weights)
        elif loss == "absolute":
            own = absolute_error(logits, target)
        else:
            own = cross_entropy(logits, target, class_weights, loss, batch.get("border_weights"))
        total = total + (1.0 if name == "main" else auxiliary) * own
    return total


def resize_labels(target: Tensor, size: torch.Size) -> Tensor:
    """The label nearest to each pixel's centre at another size: (N, H, W) -> (N, *size).

    Of s k + 1 rows to k + 1, and columns likewise, each s-th: DeepLab's maps, whose corners lie on the image's corners.
    """
    if target.shape[-2:] == size:
        return target
    steps = [(old - 1) // max(new - 1, 1) for old, new in zip(target.shape[-2:], size, strict=True)]
    if all(new * step == old - 1 + step for step, old, new in zip(steps, target.shape[-2:], size, strict=True)):
        return target[..., :: steps[0], :: steps[1]]
    return F.interpolate(target[:, None].float(), size, mode="nearest-exact")[:, 0].to(target.dtype)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    reduction: Reduction = "mean",
    border_weights: Tensor | None = None,
) -> Tensor:
    """Pixel-wise cross entropy: each pixel's -log softmax at its true class times that class's weight; those of 255 do not count.

    logits: (N, K, H, W) floats. target: (N, H, W) integers, 0 to K-1 or 255. weights: (K,), or None for 1 each.
    border_weights: (N, H, W), added to the class's weight of each pixel (U-Net, equation 2).
    reduction, of the summed loss:
      "mean"    divided by the number of pixels that count (SegNet; Caffe's normalised loss)
      "sum"     as it is (FCN as released)
      "weights" divided by the sum of the weights of the pixels that count (ENet; what torch calls "mean")
    Without weights, "mean" and "weights" are the same. Where no pixel counts, the loss is 0.
    """
    if reduction not in ("mean", "sum", "weights"):
        raise ValueError(f"reduction (={reduction!r}) must be 'mean', 'sum' or 'weights'")
    target = target.long()
    total = F.cross_entropy(logits, target, weights, ignore_index=IGNORE, reduction="sum")
    if border_weights is not None:
        total = total + (border_weights * F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")).sum()
    if reduction == "sum":
        return total
    counted = target != IGNORE
    if reduction == "weights" and weights is not None:
        divisor = torch.where(counted, weights[target.where(counted, 0)], 0).sum()
    else:
        divisor = counted.sum()
    return total / torch.where(divisor > 0, divisor, 1)


def online_hard_examples(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, threshold: float = 0.7, kept: float = 1 / 16
) -> Tensor:
    """Mean cross entropy of the hard pixels alone: those whose true class has a probability below `threshold`.

    At least the share `kept` of all pixels, void ones included, is kept: the hardest ones. As in the authors' code of BiSeNet
    and FANet. Shapes as for cross_entropy; a hard pixel's loss is times its class's weight. Where no pixel counts, the loss is 0.
    """
    target = target.long()
    losses = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none").flatten()
    counted = target.flatten() != IGNORE
    hardness = losses.detach().masked_fill(~counted, -1.0)
    least = max(1, int(kept * target.numel()))
    bound = hardness.topk(least).values[-1].clamp(max=-math.log(threshold), min=0.0)
    hard = counted & (hardness >= bound)
    if weights is not None:
        losses = losses * weights[target.flatten().where(counted, 0)]
    return losses.where(hard, 0).sum() / hard.sum().clamp(min=1)


def absolute_error(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the pixels that count of 1 - p, p being the softmax at the true class (FusionNet).

    With two classes, or with a single logit and its sigmoid, this is the absolute error |p - y| of FusionNet's membrane map.
    """
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    target = target.long()
    counted = target != IGNORE
    right = logits.softmax(dim=1).gather(1, target.where(counted, 0)[:, None])[:, 0]
    return (1 - right).where(counted, 0).sum() / counted.sum().clamp(min=1)


def sigmoid_focal(logits: Tensor, edges: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of edge logits (N, 1, H, W) against edges (N, H, W) of 0, 1, or 255 where a pixel does not count.

    -alpha_t (1 - p_t)^gamma log p_t (Lin et al., ICCV 2017, equation 5), averaged over the pixels that count. DFN's released loss
    takes the sigmoid twice and draws every pixel towards an edge; this is what DFN's paper means (equation 3).
    """
    counted = edges != IGNORE
    truth = edges.where(counted, 0).to(logits.dtype)
    error = F.binary_cross_entropy_with_logits(logits[:, 0], truth, reduction="none")  # -log p_t
    share = alpha * truth + (1 - alpha) * (1 - truth)
    focal = share * (1 - torch.exp(-error)) ** gamma * error
    return focal.where(counted, 0).sum() / counted.sum().clamp(min=1)
