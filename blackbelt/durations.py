"""How long lessons took, so that the longest begin first and no core waits for the last one."""

import contextlib
import json
from collections.abc import Iterable, Mapping

from blackbelt.config import Project
from blackbelt.files import write_whole
from blackbelt.lesson import Lesson

_FILE = "durations.json"


def longest_first(lessons: Iterable[Lesson], project: Project) -> list[Lesson]:
    """Lessons in the order in which to start them; one that never ran may be the longest."""
    known = _read(project)
    return sorted(lessons, key=lambda lesson: -known.get(lesson.path, float("inf")))


def remember(project: Project, seconds: Mapping[str, float]) -> None:
    """Keep how long lessons took, by their paths. Without it the order is worse, nothing else."""
    rounded = {path: round(duration, 1) for path, duration in seconds.items()}
    data = json.dumps(_read(project) | rounded, indent=1, sort_keys=True)
    with contextlib.suppress(OSError):
        write_whole(project.cache / _FILE, data.encode())


def _read(project: Project) -> dict[str, float]:
    try:
        data = json.loads((project.cache / _FILE).read_bytes())
        return {str(path): float(duration) for path, duration in data.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
