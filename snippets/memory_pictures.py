"""Tensors drawn over physical memory: what the course shows wherever memory matters.

On the left the tensor as it is indexed, on the right the cells of its storage with
their byte addresses. Each element is marked on both sides with its logical index (its
place when the tensor is read row by row) and a colour that runs with that index.
Shapes, strides and offsets are read from the tensors that are passed in.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from snippets.figures import GRAY, ORANGE, SKY, YELLOW, show_figure

# Light enough for dark numbers, dark enough to stand out from a white page.
_RAMP = LinearSegmentedColormap.from_list("logical", [SKY, "#6fc3a0", YELLOW, ORANGE])
_INK = "#14181d"

_LEFT, _RIGHT = "as you index it", "as it lies in memory (addresses in bytes)"
_POLISH = {
    _LEFT: "tak go indeksujesz",
    _RIGHT: "tak leży w pamięci (adresy w bajtach)",
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

    def code(self, x: float, y: float, text: str, *, weight: str = "normal") -> None:
        size = _STYLE.font
        self.ax.text(x, y, text, family="monospace", fontsize=size, weight=weight)

    def head(self, x: float, y: float, text: str) -> None:
        self.ax.text(x, y, text, color=GRAY, fontsize=_STYLE.font)

    def address(self, x: float, y: float, text: str) -> None:
        at = self.ax.text(x, y, text, color=GRAY, fontsize=_STYLE.font)
        at.set(ha="center", va="center")

    def number(self, x: float, y: float, text: str) -> None:
        at = self.ax.text(x, y, text, color=_INK, fontsize=_STYLE.font)
        at.set(ha="center", va="center")
        # The dark page lightens texts by the ids that matplotlib gives them. A number
        # on a coloured cell has to stay dark, so it has an id of its own.
        at.set_gid(f"cell-{x:.3f}-{y:.3f}")

    def cell(self, x: float, y: float, owners: list[int], numel: int) -> None:
        """Draw one cell, shared equally by the logical indices that live in it."""
        width = 1 / max(len(owners), 1)
        # A digit of the figures' font is 0.64 em wide; the margin keeps numbers apart.
        needed = (len(str(max(owners, default=0))) * 0.64 + 0.4) * _STYLE.font / 72
        fits = needed <= self.cell_inches * width
        for i, owner in enumerate(owners):
            left, colour = x + i * width, _RAMP(owner / max(numel - 1, 1))
            # Each part reaches to the cell's end, under the next one: no seam shows.
            part = Rectangle((left, y), x + 1 - left, 1, fc=colour, ec="none", lw=0)
            self.ax.add_patch(part)
            if fits:
                self.number(left + width / 2, y + 0.5, str(owner))
        if not fits:
            self.number(x + 0.5, y + 0.5, f"×{len(owners)}")
        dashes = "-" if owners else (0, (2, 2))
        frame = Rectangle((x, y), 1, 1, fill=False, ec=GRAY, lw=1, ls=dashes)
        self.ax.add_patch(frame)

    def tensor(self, x: torch.Tensor, name: str, top: float) -> float:
        """Draw a tensor with its storage; return the height at which they end."""
        facts = (tuple(x.shape), x.stride(), x.storage_offset())
        self.code(0, top + 0.75, name, weight="bold")
        text = "shape {}  stride {}  offset {}".format(*facts)
        self.code(self.strip_at, top + 0.75, text)
        top += 1.05
        heights = _rows(x)
        for owner in range(x.numel()):
            row, column = divmod(owner, _columns(x))
            self.cell(column, top + heights[row], [owner], x.numel())
        owners: dict[int, list[int]] = {}
        for owner, cell in enumerate(cells_of(x)):
            owners.setdefault(cell, []).append(owner)
        # Addresses have up to three digits: narrow cells show every second one.
        every = 1 if self.cell_inches > 0.3 else 2
        for cell in range(_cells(x)):
            at = self.strip_at + cell
            self.cell(at, top, owners.get(cell, []), x.numel())
            if cell % every == 0:
                self.address(at + 0.5, top + 1.36, str(cell * x.element_size()))
        return top + max(heights[-1] + 1, 2) + 0.35


def _columns(x: torch.Tensor) -> int:
    return x.shape[-1] if x.dim() else 1


def _cells(x: torch.Tensor) -> int:
    return x.untyped_storage().nbytes() // x.element_size()


def _mark_storages(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names to print: with a letter for the storage, where there is more than one."""
    letters: dict[int, str] = {}
    for x in tensors.values():
        at = x.untyped_storage().data_ptr()
        letters.setdefault(at, chr(ord("A") + len(letters)))
    if len(letters) == 1:
        return {name: name for name in tensors}
    return {
        name: f"{name} [{letters[x.untyped_storage().data_ptr()]}]"
        for name, x in tensors.items()
    }


def memory_figure(tensors: Mapping[str, torch.Tensor]) -> tuple[Figure, set[str]]:
    """Draw tensors over their storages, one under the other.

    Args:
        tensors: what to draw, by the expression to print over it. Where the tensors do
            not all share one storage, a letter behind the expression tells which it is.

    Returns:
        The figure, and those of its texts that are code and need no translation.

    Raises:
        ValueError: a storage has too many cells to be drawn with readable numbers.
    """
    cells = max(_cells(x) for x in tensors.values())
    if cells > _STYLE.max_cells:
        raise ValueError(f"{cells} cells; at most {_STYLE.max_cells} can be drawn")
    names = _mark_storages(tensors)
    columns = max(_columns(x) for x in tensors.values())
    cell_inches = _STYLE.width / (columns + _STYLE.gap + cells)
    # A name may need more room than the cells under it: bold monospace is 0.6 em wide.
    longest = max(len(name) for name in names.values()) * 0.6 * _STYLE.font / 72
    strip_at = max(columns + _STYLE.gap, longest / cell_inches + 0.5)
    fig, ax = plt.subplots()
    ax.axis("off")
    canvas = _Canvas(ax, strip_at, _STYLE.width / (strip_at + cells))
    canvas.head(0, 0.6, _LEFT)
    canvas.head(strip_at, 0.6, _RIGHT)
    bottom = 0.9
    for name, x in tensors.items():
        bottom = canvas.tensor(x, names[name], bottom)
    ax.set_xlim(-0.1, strip_at + cells + 0.1)
    ax.set_ylim(bottom, 0)
    fig.set_size_inches(_STYLE.width, bottom * _STYLE.row_height)
    texts = {text.get_text() for text in ax.texts}
    return fig, texts - set(_POLISH)


def show_memory(
    tensors: Mapping[str, torch.Tensor], *, alt_pl: str, alt_en: str
) -> None:
    """Draw tensors over their storages and show the figure in both languages.

    Args:
        tensors: what to draw, by the expression to print over it.
        alt_pl: what a reader who cannot see it should know, in Polish.
        alt_en: the same in English.
    """
    fig, code = memory_figure(tensors)
    show_figure(fig, alt_pl=alt_pl, alt_en=alt_en, pl=_POLISH, same=code)
