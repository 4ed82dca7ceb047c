"""The graph of an exported file: uint8 (H, W, C) in, uint8 (H, W) out, with everything that a Predictor does in between.

Each step is the one of the same name in segue.inference and segue.inference.upsampling; those are the definition, which this
repeats in ONNX.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from segue.checkpoint import Card
from segue.engines.conversion import OPSET, need
from segue.images.files import WHITE
from segue.models.base import AnyNetwork, SegmentationModel, as_segmentation_model

if TYPE_CHECKING:
    import onnx

PREFIX = "segue/"  # of the names of all steps that are not the network's own


def build_graph(network: "onnx.ModelProto", model: nn.Module, card: Card, kind: str = "uint8") -> "onnx.ModelProto":
    """The network between the steps that make an image its input and its scores an image's labels.

    network: as segue.engines.conversion.to_onnx writes it, of `model`. kind: the type of the images, uint8, uint16 or float32.
    """
    onnx = need("onnx")
    graph = Graph()
    tensor = onnx.helper.make_tensor_value_info
    number = getattr(onnx.TensorProto, {"float32": "FLOAT"}.get(kind, kind.upper()))
    inputs = [tensor("image", number, ["height", "width", card.in_channels - card.depth])]
    if card.depth:
        inputs.append(tensor("depth", onnx.TensorProto.FLOAT, ["height", "width"]))
    size = graph("Slice", graph("Shape", "image"), ints(0), ints(2))  # height and width, as all sizes below
    x = graph("Transpose", graph("Cast", "image", to=onnx.TensorProto.FLOAT), perm=(2, 0, 1))
    x = graph("Unsqueeze", x, ints(0))
    if card.depth:
        metres = graph("Mul", graph("Unsqueeze", "depth", ints(0, 1)), np.float32(WHITE[kind]))
        x = graph("Concat", x, metres, axis=1)
    x = normalize(graph, x, card, WHITE[kind])
    seen = size
    if card.short_side:
        seen = working_size(graph, size, card.short_side)
        x = resize_image(graph, x, size, seen)
    layout = as_segmentation_model(model)
    padded = padded_size(graph, layout, seen)
    if padded != seen:
        below = graph("Sub", padded, seen)
        x = graph("Pad", x, graph("Concat", ints(0, 0, 0, 0, 0, 0), below, axis=0), mode="edge")
    scores = graph.call(network, x)
    if card.short_side:
        scores = interpolate(graph, scores, size, seen, padded, layout.aligned)
    elif not gives_every_pixel(model, card.in_channels):
        target = graph("Concat", graph("Slice", graph("Shape", scores), ints(0), ints(2)), padded, axis=0)
        mode = "align_corners" if layout.aligned else "half_pixel"
        scores = graph("Resize", scores, "", "", target, mode="linear", coordinate_transformation_mode=mode)
    labels = graph("Cast", graph("ArgMax", scores, axis=1, keepdims=0), to=onnx.TensorProto.UINT8)
    labels = graph("Slice", graph("Squeeze", labels, ints(0)), ints(0, 0), size)
    graph("Identity", labels, output="labels")
    outputs = [tensor("labels", onnx.TensorProto.UINT8, ["height", "width"])]
    made = onnx.helper.make_graph(graph.nodes, "segue", inputs, outputs, graph.weights)
    opsets = [onnx.helper.make_opsetid("", OPSET), *(o for o in network.opset_import if o.domain)]
    return onnx.helper.make_model(made, opset_imports=opsets, ir_version=network.ir_version, producer_name="segue")


def ints(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


class Graph:
    """Steps of ONNX in their order; a call adds one and gives the name of its result."""

    def __init__(self) -> None:
        self.onnx = need("onnx")
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def __call__(self, kind: str, *inputs: Any, output: str = "", **attributes: Any) -> str:
        """inputs: names of results, "" for one that is left out, or numbers, which become constants."""
        name = f"{PREFIX}{len(self.nodes)}_{kind}"
        names = [value if isinstance(value, str) else self.constant(np.asarray(value)) for value in inputs]
        output = output or name
        self.nodes.append(self.onnx.helper.make_node(kind, names, [output], name, **attributes))
        return output

    def constant(self, value: Any) -> str:
        name = f"{PREFIX}constant{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(value, name))
        return name

    def call(self, model: "onnx.ModelProto", x: str) -> str:
        """All steps of a model with one input and one output."""
        inner = self.onnx.compose.add_prefix(model, "network/").graph
        self.weights += inner.initializer
        self.nodes += [self.onnx.helper.make_node("Identity", [x], [inner.input[0].name], f"{PREFIX}network"), *inner.node]
        return str(inner.output[0].name)


def normalize(graph: Graph, x: str, card: Card, white: float) -> str:
    """segue.inference.Normalize, its two constants folded."""
    scale = (1 / (255 * np.array(card.std))).astype(np.float32) * np.float32(255 / white)
    offset = (-np.array(card.mean) / np.array(card.std)).astype(np.float32)
    return graph("Add", graph("Mul", x, scale.reshape(1, -1, 1, 1)), offset.reshape(1, -1, 1, 1))


def working_size(graph: Graph, size: str, short_side: int) -> str:
    """segue.inference.working_size, in whole numbers, since some runtimes calculate with 32 bits where a file says 64."""
    short, long = graph("ReduceMin", size, ints(0), keepdims=1), graph("ReduceMax", size, ints(0), keepdims=1)
    # scaled by over / under: the least of short_side / short and the greater of 4096 / long and 1
    most_over, most_under = graph("Max", ints(4096), long), long
    wanted = graph("LessOrEqual", graph("Mul", ints(short_side), most_under), graph("Mul", most_over, short))
    over, under = graph("Where", wanted, ints(short_side), most_over), graph("Where", wanted, short, most_under)
    doubled = graph("Add", graph("Mul", size, graph("Mul", over, ints(2))), under)  # to be divided by 2 * under, rounding down
    twice = graph("Mul", under, ints(2))
    rounded = graph("Div", doubled, twice)
    tie = graph("Equal", graph("Mul", rounded, twice), doubled)  # half a pixel, which goes to the even number
    odd = graph("Sub", rounded, graph("Mul", graph("Div", rounded, ints(2)), ints(2)))
    down = graph("Mul", odd, graph("Cast", tie, to=graph.onnx.TensorProto.INT64))
    return graph("Max", graph("Sub", rounded, down), ints(1))


def padded_size(graph: Graph, model: SegmentationModel | AnyNetwork, size: str) -> str:
    """The size to which segue.models.base.pad_to_multiple brings an image, of the network's smallest size at least."""
    if model.min_size > 1:
        size = graph("Max", size, ints(model.min_size))
    if model.stride == 1:
        return size
    plus = int(model.aligned)
    times = graph("Div", graph("Add", size, ints(model.stride - 1 - plus)), ints(model.stride))
    return graph("Add", graph("Mul", times, ints(model.stride)), ints(plus))


def axis_of(graph: Graph, size: str, axis: int) -> str:
    return graph("Slice", size, ints(axis), ints(axis + 1))


def count(graph: Graph, length: str, kind: int) -> str:
    """0, 1, 2 and so on, `length` of them."""
    whole = graph("Range", np.int64(0), graph("Squeeze", length, ints(0)), np.int64(1))
    return graph("Cast", whole, to=kind)


def resize_image(graph: Graph, x: str, old: str, new: str) -> str:
    """Bilinear interpolation, smoothed where the image becomes smaller, as torch's with antialias=True.

    Runtimes differ from torch in what they make of ONNX's own antialias, so here it is two products with the matrices of weights:
    pixel i of m lies at (i + .5) n / m among n, and weighs pixel j by its distance. The order of the steps is torch's, so that
    they round alike.
    """
    kinds = graph.onnx.TensorProto
    matrices = []
    for axis in (0, 1):
        n, m = axis_of(graph, old, axis), axis_of(graph, new, axis)
        i = graph("Unsqueeze", count(graph, m, kinds.FLOAT), ints(1))
        j = graph("Unsqueeze", count(graph, n, kinds.FLOAT), ints(0))
        scale = graph("Div", graph("Cast", n, to=kinds.FLOAT), graph("Cast", m, to=kinds.FLOAT))
        centre = graph("Mul", graph("Add", i, np.float32(0.5)), scale)
        far = graph("Abs", graph("Add", graph("Sub", j, centre), np.float32(0.5)))
        near = graph("Mul", far, graph("Div", np.float32(1), graph("Max", scale, np.float32(1))))
        weights = graph("Relu", graph("Sub", np.float32(1), near))
        matrices.append(graph("Div", weights, graph("ReduceSum", weights, ints(1), keepdims=1)))  # (m, n)
    return graph("MatMul", matrices[0], graph("MatMul", x, graph("Transpose", matrices[1], perm=(1, 0))))


def interpolate(graph: Graph, scores: str, size: str, seen: str, padded: str, aligned: bool) -> str:
    """`upsample` of segue.inference.upsampling: scores (1, K, h, w) of padded pixels, at the image's pixels, (1, K, H, W)."""
    kinds = graph.onnx.TensorProto
    have = graph("Slice", graph("Shape", scores), ints(2), ints(4))
    for dim in (3, 2):
        n, pixels, inside, whole = (axis_of(graph, name, dim - 2) for name in (have, size, seen, padded))
        # pixel i lies at (i + .5) * inside / pixels, not outside of the image; kept times 2 * pixels, as a whole number
        place = graph("Mul", graph("Add", graph("Mul", count(graph, pixels, kinds.INT64), ints(2)), ints(1)), inside)
        end = graph("Mul", graph("Sub", graph("Mul", inside, ints(2)), ints(1)), pixels)
        place = graph("Max", graph("Min", place, end), pixels)
        n, whole, twice = (graph("Cast", name, to=kinds.FLOAT) for name in (n, whole, graph("Mul", pixels, ints(2))))
        last = graph("Sub", n, np.float32(1))
        if aligned:
            place = graph("Div", graph("Cast", graph("Sub", place, pixels), to=kinds.FLOAT), twice)
            at = graph("Mul", place, graph("Div", last, graph("Max", graph("Sub", whole, np.float32(1)), np.float32(1))))
        else:
            place = graph("Div", graph("Cast", place, to=kinds.FLOAT), twice)
            at = graph("Max", graph("Sub", graph("Mul", place, graph("Div", n, whole)), np.float32(0.5)), np.float32(0))
        first = graph("Min", graph("Floor", at), last)
        share = graph("Unsqueeze", graph("Min", graph("Sub", at, first), np.float32(1)), ints(*range(1, 4 - dim)))
        here = graph("Gather", scores, graph("Cast", first, to=kinds.INT64), axis=dim)
        after = graph("Min", graph("Add", first, np.float32(1)), last)
        there = graph("Gather", scores, graph("Cast", after, to=kinds.INT64), axis=dim)
        scores = graph("Add", here, graph("Mul", graph("Sub", there, here), share))
    return scores


def gives_every_pixel(model: nn.Module, in_channels: int) -> bool:
    """Whether the scores are of the size of what the network sees."""
    if not isinstance(model, SegmentationModel):
        return False
    size = -(-max(64, model.min_size) // model.stride) * model.stride + int(model.aligned)
    parameter = next(model.parameters())
    with torch.no_grad():
        return model.score(torch.zeros(1, in_channels, size, size, device=parameter.device)).shape[-2:] == (size, size)
