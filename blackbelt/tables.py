"""A DataFrame as a table of the page, and as the table that Jupyter shows."""

import html
import re
from collections.abc import Iterator

from blackbelt.ansi import to_html
from blackbelt.results import Table, TableCell
from blackbelt.strings import Strings

_NUMBER = re.compile(r"[-+]?(\d[\d,_]*)?\.?\d+(e[-+]?\d+)?[%j]?|[-+]?inf", re.I)
# What stands in a column of numbers without being one, and in the row of those left out.
_ABSENT = {"", "...", "NaN", "<NA>", "NaT", "None", "nan"}
_LEFT_OUT = "..."

Row = tuple[TableCell, ...]
Placed = list[tuple[int, TableCell]]


def table_for_page(table: Table, words: Strings) -> str:
    """HTML in one line, in which nothing of a cell can become markup or Markdown."""
    head, body = _placed(table.head), _placed(table.body)
    index = max(at + cell.columns for row in body for at, cell in row if cell.is_head)
    numbers = _numbers(body)
    names = "".join(f"<tr>{''.join(_names(row, index, numbers))}</tr>" for row in head)
    rows = "".join(f"<tr>{''.join(_cells(row, numbers))}</tr>" for row in body)
    caption = _caption(table, words)
    # Focusable, so that the keyboard can scroll a wide table.
    return (
        f'<div class="nb-table" role="region" aria-label="{words.outputs.table}: {caption}" '
        f'tabindex="0"><table class="nb-frame"><caption>{caption}</caption>'
        f"<thead>{names}</thead><tbody>{rows}</tbody></table></div>"
    )


def table_for_notebook(table: Table) -> str:
    """HTML like that of pandas, without its style sheet."""

    def rows(part: tuple[Row, ...]) -> str:
        return "\n".join(f"    <tr>{''.join(map(_plain, row))}</tr>" for row in part)

    size = f"\n<p>{table.shape[0]} rows × {table.shape[1]} columns</p>"
    return (
        '<table border="1" class="dataframe">\n'
        f"  <thead>\n{rows(table.head)}\n  </thead>\n"
        f"  <tbody>\n{rows(table.body)}\n  </tbody>\n"
        f"</table>{size if _shown(table) < table.shape[0] else ''}"
    )


def _placed(rows: tuple[Row, ...]) -> list[Placed]:
    """Each cell with its column, which cells of the rows above may have moved."""
    taken: set[tuple[int, int]] = set()
    placed: list[Placed] = []
    for number, row in enumerate(rows):
        at, found = 0, []
        for cell in row:
            while (number, at) in taken:
                at += 1
            found.append((at, cell))
            reach = range(at, at + cell.columns)
            taken.update((number + below, column) for below in range(cell.rows) for column in reach)
        placed.append(found)
    return placed


def _numbers(body: list[Placed]) -> set[int]:
    """Columns that hold numbers: their digits stand below each other."""
    columns: dict[int, list[str]] = {}
    for row in body:
        for at, cell in row:
            columns.setdefault(at, []).append(cell.text.strip())
    return {
        at
        for at, texts in columns.items()
        if any(map(_NUMBER.fullmatch, texts))
        and all(text in _ABSENT or _NUMBER.fullmatch(text) for text in texts)
    }


def _names(row: Placed, index: int, numbers: set[int]) -> Iterator[str]:
    for at, cell in row:
        if not cell.text.strip():
            # A heading without a text would be announced as one.
            yield _cell("td", "", cell, at in numbers)
        else:
            scope = "colgroup" if cell.columns > 1 and at >= index else "col"
            yield _cell("th", scope, cell, at in numbers)


def _cells(row: Placed, numbers: set[int]) -> Iterator[str]:
    for at, cell in row:
        if cell.is_head and cell.text.strip() not in ("", _LEFT_OUT):
            scope = "rowgroup" if cell.rows > 1 else "row"
            yield _cell("th", scope, cell, at in numbers)
        else:
            yield _cell("td", "", cell, at in numbers)


def _cell(tag: str, scope: str, cell: TableCell, is_number: bool) -> str:
    attributes = f' scope="{scope}"' if scope else ""
    attributes += ' class="nb-number"' if is_number else ""
    text = " ".join(cell.text.split()) if cell.is_head else cell.text
    return f"<{tag}{attributes}{_reach(cell)}>{to_html(text)}</{tag}>"


def _plain(cell: TableCell) -> str:
    tag = "th" if cell.is_head else "td"
    return f"<{tag}{_reach(cell)}>{html.escape(cell.text, quote=False)}</{tag}>"


def _reach(cell: TableCell) -> str:
    columns = f' colspan="{cell.columns}"' if cell.columns > 1 else ""
    rows = f' rowspan="{cell.rows}"' if cell.rows > 1 else ""
    return columns + rows


def _caption(table: Table, words: Strings) -> str:
    rows, columns = table.shape
    said = words.outputs
    shown = _shown(table)
    part = f" ({said.table_shows.format(shown=shown)})" if shown < rows else ""
    return (
        f"{words.count(rows, said.rows_forms)}{part} × {words.count(columns, said.columns_forms)}"
    )


def _shown(table: Table) -> int:
    return sum(any(cell.text != _LEFT_OUT for cell in row) for row in table.body)
