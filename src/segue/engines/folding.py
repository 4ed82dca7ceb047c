"""Batch norm folded into the convolutions before it: the same function, and a pass over the maps less for each."""

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from segue.models.base import SegmentationModel

LARGEST = 2**23  # numbers in a kernel; what follows such a one is a small map, and its copy would take much memory
SIDE = 64  # pixels of the image with which the network is tried, at least


def fold_batch_norms(model: SegmentationModel) -> SegmentationModel:
    """A copy in evaluation mode, without the batch norms that see the output of a convolution which nothing else sees.

    All tensors but those that folding changes are the model's own.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    folded = deepcopy(model, shared).eval()
    for conv, norm in find_pairs(folded):
        absorb(conv, norm)
        act = (norm.drop, norm.act) if type(norm) is not nn.BatchNorm2d else ()  # timm's BatchNormAct2d
        names = [name for name, module in folded.named_modules(remove_duplicate=False) if module is norm]
        for name in names:
            folded.set_submodule(name, nn.Sequential(*act) if act else nn.Identity())
    return folded


class Trace:
    """What becomes of one output of a convolution; it hangs on the tensor."""

    def __init__(self, conv: nn.Module) -> None:
        self.conv: Any = conv
        self.norm: Any = None
        self.uses = 0


class Follow(TorchFunctionMode):
    """Counts the operations that take a traced tensor and give a tensor."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            count_uses((args, kwargs))
        return result


def count_uses(values: object) -> None:
    for leaf in tree_leaves(values):
        trace = getattr(leaf, "trace", None) if isinstance(leaf, Tensor) else None
        if isinstance(trace, Trace):
            trace.uses += 1


def find_pairs(model: SegmentationModel) -> list[tuple[Any, Any]]:
    """Convolutions and batch norms, where the norm sees all that the convolution gives and nothing else, and it alone does.

    They are found by scoring a small image.
    """
    traces: list[Trace] = []
    calls: Counter[nn.Module] = Counter()

    def leave(conv: nn.Module, _: object, output: Any) -> None:
        calls[conv] += 1
        output.trace = Trace(conv)
        traces.append(output.trace)

    def enter(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[norm] += 1
        if isinstance(trace := getattr(inputs[0], "trace", None), Trace):
            trace.norm = norm

    modules = list(model.modules())
    hooks = [module.register_forward_hook(leave) for module in modules if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    hooks += [module.register_forward_pre_hook(enter) for module in modules if is_foldable(module)]
    side = -(-max(model.min_size, SIDE) // model.stride) * model.stride + int(model.aligned)
    x = torch.zeros(1, model.in_channels, side, side, device=next(model.parameters()).device)
    with torch.inference_mode(), Follow():
        count_uses(model.score(x))
    for hook in hooks:
        hook.remove()
    pairs = Counter((trace.conv, trace.norm) for trace in traces if trace.norm is not None and trace.uses == 1)
    return [
        (conv, norm) for (conv, norm), times in pairs.items()
        if times == calls[conv] == calls[norm] and conv.weight.numel() <= LARGEST
    ]  # fmt: skip


def is_foldable(module: nn.Module) -> bool:
    kind = type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"
    return kind and module.running_mean is not None


@torch.no_grad()
def absorb(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
    """Give the convolution the scale and the shift of the norm, in new tensors."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    statistics = norm.weight, norm.bias, mean, variance, norm.eps
    groups = conv.groups if isinstance(conv, nn.ConvTranspose2d) else 0
    weight, bias = fold(conv.weight, conv.bias, *statistics, transposed=groups)
    conv.weight, conv.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)


def fold(
    weight: Tensor, bias: Tensor | None, gain: Tensor | None, offset: Tensor | None, mean: Tensor, variance: Tensor, eps: float,
    transposed: int = 0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The kernels and the bias of a convolution followed by a batch norm. transposed: groups of one that is, 0 if it is not."""
    scale = torch.rsqrt(variance.double() + eps)
    shift = -mean.double() * scale
    if gain is not None:
        scale, shift = scale * gain.double(), shift * gain.double()
    if offset is not None:
        shift = shift + offset.double()
    if bias is not None:
        shift = shift + bias.double() * scale
    kernels = weight.double()
    if transposed:  # (in, out / groups, k, k): the outputs of a group are those of its inputs
        by_group = kernels.view(transposed, -1, *kernels.shape[1:]) * scale.view(transposed, 1, -1, 1, 1)
        kernels = by_group.flatten(0, 1)
    else:
        kernels = kernels * scale.view(-1, 1, 1, 1)
    return kernels.to(weight.dtype), shift.to(weight.dtype)
