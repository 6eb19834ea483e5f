"""The graph that autograd recorded, drawn from its live nodes.

A box is a node, a root is on top, an arrow leads where the engine sends a gradient. A
round box is an AccumulateGrad with its leaf. The bar in a box is what the node saves,
at one scale for the figure: filled if it lives because of this node, dashed if it lives
anyway (a parameter), dotted if a node below saves it too. The bytes of the last two
stand in parentheses.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import hypot
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import BoxStyle, PathPatch
from matplotlib.path import Path
from torch.autograd.graph import Node

from snippets.figures import BLUE, GRAY, GREEN, ORANGE, show_figure
from snippets.graph_nodes import GraphNode

_FONT, _LINE, _LETTER = 9.5, 0.17, 0.08  # points; inches of a line and of a letter
_GAP_X, _GAP_Y, _BAR, _INSET, _TITLE = 0.18, 0.24, 0.15, 0.04, 0.3  # inches
_LONGEST = 16  # letters in one line
_WORDS = {"freed": "zwolnione"}
_BOX: dict[str, Any] = {"fc": "none", "lw": 1.6}
_LOOKS: tuple[dict[str, Any], ...] = (
    {"fc": BLUE, "alpha": 0.6, "ec": "none"},  # saved
    {"fc": "none", "ec": BLUE, "ls": ":", "lw": 1.6},  # shared
    {"fc": "none", "ec": ORANGE, "ls": "--", "lw": 1.6},  # known
    {"fc": "none", "ec": GRAY, "lw": 1.3},  # tails of arrows
    {"fc": GRAY, "ec": "none"},  # heads of arrows
)
_Key = object  # a node, or a place where an edge passes a layer


def show_graph(
    graphs: Sequence[GraphNode] | Mapping[str, Sequence[GraphNode]],
    *,
    alt_pl: str,
    alt_en: str,
    notes: Mapping[Node, str] | None = None,
    colours: Mapping[Node, str] | None = None,
    sizes: bool = True,
    pl: Mapping[str, str] | None = None,
) -> None:
    """Draw a graph, or several side by side, and show the figure in both languages.

    Args:
        graphs: what `graph_of` has returned, or several of those by their titles.
        alt_pl: what a reader who cannot see it should know, in Polish.
        alt_en: the same in English.
        notes: one more line of text for some nodes.
        colours: outlines of some nodes, from the palette.
        sizes: whether to show bytes.
        pl: Polish for titles and notes; those that are not here are shown alike.
    """
    panels = graphs if isinstance(graphs, Mapping) else {"": graphs}
    heaviest = max(sum(i.parts) for graph in panels.values() for i in graph) * sizes
    fig, row = plt.subplots(1, len(panels), squeeze=False)
    extents = []
    for ax, (title, graph) in zip(row[0], panels.items(), strict=True):
        extents.append(_draw(ax, graph, notes or {}, colours or {}, heaviest))
        ax.set_title(title)
    widths, heights = zip(*extents, strict=True)
    row[0, 0].get_gridspec().set_width_ratios(widths)
    for ax in row[0]:
        ax.set_ylim(max(heights), -0.05)
    tall = max(heights) + _TITLE * any(panels)
    fig.set_size_inches(sum(widths) + 0.2 * len(widths), tall)
    texts = {text.get_text() for ax in row[0] for text in ax.texts} | set(panels)
    words = _WORDS | dict(pl or {})
    translated = {t: "\n".join(words.get(w, w) for w in t.split("\n")) for t in texts}
    changed = {t: polish for t, polish in translated.items() if t != polish}
    texts -= changed.keys()
    show_figure(fig, alt_pl=alt_pl, alt_en=alt_en, pl=changed, same=texts)


def _lines(item: GraphNode, note: str | None, sizes: bool) -> list[str]:
    """What the box of a node says."""
    lines = [""]
    for part in re.findall(r"[A-Z]?[^A-Z]+|[A-Z]", item.name):  # where a name may break
        if len(lines[-1] + part) <= _LONGEST:
            lines[-1] += part
        else:
            lines.append(part)
    lines += item.leaf
    others = item.shared + item.known
    if sizes and item.freed:
        lines.append("freed")
    elif sizes and item.saved:
        lines.append(f"{item.saved} ({others}) B" if others else f"{item.saved} B")
    elif sizes and others:
        lines.append(f"({others} B)")
    return [line for line in (*lines, note) if line]


def _places(
    graph: Sequence[GraphNode],
) -> tuple[dict[_Key, tuple[int, int]], list[tuple[_Key, ...]]]:
    """Column and layer of each node, and the way of each edge through the layers."""
    items = {item.node: item for item in graph}
    height: dict[_Key, int] = {}
    for item in reversed(graph):
        height[item.node] = 1 + max((height[c] for c in item.children), default=0)
    layers: dict[int, dict[_Key, list[_Key]]] = defaultdict(dict)  # what is above what
    ways: list[tuple[_Key, ...]] = []
    for item in graph:
        layers[item.depth].setdefault(item.node, [])
        for number, child in enumerate(item.children):
            passed = range(item.depth + 1, items[child].depth)
            ways.append((item.node, *((item.node, number, d) for d in passed), child))
            for depth, (upper, lower) in enumerate(pairwise(ways[-1]), item.depth + 1):
                layers[depth].setdefault(lower, []).append(upper)
    places: dict[_Key, tuple[int, int]] = {}
    for depth, above in sorted(layers.items()):
        means = {
            key: sum(places[upper][0] for upper in uppers) / max(len(uppers), 1)
            for key, uppers in above.items()
        }
        order = sorted(above, key=lambda k: (means[k], -height.get(k, 0)))
        places.update({key: (column, depth) for column, key in enumerate(order)})
    return places, ways


def _draw(
    ax: Axes,
    graph: Sequence[GraphNode],
    notes: Mapping[Node, str],
    colours: Mapping[Node, str],
    heaviest: int,
) -> tuple[float, float]:
    """Draw a graph into axes whose unit is an inch; return its width and height."""
    lines = {i.node: _lines(i, notes.get(i.node), heaviest > 0) for i in graph}
    wide = _LETTER * max(len(t) for texts in lines.values() for t in texts) + 0.16
    columns, ways = _places(graph)
    feet = {i.node: _BAR * (heaviest > 0 and any(i.parts)) for i in graph}
    needs = {i.node: _LINE * len(lines[i.node]) + 0.14 + feet[i.node] for i in graph}
    bottoms, tops = [-_GAP_Y], []
    for depth in range(graph[-1].depth + 1):
        tops.append(bottoms[-1] + _GAP_Y)
        bottoms.append(tops[-1] + max(needs[i.node] for i in graph if i.depth == depth))
    step = wide + _GAP_X
    at = {k: (x * step, tops[y], bottoms[y + 1]) for k, (x, y) in columns.items()}
    # A few compound shapes instead of many small ones keep the figure a vector.
    boxes: dict[str, list[Path]] = defaultdict(list)
    bars: list[list[Path]] = [[], [], []]
    for item in graph:
        x, y, bottom = at[item.node]
        outline = colours.get(item.node, GREEN if item.leaf else GRAY)
        corner = 0.15 if item.leaf else 0
        box = BoxStyle.Round(pad=0, rounding_size=corner)(x, y, wide, bottom - y, 1)
        boxes[outline].append(box)
        left = x + _INSET
        for part, bar in zip(item.parts, bars, strict=True):
            if part and heaviest:
                length, high = part / heaviest * (wide - 2 * _INSET), _BAR - _INSET
                bar.append(BoxStyle.Square(pad=0)(left, bottom - _BAR, length, high, 1))
                left += length
        middle = (x + wide / 2, (y + bottom - feet[item.node]) / 2)
        text = ax.text(*middle, "\n".join(lines[item.node]), fontsize=_FONT)
        text.set(ha="center", va="center", linespacing=1.15)
    arrows = [
        _arrow([at[key] for key in way], wide, 0.5 * (number - (twins - 1) / 2))
        for way, twins in Counter(ways).items()
        for number in range(twins)
    ]
    tails, heads = zip(*arrows, strict=True) if arrows else ((), ())
    looks = [*_LOOKS, *(_BOX | {"ec": colour} for colour in boxes)]
    for look, paths in zip(looks, (*bars, tails, heads, *boxes.values()), strict=True):
        if paths:
            ax.add_patch(PathPatch(Path.make_compound_path(*paths), **look))
    right = max(x for x, _, _ in at.values()) + wide + 0.05
    ax.set_axis_off()
    ax.set_xlim(-0.05, right)
    return right + 0.05, bottoms[-1] + 0.05


def _arrow(
    places: Sequence[tuple[float, float, float]], wide: float, bend: float
) -> tuple[Path, Path]:
    """Tail and head of an arrow from the first box, past others, to the last one."""
    points: list[tuple[float, float]] = []
    for (from_x, _, bottom), (to_x, top, _) in pairwise(places):
        start, end = (from_x + wide / 2, bottom), (to_x + wide / 2, top)
        middle = (start[1] + end[1]) / 2
        points += [start, (start[0] + bend, middle), (end[0] + bend, middle), end]
    (x, y), (from_x, from_y) = points[-1], points[-2]
    scale = 0.09 / hypot(x - from_x, y - from_y)
    across, down = (x - from_x) * scale, (y - from_y) * scale
    points[-1] = foot = (x - across, y - down)
    sides = [(foot[0] + s * down / 2, foot[1] - s * across / 2) for s in (1, -1)]
    codes = [Path.LINETO, *[Path.CURVE4] * 3] * (len(points) // 4)
    tail = Path(points, [Path.MOVETO, *codes[1:]])
    return tail, Path([(x, y), *sides, (x, y)], closed=True)
