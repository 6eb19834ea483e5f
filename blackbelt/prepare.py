"""The pipeline in one place: read, check, run, render; what a site or a command then uses."""

import re
from dataclasses import dataclass

from blackbelt.check import check
from blackbelt.check_prose import check_formulas
from blackbelt.config import Project
from blackbelt.course import Course, load_course
from blackbelt.lesson import LANGUAGES, Lesson
from blackbelt.notebook import render_notebook
from blackbelt.problems import Problem
from blackbelt.progress import Progress
from blackbelt.render import Page, render_page
from blackbelt.results import Run
from blackbelt.store import obtain

_LESSON = re.compile(r"^lessons/[^/]+/[^/]+\.py$")


@dataclass(frozen=True)
class Rendered:
    """A lesson that ran, with its page and notebook in each language."""

    lesson: Lesson
    run: Run
    pages: dict[str, Page]
    notebooks: dict[str, str]


@dataclass(frozen=True)
class Prepared:
    """Everything that a site is made of.

    Attributes:
        course: the course as read.
        lessons: rendered lessons, in the order of the roadmap.
        problems: what is wrong with the lessons that are missing.
    """

    course: Course
    lessons: tuple[Rendered, ...]
    problems: tuple[Problem, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        """Paths of lessons that have problems."""
        paths = {problem.path for problem in self.problems}
        return tuple(sorted(path for path in paths if _LESSON.match(path)))


def prepare(project: Project, names: tuple[str, ...], progress: Progress) -> Prepared:
    """Take lessons through the whole pipeline. A broken lesson leaves the others alone.

    Args:
        project: where the course lies.
        names: numbers or names of lessons, or nothing for all of them.
        progress: is told what runs.

    Raises:
        CourseError: the roadmap is not valid, or a name is not known.
    """
    course = load_course(project)
    chosen = course.select(names)
    problems = list(check(course, chosen))
    problems += [problem for lesson in chosen for problem in check_formulas(lesson)]
    broken = {problem.path for problem in problems}
    sound = [lesson for lesson in chosen if lesson.path not in broken]
    runs, failures = obtain(course, sound, progress)
    problems += failures
    rendered = [
        _render(lesson, runs[lesson.path], course) for lesson in sound if lesson.path in runs
    ]
    return Prepared(course, tuple(rendered), tuple(sorted(problems)))


def _render(lesson: Lesson, run: Run, course: Course) -> Rendered:
    pages = {code: render_page(lesson, run, code, "../img") for code in LANGUAGES}
    notebooks = {code: render_notebook(lesson, run, code, course) for code in LANGUAGES}
    return Rendered(lesson, run, pages, notebooks)
