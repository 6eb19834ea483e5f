"""Runs lessons two times and compares: only cells that measure may put out something else."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent

from blackbelt.compare import differences
from blackbelt.config import Project
from blackbelt.lesson import Lesson
from blackbelt.problems import Problem
from blackbelt.progress import Progress
from blackbelt.results import Run
from blackbelt.store import Runner


@dataclass(frozen=True)
class Compared:
    """What two runs of the lessons have in common.

    Attributes:
        notes: one line for each lesson whose runs are as they should be.
        problems: failures, and cells that differ without saying that they measure.
    """

    notes: tuple[str, ...]
    problems: tuple[Problem, ...]


def run_twice(
    lessons: Sequence[Lesson], project: Project, progress: Progress, runner: Runner
) -> Compared:
    """Run each lesson two times, both from nothing, and compare what came out."""
    notes: list[str] = []
    problems: list[Problem] = []
    first: dict[str, Run] = {}
    for path, outcome in runner(lessons, project, progress).items():
        if isinstance(outcome, Run):
            first[path] = outcome
        else:
            problems += outcome
    passed = [lesson for lesson in lessons if lesson.path in first]
    second = runner(passed, project, progress) if passed else {}
    for lesson in passed:
        again = second[lesson.path]
        if not isinstance(again, Run):
            problems += again
            continue
        found, measured = compare(lesson, first[lesson.path], again)
        problems += found
        if not found:
            notes.append(_note(lesson, measured))
    return Compared(tuple(notes), tuple(problems))


def compare(lesson: Lesson, first: Run, second: Run) -> tuple[tuple[Problem, ...], tuple[int, ...]]:
    """Differences between two runs of a lesson.

    Returns:
        A problem for each cell that differs and may not, and the lines of those that may.
    """
    problems: list[Problem] = []
    measured: list[int] = []
    for found in differences(lesson, first, second, ("first run", "second run")):
        if found.measured:
            measured.append(found.line)
            continue
        what = (
            "two runs of this cell differ; give it a seed or an order, or `measured=true` if what "
            f"it shows is a measurement\n{indent(found.text, '    ', lambda _: True)}"
        )
        command = f"uv run blackbelt run --twice {lesson.number}"
        problems.append(Problem(lesson.path, found.line, what, command))
    return tuple(problems), tuple(dict.fromkeys(measured))


def _note(lesson: Lesson, measured: tuple[int, ...]) -> str:
    if not measured:
        return f"{lesson.path}: two equal runs"
    lines = ", ".join(f"{lesson.path}:{line}" for line in measured)
    return f"{lesson.path}: two equal runs but for the measurements of {lines}"
