"""Strict types of lessons: mypy reads each lesson as a reader leaves it, with the solutions.

An exercise's function is also defined by its starter and wrong answers, and its check stands above
the solution. So mypy sees a program of its own: the code cells, of an exercise the solution and
then the check; each of its lines knows the line of the lesson that it comes from.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blackbelt.course import Course
from blackbelt.lesson import Cell, Exercise, Lesson
from blackbelt.problems import Problem

_MESSAGE = re.compile(r"^(?P<file>[^:]+\.py):(?P<line>\d+): error: (?P<text>.*)$")
_COMMAND = "uv run blackbelt check --types"


class Line(NamedTuple):
    """A line of code and its number in the lesson."""

    text: str
    number: int


def check_types(course: Course, lessons: tuple[Lesson, ...]) -> tuple[Problem, ...]:
    """Run mypy over these lessons.

    Returns:
        A problem for each error, with the line of the lesson.

    Raises:
        RuntimeError: mypy itself failed.
    """
    programs = {f"lesson_{lesson.name}.py": (lesson, solved(lesson)) for lesson in lessons}
    if not programs:
        return ()
    folder = course.project.cache / "typed"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, lines) in programs.items():
        text = "\n".join(line.text for line in lines) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--no-pretty"]
    command += [str(folder / name) for name in programs]
    done = subprocess.run(
        command, cwd=course.project.root, capture_output=True, text=True, check=False
    )
    if done.returncode > 1:
        raise RuntimeError(f"mypy failed:\n{done.stdout}{done.stderr}")
    return tuple(_problems(done.stdout, programs))


def solved(lesson: Lesson) -> list[Line]:
    """The program of a lesson whose exercises are solved, line by line."""
    cells: list[Cell] = []
    for block in lesson.blocks:
        if isinstance(block, Cell):
            cells.append(block)
        elif isinstance(block, Exercise):
            cells += [block.solution, block.check]
    return [
        Line(text, cell.first + offset)
        for cell in cells
        for offset, text in enumerate(cell.source.split("\n"))
    ]


def _problems(output: str, programs: dict[str, tuple[Lesson, list[Line]]]) -> Iterator[Problem]:
    for message in output.splitlines():
        if not (found := _MESSAGE.match(message)):
            continue
        line = int(found["line"])
        name = Path(found["file"]).name
        if name in programs:
            lesson, lines = programs[name]
            yield Problem(lesson.path, lines[line - 1].number, found["text"], _COMMAND)
        else:
            yield Problem(found["file"], line, found["text"], _COMMAND)
