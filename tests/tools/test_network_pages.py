"""A drawing shows the module as it runs: its stages, sizes and skips, and nothing stands on anything else."""

import re
import xml.etree.ElementTree as ET
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from network_pages.drawing import arrange, draw_network, overlap, route
from network_pages.pages import (
    COMMON_CLASSES,
    by_file,
    counts,
    how_to_use,
    index,
    meta_model,
    paper_of,
    parameters,
    spelled,
    with_variants,
    write_drawings,
)
from network_pages.papers import PAPERS, VARIANTS
from network_pages.stages import Graph, stages
from segue import create_model, list_models
from segue.models.backbones import Backbone
from segue.models.base import SegmentationModel

NETWORKS = Path(__file__).parents[2] / "docs" / "networks"
# The first network of each file, on a trunk as deep as the paper's or, where that takes long, on one with as many stages.
SHALLOW = dict.fromkeys(("deeplabv2", "deeplabv3", "deeplabv3plus", "dfn", "gcn", "rednet"), "resnet18")
DRAWN = [(names[0], SHALLOW.get(names[0], "")) for names in by_file().values()] + [("unet", "resnet18")]
every_drawing = pytest.mark.parametrize(("name", "backbone"), DRAWN)
every_file = pytest.mark.parametrize(("file", "names"), by_file().items(), ids=by_file())


class Tiny(SegmentationModel):
    """A pooling, a skip that is concatenated, a sum, an auxiliary head, a stage that runs twice, an unused one."""

    def __init__(self) -> None:
        super().__init__(num_classes=5, in_channels=3)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=2, dilation=2))
        self.again = nn.Conv2d(16, 16, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.fuse = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 5, 1)
        self.helper = nn.Conv2d(16, 5, 1)
        self.unused = nn.Conv2d(16, 5, 1)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        for _ in range(2):
            second = self.again(second)
        fused = self.fuse(torch.cat([self.up(second), first], dim=1))
        return second, fused + first

    def score(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[1])

    def supervise(self, x: Tensor) -> dict[str, Tensor]:
        second, fused = self.features(x)
        return {"main": self.head(fused), "helper": self.helper(second)}


class Chain(SegmentationModel):
    """Convolutions in a list: an unlike one, three alike, and one that a sum sets apart."""

    def __init__(self) -> None:
        super().__init__(num_classes=4, in_channels=4)
        self.encoder = nn.ModuleList([nn.Conv2d(4, 4, size, padding=size // 2) for size in (1, 3, 3, 3, 3)])

    def score(self, x: Tensor) -> Tensor:
        for layer in self.encoder[:4]:
            x = layer(x)
        return self.encoder[4](x) + x


@cache
def graph_and_sizes(name: str, backbone: str) -> tuple[Graph, dict[str, tuple[int, ...]]]:
    """The graph, and what the children of the network and of its trunk gave when they first ran."""
    model = meta_model(name, **({"backbone": backbone} if backbone else {}))
    sizes: dict[str, tuple[int, ...]] = {}

    def watch(child: str, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.setdefault(child, (*output.shape[1:], 1, 1)[:3])

    trunks = [module for module in model.children() if isinstance(module, Backbone)]
    for child, module in [pair for parent in (model, *trunks) for pair in parent.named_children()]:
        if any(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in module.modules()):
            module.register_forward_hook(lambda _, __, output, child=child: watch(child, output))
    return stages(model, paper_of(name).size), sizes


def graph_of(name: str, backbone: str = "") -> Graph:
    return graph_and_sizes(name, backbone)[0]


def tiny() -> Graph:
    return stages(Tiny(), (24, 32))


def edges_between(graph: Graph) -> dict[tuple[str, str], str]:
    named = [node.name or node.kind for node in graph.nodes]
    return {(named[edge.source], named[edge.target]): edge.join or edge.way for edge in graph.edges}


def test_stages_have_the_sizes_levels_and_words_of_the_run() -> None:
    found = {node.name: (node.shape, node.level, node.work, node.parameters) for node in tiny().nodes if node.kind == "stage"}
    assert found == {
        "first": ((8, 24, 32), 0, "conv 3x3", 224),
        "second": ((16, 12, 16), 1, "2 conv 3x3, dilation 2", 3488),
        "again": ((16, 12, 16), 1, "conv 1x1", 272),
        "up": ((8, 24, 32), 0, "transposed conv", 520),
        "fuse": ((8, 24, 32), 0, "conv 3x3", 1160),
        "head": ((5, 24, 32), 0, "conv 1x1", 45),
        "helper": ((5, 12, 16), 1, "conv 1x1", 85),
    }


def test_edges_are_what_flows_and_joins_have_their_names() -> None:
    graph = tiny()
    assert edges_between(graph) == {
        ("input", "first"): "",
        ("first", "second"): "max pool",
        ("second", "again"): "",
        ("again", "up"): "",
        ("first", "fuse"): "concatenate",
        ("up", "fuse"): "",
        ("fuse", "head"): "",
        ("first", "head"): "add",
        ("again", "helper"): "",
        ("head", "output"): "",
    }
    assert [node.name for node in graph.nodes if node.auxiliary] == ["helper"]
    skips = {(graph.nodes[edge.source].name, graph.nodes[edge.target].name) for edge in graph.edges if not edge.main}
    assert skips == {("first", "fuse"), ("first", "head")}


def test_reading_a_model_leaves_it_as_it_was() -> None:
    model = Tiny().train()
    stages(model, (24, 32))
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_like_stages_of_a_list_stand_as_one() -> None:
    nodes = {node.name: (node.work, node.parameters) for node in stages(Chain(), (24, 32)).nodes if node.kind == "stage"}
    assert nodes == {"0": ("conv 1x1", 20), "1 to 3": ("3 x conv 3x3", 3 * 148), "4": ("conv 3x3", 148)}


@pytest.mark.parametrize(
    ("name", "skips"),
    [
        ("enet", {("down1", "up5"): "unpool with indices", ("down2", "up4"): "unpool with indices"}),
        ("unet", {(f"down{i}", f"up{i}"): "crop, concatenate" for i in (1, 2, 3, 4)}),
    ],
)
def test_the_papers_skips_are_in_the_graph(name: str, skips: dict[tuple[str, str], str]) -> None:
    graph = graph_of(name)
    joined = {(graph.nodes[e.source].name, graph.nodes[e.target].name): e.join for e in graph.edges if not e.main}
    assert joined == skips


def test_unet_stands_in_rows_as_in_figure_1() -> None:
    layout = arrange(graph_of("unet"))
    row = {box.node.name: box.y for box in layout.boxes}
    assert row["down1"] == row["up1"] < row["down2"] == row["up2"] < row["down3"] == row["up3"] < row["down4"] == row["up4"]
    assert row["up4"] < row["bottom"]


@every_drawing
def test_a_drawing_names_every_stage_with_its_size(name: str, backbone: str) -> None:
    graph, sizes = graph_and_sizes(name, backbone)
    drawn = {node.name.rpartition(".")[2]: node.shape for node in graph.nodes}  # the stages of a trunk by their own names
    drawn |= {node.name: node.shape for node in graph.nodes if node.kind == "stage"}
    assert sizes
    assert {child: drawn.get(child) for child in sizes} == sizes
    assert [n.shape for n in graph.nodes if n.kind == "output"] == [(paper_of(name).classes, *paper_of(name).size)]


@every_drawing
def test_nothing_stands_on_anything_else(name: str, backbone: str) -> None:
    layout = arrange(graph_of(name, backbone))
    areas = [[box.bar, *box.text()] for box in layout.boxes]
    for one, other in combinations(areas, 2):
        assert not any(overlap(a, b) for a in one for b in other)
    for left, top, right, bottom in (rectangle for area in areas for rectangle in area):
        assert left >= 0 and top >= 0 and right <= layout.width and bottom <= layout.height


@pytest.mark.parametrize("name", ["enet", "unet"])
def test_lines_run_through_neither_bars_nor_text(name: str) -> None:
    graph = graph_of(name)
    layout = arrange(graph)
    for edge, path in zip(graph.edges, route(graph, layout), strict=True):
        ends = (layout.boxes[edge.source], layout.boxes[edge.target])
        assert (path[0][1], path[-1][1]) == (ends[0].y, ends[1].y)
        for box in layout.boxes:
            for left, top, right, bottom in (box.bar, *box.text()):
                assert not any(left < x < right and top < y < bottom for x, y in path[1:-1])


def test_the_svg_is_xml_that_tells_stages_sizes_and_parameters() -> None:
    svg = draw_network(Tiny(), "Tiny & <small>", (24, 32))
    words = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert "Tiny & <small>" in words
    assert f"input 24 x 32, {sum(p.numel() for p in Tiny().parameters()):,} parameters" in words
    assert {"first", "second", "again", "up", "fuse", "head", "helper", "24 x 32", "12 x 16", "concatenate", "add"} <= set(words)
    assert "script" not in svg and "href" not in svg


# Where one of these fails, `make docs` writes the pages anew.
@every_file
def test_the_page_and_the_index_are_up_to_date(file: str, names: list[str]) -> None:
    text, lines = (NETWORKS / f"{file}.md").read_text(), (NETWORKS / "README.md").read_text().splitlines()
    for name, options in with_variants(names):
        cells = [spelled(f"`{name}`", options), *(f"{number:,}" for number in counts(name, **options).values())]
        assert f"| {' | '.join(cells)} |" in text
    for name in names:
        cells = [f"[`{name}`]({file}.md)", PAPERS[file].name, str(PAPERS[file].year), f"{parameters(name, COMMON_CLASSES):,}"]
        assert any(line.startswith(f"| {' | '.join(cells)} |") for line in lines)
    assert "\n".join(how_to_use(names)) in text


def test_auxiliary_heads_are_counted_apart() -> None:
    assert list(counts("bisenetv1", backbone="xception39").values()) == [1_541_963, 1_842_289]


def test_variants_are_drawn_under_their_options_where_they_look_different(tmp_path: Path) -> None:
    assert write_drawings(tmp_path, ["unet"]) == [("unet", {}), ("unet", {"backbone": "resnet34"})]
    assert "U-Net, backbone=resnet34" in (tmp_path / "unet-resnet34.svg").read_text()
    assert write_drawings(tmp_path, ["segnet", "bayesian_segnet"]) == [("segnet", {})]
    assert ">SegNet<" in (tmp_path / "segnet.svg").read_text()


def test_variants_are_of_networks_that_there_are() -> None:
    assert {name for name, _ in VARIANTS} <= set(list_models())


def test_the_index_has_a_row_for_each_network_and_no_more() -> None:
    rows = re.findall(r"^\| \[`(\w+)`\]", (NETWORKS / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == list_models()
    assert (NETWORKS / "README.md").read_text().startswith(index([]))


def test_every_drawing_is_well_formed_and_shown_on_a_page() -> None:
    shown = {name for page in NETWORKS.glob("*.md") for name in re.findall(r"\((\S+\.svg)\)", page.read_text())}
    assert shown == {drawing.name for drawing in NETWORKS.glob("*.svg")}
    for name in shown:
        assert ET.fromstring((NETWORKS / name).read_text()).tag.endswith("svg")


def test_a_paper_is_written_down_for_every_file_of_networks() -> None:
    shared = {"backbones", "base", "counting", "layers"}
    files = {path.stem for path in Path(create_model.__code__.co_filename).parent.glob("[!_]*.py")}
    assert files - shared <= set(PAPERS)
