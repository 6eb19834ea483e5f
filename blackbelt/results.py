"""What a run leaves behind: outputs, quoted values, and where and when it happened."""

from dataclasses import dataclass, field
from typing import Literal

from blackbelt.lesson import Cell
from blackbelt.plan import Step

Value = bool | int | float | str
OutputKind = Literal["text", "stderr", "result", "figure", "warning", "error"]


@dataclass(frozen=True)
class Output:
    """One output of a cell, in the order in which they came.

    Attributes:
        kind: printed text, value of the last expression, figure, warning, or exception.
        text: the text, scrubbed; for an exception `Type: message`. It may hold both languages
            (see `blackbelt.languages`).
        language: the only page that shows it, or None for both.
        svg: a figure as SVG.
        png: the same figure as base64 PNG at 144 dpi.
        line: for an exception, the line of the cell that raised it, counted from 1.
    """

    kind: OutputKind
    text: str
    language: str | None = None
    svg: str = ""
    png: str = ""
    line: int = 0


@dataclass(frozen=True)
class StepRun:
    """Outputs of one execution and its duration in seconds."""

    outputs: tuple[Output, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Provenance:
    """Where and when a run happened."""

    device: str = "CPU"
    torch: str = ""
    python: str = ""
    date: str = ""
    commit: str = ""


@dataclass(frozen=True)
class Run:
    """Results of a lesson; `steps` are those of `plan(lesson)`, one by one."""

    steps: tuple[StepRun, ...]
    values: dict[str, Value] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    def of(self, steps: tuple[Step, ...], cell: Cell, after: Cell | None = None) -> StepRun:
        """Result of the execution of `cell`, for a check of that `after` an answer."""
        for step, result in zip(steps, self.steps, strict=True):
            if step.cell is cell and step.after is after:
                return result
        raise LookupError(f"cell of line {cell.line} did not run after {after}")
