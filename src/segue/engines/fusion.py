"""A network's graph with fewer steps: batch norms, sums and ReLUs become part of the convolutions before them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from segue.engines.conversion import quiet, refused, to_program
from segue.engines.convolution import Convolution
from segue.engines.folding import fold

aten = torch.ops.aten
NORM = aten._native_batch_norm_legit_no_training.default


def fuse(model: nn.Module, size: tuple[int, int] | None, in_channels: int) -> GraphModule:
    """The network's `score`, or the `forward` of a module of one's own, for images of one size, or of all: see `to_program`.

    ValueError where that has no graph, or one that depends on how its maps lie in memory, or more than one result.
    """
    program = to_program(model, size, in_channels)
    with refused(model, size, "with fewer steps"), quiet():
        graph_module = program.run_decompositions({}).module(check_guards=False)
        for node in list(graph_module.graph.nodes):
            if node.target == aten.conv2d.default:
                fuse_convolution(graph_module, node)
            elif node.target == aten.conv_transpose2d.input:
                fold_into_transposed(graph_module, node)
            elif node.target in (aten.view.default, aten._unsafe_view.default):
                node.target = aten.reshape.default  # for maps in channels_last
            elif node.target == aten.as_strided.default:
                raise ValueError("it has as_strided")
            elif node.op == "output" and len(node.all_input_nodes) != 1:
                raise ValueError("it gives more than one tensor")
        graph_module.graph.eliminate_dead_code()
        return GraphModule(graph_module, graph_module.graph)  # with what it uses, and no check that its images are large


def fuse_convolution(graph_module: GraphModule, conv: Node) -> None:
    given: list[Any] = list(conv.args)
    x, weight, bias, stride, padding, dilation, groups = given + [None, [1, 1], [0, 0], [1, 1], 1][len(given) - 2 :]
    kernels, shift = tensor(graph_module, weight), tensor(graph_module, bias)
    numbers = [*stride, *padding, *dilation, groups]
    if kernels is None or (bias is not None and shift is None) or not is_map(x) or not all(type(n) is int for n in numbers):
        return
    last, other, relu = conv, None, False
    norm = norm_after(graph_module, conv)
    if norm is not None:
        kernels, shift = folded(graph_module, norm, kernels, shift)
        last = next(iter(norm.users))
    following = only_user(last)
    if following is not None and is_sum(following):
        (other,) = [summand for summand in following.args if summand is not last]
        last = following
    following = only_user(last)
    if following is not None and following.target == aten.relu.default:
        last, relu = following, True
    name = f"convolution_{conv.name}"
    graph_module.add_submodule(name, Convolution(kernels, shift, list(stride), list(padding), list(dilation), groups, relu))
    with graph_module.graph.inserting_before(last):
        fused = graph_module.graph.call_module(name, (x,) if other is None else (x, other))
    fused.meta = last.meta
    last.replace_all_uses_with(fused)


def fold_into_transposed(graph_module: GraphModule, conv: Node) -> None:
    arguments: list[Any] = [*conv.args, None] if len(conv.args) == 2 else [*conv.args]
    weight, bias = tensor(graph_module, arguments[1]), tensor(graph_module, arguments[2])
    norm = norm_after(graph_module, conv)
    if norm is None or weight is None or (arguments[2] is not None and bias is None):
        return
    weight, bias = folded(graph_module, norm, weight, bias, arguments[6] if len(arguments) > 6 else 1)
    for place, name, value in ((1, "weight", weight), (2, "bias", bias)):
        graph_module.register_buffer(f"{conv.name}_{name}", value)
        with graph_module.graph.inserting_before(conv):
            arguments[place] = graph_module.graph.get_attr(f"{conv.name}_{name}")
    conv.args = tuple(arguments)
    next(iter(norm.users)).replace_all_uses_with(conv)


def tensor(graph_module: GraphModule, node: Any) -> Tensor | None:
    """What a node holds that is a weight of the network; None if it is none."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value: Any = graph_module
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return value.detach() if isinstance(value, Tensor) else None


def only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def is_map(node: Any) -> bool:
    """Whether it gives maps (N, C, H, W) of float32."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, Tensor) and value.ndim == 4 and value.dtype == torch.float32


def norm_after(graph_module: GraphModule, conv: Node) -> Node | None:
    """The batch norm that alone sees what the convolution gives, if one does, and that calculates with weights alone."""
    norm = only_user(conv)
    if norm is None or norm.target != NORM or norm.args[0] is not conv or len(norm.users) != 1 or not is_map(conv):
        return None
    return norm if all(given is None or tensor(graph_module, given) is not None for given in norm.args[1:5]) else None


def folded(
    graph_module: GraphModule, norm: Node, weight: Tensor, bias: Tensor | None, transposed: int = 0
) -> tuple[Tensor, Tensor]:
    _, *statistics, _, epsilon = norm.args
    gain, offset, mean, variance = (tensor(graph_module, argument) for argument in statistics)
    return fold(weight, bias, gain, offset, mean, variance, epsilon, transposed=transposed)  # type: ignore[arg-type]


def is_sum(node: Node) -> bool:
    """Whether it is the sum of two different maps of one shape."""
    if node.target != aten.add.Tensor or node.kwargs or len({*node.args}) < 2:
        return False
    summands: list[Any] = list(node.args)
    return all(is_map(summand) for summand in summands) and len({str(summand.meta["val"].shape) for summand in summands}) == 1
