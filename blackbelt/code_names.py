"""Names of libraries that code uses: imports resolved, attributes of other things left open."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from blackbelt import code_facts


@dataclass(frozen=True)
class Names:
    """What a cell uses.

    Attributes:
        dotted: whole names, such as `torch.nn.functional.linear` for `F.linear`.
        attributes: names after a dot whose owner is not known, such as `view` of `x.view(6)`.
        defined: functions, methods and classes that the cell defines itself.
    """

    dotted: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    defined: frozenset[str] = frozenset()


@dataclass
class _Found:
    dotted: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    defined: set[str] = field(default_factory=set)


def bindings(sources: Iterable[str]) -> dict[str, str]:
    """What the imports of cells bind: `F` to `torch.nn.functional`.

    Names that some cell also assigns are left out: which one a use means is not known.
    """
    bound: dict[str, str] = {}
    taken: set[str] = set()
    for source in sources:
        if "import" in source:
            bound.update(_bound(code_facts.parse(source)))
        taken |= _assigned(source)
    return {name: whole for name, whole in bound.items() if name not in taken}


def _bound(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                yield alias.asname or first, alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


@lru_cache(maxsize=4096)
def _assigned(source: str) -> frozenset[str]:
    """Variables and parameters, at any depth."""
    names = set()
    for node in ast.walk(code_facts.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return frozenset(names)


def names(source: str, bound: dict[str, str]) -> Names:
    """Every name that a cell uses.

    Args:
        source: the cell.
        bound: see `bindings`.
    """
    found = _Found()
    _visit(code_facts.parse(source), bound, found)
    return Names(frozenset(found.dotted), frozenset(found.attributes), frozenset(found.defined))


def _visit(node: ast.AST, bound: dict[str, str], found: _Found) -> None:
    if isinstance(node, ast.Attribute | ast.Name):
        root, parts = _chain(node)
        whole = bound.get(root.id) if isinstance(root, ast.Name) else None
        if whole:
            found.dotted.add(".".join((whole, *parts)))
            return
        if storage := _of_storage(root, parts):
            found.dotted.add(storage)
        else:
            found.attributes.update(parts)
        if not isinstance(root, ast.Name):
            _visit(root, bound, found)
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        found.defined.add(node.name)
    for child in ast.iter_child_nodes(node):
        _visit(child, bound, found)


def _chain(node: ast.expr) -> tuple[ast.expr, tuple[str, ...]]:
    """`a().b.c` as `a()` and `b`, `c`."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return node, tuple(reversed(parts))


def _of_storage(root: ast.expr, parts: tuple[str, ...]) -> str:
    """`x.untyped_storage().nbytes` is not the method of that name that tensors have."""
    called = root.func if isinstance(root, ast.Call) else None
    if parts and isinstance(called, ast.Attribute) and called.attr == "untyped_storage":
        return f"torch.UntypedStorage.{parts[0]}"
    return ""
