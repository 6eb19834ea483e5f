"""Keeps results of runs under a hash of everything that they depend on; prose is not part of it."""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from blackbelt.config import Project
from blackbelt.course import Course
from blackbelt.inline import needed_snippets
from blackbelt.lesson import Lesson
from blackbelt.plan import plan
from blackbelt.problems import Problem
from blackbelt.progress import Progress
from blackbelt.quotes import check_quotes
from blackbelt.results import Output, Provenance, Run, StepRun

# Raised whenever what a run records, or how a kernel is set up, changes.
FORMAT = 1


def obtain(
    course: Course, lessons: Sequence[Lesson], progress: Progress, *, fresh: bool = False
) -> tuple[dict[str, Run], tuple[Problem, ...]]:
    """Results of these lessons, from the cache where nothing changed.

    Args:
        course: for the snippets that lessons import.
        lessons: what is wanted.
        progress: is told what runs.
        fresh: run even what the cache holds.

    Returns:
        Results by path of the lesson, and the problems of those that failed.
    """
    keys = {lesson.path: run_key(lesson, course.snippets) for lesson in lessons}
    runs: dict[str, Run] = {}
    if not fresh:
        for lesson in lessons:
            if found := _load(course.project, lesson, keys[lesson.path], progress):
                runs[lesson.path] = found
    progress.cached(len(runs))
    missing = [lesson for lesson in lessons if lesson.path not in runs]
    problems: list[Problem] = []
    if missing:
        # nbclient takes half a second to import; builds in which nothing changed do not need it.
        from blackbelt.run import run_lessons

        with progress.live():
            results = run_lessons(missing, course.project, progress)
        for path, result in results.items():
            if isinstance(result, Run):
                _save(course.project, keys[path], result)
                runs[path] = result
            else:
                problems += result
    for lesson in lessons:
        if lesson.path in runs and (unquoted := tuple(check_quotes(lesson, runs[lesson.path]))):
            problems += unquoted
            del runs[lesson.path]
    return runs, tuple(problems)


def run_key(lesson: Lesson, snippets: dict[str, str]) -> str:
    """Hash of what a run depends on: code, declared outcomes, snippets, torch, kind of device."""
    cells = [(step.cell.source, asdict(step.cell.options), step.phase) for step in plan(lesson)]
    helpers = {name: snippets[name] for name in needed_snippets(lesson, snippets)}
    parts = [FORMAT, cells, helpers, importlib.metadata.version("torch"), device_class()]
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@cache
def device_class() -> str:
    """`cuda`, `mps` or `cpu`, without the two seconds that importing torch would take."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "mps"
    with contextlib.suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return "cuda" if count.value else "cpu"
    return "cpu"


def _file(project: Project, key: str) -> Path:
    return project.cache / "runs" / f"{key}.json"


def _load(project: Project, lesson: Lesson, key: str, progress: Progress) -> Run | None:
    file = _file(project, key)
    if not file.is_file():
        return None
    try:
        run = _decode(json.loads(file.read_text(encoding="utf-8")))
        if len(run.steps) == len(plan(lesson)):
            return run
    except (ValueError, KeyError, TypeError, OSError):
        pass
    progress.console.print(f"cache  {lesson.name}: {file.name} is damaged, running again")
    return None


def _decode(data: dict[str, Any]) -> Run:
    steps = tuple(
        StepRun(tuple(Output(**output) for output in step["outputs"]), step["seconds"])
        for step in data["steps"]
    )
    return Run(steps, data["values"], Provenance(**data["provenance"]))


def _save(project: Project, key: str, run: Run) -> None:
    """Write at once or not at all: a build that is killed leaves no half of a file."""
    file = _file(project, key)
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{key}-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(asdict(run), stream, ensure_ascii=False)
    Path(name).replace(file)
