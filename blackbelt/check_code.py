"""Rules of code: allowed imports, described figures, and values that prose can quote."""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator

from blackbelt import code_facts
from blackbelt.config import Project
from blackbelt.inline import needed_snippets
from blackbelt.lesson import Cell, Lesson
from blackbelt.problems import Problem
from blackbelt.prose_facts import facts


def check_code(
    lesson: Lesson, project: Project, snippets: dict[str, frozenset[str]]
) -> Iterator[Problem]:
    """Check the code cells of a lesson, and the values that its prose quotes.

    Args:
        lesson: the lesson.
        project: for the list of allowed packages.
        snippets: names that each module of `snippets/` defines.
    """
    invalid = [problem for cell in lesson.code if (problem := _syntax(lesson, cell))]
    if invalid:
        yield from invalid
        return
    assigned: Counter[str] = Counter()
    for cell in lesson.code:
        tree = code_facts.parse(cell.source)
        assigned.update(set(code_facts.assigned(tree)))
        for found in code_facts.imports(cell.source):
            if what := _import_problem(found, project, snippets):
                yield Problem(lesson.path, cell.first + found.line - 1, what)
        for figure in code_facts.figures(cell.source):
            if figure.missing:
                missing = " and ".join(figure.missing)
                what = f"figure without alternative text: show_figure needs {missing}"
                yield Problem(lesson.path, cell.first + figure.line - 1, what)
        yield from _options(lesson, cell)
    yield from _values(lesson, assigned)


def _syntax(lesson: Lesson, cell: Cell) -> Problem | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SyntaxWarning)
            # Compiling finds more than parsing: `return` outside a function, for example.
            compile(code_facts.parse(cell.source), "cell", "exec")
    except SyntaxError as error:
        what = f"not valid Python: {error.msg}"
        if (error.text or "").lstrip().startswith(("%", "!")):
            what = "a magic or a shell command; lessons are plain Python"
        return Problem(lesson.path, cell.first + (error.lineno or 1) - 1, what)
    return None


def _import_problem(
    found: code_facts.Import, project: Project, snippets: dict[str, frozenset[str]]
) -> str:
    package = found.module.split(".")[0]
    if package != "snippets":
        if package in sys.stdlib_module_names or package in project.imports:
            return ""
        return (
            f"import of `{package or found.module}`, which is neither in the standard library "
            f"nor in [tool.blackbelt] imports: {', '.join(project.imports)}, snippets"
        )
    name = found.module.removeprefix("snippets").lstrip(".")
    if not name or not found.name or found.renamed:
        return "helpers are imported as `from snippets.module import name`: notebooks hold a copy"
    if name not in snippets:
        return f"there is no snippets/{name}.py; there are: {', '.join(sorted(snippets))}"
    if found.name not in snippets[name]:
        return f"snippets/{name}.py does not define `{found.name}`"
    return ""


def _options(lesson: Lesson, cell: Cell) -> Iterator[Problem]:
    options = cell.options
    if options.exercise and (options.raises or options.warns or options.lang or options.fold):
        yield Problem(
            lesson.path, cell.line, "cells of an exercise take no lang, fold, raises or warns"
        )
    if options.says and options.role != "wrong":
        yield Problem(lesson.path, cell.line, '`says` belongs to a cell with role="wrong"')


def _values(lesson: Lesson, assigned: Counter[str]) -> Iterator[Problem]:
    for pair in lesson.prose:
        for cell in (pair.pl, pair.en):
            for value in facts(cell.source).values:
                if assigned[value.text] == 1:
                    continue
                line = cell.first + value.line
                quoted = f"{{{{ {value.text} }}}}"
                if not assigned[value.text]:
                    what = f"unknown value `{quoted}`: no cell assigns it at its top level"
                else:
                    cells = assigned[value.text]
                    what = f"value `{quoted}` is ambiguous: {cells} cells assign it"
                yield Problem(lesson.path, line, what)


def snippet_names(sources: dict[str, str]) -> dict[str, frozenset[str]]:
    """Names that each module of `snippets/` defines at its top level."""
    return {
        name: frozenset(code_facts.defined(code_facts.parse(source)))
        for name, source in sources.items()
    }


def check_collisions(lesson: Lesson, sources: dict[str, str]) -> Iterator[Problem]:
    """In the notebook a lesson and its helpers share a namespace; names must not collide."""
    if any(_syntax(lesson, cell) for cell in lesson.code):
        return
    owners: dict[str, str] = {}
    for module in needed_snippets(lesson, sources):
        tree = code_facts.parse(sources[module])
        for name in code_facts.defined(tree) | code_facts.bound_by_imports(tree):
            owners.setdefault(name, module)
    for cell in lesson.code:
        for name in sorted(code_facts.defined(code_facts.parse(cell.source)) & owners.keys()):
            yield Problem(lesson.path, cell.line, _taken(name, owners[name]))


def check_snippets(sources: dict[str, str]) -> Iterator[Problem]:
    """A notebook holds copies of several modules in one namespace: each name has one owner."""
    owners: dict[str, str] = {}
    for module, source in sorted(sources.items()):
        for name, line in sorted(code_facts.lines_of_definitions(source).items()):
            if (owner := owners.setdefault(name, module)) != module:
                yield Problem(f"snippets/{module}.py", line, _taken(name, owner))


def _taken(name: str, owner: str) -> str:
    return f"`{name}` is also a name of snippets/{owner}.py; call it something else"
