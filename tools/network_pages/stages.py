"""A network as a graph of its stages, read from the module itself by running it once without data."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from segue.models.backbones import Backbone
from segue.models.base import SegmentationModel

OPENED = ("backbone", "encoder", "trunk")  # children that are shown by their own children
JOINS = {"cat": "concatenate", "concat": "concatenate", "add": "add", "sub": "add", "mul": "multiply", "maximum": "maximum",
         "max_unpool2d": "unpool with indices", "matmul": "attention", "bmm": "attention", "einsum": "attention"}  # fmt: skip
ON_THE_WAY = {"max_pool2d": "max pool", "avg_pool2d": "average pool", "adaptive_avg_pool2d": "global pool",
              "conv_transpose2d": "transposed conv", "max_unpool2d": "unpool"}  # fmt: skip
REDUCTIONS = {"sum": "add", "mean": "add", "amax": "maximum", "max": "maximum"}  # of maps that were stacked
IN_WORDS = ("max pool", "average pool", "global pool", "unpool", "upsample", "attention", "linear")


@dataclass
class Node:
    """A stage, the meeting of several maps, the input or the output."""

    name: str
    kind: str  # "stage", "input", "output", or how maps meet: "add", "concatenate", ...
    shape: tuple[int, int, int]  # channels, height, width of what it gives
    level: float = 0.0  # halvings of the input's resolution
    depth: int = 0  # nodes on the longest way from the input
    parameters: int = 0
    work: str = ""  # in plain words: "max pool, 2 conv 3x3"
    auxiliary: bool = False  # serves an auxiliary output alone


@dataclass(eq=False)
class Edge:
    """Data that flows from one node to another; `source` and `target` are indices of nodes."""

    source: int
    target: int
    way: str = ""  # what happens on the way: "crop", "upsample"
    join: str = ""  # how the target takes it in: "concatenate", "unpool with indices"
    main: bool = True  # of the maps that meet in the target the one that came the longest way; the others are skips


@dataclass
class Graph:
    """The stages of a network in the order in which they run."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    parameters: int = 0

    def entering(self, target: int) -> list[Edge]:
        return [edge for edge in self.edges if edge.target == target]


def stages(model: SegmentationModel, size: tuple[int, int]) -> Graph:
    """The stages of a model at an input of (height, width), with what flows between them in evaluation.

    A stage is a child of the model; a backbone, an encoder and lists are opened. One that runs several times stands once. The
    model may be on the meta device, where this costs no computation. Auxiliary heads are those that `supervise` runs.
    """
    weight = next(model.parameters())
    image = torch.empty(1, model.in_channels, *size, device=weight.device, dtype=weight.dtype)
    was_training = model.training
    tracer = Tracer(model, image)
    try:
        with torch.no_grad(), tracer:
            main = model.eval()(image)
            alone = type(model).supervise is SegmentationModel.supervise  # whose only output is what has just run
            outputs = {} if alone else model.supervise(image)
    finally:
        tracer.remove_hooks()
        model.train(was_training)
    return tracer.finish(main, list(outputs.values()))


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from: nodes, and what happened since. At the top it is one node, inside a stage it may be several."""

    nodes: frozenset[int]
    level: float
    way: tuple[str, ...] = ()


class Tracer(TorchFunctionMode):
    """Follows every tensor of a run from stage to stage."""

    def __init__(self, model: SegmentationModel, image: Tensor) -> None:
        super().__init__()
        self.model = model
        self.graph = Graph([Node("input", "input", shape_of(image))], parameters=count(model))
        self.origins = {id(image): Origin(frozenset([0]), 0.0)}
        self.alive: list[Tensor] = [image]  # an id stays that of one tensor as long as the tensor lives
        self.seen: dict[nn.Module, int] = {}
        self.joined: dict[tuple[str, frozenset[int]], int] = {}
        self.stage: nn.Module | None = None
        self.calls: Counter[str] = Counter()
        self.hooks = []
        for name, module in stage_candidates(model):
            self.hooks.append(module.register_forward_pre_hook(self.opener(name), with_kwargs=True))
            self.hooks.append(module.register_forward_hook(self.close))

    def remove_hooks(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def opener(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            if self.stage is not None:
                return
            self.stage, self.calls = module, Counter()
            origins = self.origins_of((args, kwargs))
            if module not in self.seen and origins:
                self.seen[module] = self.add_node(Node(name, "stage", (0, 0, 0), parameters=count(module)), origins)

        return enter

    def close(self, module: nn.Module, _: Any, output: Any) -> None:
        if self.stage is not module:
            return
        self.stage = None
        if module not in self.seen:
            return
        index = self.seen[module]
        node = self.graph.nodes[index]
        tensors = [t for t in tree_leaves(output) if isinstance(t, Tensor) and id(t) in self.origins]
        if not node.shape[0] and tensors:
            node.shape, node.level = shape_of(tensors[0]), self.origins[id(tensors[0])].level
            node.work = in_words(self.calls)
        for tensor in tensors:
            self.origins[id(tensor)] = Origin(frozenset([index]), self.origins[id(tensor)].level)

    def add_node(self, node: Node, origins: list[Origin]) -> int:
        """Append a node with an edge from each of the origins; gives its index."""
        index = len(self.graph.nodes)
        self.graph.nodes.append(node)
        ways = {source: origin.way for origin in reversed(origins) for source in origin.nodes}
        longest = max(ways, key=lambda source: (self.graph.nodes[source].depth, source))
        node.depth = self.graph.nodes[longest].depth + 1
        self.graph.edges += [Edge(s, index, ", ".join(way), main=s == longest) for s, way in sorted(ways.items())]
        return index

    def origins_of(self, values: Any) -> list[Origin]:
        return [self.origins[id(t)] for t in tree_leaves(values) if isinstance(t, Tensor) and id(t) in self.origins]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        results = [t for t in tree_leaves(output) if isinstance(t, Tensor)]
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and id(t) in self.origins]
        if results and inputs:
            self.follow(func.__name__.strip("_").removesuffix("_with_indices"), args, kwargs or {}, inputs, results)
        return output

    def follow(self, name: str, args: Any, kwargs: Any, inputs: list[Tensor], results: list[Tensor]) -> None:
        """Note where the results of one operation come from."""
        largest = max(inputs, key=lambda t: shape_of(t)[1])
        origin, result = self.origins[id(largest)], results[0]
        level = origin.level + halvings(name, args, kwargs, largest, result)
        step = on_the_way(name, largest, result)
        origins = [self.origins[id(t)] for t in inputs]
        nodes = frozenset[int]().union(*(o.nodes for o in origins))
        name = name.removeprefix("i" if name in ("iadd", "imul") else "r" if name in ("radd", "rmul") else "")
        meet = len({o.nodes for o in origins}) > 1
        if self.stage is not None:
            self.calls[describe(name, args, kwargs) or step] += 1
            if meet and name in JOINS and self.stage in self.seen:
                for edge in self.graph.entering(self.seen[self.stage]):
                    ways = [way for o in origins for way in o.way if o.nodes == {edge.source} and way not in edge.way]
                    if edge.source in nodes and not edge.main and not edge.join:
                        edge.join = ", ".join([*ways, JOINS[name]])
            new = Origin(nodes, level, travelled(origin.way, step))
        elif meet:
            key = (JOINS.get(name, name), nodes)
            if key not in self.joined:
                self.joined[key] = self.add_node(Node("", key[0], shape_of(result), level), origins)
            new = Origin(frozenset([self.joined[key]]), level)
        else:
            (index,) = nodes
            node = self.graph.nodes[index]
            if node.kind == "stack" and name in REDUCTIONS:
                node.kind, node.shape = REDUCTIONS[name], shape_of(result)
            new = Origin(nodes, level, travelled(origin.way, step))
        self.alive += results
        self.origins.update({id(t): new for t in results})

    def finish(self, main: Tensor, outputs: list[Tensor]) -> Graph:
        """The graph with its output, without what leads nowhere; like stages of a list stand as one."""
        graph = self.graph
        last = self.origins[id(main)]
        end = self.add_node(Node("output", "output", shape_of(main), last.level), [last])
        to_main = ancestors(graph, {end})
        used = ancestors(graph, {end}.union(*(self.origins[id(t)].nodes for t in outputs)))
        for index, node in enumerate(graph.nodes):
            node.auxiliary = index not in to_main
        graph.edges = [edge for edge in graph.edges if edge.source in used and edge.target in used]
        for edge in list(graph.edges):
            if fold(graph, edge) or gather(graph, edge):
                used.discard(edge.source)
        renumbered = {old: new for new, old in enumerate(sorted(used))}
        edges = {(e.source, e.target): e for e in graph.edges}
        for e in edges.values():
            e.source, e.target = renumbered[e.source], renumbered[e.target]
        return Graph([graph.nodes[i] for i in sorted(used)], list(edges.values()), graph.parameters)


def fold(graph: Graph, edge: Edge) -> bool:
    """Take away a meeting of maps that only leads into a like one, or into a stage of its resolution; True if it was one."""
    meeting, target = graph.nodes[edge.source], graph.nodes[edge.target]
    if meeting.kind not in JOINS.values() or edge.way or sum(e.source == edge.source for e in graph.edges) > 1:
        return False
    into_stage = target.kind == "stage" and round(meeting.level) == round(target.level)
    if not into_stage and (meeting.kind != target.kind or meeting.kind == "multiply"):
        return False
    for entering in graph.entering(edge.source):
        entering.target, entering.main = edge.target, entering.main and edge.main
        if into_stage and not entering.main:
            entering.join = meeting.kind
            entering.way = "" if "unpool" in meeting.kind else entering.way
    if into_stage and "unpool" in meeting.kind:
        target.work = f"unpool, {target.work}"
    graph.edges.remove(edge)
    return True


def gather(graph: Graph, edge: Edge) -> bool:
    """Take the first of two like stages of a list, one right behind the other, into the second; True if they were such."""
    first, second = graph.nodes[edge.source], graph.nodes[edge.target]
    start = first.name.partition(" to ")[0]
    (group, _, number), (other, _, begin) = second.name.rpartition("."), start.rpartition(".")
    numbered = group == other and number.isdigit() and begin.isdigit()
    like = (first.shape, first.work.split(" x ")[-1]) == (second.shape, second.work) and first.auxiliary == second.auxiliary
    alone = len(graph.entering(edge.target)) == 1 == sum(e.source == edge.source for e in graph.edges)
    if not (numbered and like and alone) or edge.way:
        return False
    for entering in graph.entering(edge.source):
        entering.target = edge.target
    second.name, second.depth = f"{start} to {number}", first.depth
    second.work = f"{int(number) - int(begin) + 1} x {second.work}"
    second.parameters += first.parameters
    graph.edges.remove(edge)
    return True


def stage_candidates(model: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Modules that may stand as a stage, outermost first. Those of OPENED never do, nor do torch's own without a convolution."""
    found: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        convolves = any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) for m in child.modules())
        if convolves or not type(child).__module__.startswith("torch.nn"):
            opened = is_opened(name, child)
            nameless = opened and sum(is_opened(*pair) for pair in model.named_children()) == 1
            if not opened:
                found.append((prefix + name, child))
            found += stage_candidates(child, prefix if nameless else f"{prefix}{name}.")
    return found


def is_opened(name: str, module: nn.Module) -> bool:
    return isinstance(module, Backbone) or (name in OPENED and len(list(module.children())) > 1)


def ancestors(graph: Graph, of: set[int]) -> set[int]:
    """The nodes from which some of the given ones are reached, and those themselves."""
    reached = set(of)
    for edge in sorted(graph.edges, key=lambda e: -e.target):
        if edge.target in reached:
            reached.add(edge.source)
    return reached


def shape_of(x: Tensor) -> tuple[int, int, int]:
    """(channels, height, width), also of a vector (N, C)."""
    channels, height, width = (*x.shape[1:], 1, 1, 1)[:3]
    return channels, height, width


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def argument(args: Any, kwargs: Any, place: int, name: str, default: Any) -> Any:
    value = args[place] if len(args) > place else kwargs.get(name, default)
    return value[0] if isinstance(value, tuple | list) else value


def halvings(name: str, args: Any, kwargs: Any, x: Tensor, y: Tensor) -> float:
    """By how many powers of two an operation lessens the resolution. A border that a valid convolution takes does not count."""
    if name == "conv2d":
        return math.log2(argument(args, kwargs, 3, "stride", 1))
    if name == "conv_transpose2d":
        return -math.log2(argument(args, kwargs, 3, "stride", 1))
    if x.ndim < 4 or y.ndim < 4 or ("pool" not in name and name not in ("interpolate", "mean")):
        return 0.0
    ratio = math.log2(x.shape[-2] / y.shape[-2])
    whole = name in ("max_pool2d", "avg_pool2d", "max_unpool2d") or abs(ratio - round(ratio)) < 0.15
    return round(ratio) if whole else ratio


def on_the_way(name: str, x: Tensor, y: Tensor) -> str:
    """What an operation does to the size, in words, "" for nothing."""
    if x.ndim < 4 or y.ndim < 4:
        return ""
    if name in ON_THE_WAY:
        return ON_THE_WAY[name]
    if name in ("cat", "conv2d") or x.shape[-2:] == y.shape[-2:]:
        return ""
    larger = y[0, 0].numel() > x[0, 0].numel()
    if name == "interpolate":
        return "upsample" if larger else "downsample"
    if name == "mean":
        return "global pool"
    return f"pad to {y.shape[-2]} x {y.shape[-1]}" if larger else "crop"


def travelled(way: tuple[str, ...], step: str) -> tuple[str, ...]:
    """The way lengthened by a step; a second padding takes the place of the first."""
    if not step or step in way:
        return way
    return (*(way[:-1] if way and way[-1][:3] == step[:3] == "pad" else way), step)


def describe(name: str, args: Any, kwargs: Any) -> str:
    """A convolution's kernel, width and dilation as a key for `in_words`."""
    if name == "conv2d":
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        depthwise = weight.shape[1] == 1 < weight.shape[0] and argument(args, kwargs, 6, "groups", 1) > 1
        dilation = argument(args, kwargs, 5, "dilation", 1) if max(weight.shape[-2:]) > 1 else 1
        return f"conv {weight.shape[-2]}x{weight.shape[-1]} {dilation} {int(depthwise)}"
    return {"linear": "linear", "matmul": "attention", "einsum": "attention", "bmm": "attention"}.get(name, "")


def in_words(calls: Counter[str]) -> str:
    """What a stage does, in its order: {"max pool": 1, "conv 3x3 1 0": 2} -> "max pool, 2 conv 3x3"."""
    words: list[str] = []
    for call, number in calls.items():
        if call.startswith("conv "):
            words += [] if "convolutions" in words else ["convolutions"]
        elif call == "transposed conv":
            words.append(f"{number if number > 1 else ''} transposed conv".strip())
        elif call in IN_WORDS:
            words.append(call)
    convs = [key.split()[1:] for key in calls for _ in range(calls[key]) if key.startswith("conv ")]
    if convs:
        kernels = {kernel for kernel, _, _ in convs}
        phrase = f"{len(convs) if len(convs) > 1 else ''} conv {kernels.pop() if len(kernels) == 1 else ''}".strip()
        dilations = sorted({int(dilation) for _, dilation, _ in convs} - {1})
        if dilations:
            phrase += f", dilation {dilations[0]}" if len(dilations) == 1 else f", dilation {dilations[0]} to {dilations[-1]}"
        if any(depthwise == "1" for _, _, depthwise in convs):
            phrase += ", depthwise"
        words[words.index("convolutions")] = phrase
    return ", ".join(words)
