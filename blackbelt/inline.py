"""Helpers of `snippets/` as source text for a notebook that has no such package."""

import ast
from functools import lru_cache

from blackbelt import code_facts
from blackbelt.lesson import Lesson


def needed_snippets(lesson: Lesson, sources: dict[str, str]) -> tuple[str, ...]:
    """Modules of `snippets/` that a lesson imports, and those that they import, these first."""
    ordered: list[str] = []

    def visit(source: str) -> None:
        for name in _imported(source):
            if name in sources and name not in ordered:
                visit(sources[name])
                ordered.append(name)

    for cell in lesson.code:
        visit(cell.source)
    return tuple(ordered)


def _imported(source: str) -> list[str]:
    """Modules of `snippets/`, however they are imported: `from .x` and `from snippets`, too."""
    found = []
    for imported in code_facts.imports(source):
        package, *parts = imported.module.split(".")
        if package in ("snippets", ""):
            found.append(next(filter(None, parts), imported.name))
    return found


@lru_cache(maxsize=4096)  # after a save, all cells but one are as they were
def without_snippet_imports(source: str) -> str:
    """Remove `from snippets.x import y` from a cell or module, and keep every other line."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("snippets"):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "\n".join(lines).strip("\n")
