"""One page for every paper's file of networks, from its docstring, its drawing and what can be counted.

`make docs` writes them anew.
"""

import inspect
import json
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from network_pages.drawing import draw_network
from network_pages.papers import PAPERS, VARIANTS, Network, Options, Paper
from network_pages.stages import Graph, stages
from segue.data import DRAWN
from segue.models import MODELS, counting, create_model
from segue.models.base import SegmentationModel
from segue.recipes import RECIPES

COMMON_CLASSES = 19  # for which every network is counted, Cityscapes'


def write_pages(folder: Path) -> None:
    """Write README.md, a page for every file of networks in MODELS and a drawing of every network that looks different."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in by_file().items():
        drawn = write_drawings(folder, names)
        (folder / f"{file}.md").write_text(page(file, names, drawn, folder.parent / "results"))
    (folder / "README.md").write_text(index([index_row(file, name) for file, names in by_file().items() for name in names]))


def by_file() -> dict[str, list[str]]:
    """The names in MODELS by the file that holds the network, in the order of the papers' years."""
    files: dict[str, list[str]] = defaultdict(list)
    for name in sorted(MODELS, key=lambda name: (len(name), name)):  # the plain network before its variants
        files[MODELS[name].__module__.rpartition(".")[2]].append(name)
    return dict(sorted(files.items(), key=lambda item: (PAPERS[item[0]].year, item[0])))


def with_variants(names: list[str]) -> list[Network]:
    return [network for name in names for network in [(name, {}), *(v for v in VARIANTS if v[0] == name)]]


def paper_of(name: str) -> Paper:
    return PAPERS[MODELS[name].__module__.rpartition(".")[2]]


def meta_model(name: str, num_classes: int | None = None, **options: Any) -> SegmentationModel:
    """A network without memory for its weights; with the paper's classes and channels unless told otherwise."""
    paper = paper_of(name)
    with torch.device("meta"):
        if num_classes is not None:
            return create_model(name, num_classes, max(3, paper.channels), **options)
        return create_model(name, paper.classes, paper.channels, **options)


@cache
def parameters(name: str, num_classes: int | None = None, **options: Any) -> int:
    return sum(p.numel() for p in meta_model(name, num_classes, **options).parameters())


@cache
def multiply_adds(name: str, **options: Any) -> float:
    """Multiply-adds of convolutions and matrix products of one prediction at the paper's size, in units of 10^9."""
    paper = paper_of(name)
    return counting.multiply_adds(meta_model(name, **options), torch.empty(1, paper.channels, *paper.size, device="meta")) / 1e9


def write_drawings(folder: Path, names: list[str]) -> list[Network]:
    """Draw the networks of a file that differ in their stages; gives those drawn."""
    drawn: list[Network] = []
    seen = []
    for name, options in with_variants(names):
        model, paper = meta_model(name, **options), paper_of(name)
        shape = signature(stages(model, paper.size))
        if shape in seen:
            continue
        seen.append(shape)
        drawn.append((name, options))
        title = spelled(paper.name if len(names) == 1 else type(model).__name__, options)
        (folder / f"{stem(name, options)}.svg").write_text(draw_network(model, title, paper.size))
    return drawn


def signature(graph: Graph) -> list[object]:
    """What a drawing shows of a network."""
    return [[(n.name, n.kind, n.shape, n.work) for n in graph.nodes], [(e.source, e.target, e.way, e.join) for e in graph.edges]]


def spelled(network: str, options: Options) -> str:
    """A network and its options, such as "unet, backbone=resnet34"."""
    return f"{network}, {pairs(options)}" if options else network


def pairs(options: Options) -> str:
    return ", ".join(f"{option}={value}" for option, value in options.items())


def stem(name: str, options: Options) -> str:
    """The name of a drawing's file: "unet-resnet34", "enet-encoder_only", "gcn-k7"."""
    for option, value in options.items():
        name += f"-{value}" if isinstance(value, str) else f"-{option}" if value is True else f"-{option}{value}"
    return name


def page(file: str, names: list[str], drawn: list[Network], results: Path) -> str:
    paper, words = PAPERS[file], sys.modules[MODELS[names[0]].__module__].__doc__ or ""
    title, _, text = words.strip().partition("\n")
    lines = [f"# {paper.name}", "", f"*{title}*", text, ""]
    for name, options in drawn:
        lines += [f"![{spelled(name, options)}, stage by stage]({stem(name, options)}.svg)", ""]
    lines += [
        "Drawn by running the module: bars are its stages by their names in the code, dashed those of auxiliary outputs.",
        "",
    ]
    lines += [*how_to_use(names), "", "## Size", ""]
    columns = ["network", *counts(names[0]), f"multiply-adds at {paper.size[0]} x {paper.size[1]}"]
    lines += [table_row(columns), table_row(["---", *["---:"] * (len(columns) - 1)])]
    for name, options in with_variants(names):
        numbers = [f"{number:,}" for number in counts(name, **options).values()]
        lines.append(table_row([spelled(f"`{name}`", options), *numbers, f"{multiply_adds(name, **options):.2f} G"]))
    lines += ["", "Multiply-adds are those of convolutions and matrix products. To compare:", ""]
    lines += [f"- {line}" for line in paper.reference]
    lines += [
        "",
        "## Against the definition",
        "",
        "With the same weights and image on both sides, in float64; with a small `width` where that is an option.",
        "What the definition gave is kept in tests/models/golden.npz, and every change of segue is tested against it.",
        "",
    ]
    lines += [f"- {line}" for line in paper.held]
    lines += ["", "## Published scores", "", *(f"- {line}" for line in paper.scores), "", "## Our scores", ""]
    return "\n".join(lines + our_scores(names, results)) + "\n"


def how_to_use(names: list[str]) -> list[str]:
    """Lines of Python for a file's first network, and the recipes of all."""
    classes, channels = paper_of(names[0]).classes, paper_of(names[0]).channels
    lines = [
        "## How to use it",
        "",
        "```python",
        "from segue import create_model",
        "",
        f'model = create_model("{names[0]}", num_classes={classes}, in_channels={channels})',
        f"logits = model(images)  # floats (N, {channels}, H, W) to (N, {classes}, H, W)",
        "```",
    ]
    recipes = {name: recipe for name, recipe in RECIPES.items() if recipe.network in names}
    if not recipes:
        return lines
    drawn = [name for name, recipe in recipes.items() if recipe.data in DRAWN]  # which anyone can train at once
    command = f"segue train {drawn[0]}" if drawn else f"segue train {next(iter(recipes))} --root FOLDER"
    listed = [f"`{name}`" + (f" ({pairs(recipe.options)})" if recipe.options else "") for name, recipe in recipes.items()]
    lines += ["", f"Recipes: {', '.join(listed)}. For example:", ""]
    lines += ["```", f"{command} --out runs/{command.split()[2]}", "```", ""]
    return [*lines, f"`--root` is the folder of the data set; recipes of {' and '.join(DRAWN)} draw their own and need none."]


def counts(name: str, **options: Any) -> dict[str, int]:
    """A network's numbers of parameters by the columns of a page's table."""
    paper = paper_of(name)
    numbers = {}
    if (paper.classes, paper.channels) != (COMMON_CLASSES, 3):
        numbers[f"parameters, {COMMON_CLASSES} classes"] = parameters(name, COMMON_CLASSES, **options)
    words = f"parameters, {plural(paper.classes, 'class', 'classes')} and {plural(paper.channels, 'channel', 'channels')}"
    if "auxiliary" in inspect.signature(MODELS[name]).parameters:
        numbers[f"{words}, for inference"] = parameters(name, auxiliary=False, **options)
        words = "with auxiliary heads"
    return {**numbers, words: parameters(name, **options)}


def plural(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def table_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def our_scores(names: list[str], results: Path) -> list[str]:
    """A table of the records of evaluations of these networks."""
    records = [(path.parent.name, json.loads(path.read_text())) for path in sorted(results.glob("*/scores.json"))]
    lines = [
        f"| [{name}](../results/{name}/README.md) | {spelled(record['network'], record['recipe'].get('options', {}))} | "
        f"{record['data']} {record['split']}, {record['images']} images | "
        f"{100 * record['scores']['mean_iu']:.1f} | {100 * record['scores']['acc']:.1f} |"
        for name, record in records
        if record["network"] in names
    ]
    if not lines:
        return ["None yet."]
    return ["| record | network | scored on | mean IU | pixels right |", "| --- | --- | --- | ---: | ---: |", *lines]


def index_row(file: str, name: str) -> str:
    paper = PAPERS[file]
    cost = f"{multiply_adds(name):.1f} G at {paper.size[0]} x {paper.size[1]}"
    return table_row([f"[`{name}`]({file}.md)", paper.name, str(paper.year), f"{parameters(name, COMMON_CLASSES):,}", cost])


def index(rows: list[str]) -> str:
    lines = [
        "# Networks",
        "",
        f"Each as its paper describes it. Parameters with {COMMON_CLASSES} classes, auxiliary heads included; multiply-adds of",
        "one prediction at a size of the paper's, with the paper's classes.",
        "Made by `make docs`.",
        "",
        "| network | paper | year | parameters | multiply-adds |",
        "| --- | --- | ---: | ---: | ---: |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
