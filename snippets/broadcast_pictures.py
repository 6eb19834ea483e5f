"""Two shapes lined up from the right, and the sums that undo it in the backward pass.

In a picture of shapes one column is one dimension. A dashed frame is a dimension that
the tensor does not have, hatching marks stride 0, and a column whose sizes do not fit
has no result. Sizes and strides are read from the tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from snippets.figures import BLUE, GRAY, ORANGE, RED, show_figure

_ROWS = 3.6  # height of one picture: two operands and their result
_CELL = 0.66  # inches, room for the words under a cell
_SHAPE_FONT = 9.0
_MARGIN = 0.95  # room for the words left of a picture
_STRIDE = "stride"


@dataclass(frozen=True)
class _Dimension:
    """One column of an operand: its size and the stride to read it with."""

    size: int
    exists: bool
    stride: int


def _dimensions(x: torch.Tensor, other: torch.Tensor) -> list[_Dimension]:
    """Line a tensor up with another one, missing dimensions first."""
    width = max(x.dim(), other.dim())
    sizes = (1,) * (width - x.dim()) + tuple(x.shape)
    steps = (0,) * (width - x.dim()) + x.stride()
    across = (1,) * (width - other.dim()) + tuple(other.shape)
    first = width - x.dim()
    return [
        _Dimension(size, at >= first, 0 if size == 1 and facing != 1 else step)
        for at, (size, step, facing) in enumerate(
            zip(sizes, steps, across, strict=True)
        )
    ]


def _write(ax: Axes, x: float, y: float, text: str, *, gray: bool = False) -> None:
    put = ax.text(x, y, text, fontsize=_SHAPE_FONT, family="monospace")
    put.set(ha="center", va="center")
    if gray:
        put.set(color=GRAY)


def _box(ax: Axes, x: float, y: float, colour: str, *, dashed: bool = False) -> None:
    line = (0, (2, 2)) if dashed else "-"
    box = Rectangle((x + 0.06, y), 0.88, 0.6, fc="none", ec=colour, lw=1.6, ls=line)
    ax.add_patch(box)


def _hatch(ax: Axes, x: float, y: float) -> None:
    # Hatched only at the sides, so that the size in the middle stays readable.
    for left in (x + 0.06, x + 0.68):
        size = (0.26, 0.6)
        ax.add_patch(
            Rectangle((left, y), *size, fc="none", ec=ORANGE, lw=0, hatch="/////")
        )


def _picture(ax: Axes, left: float, a: torch.Tensor, b: torch.Tensor) -> None:
    """Draw one pair from `left` on."""
    operands = [_dimensions(a, b), _dimensions(b, a)]
    pairs = list(zip(*operands, strict=True))
    # A pair that cannot be read at all has no strides to show.
    readable = all(
        one.size == two.size or 1 in (one.size, two.size) for one, two in pairs
    )
    for row, dimensions in enumerate(operands):
        y = 0.2 + 1.15 * row
        _write(ax, left + 0.45, y + 0.3, "ab"[row])
        if readable:
            _write(ax, left + 0.45, y + 0.82, _STRIDE, gray=True)
        for at, dim in enumerate(dimensions):
            x = left + _MARGIN + at
            _box(ax, x, y, BLUE if dim.exists else GRAY, dashed=not dim.exists)
            _write(ax, x + 0.5, y + 0.3, str(dim.size), gray=not dim.exists)
            if readable and dim.stride == 0:
                _hatch(ax, x, y)
            if readable:
                _write(ax, x + 0.5, y + 0.82, str(dim.stride), gray=True)
    for at, (one, two) in enumerate(pairs):
        fits = one.size == two.size or 1 in (one.size, two.size)
        size = two.size if one.size == 1 else one.size
        _box(ax, left + _MARGIN + at, 2.7, BLUE if fits else RED)
        _write(ax, left + _MARGIN + 0.5 + at, 3.0, str(size) if fits else "≠")
    _write(ax, left + 0.45, 3.0, "a + b")


def show_alignment(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], *, alt_pl: str, alt_en: str
) -> None:
    """Draw pairs of operands next to each other and show the figure in both languages.

    Args:
        pairs: operands of an elementwise operation; their shapes need not fit.
        alt_pl: what a reader who cannot see it should know, in Polish.
        alt_en: the same in English.
    """
    fig, ax = plt.subplots()
    ax.axis("off")
    left = 0.0
    for a, b in pairs:
        _picture(ax, left, a, b)
        left += max(a.dim(), b.dim()) + _MARGIN + 0.4
    ax.set_xlim(-0.1, left - 0.3)
    ax.set_ylim(_ROWS, 0)
    fig.set_size_inches(min(7.2, left * _CELL), _ROWS * 0.52)
    show_figure(fig, alt_pl=alt_pl, alt_en=alt_en, pl={_STRIDE: "krok"})


def show_sums(
    table: torch.Tensor,
    over_columns: torch.Tensor,
    over_rows: torch.Tensor,
    *,
    names: tuple[str, str, str],
    alt_pl: str,
    alt_en: str,
) -> None:
    """Draw a table with the sums of its rows on the right and of its columns below.

    Both languages show the tensors' `names` as they are.
    """
    rows, columns = table.shape
    below, right = rows + 0.9, columns + 0.6
    fig, ax = plt.subplots(figsize=((columns + 4) * _CELL, (rows + 2.4) * 0.34))
    ax.axis("off")
    for tensor, left, top, colour in (
        (table, 0.0, 0.0, BLUE),
        (over_columns.reshape(rows, 1), right, 0.0, ORANGE),
        (over_rows.reshape(1, columns), 0.0, below, ORANGE),
    ):
        for (r, c), value in np.ndenumerate(tensor.detach().numpy()):
            _box(ax, left + c, top + r, colour)
            _write(ax, left + c + 0.5, top + r + 0.3, f"{value:g}")
            if left:
                _write(ax, columns + 0.3, top + r + 0.3, "→", gray=True)
            elif top:
                _write(ax, c + 0.5, rows + 0.25, "↓", gray=True)
    _write(ax, columns / 2, -0.45, names[0])
    _write(ax, right + 0.5, -0.45, names[1])
    _write(ax, right + 0.5, below + 0.3, names[2])
    ax.set_xlim(-0.1, right + 1.6)
    ax.set_ylim(below + 0.7, -0.8)
    show_figure(fig, alt_pl=alt_pl, alt_en=alt_en, pl={}, same=names)
