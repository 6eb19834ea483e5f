"""Products of matrices drawn to scale: what a contraction makes on its way.

A row of the figure is an order, from left to right; an intermediate result that is too
large is seen at once. Lengths are to scale; anything thinner than a line is thickened,
and the shapes under the matrices are exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from snippets.figures import BLUE, GRAY, GREEN, ORANGE, show_figure

_ORDER_POLISH = {"intermediate result": "wynik pośredni", "output": "wynik"}


@dataclass(frozen=True)
class Product:
    """One product of matrices, (rows, inner) times (inner, columns)."""

    rows: int
    inner: int
    columns: int
    left: str = ""  # names of the operands, where they have any
    right: str = ""

    @property
    def multiplications(self) -> int:
        """One for each row, column and term of the sum."""
        return self.rows * self.inner * self.columns


@dataclass(frozen=True)
class _Look:
    width: float = 7.2  # inches, all that a page has
    row_height: float = 2.1  # inches for one order
    thinnest: float = 0.03  # of the longest side
    slot: float = 0.62  # room for the shape under a narrow matrix
    gap: float = 0.3
    font: float = 9.0


_LOOK = _Look()


@dataclass
class _Pen:
    """Draws one order, from left to right; the longest side is 1 unit."""

    ax: Axes
    longest: int
    top: float
    at: float = 0.0

    def note(self, x: float, y: float, text: str, size: float = _LOOK.font) -> None:
        label = self.ax.text(x, y, text, color=GRAY, fontsize=size)
        label.set(ha="center", va="center")

    def sign(self, text: str) -> None:
        self.note(self.at + _LOOK.gap / 2, self.top + 0.5, text, size=14)
        self.at += _LOOK.gap

    def matrix(self, rows: int, columns: int, colour: str, name: str = "") -> None:
        high, wide = (
            max(side / self.longest, _LOOK.thinnest) for side in (rows, columns)
        )
        slot = max(wide, _LOOK.slot)
        corner = (self.at + (slot - wide) / 2, self.top + (1 - high) / 2)
        box = Rectangle(corner, wide, high, fc=colour, ec=GRAY, lw=0.8)
        self.ax.add_patch(box)
        self.note(self.at + slot / 2, self.top + 1.12, f"{rows}×{columns}")
        if name:
            self.note(self.at + slot / 2, self.top + 1.3, name)
        self.at += slot

    def product(
        self, product: Product, colours: tuple[str, str, str]
    ) -> tuple[str, str]:
        start = self.at
        self.matrix(product.rows, product.inner, colours[0], product.left)
        self.sign("·")
        self.matrix(product.inner, product.columns, colours[1], product.right)
        self.sign("=")
        self.matrix(product.rows, product.columns, colours[2])
        number = f"{product.multiplications:,}"
        text = f"{number} multiplications"
        self.note((start + self.at) / 2, self.top - 0.12, text)
        self.at += 2 * _LOOK.gap
        return text, "mnożenia: " + number.replace(",", "\N{NARROW NO-BREAK SPACE}")


def orders_figure(
    orders: Mapping[str, Sequence[Product]],
) -> tuple[Figure, dict[str, str]]:
    """Draw orders of contraction, one under the other.

    Args:
        orders: products of each order, by the text to print over it. The result of a
            product is an operand of the next one, on the side where its shape fits.

    Returns:
        The figure, and Polish for its texts.
    """
    fig, ax = plt.subplots(figsize=(_LOOK.width, _LOOK.row_height * len(orders)))
    ax.axis("off")
    longest = max(
        max(p.rows, p.inner, p.columns) for row in orders.values() for p in row
    )
    polish = dict(_ORDER_POLISH)
    right = 0.0
    for i, (name, products) in enumerate(orders.items()):
        pen = _Pen(ax, longest, top=2.0 * i)
        title = ax.text(0, pen.top - 0.34, name, fontsize=_LOOK.font)
        title.set(family="monospace", color=GRAY)
        made: tuple[int, int] | None = None
        for step, product in enumerate(products):
            result = GREEN if step == len(products) - 1 else ORANGE
            ours = made == (product.rows, product.inner)
            theirs = not ours and made == (product.inner, product.columns)
            operands = (ORANGE if ours else BLUE, ORANGE if theirs else BLUE)
            text, pl = pen.product(product, (*operands, result))
            polish[text] = pl
            made = (product.rows, product.columns)
        right = max(right, pen.at - 2 * _LOOK.gap)
    names = zip(("operand", *_ORDER_POLISH), (BLUE, ORANGE, GREEN), strict=True)
    keys = [
        Rectangle((0, 0), 1, 1, fc=fill, ec=GRAY, label=name) for name, fill in names
    ]
    fig.legend(handles=keys, loc="outside lower center", ncols=3, fontsize=_LOOK.font)
    ax.set(xlim=(-0.05, right + 0.05), ylim=(2.0 * len(orders) - 0.5, -0.5))
    ax.set_aspect("equal")
    return fig, polish


def show_orders(
    orders: Mapping[str, Sequence[Product]], *, alt_pl: str, alt_en: str
) -> None:
    """Draw orders of contraction and show the figure in both languages.

    Args:
        orders: products of each order, by the text to print over it.
        alt_pl: what a reader who cannot see it should know, in Polish.
        alt_en: the same in English.
    """
    fig, polish = orders_figure(orders)
    names = {name for row in orders.values() for p in row for name in (p.left, p.right)}
    same = ("operand", *orders, *sorted(names - {""}))
    show_figure(fig, alt_pl=alt_pl, alt_en=alt_en, pl=polish, same=same)
