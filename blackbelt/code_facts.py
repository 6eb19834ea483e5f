"""Facts about a code cell: what it imports, which variables it assigns, which figures it shows."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Import:
    """An imported name. `name` is empty for `import module`."""

    module: str
    name: str
    line: int
    renamed: bool


@dataclass(frozen=True)
class Figure:
    """A call of `show_figure`, and which of its alternative texts are missing or empty."""

    line: int
    missing: tuple[str, ...]


@cache
def parse(source: str) -> ast.Module:
    """Syntax tree of a cell, which `read` has found to be valid."""
    return ast.parse(source)


@cache
def imports(source: str) -> tuple[Import, ...]:
    """Every import, inside functions too; lines are those of the cell, counted from 1."""
    # Walking the trees of 60 lessons takes seconds; most cells have nothing to find.
    return tuple(_imports(parse(source))) if "import" in source else ()


def _imports(tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", node.lineno, alias.asname is not None)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, alias.asname is not None)


def assigned(tree: ast.Module) -> Iterator[str]:
    """Variables that plain assignments at the top level of the cell give a value."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value:
            targets = [node.target]
        else:
            continue
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            yield from (name.id for name in names if isinstance(name, ast.Name))


@cache
def figures(source: str) -> tuple[Figure, ...]:
    """Every call of `show_figure`."""
    return tuple(_figures(parse(source))) if "show_figure" in source else ()


def _figures(tree: ast.Module) -> Iterator[Figure]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "show_figure":
            given = {k.arg: k.value for k in node.keywords}
            missing = tuple(k for k in ("alt_pl", "alt_en") if _is_empty(given.get(k)))
            yield Figure(node.lineno, missing)


def _is_empty(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and not str(value.value or "").strip())


def defined(tree: ast.Module) -> set[str]:
    """Functions, classes and variables that a module or cell defines at its top level."""
    names = set(assigned(tree))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return names


def lines_of_definitions(source: str) -> dict[str, int]:
    """Names as in `defined`, with the line of the statement that defines each first.

    Raises:
        SyntaxError: the source is not Python.
    """
    lines: dict[str, int] = {}
    for node in parse(source).body:
        for name in defined(ast.Module([node], [])):
            lines.setdefault(name, node.lineno)
    return lines


def bound_by_imports(tree: ast.Module) -> set[str]:
    """Names that imports at the top level of a module or cell bind."""
    return {
        alias.asname or alias.name.partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
