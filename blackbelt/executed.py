"""What comes back from a kernel: an executed cell, one that was stopped, and how it all ended."""

from dataclasses import dataclass
from typing import Any

from blackbelt.results import Output, StepRun, Value


@dataclass(frozen=True)
class Note:
    """What the kernel noted of a cell: see `blackbelt.watch`."""

    kind: str
    line: int = 0
    path: str = ""
    id: int = -1


@dataclass(frozen=True)
class Executed:
    """A cell that came to its end."""

    run: StepRun
    values: dict[str, Value]
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Ending:
    """What was there after the last cell.

    Attributes:
        provenance: device and versions.
        threads: names of threads that are still alive, by their notes.
        processes: command lines of children that are still alive, by pid.
    """

    provenance: dict[str, Any]
    threads: dict[int, str]
    processes: dict[int, str]


class StoppedError(Exception):
    """A cell did not come to its end.

    Attributes:
        reason: `time`, `flood` or `death`.
        line: line of the cell, counted from 1, or 0 if it is not known.
        outputs: what it put out until then.
        status: exit status of a dead kernel, negative for signals.
    """

    def __init__(self, reason: str, line: int, outputs: tuple[Output, ...], status: int) -> None:
        self.reason = reason
        self.line = line
        self.outputs = outputs
        self.status = status
        super().__init__(reason)
