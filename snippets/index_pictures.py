"""Pictures of indexing: which cells are read, and where written values land.

A colour belongs to an entry of the index, and to the cells and values that it read.
Cells, indices and results are read from the tensors; nothing is drawn by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from snippets.figures import BLUE, GRAY, INK, ORANGE, PURPLE, RAMP, SKY

_CELL_FONT = 9.0
_ARROWS = (BLUE, ORANGE, PURPLE)
_ARROW = {"arrowstyle": "-|>", "lw": 1.8, "shrinkA": 0, "shrinkB": 0}

Link = tuple[int, int]


@dataclass(frozen=True)
class Read:
    """One indexing expression.

    Attributes:
        name: the expression as it is printed.
        index: the index tensor, one- or two-dimensional.
        cells: what the expression gives when it is applied to the numbers of the cells;
            its last dimensions are those of the index.
    """

    name: str
    index: Tensor
    cells: Tensor


def _text(ax: Axes, x: float, y: float, text: str) -> None:
    ax.text(x, y, text, fontsize=_CELL_FONT, family="monospace", va="center")


def _cell(
    ax: Axes, x: float, y: float, text: str, fill: str | tuple[float, ...]
) -> None:
    """Draw a cell; one without a fill has a dashed frame."""
    line = (0, (2, 2)) if fill == "none" else "-"
    ax.add_patch(Rectangle((x, y), 1, 1, fc=fill, ec=GRAY, lw=1.2, ls=line))
    number = ax.text(x + 0.5, y + 0.53, text, fontsize=_CELL_FONT, family="monospace")
    number.set(ha="center", va="center")
    if fill != "none":
        # The dark page lightens texts by the ids that matplotlib gives them. A number
        # on a coloured cell has to stay dark, so it has an id of its own.
        number.set(color=INK, gid=f"cell-{x:.2f}-{y:.2f}")


def _grid(x: Tensor) -> list[list[float]]:
    table = x.reshape(1, -1) if x.dim() < 2 else x
    return [[float(value) for value in row] for row in table]


def reads_figure(
    name: str, x: Tensor, reads: Sequence[Read]
) -> tuple[Figure, set[str]]:
    """Draw a matrix with the cells that expressions read, their index and result.

    Args:
        name: what the matrix is called.
        x: the matrix that is read.
        reads: the expressions, one under the other.

    Returns:
        The figure, and its texts that are code and need no translation.
    """
    columns = x.shape[1]
    index_at = columns + 1.5
    result_at = index_at + max(len(_grid(read.index)[0]) for read in reads) + 1.5
    width = result_at + max(len(_grid(read.cells)[0]) for read in reads)
    height = (x.shape[0] + 2.1) * len(reads) - 0.6
    fig, ax = plt.subplots(figsize=(7.2, 0.29 * height))
    same: set[str] = set()

    def table(values: Tensor, hues: Tensor, left: float) -> None:
        for row, pairs in enumerate(map(zip, _grid(values), _grid(hues))):
            for column, (value, hue) in enumerate(pairs):
                fill = "none" if isnan(hue) else RAMP(hue)
                _cell(ax, left + column, top + 1 + row, f"{value:g}", fill)

    for line, read in enumerate(reads):
        top = line * (x.shape[0] + 2.1)
        shape = f"index {tuple(read.index.shape)}"
        for left, text in ((0, name), (index_at, shape), (result_at, read.name)):
            _text(ax, left, top + 0.5, text)
            same.add(text)
        hues = torch.linspace(0, 1, read.index.numel()).reshape(read.index.shape)
        taken = hues.expand_as(read.cells)
        used = torch.full((x.numel(),), nan)
        used[read.cells] = taken
        table(x, used.reshape(x.shape), 0)
        table(read.index, hues, index_at)
        table(x.flatten()[read.cells], taken, result_at)
    _frame(ax, width, height)
    return fig, same


def flow_figure(
    flows: Sequence[tuple[Sequence[tuple[str, Tensor]], Sequence[Sequence[Link]]]],
) -> tuple[Figure, set[str]]:
    """Draw vectors one under another, and arrows that carry values between them.

    Args:
        flows: for each panel, its (name, vector) from the top, and for each pair of
            neighbouring vectors the arrows (from position, to position), in the order
            of the messages, which decides the colour.

    Returns:
        The figure, and its texts that are code and need no translation.
    """
    tallest = max(len(layers) for layers, _ in flows)
    height = 2.6 * tallest - 1.4
    fig, axes = plt.subplots(1, len(flows), figsize=(7.2, 0.29 * height))
    same: set[str] = set()
    for ax, (layers, links) in zip(axes, flows, strict=True):
        longest = max(len(name) for name, _ in layers) * 0.42
        for depth, (name, vector) in enumerate(layers):
            _text(ax, 0, 2.6 * depth + 0.5, name)
            same.add(name)
            for column, value in enumerate(vector.tolist()):
                _cell(ax, longest + 1.6 * column, 2.6 * depth, f"{value:g}", SKY)
        for depth, arrows in enumerate(links):
            for message, (start, end) in enumerate(arrows):
                ax.annotate(
                    "",
                    (longest + 1.6 * end + 0.5, 2.6 * (depth + 1) - 0.05),
                    (longest + 1.6 * start + 0.5, 2.6 * depth + 1.05),
                    arrowprops=_ARROW | {"color": _ARROWS[message % 3]},
                )
        _frame(ax, longest + 1.6 * 3, height)
    return fig, same


def _frame(ax: Axes, width: float, height: float) -> None:
    ax.set(xlim=(-0.1, width + 0.1), ylim=(height + 0.1, -0.1))
    ax.axis("off")
