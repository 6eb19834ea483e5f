"""Step 4: the order in which a run executes a lesson's cells, and what each has to do.

An exercise is proven both ways: its check runs after the starter and after every wrong answer,
where it must fail with a message, and after the solution, where it must pass.
"""

from dataclasses import dataclass
from typing import Literal

from blackbelt.lesson import Cell, Exercise, Lesson

Phase = Literal["story", "answer", "check fails", "check passes"]


@dataclass(frozen=True)
class Step:
    """One execution of one cell.

    Attributes:
        cell: the cell.
        phase: `story` for ordinary cells, `answer` for starter, wrong answer and solution, and for
            a check whether it has to fail or to pass.
        after: the cell whose answer a check judges.
    """

    cell: Cell
    phase: Phase
    after: Cell | None = None


def plan(lesson: Lesson) -> tuple[Step, ...]:
    """Every execution of a run, in order."""
    steps: list[Step] = []
    for block in lesson.blocks:
        if isinstance(block, Cell):
            steps.append(Step(block, "story"))
        elif isinstance(block, Exercise):
            for answer in (block.starter, *block.wrong):
                steps.append(Step(answer, "answer"))
                steps.append(Step(block.check, "check fails", answer))
            steps.append(Step(block.solution, "answer"))
            steps.append(Step(block.check, "check passes", block.solution))
    return tuple(steps)
