"""Tensors drawn over physical memory: what the course shows wherever memory matters.

On the left the tensor as it is indexed, on the right the cells of its storage with
their byte addresses. A colour belongs to a value, the same on both sides, so draw
tensors whose values differ: a view changes the grid and leaves the strip alone, a copy
has a strip of its own. Values, shapes, strides and offsets are read from the tensors.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from snippets.figures import BLUE, GRAY, INK, PURPLE, RAMP, show_figure

_LEFT = "as you index it"
_RIGHT = "in memory (addresses: bytes, offset: elements)"
_POLISH = {
    _LEFT: "tak indeksujesz",
    _RIGHT: "w pamięci (adresy: bajty, offset: elementy)",
}


@dataclass(frozen=True)
class _Style:
    width: float = 7.2  # inches, all that a page has
    row_height: float = 0.29  # inches for one row of cells
    gap: float = 1.0  # cells between the tensor and its storage
    font: float = 9.0
    max_cells: int = 32  # more would be too narrow for numbers


_STYLE = _Style()


def cells_of(x: torch.Tensor) -> list[int]:
    """Return the storage cell of every element, in logical order.

    Cells are counted in elements from the start of the storage: the tensor's offset
    plus the sum of index times stride over its dimensions.
    """
    indices = itertools.product(*(range(size) for size in x.shape))
    steps = x.stride()
    start = int(x.storage_offset())
    return [
        start + sum(i * s for i, s in zip(index, steps, strict=True))
        for index in indices
    ]


def _columns(x: torch.Tensor) -> int:
    return x.shape[-1] if x.dim() else 1


def _stored(x: torch.Tensor) -> list[float]:
    """Values of all cells of the tensor's storage, used or not."""
    cells = x.untyped_storage().nbytes() // x.element_size()
    return [float(value) for value in x.as_strided((cells,), (1,), 0)]


def _rows(x: torch.Tensor) -> list[float]:
    """Heights at which the rows of the tensor stand; blocks of rows stay apart."""
    heights, at = [0.0], 0.0
    for index in itertools.product(*(range(size) for size in x.shape[:-1])):
        if any(index):
            at += 1.0 if index[-1] else 1.4
            heights.append(at)
    return heights


@dataclass(frozen=True)
class _Canvas:
    """Where to draw: one unit is a cell wide, and a row of cells high."""

    ax: Axes
    strip_at: float  # where storages begin
    cell_inches: float
    ranks: Mapping[float, float]  # value: its place on the ramp of colours

    def code(self, x: float, y: float, text: str) -> None:
        self.ax.text(x, y, text, family="monospace", fontsize=_STYLE.font)

    def note(self, x: float, y: float, text: str, *, centred: bool = True) -> None:
        at = self.ax.text(x, y, text, color=GRAY, fontsize=_STYLE.font)
        at.set(family="monospace", va="center", ha="center" if centred else "left")

    def cell(self, x: float, y: float, value: float, *, used: bool = True) -> None:
        """Draw a cell with its value; one that the tensor does not use stays empty."""
        fill = RAMP(self.ranks[value]) if used else "none"
        line = "-" if used else (0, (2, 2))
        box = Rectangle((x, y), 1, 1, fc=fill, ec=GRAY, lw=1.2, ls=line, clip_on=False)
        self.ax.add_patch(box)
        number = self.ax.text(x + 0.5, y + 0.52, f"{value:g}", fontsize=_STYLE.font)
        number.set(family="monospace", ha="center", va="center")
        if used:
            # The dark page lightens texts by the ids that matplotlib gives them. A
            # number on a coloured cell has to stay dark, so it has an id of its own.
            number.set(color=INK, gid=f"cell-{x:.3f}-{y:.3f}")

    def tensor(
        self, x: torch.Tensor, name: str, top: float, runs: Sequence[tuple[int, int]]
    ) -> float:
        """Draw a tensor with its storage; return the height at which they end."""
        self.code(0, top + 0.75, name)
        facts = (tuple(x.shape), x.stride(), x.storage_offset())
        text = "shape {}  stride {}  offset {}".format(*facts)
        self.code(self.strip_at, top + 0.75, text)
        top += 1.05
        heights, owners, stored = _rows(x), cells_of(x), _stored(x)
        for element, cell in enumerate(owners):
            row, column = divmod(element, _columns(x))
            self.cell(column, top + heights[row], stored[cell])
        shares = Counter(owners)
        # Addresses have up to three digits: narrow cells show every second one.
        every = 1 if self.cell_inches > 0.3 else 2
        for cell, value in enumerate(stored):
            at = self.strip_at + cell
            self.cell(at, top, value, used=cell in shares)
            if cell % every == 0:
                self.note(at + 0.5, top + 1.4, str(cell * x.element_size()))
            if shares[cell] > 1:
                self.note(at + 0.5, top + 2.15, f"×{shares[cell]}")
        low = top + (2.5 if max(shares.values(), default=0) > 1 else 1.75)
        for depth in range(len(runs)):
            low = self.combs(int(x.storage_offset()), runs, depth, low)
        return max(top + heights[-1] + 1, low) + 0.25

    def combs(
        self, offset: int, runs: Sequence[tuple[int, int]], depth: int, top: float
    ) -> float:
        """Draw each walk along a run; return the height at which the drawings end."""
        size, step = runs[depth]
        colour = (BLUE, PURPLE)[depth % 2]
        outer = [range(0, n * jump, jump) for n, jump in runs[depth + 1 :]]
        for starts in itertools.product(*outer):
            left = self.strip_at + offset + sum(starts) + 0.5
            right = left + (size - 1) * step
            teeth = [left + i * step for i in range(size) for _ in range(3)]
            heights = [top + 0.4, top + 0.05, top + 0.4] * size
            self.ax.plot(teeth, heights, color=colour, lw=2, clip_on=False)
            label = self.ax.text((left + right) / 2, top + 0.9, str(runs[depth]))
            label.set(color=colour, family="monospace", fontsize=_STYLE.font)
            label.set(ha="center", va="center")
        return top + 1.3


def memory_figure(
    tensors: Mapping[str, torch.Tensor],
    runs: Mapping[str, Sequence[tuple[int, int]]] | None = None,
) -> tuple[Figure, set[str]]:
    """Draw tensors over their storages, one under the other.

    Args:
        tensors: what to draw, by the expression to print over it.
        runs: (elements, step) of each walk to draw under a storage, innermost first.

    Returns:
        The figure, and those of its texts that are code and need no translation.

    Raises:
        ValueError: a storage has too many cells to be drawn with readable numbers.
    """
    stored = {name: _stored(x) for name, x in tensors.items()}
    cells = max(len(values) for values in stored.values())
    if cells > _STYLE.max_cells:
        raise ValueError(f"{cells} cells; at most {_STYLE.max_cells} can be drawn")
    values = sorted(set(itertools.chain.from_iterable(stored.values())))
    ranks = {value: i / max(len(values) - 1, 1) for i, value in enumerate(values)}
    columns = max(_columns(x) for x in tensors.values())
    cell_inches = _STYLE.width / (columns + _STYLE.gap + cells)
    # A name may need more room than the cells under it: monospace is 0.6 em wide.
    longest = max(len(name) for name in tensors) * 0.6 * _STYLE.font / 72
    strip_at = max(columns + _STYLE.gap, longest / cell_inches + 0.5)
    fig, ax = plt.subplots()
    ax.axis("off")
    canvas = _Canvas(ax, strip_at, _STYLE.width / (strip_at + cells), ranks)
    canvas.note(0, 0.4, _LEFT, centred=False)
    canvas.note(strip_at, 0.4, _RIGHT, centred=False)
    bottom = 0.8
    for name, x in tensors.items():
        bottom = canvas.tensor(x, name, bottom, (runs or {}).get(name, ()))
    ax.set_xlim(-0.1, strip_at + cells + 0.1)
    ax.set_ylim(bottom, 0)
    fig.set_size_inches(_STYLE.width, bottom * _STYLE.row_height)
    texts = {text.get_text() for text in ax.texts}
    return fig, texts - set(_POLISH)


def show_memory(
    tensors: Mapping[str, torch.Tensor],
    *,
    alt_pl: str,
    alt_en: str,
    runs: Mapping[str, Sequence[tuple[int, int]]] | None = None,
) -> None:
    """Draw tensors over their storages and show the figure in both languages.

    Args:
        tensors: what to draw, by the expression to print over it.
        alt_pl: what a reader who cannot see it should know, in Polish.
        alt_en: the same in English.
        runs: (elements, step) of each walk to draw under a storage, innermost first.
    """
    fig, code = memory_figure(tensors, runs)
    show_figure(fig, alt_pl=alt_pl, alt_en=alt_en, pl=_POLISH, same=code)
