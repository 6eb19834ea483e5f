"""Step 1: the text of a lesson becomes cells that know their lines.

jupytext reads this format too, and the tests compare every lesson with its result; it is not
used here because it does not keep line numbers and takes longer to import than the whole
course takes to check.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from blackbelt.lesson import Cell, CellKind, Options
from blackbelt.options import HEADER, NEARLY_HEADER, HeaderError, parse_header
from blackbelt.problems import CourseError, Problem

NAME = re.compile(r"^(?P<number>\d\d[a-z]?)_(?P<slug>[a-z][a-z0-9_]*)\.py$")
FOLDER = re.compile(r"^\d_[a-z][a-z0-9_]*$")


@dataclass(frozen=True)
class _Raw:
    kind: CellKind
    options: Options
    line: int
    lines: tuple[str, ...]


def read_text(path: Path, shown: str) -> str:
    """Read a file as UTF-8 with Unix line ends.

    Args:
        path: the file.
        shown: the path that an error names.

    Raises:
        CourseError: the file is empty or not UTF-8.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = f"byte {data[error.start]:#04x} is not UTF-8; save the file with UTF-8 encoding"
        raise CourseError([Problem(shown, line, what)]) from None
    if not text.strip():
        what = "the file is empty; delete it and let the skeleton be written"
        command = "uv run blackbelt new " + " ".join(Path(shown).with_suffix("").parts[-2:])
        raise CourseError([Problem(shown, 1, what, command)])
    return text.replace("\r\n", "\n")


def read_cells(text: str, path: str) -> tuple[Cell, ...]:
    """Split a lesson into cells.

    Args:
        text: content of the file.
        path: the path that errors name.

    Raises:
        CourseError: the text is not valid percent format; all problems are listed.
    """
    problems: list[Problem] = []
    cells: list[Cell] = []
    for raw in _split(text.split("\n"), path, problems):
        try:
            cells.append(_cell(raw))
        except HeaderError as error:
            problems.append(Problem(path, raw.line, str(error)))
        except SyntaxError as error:
            line = raw.line + (error.lineno or 1)
            problems.append(Problem(path, line, f"not valid Python: {error.msg}"))
    if not cells and not problems:
        problems.append(Problem(path, 1, "no cells: a lesson is made of `# %%` cells"))
    if problems:
        raise CourseError(problems)
    return tuple(cells)


def _split(lines: list[str], path: str, problems: list[Problem]) -> list[_Raw]:
    raws: list[_Raw] = []
    header: tuple[CellKind, Options] | None = None
    start = _after_jupytext_header(lines)
    begin = start
    for index in range(start, len(lines) + 1):
        found = HEADER.match(lines[index]) if index < len(lines) else None
        if index < len(lines) and NEARLY_HEADER.match(lines[index]):
            problems.append(
                Problem(path, index + 1, "write `# %%`, with one space, to begin a cell")
            )
        if not found and index < len(lines):
            continue
        if header:
            raws.append(_Raw(*header, begin, tuple(lines[begin:index])))
        elif begin == start and any(line.strip() for line in lines[start:index]):
            first = next(i for i in range(start, index) if lines[i].strip())
            problems.append(Problem(path, first + 1, "text before the first `# %%` cell"))
        if found:
            try:
                header = parse_header(found["rest"])
            except HeaderError as error:
                problems.append(Problem(path, index + 1, str(error)))
                header = None
            begin = index + 1
    return raws


def _after_jupytext_header(lines: list[str]) -> int:
    """Index of the first line behind the YAML header that jupytext writes in Jupyter."""
    if lines[0].strip() != "# ---":
        return 0
    for index in range(1, len(lines)):
        if lines[index].strip() == "# ---":
            return index + 1
    return 0


def _cell(raw: _Raw) -> Cell:
    lines = list(raw.lines)
    first = raw.line + 1
    while lines and not lines[0].strip():
        lines.pop(0)
        first += 1
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise HeaderError("the cell is empty")
    if raw.kind == "markdown":
        lines = [_uncomment(line, first + i - raw.line) for i, line in enumerate(lines)]
    return Cell(raw.kind, "\n".join(lines), raw.line, first, raw.options)


def _uncomment(line: str, offset: int) -> str:
    if line.startswith("# "):
        return line[2:]
    if line.rstrip() == "#":
        return ""
    error = SyntaxError("a line of a [markdown] cell starts with `# `")
    error.lineno = offset
    raise error
