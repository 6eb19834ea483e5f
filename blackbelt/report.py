"""Seconds and memory of lessons, as `blackbelt run --report` prints them."""

from collections.abc import Mapping

from blackbelt.course import Course
from blackbelt.results import Run

_MB = 1_000_000
_HEAD = ("lesson", "device", "seconds", "peak MB", "start MB")
_NOTE = (
    "seconds: all cells. peak: most memory that the kernel's process had at once (resident, its "
    "children not counted).\nstart: before the first cell; part of it is shared with the other "
    "kernels."
)


def report(course: Course, runs: Mapping[str, Run]) -> str:
    """A table of what lessons take, the slowest first.

    Args:
        course: the lessons.
        runs: results by path of the lesson; lessons without results are left out.
    """
    found = [(lesson, runs[lesson.path]) for lesson in course.lessons if lesson.path in runs]
    rows = [
        (
            lesson.name,
            run.provenance.device + (" (recorded)" if run.provenance.recorded else ""),
            f"{run.seconds:.1f}",
            _megabytes(run.memory),
            _megabytes(run.start_memory),
        )
        for lesson, run in sorted(found, key=lambda pair: -pair[1].seconds)
    ]
    widths = [max(len(row[i]) for row in (_HEAD, *rows)) for i in range(len(_HEAD))]
    lines = [_line(row, widths) for row in (_HEAD, *rows)]
    return "\n".join([*lines, "", _NOTE])


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    names = [text.ljust(width) for text, width in zip(row[:2], widths[:2], strict=True)]
    numbers = [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join([*names, *numbers])


def _megabytes(size: int) -> str:
    # Results that are older than this measurement have none.
    return f"{size / _MB:.0f}" if size else "-"
