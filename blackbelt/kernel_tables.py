"""Inside the kernel: what a table of pandas shows, cell by cell.

It must stay importable with nothing but IPython installed.
"""

from html.parser import HTMLParser
from typing import Any

TABLE = "application/vnd.blackbelt.table+json"
# Where `DataFrame` lives: the module of pandas 3, and that of the versions before.
_MODULES = ("pandas", "pandas.core.frame")


def install(shell: Any) -> None:
    """Let DataFrames tell about themselves, without importing pandas for it."""
    for module in _MODULES:
        formatter = shell.display_formatter.mimebundle_formatter
        formatter.for_type_by_name(module, "DataFrame", _bundle)


def _bundle(frame: Any) -> dict[str, Any]:
    """What pandas leaves out, how it rounds and what it calls things is its own business.

    Only texts of cells are taken from its HTML: nothing in a table can become markup.
    """
    # None with `display.notebook_repr_html` off.
    markup = frame._repr_html_()
    if not markup:
        return {}
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    if not reader.body:
        return {}
    return {TABLE: {"head": reader.head, "body": reader.body, "shape": list(frame.shape)}}


class _Reader(HTMLParser):
    """Rows of the first table; for each cell the fields of `blackbelt.results.TableCell`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.head: list[list[dict[str, Any]]] = []
        self.body: list[list[dict[str, Any]]] = []
        self._rows = self.body
        self._cell: dict[str, Any] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("thead", "tbody"):
            self._rows = self.head if tag == "thead" else self.body
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td") and self._rows:
            given = dict(attrs)
            self._cell = {"text": "", "is_head": tag == "th"}
            self._cell["columns"] = int(given.get("colspan") or 1)
            self._cell["rows"] = int(given.get("rowspan") or 1)
            self._rows[-1].append(self._cell)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell["text"] += data
