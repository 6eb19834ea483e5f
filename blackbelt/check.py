"""Step 3: every rule that can be checked without running anything.

What a lesson tells about itself is kept in `.cache/check/` under a hash of its text and of the
rules, so that checking the whole course costs only what changed.
"""

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from blackbelt.check_code import check_code, check_collisions, check_snippets, snippet_names
from blackbelt.check_pages import check_pages
from blackbelt.check_prose import Link, check_links, check_prose, heading_addresses, links
from blackbelt.course import Course
from blackbelt.lesson import Lesson
from blackbelt.problems import Problem
from blackbelt.web_links import check_hand_written, check_web


@dataclass(frozen=True)
class Examined:
    """What is known of a lesson by itself."""

    problems: tuple[Problem, ...]
    addresses: frozenset[str]
    links: tuple[Link, ...]


def check(course: Course, lessons: tuple[Lesson, ...]) -> tuple[Problem, ...]:
    """Check these lessons of the course.

    Returns:
        All problems, those of reading included, in the order of files and lines.
    """
    problems = {*course.problems, *check_pages(course.project)}
    problems.update(check_hand_written(course.project))
    problems.update(check_snippets(course.snippets))
    broken = frozenset(problem.path for problem in course.problems)
    examined = {lesson.path: _remembered(course, lesson) for lesson in course.lessons}
    addresses = {path: found.addresses for path, found in examined.items()}
    for lesson in lessons:
        found = examined[lesson.path]
        problems.update(found.problems)
        problems.update(check_links(lesson.path, found.links, addresses, broken))
    return tuple(sorted(problems))


def _remembered(course: Course, lesson: Lesson) -> Examined:
    parts = [
        lesson.path,
        lesson.source,
        *course.snippets,
        *course.snippets.values(),
        *course.project.imports,
    ]
    key = hashlib.sha256("\0".join([_rules(), *parts]).encode()).hexdigest()[:24]
    file = course.project.cache / "check" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        data = json.loads(file.read_text(encoding="utf-8"))
        return Examined(
            tuple(Problem(**problem) for problem in data["problems"]),
            frozenset(data["addresses"]),
            tuple(Link(**link) for link in data["links"]),
        )
    found = _examine(course, lesson)
    # A full disk or a read-only checkout must not keep anybody from checking.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(found), default=sorted), encoding="utf-8")
    return found


def _examine(course: Course, lesson: Lesson) -> Examined:
    names = snippet_names(course.snippets)
    problems = [
        *check_prose(lesson),
        *check_code(lesson, course.project, names),
        *check_collisions(lesson, course.snippets),
        *check_web(lesson),
    ]
    return Examined(tuple(problems), heading_addresses(lesson), tuple(links(lesson)))


@cache
def _rules() -> str:
    """The engine's own source: other rules give other results."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
