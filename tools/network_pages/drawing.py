"""Drawings of networks, made from the module itself: a bar for each stage, a row for each resolution, a line for each skip."""

import heapq
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from xml.sax.saxutils import escape

from network_pages.stages import Edge, Graph, Node, stages
from segue.models.base import SegmentationModel

STEP = 8  # pixels between the points of the grid on which everything stands
WIDTH = 1000  # of a drawing, at least
LEFT, TOP, LINE = 56, 70, 13
HEIGHTS = (64, 52, 42, 34, 28, 24)  # of the bars at 1, 1/2, 1/4, ...
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
INK, GREY, LINE_COLOUR, SKIP_COLOUR = "#202124", "#5f6368", "#80868b", "#8e44ad"
LOWERS, KEEPS, RAISES, DATA = "#3f72af", "#9dbbe3", "#e8964a", "#c4c8cd"
SIGNS = {"add": "+", "concatenate": "c", "multiply": "x", "maximum": "max", "unpool with indices": "u", "attention": "a"}

Point = tuple[int, int]
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass
class Box:
    """A node's place: a bar around (x, y) with its channels above and lines of text below; a small disc where maps meet."""

    node: Node
    width: int
    height: int
    lines: list[str]
    x: int = 0
    y: int = 0
    lane: tuple[int, int] = (0, 0)  # row of the resolution, place within it

    @property
    def disc(self) -> bool:
        return self.node.kind not in ("stage", "input", "output")

    @property
    def half(self) -> float:
        """Half of the width that bar and text take."""
        return max(self.width, *(text_width(line, 11, bold=not i) for i, line in enumerate(self.lines))) / 2

    @property
    def bar(self) -> Rectangle:
        return (self.x - self.width / 2, self.y - self.height / 2, self.x + self.width / 2, self.y + self.height / 2)

    @property
    def above(self) -> float:
        return self.height / 2 + (0 if self.disc else LINE + 3)

    @property
    def below(self) -> float:
        return self.height / 2 + 5 + LINE * len(self.lines)

    def text(self) -> list[Rectangle]:
        """Where the text stands."""
        channels = text_width(str(self.node.shape[0]), 11) / 2
        over = (self.x - channels, self.y - self.above, self.x + channels, self.bar[1] - 1)
        below = (self.x - self.half, self.bar[3] + 3, self.x + self.half, self.y + self.below)
        return [below] if self.disc else [over, below]


@dataclass
class Layout:
    """Boxes in the order of the graph's nodes, the rows' (level, top, bottom), and the size of the whole."""

    boxes: list[Box]
    rows: list[tuple[int, int, int]]
    width: int
    height: int
    obstacles: set[Point] = field(default_factory=set)


def draw_network(model: SegmentationModel, title: str, size: tuple[int, int]) -> str:
    """An SVG of a model's stages, their sizes and skips at an input of (height, width), as the module itself runs.

    The model may be on the meta device. Rows are resolutions, widths of the bars grow with the logarithm of the channels.
    """
    graph = stages(model, size)
    layout = arrange(graph)
    return as_svg(graph, layout, route(graph, layout), title)


def arrange(graph: Graph) -> Layout:
    """Give every node a place: from left to right as data flows, from top to bottom by resolution."""
    levels = sorted({round(node.level) for node in graph.nodes})
    boxes = [make_box(graph, index) for index in range(len(graph.nodes))]
    before = ancestry(graph)
    lanes: dict[tuple[int, int], list[int]] = defaultdict(list)
    fans = Counter(edge.source for edge in graph.edges)
    placed: list[Box] = []
    for index in sorted(range(len(boxes)), key=lambda i: (graph.nodes[i].depth, graph.nodes[i].auxiliary, i)):
        box = boxes[index]
        row = levels.index(round(box.node.level))
        sources = [boxes[edge.source] for edge in graph.entering(index)]
        earliest = max([LEFT + box.width / 2, *(beside(source, box) for source in sources)])
        for other in sorted(placed, key=lambda b: b.x):  # a line down from a source passes by what stands below the source
            passed = any(source.lane < other.lane < (row, 0) for source in sources)
            if passed and abs(earliest - box.width / 2 - STEP - other.x) < other.half + 4:
                earliest = other.x + other.half + 2 * STEP + box.width / 2
        for place in range(len(boxes)):
            lane = lanes[row, place]
            busy = len(sources) > 1 or any(fans[i] > 1 for i in lane[-1:])
            apart = 3 * STEP if busy else STEP  # room for a line to pass between
            free = max([earliest, *(boxes[i].x + boxes[i].half + box.half + apart for i in lane[-1:])])
            if free <= earliest + 8 * STEP or lane[-1] in before[index]:
                break
        box.x, box.lane = snap(free, box.width), (row, place)
        lane.append(index)
        placed.append(box)
    stretch(boxes)
    y, rows = TOP, []
    for row, level in enumerate(levels):
        top = y
        for lane_here in sorted({box.lane for box in boxes if box.lane[0] == row}):
            here = [box for box in boxes if box.lane == lane_here]
            y = math.ceil((y + 2 * STEP + max(box.above for box in here)) / STEP) * STEP
            for box in here:
                box.y = y
            y = math.ceil(y + max(box.below for box in here) + 2 * STEP)
        rows.append((level, top, y))
    right = max(box.x + box.half for box in boxes)
    layout = Layout(boxes, rows, max(WIDTH, round(right) + 3 * STEP), y + 34)
    for box in boxes:
        for left, upper, right, lower in (box.bar, *box.text()):
            for px in range(math.ceil((left - 3) / STEP), math.floor((right + 3) / STEP) + 1):
                layout.obstacles |= {(px, py) for py in range(math.ceil((upper - 2) / STEP), math.floor((lower + 2) / STEP) + 1)}
    return layout


def beside(source: Box, box: Box) -> float:
    """The leftmost x of a box whose line from the source stays clear of both texts."""
    if round(box.node.level) > round(source.node.level):
        return source.x + source.half + 2 * STEP + box.width / 2
    if round(box.node.level) < round(source.node.level):
        return source.x + source.width / 2 + 2 * STEP + box.half
    return source.x + source.width / 2 + 4 * STEP + box.width / 2


def make_box(graph: Graph, index: int) -> Box:
    node = graph.nodes[index]
    channels, height, width = node.shape
    if node.kind not in ("stage", "input", "output"):
        return Box(node, 2 * STEP, 2 * STEP, [node.kind])
    bar_height = HEIGHTS[min(max(round(node.level), 0), len(HEIGHTS) - 1)]
    way = ", ".join(edge.way for edge in graph.entering(index) if edge.main and edge.way)
    words = ", ".join(filter(None, (way, node.work)))
    lines = [node.name, f"{height} x {width}", *wrapped(words, 18)]
    return Box(node, STEP * max(1, round(math.log2(channels) / 2)), bar_height, lines)


def stretch(boxes: list[Box]) -> None:
    """Spread a drawing that is narrower than the page over its width."""
    right = max(box.x + box.half for box in boxes)
    factor = (WIDTH - LEFT - 3 * STEP - (right - max(box.x for box in boxes))) / (max(box.x for box in boxes) - LEFT)
    for box in boxes:
        if factor > 1:
            box.x = snap(LEFT + (box.x - LEFT) * factor, box.width)


def ancestry(graph: Graph) -> list[set[int]]:
    """For every node those that come before it."""
    before: list[set[int]] = [set() for _ in graph.nodes]
    for edge in sorted(graph.edges, key=lambda e: e.target):
        before[edge.target] |= before[edge.source] | {edge.source}
    return before


def snap(x: float, width: int) -> int:
    """The place at or right of x where the edges of a bar stand on the grid."""
    return math.ceil((x - width / 2) / STEP) * STEP + width // 2


def wrapped(words: str, length: int) -> list[str]:
    """Phrases between commas, put together into lines."""
    lines: list[str] = []
    for phrase in filter(None, words.split(", ")):
        if lines and len(lines[-1]) + len(phrase) + 2 <= length:
            lines[-1] += f", {phrase}"
        else:
            lines.append(phrase)
    return lines


def text_width(text: str, size: int, bold: bool = False) -> float:
    return len(text) * size * (0.62 if bold else 0.54)


def route(graph: Graph, layout: Layout) -> list[list[Point]]:
    """A path of right angles for every edge, as points in pixels, around bars and text; short edges choose first."""
    taken: dict[tuple[Point, int], set[Edge]] = defaultdict(set)
    paths: list[list[Point]] = [[] for _ in graph.edges]
    boxes = layout.boxes

    def distance(number: int) -> int:
        a, b = boxes[graph.edges[number].source], boxes[graph.edges[number].target]
        return abs(a.x - b.x) + abs(a.y - b.y)

    for number in sorted(range(len(graph.edges)), key=distance):
        edge = graph.edges[number]
        points = shortest_path(layout, boxes[edge.source], boxes[edge.target], taken, edge)
        for a, b in pairwise(points):
            taken[a, int(a[0] == b[0])].add(edge)
            taken[b, int(a[0] == b[0])].add(edge)
        paths[number] = [(x * STEP, y * STEP) for x, y in points]
    return paths


def shortest_path(layout: Layout, a: Box, b: Box, taken: dict[tuple[Point, int], set[Edge]], edge: Edge) -> list[Point]:
    """Dijkstra's way over the grid from a's right side to b's left side; bends, crossings and shared tracks cost extra."""
    start = ((a.x if a.disc else round(a.bar[2])) // STEP, a.y // STEP)
    goal = ((b.x if b.disc else round(b.bar[0])) // STEP, b.y // STEP)
    own = {start, goal} | {(p[0] + dx, p[1] + dy) for box, p in ((a, start), (b, goal)) if box.disc for dx, dy in MOVES}
    limits = (layout.width // STEP, layout.height // STEP)
    queue: list[tuple[float, float, Point, Point]] = [(0.0, 0.0, start, (1, 0))]
    came: dict[tuple[Point, Point], tuple[Point, Point] | None] = {(start, (1, 0)): None}
    best = {(start, (1, 0)): 0.0}
    while queue:
        _, cost, point, move = heapq.heappop(queue)
        if point == goal and (move == (1, 0) or (b.disc and move != (-1, 0))):
            break
        if cost > best[point, move]:
            continue
        for turn in MOVES:
            if turn == (-move[0], -move[1]) or (point == start and turn != (1, 0)):
                continue
            there = (point[0] + turn[0], point[1] + turn[1])
            if not (0 < there[0] < limits[0] and TOP // STEP - 2 < there[1] < limits[1] - 4):
                continue
            upright = int(turn[0] == 0)
            along = taken.get((there, upright), set()) | taken.get((point, upright), set())
            kin = {other for other in along if other.source == edge.source or edge.target in (other.target, other.source)}
            across = any(other.source != edge.source for other in taken.get((there, 1 - upright), ()))
            price = 1.0 + 6 * (turn != move) + 30 * (there in layout.obstacles and there not in own)
            price += 25 * (kin != along) - 0.5 * bool(kin) + 3 * across
            total = cost + price
            if total < best.get((there, turn), math.inf):
                best[there, turn] = total
                came[there, turn] = (point, move)
                left = abs(goal[0] - there[0]) + abs(goal[1] - there[1])
                heapq.heappush(queue, (total + left / 2, total, there, turn))
    state: tuple[Point, Point] | None = (point, move)
    points = []
    while state:
        points.append(state[0])
        state = came[state]
    return points[::-1]


MOVES = ((1, 0), (0, 1), (0, -1), (-1, 0))


def as_svg(graph: Graph, layout: Layout, paths: list[list[Point]], title: str) -> str:
    _, height, width = graph.nodes[0].shape
    subtitle = f"input {height} x {width}, {graph.parameters:,} parameters"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {layout.width} {layout.height}" '
        f'width="{layout.width}" height="{layout.height}" font-family="{FONT}" font-size="11" fill="{INK}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{layout.width}" height="{layout.height}" fill="#ffffff"/>',
        f'<text x="20" y="32" font-size="20" font-weight="600">{escape(title)}</text>',
        f'<text x="20" y="52" font-size="13" fill="{GREY}">{subtitle}</text>',
    ]
    for number, (level, top, bottom) in enumerate(layout.rows):
        if number % 2 == 0:
            parts.append(f'<rect x="0" y="{top}" width="{layout.width}" height="{bottom - top}" fill="#f6f7f9"/>')
        points = all(box.node.shape[1:] == (1, 1) for box in layout.boxes if box.lane[0] == number)
        name = "1 x 1" if points and level > 5 else "1" if level == 0 else f"1/{2**level}" if level > 0 else f"{2**-level}"
        parts.append(f'<text x="20" y="{top + 18}" fill="{GREY}">{name}</text>')
    parts += [line(path, is_skip(graph, edge)) for path, edge in zip(paths, graph.edges, strict=True)]
    parts += [bar(graph, layout, index) for index in range(len(graph.nodes))]
    parts += labels(graph, layout, paths)
    parts += legend(layout)
    return "\n".join([*parts, "</svg>"]) + "\n"


def is_skip(graph: Graph, edge: Edge) -> bool:
    """Whether data comes a shorter way than the rest of what meets in the target."""
    return not edge.main and graph.nodes[edge.source].depth < graph.nodes[edge.target].depth - 1


def line(path: list[Point], skip: bool) -> str:
    """A path with rounded corners and, at its end, a small arrow."""
    corners = [
        b for a, b, c in zip(path, path[1:], path[2:], strict=False) if (b[0] - a[0], b[1] - a[1]) != (c[0] - b[0], c[1] - b[1])
    ]
    points = [path[0], *corners, path[-1]]
    drawn = f"M{points[0][0]} {points[0][1]}"
    for a, b, c in zip(points, points[1:], points[2:], strict=False):
        before, after = towards(b, a, 5), towards(b, c, 5)
        drawn += f"L{before[0]:g} {before[1]:g}Q{b[0]} {b[1]} {after[0]:g} {after[1]:g}"
    x, y = points[-1]
    drawn += f"L{x} {y}"
    colour, width = (SKIP_COLOUR, 1.6) if skip else (LINE_COLOUR, 1.3)
    arrow = f'<path d="M{x} {y}l-6 -3.5v7z" fill="{colour}"/>' if points[-2][1] == y else ""
    return f'<path d="{drawn}" fill="none" stroke="{colour}" stroke-width="{width}"/>{arrow}'


def towards(a: Point, b: Point, distance: float) -> tuple[float, float]:
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    share = min(distance, length / 2) / length
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def bar(graph: Graph, layout: Layout, index: int) -> str:
    box, node = layout.boxes[index], graph.nodes[index]
    if box.disc:
        return (
            f'<circle cx="{box.x}" cy="{box.y}" r="9" fill="#ffffff" stroke="{SKIP_COLOUR}" stroke-width="1.6"/>'
            f'<text x="{box.x}" y="{box.y + 4}" text-anchor="middle" font-size="12">{SIGNS.get(node.kind, "&#8226;")}</text>'
            f'<text x="{box.x}" y="{box.y + 20}" text-anchor="middle" font-size="10" fill="{GREY}">{escape(node.kind)}</text>'
        )
    left, top, _, bottom = box.bar
    sources = [graph.nodes[edge.source].level for edge in graph.entering(index) if edge.main]
    change = round(node.level) - round(sources[0]) if sources else 0
    colour = DATA if node.kind != "stage" else LOWERS if change > 0 else RAISES if change < 0 else KEEPS
    dashed = ' stroke-dasharray="3 2" fill-opacity="0.35"' if node.auxiliary else ""
    hint = f"{node.name}: {node.parameters:,} parameters" if node.parameters else node.name
    parts = [
        f'<g><title>{escape(hint)}</title><rect x="{left:g}" y="{top:g}" width="{box.width}" height="{box.height}" rx="2" '
        f'fill="{colour}" stroke="{INK}" stroke-opacity="0.55"{dashed}/>',
        f'<text x="{box.x}" y="{top - 4:g}" text-anchor="middle">{node.shape[0]}</text>',
    ]
    for number, words in enumerate(box.lines):
        style = ' font-weight="600"' if number == 0 else "" if number == 1 else f' font-size="10" fill="{GREY}"'
        parts.append(f'<text x="{box.x}" y="{bottom + LINE * (number + 1):g}" text-anchor="middle"{style}>{escape(words)}</text>')
    return "".join(parts) + "</g>"


def labels(graph: Graph, layout: Layout, paths: list[list[Point]]) -> list[str]:
    """What happens on the lines, written beside them where there is room."""
    full = [rectangle for box in layout.boxes for rectangle in (box.bar, *box.text())]
    points = {point for path in paths for point in path}
    parts = []
    for edge, path in zip(graph.edges, paths, strict=True):
        into_disc = layout.boxes[edge.target].disc
        words = ", ".join(filter(None, (edge.way if into_disc or not edge.main else "", edge.join)))
        if not words:
            continue
        width = text_width(words, 10)
        level_steps = [(a, b) for a, b in pairwise(path) if a[1] == b[1]]
        places = [(a[0], a[1] - 12) for a, _ in level_steps] + [(a[0], a[1] + 3) for a, _ in level_steps]
        middle = path[len(path) // 2]
        options = []
        for x, y in places:
            r = (x - width / 2, y, x + width / 2, y + 10)
            if r[0] > 8 and r[2] < layout.width - 8 and not any(overlap(r, other) for other in full):
                crossed = sum(r[0] - 2 < px < r[2] + 2 and r[1] < py < r[3] for px, py in points)
                beside = sum(a[1] in (y + 12, y - 3) and r[0] < a[0] < r[2] for a, _ in level_steps) * STEP / width
                options.append((9 * crossed - 8 * beside + abs(x - middle[0]) / 200, r))
        if options:
            _, r = min(options)
            full.append(r)
            colour = SKIP_COLOUR if is_skip(graph, edge) else GREY
            parts.append(
                f'<text x="{(r[0] + r[2]) / 2:g}" y="{r[1] + 9:g}" text-anchor="middle" font-size="10" fill="{colour}">'
                f"{escape(words)}</text>"
            )
    return parts


def overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def legend(layout: Layout) -> list[str]:
    y = layout.height - 14
    parts, x = [], 20.0
    for colour, words in ((LOWERS, "lowers the resolution"), (KEEPS, "keeps it"), (RAISES, "raises it")):
        parts.append(f'<rect x="{x:g}" y="{y - 9}" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15:g}" y="{y}" fill="{GREY}">{words}</text>')
        x += 36 + text_width(words, 11)
    parts.append(f'<path d="M{x:g} {y - 4}h22" stroke="{SKIP_COLOUR}" stroke-width="1.6"/>')
    words = "skip;  rows: resolution;  above a bar: channels, which set its width;  below: height x width"
    parts.append(f'<text x="{x + 28:g}" y="{y}" fill="{GREY}">{words}</text>')
    return parts
