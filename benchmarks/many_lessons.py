"""A course of many lessons for measurements: real prose, code that is shown but hardly runs.

Lessons made of the same original have the same code, so that all of them need one run.
"""

import json
import shutil
from itertools import cycle
from pathlib import Path

from blackbelt.config import load_project
from blackbelt.course import Course, load_course
from blackbelt.lesson import Cell, Lesson
from blackbelt.prose_facts import VALUE
from blackbelt.read import read_cells

REPOSITORY = Path(__file__).resolve().parent.parent
_PARTS = ("mkdocs.yml", "pyproject.toml", "docs", "snippets", "lessons")


def copy_course(target: Path) -> None:
    """Copy what is written by hand, and nothing that a build makes of it."""
    generated = shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in _PARTS:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=generated)
        else:
            shutil.copyfile(source, target / name)
    shutil.rmtree(target / "docs" / "lessons", ignore_errors=True)


def many_lessons(target: Path, count: int) -> None:
    """Make a copy of the course with this many lessons, whose names come from the roadmap."""
    copy_course(target)
    course = load_course(load_project(target))
    names = _names(course, count)
    _write_roadmap(target, names)
    cheap = {lesson.name: _cheap(lesson) for lesson in course.lessons}
    others = cycle(cheap.values())
    for module, name in names:
        text = cheap.get(name) or next(others)
        (target / "lessons" / module / f"{name}.py").write_text(text, encoding="utf-8")


def _names(course: Course, count: int) -> list[tuple[str, str]]:
    """Module and name of each lesson; the written ones first, since others link to them."""
    names = [(lesson.module, lesson.name) for lesson in course.lessons]
    for module in course.modules:
        names += [
            (module.folder, p.name) for p in module.lessons if (module.folder, p.name) not in names
        ]
    last = course.modules[-1].folder
    free = (f"{i:02}{letter}" for letter in "xyz" for i in range(1, 100))
    while len(names) < count:
        number = next(free)
        names.append((last, f"{number}_more_{number}"))
    return names[:count]


def _write_roadmap(target: Path, names: list[tuple[str, str]]) -> None:
    lines = []
    for folder in sorted({module for module, _ in names}):
        lines += [
            "[[module]]",
            f'folder = "{folder}"',
            f'title = {{ pl = "{folder}", en = "{folder}" }}',
        ]
        lines += ['summary = { pl = "Moduł.", en = "Module." }', "lessons = ["]
        for module, name in names:
            if module == folder:
                number, _, slug = name.partition("_")
                fields = {"number": number, "slug": slug, "pl": slug, "en": slug}
                items = ", ".join(f"{key} = {json.dumps(value)}" for key, value in fields.items())
                lines.append(f"    {{ {items} }},")
        lines.append("]\n")
    (target / "lessons" / "roadmap.toml").write_text("\n".join(lines), encoding="utf-8")


def _cheap(lesson: Lesson) -> str:
    """The same lesson with its code in functions that nobody calls."""
    lines = lesson.source.split("\n")
    cells = read_cells(lesson.source, lesson.path)
    values = sorted({match["name"] for match in VALUE.finditer(lesson.source)})
    ends = [cell.line - 1 for cell in cells[1:]] + [len(lines)]
    parts: list[str] = []
    for number, (cell, end) in enumerate(zip(cells, ends, strict=True)):
        if cell.kind == "markdown":
            parts.append("\n".join(lines[cell.line - 1 : end]).rstrip())
        else:
            given = values if cell.options.exercise is None else []
            values = values[:0] if given else values
            parts.append(f"{_header(cell)}\n{_code(cell, number, given)}")
    return "\n\n".join(parts) + "\n"


def _header(cell: Cell) -> str:
    options = cell.options
    kept = {"exercise": options.exercise, "role": options.role, "says": options.says}
    words = [
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in kept.items() if value
    ]
    return " ".join(["# %%", *words])


def _code(cell: Cell, number: int, values: list[str]) -> str:
    body = "\n".join(f"    {line}" if line else "" for line in cell.source.split("\n"))
    shown = f"def cell_{number}() -> None:\n{body}\n    print()\n\n\n"
    role = cell.options.role
    if role == "check":
        return f"{shown}assert answer == 1, reason"
    if role:
        reason = json.dumps(cell.options.says or "the starter fails", ensure_ascii=False)
        return f"{shown}answer, reason = {int(role == 'solution')}, {reason}"
    given = "\n".join(f"{name} = 1" for name in values)
    return f"{given}\n{shown}print({number}, 'of the cells')".lstrip()
