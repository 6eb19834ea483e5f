"""What differs between two runs of a lesson, cell by cell."""

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from blackbelt import code_facts
from blackbelt.languages import keep
from blackbelt.lesson import LANGUAGES, Lesson
from blackbelt.plan import Step, plan
from blackbelt.prose_facts import VALUE
from blackbelt.results import Run, StepRun

# The head of a difference tells what it is; a flood of text would fill the screen.
_SHOWN_LINES = 30
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Difference:
    """A cell that put out something else.

    Attributes:
        line: where the cell begins.
        measured: the cell says that it measures, so this is as it should be.
        text: the difference, as `diff` writes it.
    """

    line: int
    measured: bool
    text: str


def differences(
    lesson: Lesson, first: Run, second: Run, names: tuple[str, str]
) -> Iterator[Difference]:
    """Cells whose outputs, or whose values that prose quotes, are not the same in both runs.

    Args:
        lesson: the lesson, the same for both.
        first: one run.
        second: the other.
        names: what to call them.
    """
    quoted = _quoted(lesson)
    for step, before, after in zip(plan(lesson), first.steps, second.steps, strict=True):
        old = list(_lines(step, before, first, quoted))
        new = list(_lines(step, after, second, quoted))
        if old != new:
            line = step.cell.line
            titles = [f"{lesson.path}:{line} ({name})" for name in names]
            text = _difference(old, new, (titles[0], titles[1]))
            yield Difference(line, step.cell.options.measured, text)


def _lines(step: Step, done: StepRun, run: Run, quoted: set[str]) -> Iterator[str]:
    """Everything of a step that a page can show, as lines."""
    for output in done.outputs:
        label = f"[{output.kind}{' ' + output.language if output.language else ''}]"
        yield label
        for text in dict.fromkeys(keep(output.text, code) for code in LANGUAGES):
            yield from text.split("\n")
        for call in output.calls:
            yield f"{label} {call.file or 'cell'}:{call.line} {call.name}"
        # Hundreds of lines of coordinates would tell a person nothing.
        for kind, data in (("vector", output.svg), ("picture", output.png)):
            if data:
                digest = hashlib.sha256(data.encode()).hexdigest()[:12]
                yield f"{label} {kind} {digest}, {len(data):,} bytes"
    for name in code_facts.assigned(code_facts.parse(step.cell.source)):
        if name in quoted:
            yield f"[value] {name} = {run.values.get(name)!r}"


def _quoted(lesson: Lesson) -> set[str]:
    cells = [cell for pair in lesson.prose for cell in (pair.pl, pair.en)]
    return {match["name"] for cell in cells for match in VALUE.finditer(cell.source)}


def _difference(old: list[str], new: list[str], names: tuple[str, str]) -> str:
    lines = list(difflib.unified_diff(old, new, *names, lineterm="", n=1))
    shown = [line[:_SHOWN_CHARACTERS] for line in lines[:_SHOWN_LINES]]
    if len(lines) > _SHOWN_LINES:
        shown.append(f"... {len(lines) - _SHOWN_LINES} more lines")
    return "\n".join(shown)
