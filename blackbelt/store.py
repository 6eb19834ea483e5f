"""Keeps results of runs under a hash of everything that they depend on.

An entry is one JSON file that says what it is: format, key, checksum, run. What cannot be
trusted is reported in one line and run again; what cannot be written costs a warning.
"""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from blackbelt.config import Project
from blackbelt.course import Course
from blackbelt.files import remove_leftovers, write_whole
from blackbelt.keys import FORMAT, device_class, run_key
from blackbelt.lesson import Lesson
from blackbelt.plan import plan
from blackbelt.problems import Problem
from blackbelt.progress import Progress
from blackbelt.recordings import recorded_run
from blackbelt.results import Run
from blackbelt.serialize import checksum, run_from_data, run_to_data

Outcome = Run | tuple[Problem, ...]
Finished = Callable[[Lesson, Outcome], None]


class Runner(Protocol):
    """What executes lessons: kernels of this machine, or a cluster."""

    def __call__(
        self,
        lessons: Sequence[Lesson],
        project: Project,
        progress: Progress,
        finished: Finished | None = None,
    ) -> dict[str, Outcome]: ...


def obtain(
    course: Course,
    lessons: Sequence[Lesson],
    progress: Progress,
    *,
    fresh: bool = False,
    recorded: bool = True,
    runner: Runner | None = None,
) -> tuple[dict[str, Run], tuple[Problem, ...]]:
    """Results of these lessons: recordings and the cache where nothing changed, else a run.

    Args:
        course: for the snippets that lessons import.
        lessons: what is wanted.
        progress: is told what runs.
        fresh: run even what is known.
        recorded: take recordings of a GPU where this machine has none.
        runner: executes lessons; the kernels of this machine if it is not given.

    Returns:
        Results by path of the lesson, and the problems of those that failed.
    """
    runs = {} if fresh else known(course, lessons, progress, recorded=recorded)
    missing = [lesson for lesson in lessons if lesson.path not in runs]
    problems: list[Problem] = []
    if missing:
        store = Store(course, progress)
        with progress.live():
            results = (runner or _local())(missing, course.project, progress, store.keep)
        for path, result in results.items():
            if isinstance(result, Run):
                runs[path] = result
            else:
                problems += result
    for lesson in lessons:
        if lesson.path in runs and (unquoted := _unquoted(lesson, runs[lesson.path])):
            problems += unquoted
            del runs[lesson.path]
    return runs, tuple(problems)


def known(
    course: Course, lessons: Sequence[Lesson], progress: Progress, *, recorded: bool = True
) -> dict[str, Run]:
    """Results that need no run, by path of the lesson."""
    runs: dict[str, Run] = {}
    shown = 0
    # A machine with CUDA shows its own results.
    recorded = recorded and device_class() != "cuda"
    for lesson in lessons:
        run = recorded_run(course, lesson) if recorded else None
        shown += run is not None
        if run := run or _load(course, lesson, progress):
            runs[lesson.path] = run
    progress.cached(len(runs) - shown)
    progress.recorded(shown)
    return runs


class Store:
    """Writes the entries of a course, each as soon as its run is finished."""

    def __init__(self, course: Course, progress: Progress) -> None:
        self._course = course
        self._progress = progress
        self._warned = False
        remove_leftovers(_folder(course.project))

    def keep(self, lesson: Lesson, outcome: Outcome) -> None:
        """Keep a run; failures are not kept, so that the next build tries again."""
        if not isinstance(outcome, Run):
            return
        key = run_key(lesson, self._course.snippets)
        run = run_to_data(outcome)
        entry = {"format": FORMAT, "key": key, "sha256": checksum(run), "run": run}
        try:
            write_whole(_file(self._course.project, key), json.dumps(entry).encode(), durable=True)
        except OSError as error:
            if not self._warned:
                self._progress.note(f"cache  results cannot be kept, the build goes on: {error}")
            self._warned = True


class _UnusableError(ValueError):
    """An entry that is not what its name says; the message says why."""


def _local() -> Runner:
    # nbclient takes half a second to import; builds in which nothing changed do not need it.
    from blackbelt.run import run_lessons

    return run_lessons


def _unquoted(lesson: Lesson, run: Run) -> tuple[Problem, ...]:
    try:
        from blackbelt.quotes import check_quotes
    except ModuleNotFoundError:
        # A machine that only runs lessons has no Markdown parser; the build checks this again.
        return ()
    return tuple(check_quotes(lesson, run))


def _folder(project: Project) -> Path:
    return project.cache / "runs"


def _file(project: Project, key: str) -> Path:
    return _folder(project) / f"{key}.json"


def _load(course: Course, lesson: Lesson, progress: Progress) -> Run | None:
    file = _file(course.project, run_key(lesson, course.snippets))
    try:
        changed = file.stat().st_mtime_ns
        run = _read(file, changed)
        if len(run.steps) != len(plan(lesson)):
            raise _UnusableError("it has results of other cells")
    except FileNotFoundError:
        return None
    except (OSError, _UnusableError) as error:
        name = file.relative_to(course.project.root).as_posix()
        progress.note(f"cache  {lesson.name}: {name} is not used, running again: {error}")
        return None
    return run


@lru_cache(maxsize=256)
def _read(file: Path, _changed: int) -> Run:
    """Read and verify an entry; a server reads what did not change only once."""
    try:
        entry = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise _UnusableError("it is truncated or damaged (not JSON)") from None
    if not isinstance(entry, dict) or entry.keys() != {"format", "key", "sha256", "run"}:
        raise _UnusableError("it is not an entry of this cache")
    if entry["format"] != FORMAT:
        raise _UnusableError(f"it has format {entry['format']}, not {FORMAT}")
    if entry["key"] != file.stem:
        raise _UnusableError(f"it is the entry of another run, {entry['key']}")
    if entry["sha256"] != checksum(entry["run"]):
        raise _UnusableError("it is damaged (its checksum differs)")
    try:
        return run_from_data(entry["run"])
    except (KeyError, TypeError, AttributeError) as error:
        raise _UnusableError(f"it lacks what a run has: {error!r}") from None
