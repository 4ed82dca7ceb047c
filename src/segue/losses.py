"""Losses over logits (N, K, H, W) and label maps (N, H, W)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segue.labels import IGNORE

Reduction = Literal["mean", "sum", "weights"]


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None, reduction: Reduction = "mean") -> Tensor:
    """Pixel-wise cross entropy: each pixel's -log softmax at its true class times that class's weight; those of 255 do not count.

    logits: (N, K, H, W) floats. target: (N, H, W) integers, 0 to K-1 or 255. weights: (K,), or None for 1 each.
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
    if reduction == "sum":
        return total
    counted = target != IGNORE
    if reduction == "weights" and weights is not None:
        divisor = torch.where(counted, weights[target.where(counted, 0)], 0).sum()
    else:
        divisor = counted.sum()
    return total / torch.where(divisor > 0, divisor, 1)
