"""How errors reach people: what is wrong, where, and the next command to run."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One thing to mend.

    Attributes:
        path: file, relative to the project's root, with forward slashes.
        line: line in that file, counted from 1.
        what: one or two sentences in English; they say what was found and what is expected.
        command: the command to run after mending it.
    """

    path: str
    line: int
    what: str
    command: str = "uv run blackbelt check"

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}\n    next: {self.command}"


class CourseError(Exception):
    """Raised when lessons cannot be used; carries every problem that was found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class CommandError(Exception):
    """Raised when a command cannot do what it is asked here, whatever the lessons are like.

    Attributes:
        what: why not, in one or two sentences.
        command: the command to run instead, or after mending it.
    """

    def __init__(self, what: str, command: str) -> None:
        self.what = what
        self.command = command
        super().__init__(f"blackbelt: {what}\n    next: {command}")
