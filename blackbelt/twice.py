"""Runs lessons two times and compares: only cells that measure may put out something else."""

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blackbelt import code_facts
from blackbelt.config import Project
from blackbelt.lesson import Lesson
from blackbelt.plan import Step, plan
from blackbelt.problems import Problem
from blackbelt.progress import Progress
from blackbelt.prose_facts import VALUE
from blackbelt.results import Run, StepRun
from blackbelt.store import Runner

# The head of a difference tells what it is; a flood of text would fill the screen.
_SHOWN_LINES = 30
_SHOWN_CHARACTERS = 300


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
    for step, before, after in zip(plan(lesson), first.steps, second.steps, strict=True):
        old = list(_lines(lesson, step, before, first))
        new = list(_lines(lesson, step, after, second))
        if old == new:
            continue
        if step.cell.options.measured:
            measured.append(step.cell.line)
            continue
        where = f"{lesson.path}:{step.cell.line}"
        what = (
            "two runs of this cell differ; give it a seed or an order, or `measured=true` if what "
            f"it shows is a measurement\n{_difference(old, new, where)}"
        )
        command = f"uv run blackbelt run --twice {lesson.number}"
        problems.append(Problem(lesson.path, step.cell.line, what, command))
    return tuple(problems), tuple(dict.fromkeys(measured))


def _lines(lesson: Lesson, step: Step, done: StepRun, run: Run) -> Iterator[str]:
    """Everything of a step that a page can show, as lines."""
    for output in done.outputs:
        label = f"[{output.kind}{' ' + output.language if output.language else ''}]"
        yield label
        yield from output.text.split("\n")
        for call in output.calls:
            yield f"{label} {call.file or 'cell'}:{call.line} {call.name}"
        # Hundreds of lines of coordinates would tell a person nothing.
        for kind, data in (("vector", output.svg), ("picture", output.png)):
            if data:
                digest = hashlib.sha256(data.encode()).hexdigest()[:12]
                yield f"{label} {kind} {digest}, {len(data):,} bytes"
    quoted = _quoted(lesson)
    for name in code_facts.assigned(code_facts.parse(step.cell.source)):
        if name in quoted:
            yield f"[value] {name} = {run.values.get(name)!r}"


def _quoted(lesson: Lesson) -> set[str]:
    cells = [cell for pair in lesson.prose for cell in (pair.pl, pair.en)]
    return {match["name"] for cell in cells for match in VALUE.finditer(cell.source)}


def _difference(old: list[str], new: list[str], where: str) -> str:
    names = (f"{where} (first run)", f"{where} (second run)")
    lines = list(difflib.unified_diff(old, new, *names, lineterm="", n=1))
    shown = [f"    {line[:_SHOWN_CHARACTERS]}" for line in lines[:_SHOWN_LINES]]
    if len(lines) > _SHOWN_LINES:
        shown.append(f"    ... {len(lines) - _SHOWN_LINES} more lines")
    return "\n".join(shown)


def _note(lesson: Lesson, measured: tuple[int, ...]) -> str:
    if not measured:
        return f"{lesson.path}: two equal runs"
    lines = ", ".join(f"{lesson.path}:{line}" for line in measured)
    return f"{lesson.path}: two equal runs but for the measurements of {lines}"
