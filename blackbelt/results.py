"""What a run leaves behind: outputs, quoted values, and where and when it happened."""

from dataclasses import dataclass, field
from typing import Literal

from blackbelt.lesson import Cell
from blackbelt.plan import Step

Value = bool | int | float | str
OutputKind = Literal["text", "stderr", "result", "figure", "warning", "error"]


@dataclass(frozen=True)
class Call:
    """One call that an exception went through.

    Attributes:
        line: line of the file, or of the cell counted from 1.
        name: the function; empty for what stands at the top level.
        step: for code of the lesson, the step of the run that executed it, else -1.
        file: for other code, its file without the folders that differ between machines.
        code: for other code, the text of the line.
        after_others: calls right before it were left out, because they repeat.
    """

    line: int
    name: str = ""
    step: int = -1
    file: str = ""
    code: str = ""
    after_others: bool = False


@dataclass(frozen=True)
class TableCell:
    """A cell of a table: its text, whether it names a row or column, and how far it reaches."""

    text: str
    is_head: bool = False
    columns: int = 1
    rows: int = 1


@dataclass(frozen=True)
class Table:
    """A DataFrame as pandas shows it.

    Attributes:
        head: rows that name the columns.
        body: all other rows.
        shape: how many rows and columns the frame has; a long one shows only some.
    """

    head: tuple[tuple[TableCell, ...], ...]
    body: tuple[tuple[TableCell, ...], ...]
    shape: tuple[int, int]


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
        line: for an exception or a figure, the line of the cell that raised or showed it, counted
            from 1; 0 if it is not known.
        calls: for an exception, the calls that it went through, the outermost first.
        causes: for an exception, those that led to it, the nearest first.
        table: for a DataFrame, what it shows.
    """

    kind: OutputKind
    text: str
    language: str | None = None
    svg: str = ""
    png: str = ""
    line: int = 0
    calls: tuple[Call, ...] = ()
    causes: tuple[str, ...] = ()
    table: Table | None = None


@dataclass(frozen=True)
class StepRun:
    """What one execution of a cell came to.

    Attributes:
        outputs: in the order in which they came.
        seconds: how long it took.
        memory: most bytes that the kernel's process had had at once when the cell ended.
    """

    outputs: tuple[Output, ...] = ()
    seconds: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class Provenance:
    """Where and when a run happened.

    Attributes:
        device: name of the GPU, or kind of device.
        torch: its version.
        python: its version.
        cuda: version of CUDA that torch was built with; empty where no CUDA device is.
        driver: version of NVIDIA's driver.
        date: day of the run, in UTC.
        commit: short hash of the commit, or nothing outside a git repository.
        recorded: it happened elsewhere, and is shown here from `recordings/`.
    """

    device: str = "CPU"
    torch: str = ""
    python: str = ""
    cuda: str = ""
    driver: str = ""
    date: str = ""
    commit: str = ""
    recorded: bool = False


@dataclass(frozen=True)
class Run:
    """Results of a lesson; `steps` are those of `plan(lesson)`, one by one.

    Attributes:
        steps: what each execution came to.
        values: variables that prose may quote.
        provenance: where and when.
        start_memory: bytes that the kernel's process had before the first cell: Python, and the
            libraries that were imported before it was forked.
    """

    steps: tuple[StepRun, ...]
    values: dict[str, Value] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    start_memory: int = 0

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def memory(self) -> int:
        """Most bytes that the kernel's process had at once; its children are not counted."""
        return max((step.memory for step in self.steps), default=0)

    def of(self, steps: tuple[Step, ...], cell: Cell, after: Cell | None = None) -> StepRun:
        """Result of the execution of `cell`, for a check of that `after` an answer."""
        for step, result in zip(steps, self.steps, strict=True):
            if step.cell is cell and step.after is after:
                return result
        raise LookupError(f"cell of line {cell.line} did not run after {after}")
