"""`blackbelt upgrade`: move the pin to newer releases, if every lesson still runs with them.

Everything is tried in a copy of the course with an environment of its own. The course itself is
touched last and in one step, so whatever breaks or is interrupted, the old pin stays.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from blackbelt.compare import differences
from blackbelt.config import Project
from blackbelt.course import Course, load_course
from blackbelt.files import write_whole
from blackbelt.lesson import Lesson
from blackbelt.pin import FILE, pinned, read_pin, wanted_day
from blackbelt.prepare import examine
from blackbelt.problems import CommandError, CourseError, Problem
from blackbelt.progress import Progress
from blackbelt.results import Run
from blackbelt.serialize import run_from_data
from blackbelt.store import obtain

_LOCK = "uv.lock"
# What lessons need in order to be read, checked and run.
_COPIED = ("blackbelt", "docs", "lessons", "snippets", "README.md", "LICENSE", _LOCK)
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.pyc", "assets", "img")
# How uv tells what `lock --upgrade` changed.
_CHANGED = re.compile(r"^(?:Updated?|Added?|Removed?) \S+ .*$", re.M)
_LAST_LINES = 20


@dataclass(frozen=True)
class Changed:
    """A lesson that puts out something else, with the differences of its cells."""

    lesson: Lesson
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Upgrade:
    """What newer releases come to.

    Attributes:
        before: the day of the pin.
        day: the day that was tried.
        packages: what uv says about each package that changes.
        changed: lessons that put out something else.
        problems: lessons that broke; if there is one, the old pin stays.
    """

    before: date
    day: date
    packages: tuple[str, ...]
    changed: tuple[Changed, ...]
    problems: tuple[Problem, ...]


def upgrade_and_tell(project: Project, to: str | None, report: str | None) -> tuple[Problem, ...]:
    """Upgrade, print what came of it, and keep that in a file if lessons broke or changed."""
    day = wanted_day(to, read_pin(project.root))
    done = upgrade(load_course(project), day, Progress())
    story = tell(done)
    print(story)
    if report and (done.problems or done.changed):
        write_whole(Path(report), story.encode())
    if not done.problems:
        print("next: .ci/run")
    return done.problems


def upgrade(course: Course, day: date, progress: Progress) -> Upgrade:
    """Try the releases up to a day, and pin them if no lesson breaks.

    Raises:
        CourseError: lessons fail with the present releases already.
        CommandError: uv finds no releases that fit together, or is not there.
    """
    root = course.project.root
    before = read_pin(root)
    runs = _runs_now(course, progress)
    trial = course.project.cache / "upgrade"
    _copy(root, trial, day)
    progress.note(f"trying releases until {day} in {trial.relative_to(root)}")
    packages = _changes(_uv(trial, "lock", "--upgrade"))
    for line in packages:
        progress.note(f"    {line}")
    new, problems = _run_trial(trial)
    changed = tuple(_compare(course, runs, new))
    if not problems:
        _accept(root, trial, day)
    return Upgrade(before, day, packages, changed, problems)


def _runs_now(course: Course, progress: Progress) -> dict[str, Run]:
    """Outputs with the present releases; of this machine, because a recording is of another."""
    sound, problems = examine(course, course.lessons)
    runs, failures = obtain(course, sound, progress, recorded=False)
    if problems or failures:
        raise CourseError([*problems, *failures])
    return runs


def _copy(root: Path, trial: Path, day: date) -> None:
    """The course with another pin. The environment of the last trial stays, uv brings it up."""
    trial.mkdir(parents=True, exist_ok=True)
    for path in trial.iterdir():
        if path.name == ".venv":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name in _COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, trial / name, ignore=_NOT_COPIED)
        elif (root / name).is_file():
            shutil.copyfile(root / name, trial / name)
    (trial / FILE).write_text(pinned(root, day), encoding="utf-8")


def _uv(trial: Path, *arguments: str, shown: bool = False) -> str:
    """What uv says in the trial's folder; `shown` is for what takes minutes."""
    # The environment of whoever calls must neither be used nor changed.
    variables = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONHOME")}
    variables["UV_PROJECT_ENVIRONMENT"] = str(trial / ".venv")
    try:
        done = subprocess.run(
            # The same Python: a trial changes releases, and nothing else.
            ["uv", arguments[0], "--python", sys.base_prefix, *arguments[1:]],
            cwd=trial,
            env=variables,
            stderr=None if shown else subprocess.PIPE,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise CommandError("uv is not installed", "pip install uv") from None
    if done.returncode:
        words = "\n".join((done.stderr or "").strip().splitlines()[-_LAST_LINES:])
        what = f"the trial ended in `uv {' '.join(arguments)}`; the old pin stays\n{words}"
        raise CommandError(what.strip(), "uv run blackbelt upgrade")
    return done.stderr or ""


def _changes(said: str) -> tuple[str, ...]:
    return tuple(match[0] for match in _CHANGED.finditer(said))


def _run_trial(trial: Path) -> tuple[dict[str, Run], tuple[Problem, ...]]:
    _uv(trial, "sync", "--quiet", "--frozen", shown=True)
    results = trial / "results.json"
    command = ("python", "-m", "blackbelt.trial", str(results))
    _uv(trial, "run", "--quiet", "--frozen", "--no-sync", *command, shown=True)
    found = json.loads(results.read_text(encoding="utf-8"))
    runs = {path: run_from_data(data) for path, data in found["runs"].items()}
    return runs, tuple(sorted(Problem(**data) for data in found["problems"]))


def _compare(course: Course, old: dict[str, Run], new: dict[str, Run]) -> Iterator[Changed]:
    for lesson in course.lessons:
        if lesson.path not in old or lesson.path not in new:
            continue
        names = ("before", "after")
        found = differences(lesson, old[lesson.path], new[lesson.path], names)
        if texts := tuple(one.text for one in found if not one.measured):
            yield Changed(lesson, texts)


def _accept(root: Path, trial: Path, day: date) -> None:
    """Pin what was tried, and keep its results: nothing has to run again."""
    for file in sorted((trial / ".cache" / "runs").glob("*.json")):
        write_whole(root / ".cache" / "runs" / file.name, file.read_bytes())
    write_whole(root / _LOCK, (trial / _LOCK).read_bytes())
    # Read again: somebody may have edited it in the meantime.
    write_whole(root / FILE, pinned(root, day).encode())
    shutil.rmtree(trial, ignore_errors=True)


def tell(upgrade: Upgrade) -> str:
    """The whole story as Markdown."""
    if upgrade.problems:
        pin = f"The pin stays at {upgrade.before}: lessons break with releases until {upgrade.day}."
    else:
        pin = f"The pin moves from {upgrade.before} to {upgrade.day}."
    parts = [pin, *_list("Packages", upgrade.packages)]
    for problem in upgrade.problems:
        parts.append(f"### {problem.path}:{problem.line} breaks\n\n{_fence('text', problem.what)}")
    for changed in upgrade.changed:
        parts.append(f"### {changed.lesson.path} puts out something else")
        parts += [_fence("diff", text) for text in changed.texts]
    return "\n\n".join(parts) + "\n"


def _list(title: str, lines: tuple[str, ...]) -> list[str]:
    return [f"{title}:\n\n" + "\n".join(f"- {line}" for line in lines)] if lines else []


def _fence(language: str, text: str) -> str:
    # Outputs may hold fences of their own; one of tildes is not closed by backticks.
    return f"~~~~{language}\n{text}\n~~~~"
