"""How a build shows that it is working: live lines on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars


@dataclass
class Progress:
    """Receives what runs report. On a terminal each running lesson has a bar.

    Attributes:
        console: where lines go; it knows whether it is a terminal.
    """

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    ran: int = 0
    failed: int = 0
    reused: int = 0
    _bars: Bars | None = None
    _tasks: dict[str, TaskID] = field(default_factory=dict)
    _began: float = field(default_factory=perf_counter)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show bars while the block runs, if this is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[where]}"),
            TimeElapsedColumn(),
        )
        with Bars(*columns, console=self.console, transient=True) as bars:
            self._bars = bars
            yield
        self._bars = None

    def started(self, lesson: str, steps: int) -> None:
        if self._bars:
            self._tasks[lesson] = self._bars.add_task(lesson, total=steps, where="starting")
        else:
            self.console.print(f"run   {lesson}  {steps} cells", soft_wrap=True)

    def step(self, lesson: str, number: int, line: int) -> None:
        if self._bars:
            self._bars.update(self._tasks[lesson], completed=number - 1, where=f"line {line}")

    def finished(self, lesson: str, seconds: float, *, failed: bool) -> None:
        self.ran += 1
        self.failed += failed
        if self._bars:
            self._bars.remove_task(self._tasks.pop(lesson))
        word = "FAIL " if failed else "done "
        self.console.print(f"{word} {lesson}  {seconds:.1f} s", soft_wrap=True)

    def cached(self, lessons: int) -> None:
        self.reused += lessons

    def summary(self) -> None:
        """One line at the end: what happened and how long it took."""
        seconds = perf_counter() - self._began
        parts = [f"{self.ran} run", f"{self.reused} unchanged"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        self.console.print(f"lessons: {', '.join(parts)} in {seconds:.1f} s", soft_wrap=True)
