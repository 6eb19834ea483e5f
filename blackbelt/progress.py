"""How a build shows that it is working: live lines on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class _Plain:
    """Stands for rich's console on machines that only run lessons and do not have it."""

    is_terminal = False

    def print(self, text: object = "", **_: Any) -> None:
        print(text, file=sys.stderr, flush=True)


def _console() -> Any:
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return _Plain()
    return Console(stderr=True, highlight=False)


def _bars(console: Any) -> "Bars":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[where]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


@dataclass
class Progress:
    """Receives what runs report. On a terminal each running lesson has a bar.

    Attributes:
        console: where lines go; it knows whether it is a terminal.
    """

    console: Any = field(default_factory=_console)
    ran: int = 0
    failed: int = 0
    reused: int = 0
    shown: int = 0
    _bars: "Bars | None" = None
    _tasks: dict[str, "TaskID"] = field(default_factory=dict)
    _began: float = field(default_factory=perf_counter)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show bars while the block runs, if this is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with _bars(self.console) as bars:
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

    def recorded(self, lessons: int) -> None:
        self.shown += lessons

    def note(self, text: str) -> None:
        """One line that is neither a result nor an error."""
        self.console.print(text, soft_wrap=True, markup=False)

    def summary(self) -> None:
        """One line at the end: what happened and how long it took."""
        seconds = perf_counter() - self._began
        parts = [f"{self.ran} run", f"{self.reused} unchanged"]
        if self.shown:
            parts.append(f"{self.shown} from recordings")
        if self.failed:
            parts.append(f"{self.failed} failed")
        self.console.print(f"lessons: {', '.join(parts)} in {seconds:.1f} s", soft_wrap=True)
