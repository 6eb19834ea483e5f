"""The pipeline in one place: read, check, run, render; what a site or a command then uses."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from blackbelt.api_index import Name, api_index
from blackbelt.check import check
from blackbelt.check_prose import check_formulas
from blackbelt.config import Project
from blackbelt.course import Course, load_course
from blackbelt.error_index import Message, error_index
from blackbelt.history import History, read_history
from blackbelt.lesson import LANGUAGES, Lesson
from blackbelt.notebook import render_notebook
from blackbelt.problems import Problem
from blackbelt.progress import Progress
from blackbelt.render import Page, reading_minutes, render_page
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

    @cached_property
    def minutes(self) -> dict[str, int]:
        """How long the page takes to read, by language; exercises are not counted."""
        return {code: reading_minutes(self.lesson, code) for code in LANGUAGES}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that is published of it: pages, notebooks, and the lesson itself."""
        texts = [page.markdown for page in self.pages.values()]
        parts = [self.lesson.source, texts, self.notebooks, self.run.provenance]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass(frozen=True)
class StandIn:
    """A lesson without results for now; while the site is served, its page says why.

    Attributes:
        path: its file, as in `Lesson`.
        titles: by language, as Markdown.
        problems: what is wrong with it; nothing if it is waiting for its run.
    """

    path: str
    titles: Mapping[str, str]
    problems: tuple[Problem, ...] = ()

    @property
    def module(self) -> str:
        return PurePosixPath(self.path).parent.name

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).stem

    @property
    def number(self) -> str:
        return self.name.partition("_")[0]

    def title(self, language: str) -> str:
        return self.titles[language]


@dataclass(frozen=True)
class Prepared:
    """Everything that a site is made of.

    Attributes:
        course: the course as read.
        lessons: rendered lessons, in the order of the roadmap.
        problems: everything that is wrong.
        stand_ins: lessons that exist and could not be rendered.
    """

    course: Course
    lessons: tuple[Rendered, ...]
    problems: tuple[Problem, ...]
    stand_ins: tuple[StandIn, ...] = ()

    @cached_property
    def listed(self) -> tuple[Lesson | StandIn, ...]:
        """Every lesson that has a page, in the order of the roadmap."""
        planned = [lesson.name for module in self.course.modules for lesson in module.lessons]
        order = {name: position for position, name in enumerate(planned)}
        found: list[Lesson | StandIn] = [rendered.lesson for rendered in self.lessons]
        found += self.stand_ins
        return tuple(sorted(found, key=lambda one: (order.get(one.name, len(order)), one.path)))

    @cached_property
    def by_number(self) -> dict[str, Lesson | StandIn]:
        """Lessons that have a page."""
        return {lesson.number: lesson for lesson in self.listed}

    @cached_property
    def by_path(self) -> dict[str, Rendered]:
        return {rendered.lesson.path: rendered for rendered in self.lessons}

    @cached_property
    def names(self) -> tuple[Name, ...]:
        """Names of libraries, and which lessons explain them."""
        return api_index(self.course.project, [rendered.lesson for rendered in self.lessons])

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """Error messages, and which lessons show them."""
        return error_index([(rendered.lesson, rendered.run) for rendered in self.lessons])

    @cached_property
    def history(self) -> History:
        """What changed in lessons, and when."""
        return read_history(self.course.project.root)

    @property
    def broken(self) -> tuple[str, ...]:
        """Paths of lessons that have problems."""
        return tuple(stand_in.path for stand_in in self.stand_ins if stand_in.problems)


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
    sound, problems = examine(course, course.select(names))
    runs, failures = obtain(course, sound, progress)
    rendered = [
        render(lesson, runs[lesson.path], course) for lesson in sound if lesson.path in runs
    ]
    found = tuple(sorted([*problems, *failures]))
    return Prepared(course, tuple(rendered), found, stand_ins(course, found))


def examine(course: Course, lessons: Sequence[Lesson]) -> tuple[list[Lesson], tuple[Problem, ...]]:
    """Check these lessons; returns those that may run, and the problems of all."""
    problems = list(check(course, tuple(lessons)))
    problems += [problem for lesson in lessons for problem in check_formulas(lesson)]
    paths = {problem.path for problem in problems}
    return [lesson for lesson in lessons if lesson.path not in paths], tuple(problems)


def render(lesson: Lesson, run: Run, course: Course) -> Rendered:
    """Pages and notebooks of a lesson."""
    source = course.project.source_url(lesson.path)
    pages = {code: render_page(lesson, run, code, "../img", source) for code in LANGUAGES}
    notebooks = {code: render_notebook(lesson, run, code, course) for code in LANGUAGES}
    return Rendered(lesson, run, pages, notebooks)


def stand_ins(course: Course, problems: Iterable[Problem]) -> tuple[StandIn, ...]:
    """Stand-ins for lessons with problems."""
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        if _LESSON.match(problem.path) and (course.project.root / problem.path).is_file():
            found.setdefault(problem.path, []).append(problem)
    return tuple(
        StandIn(path, titles(course, path), tuple(theirs)) for path, theirs in sorted(found.items())
    )


def titles(course: Course, path: str) -> dict[str, str]:
    """Titles of a lesson, from its file or, where that cannot be read, from the roadmap."""
    if lesson := course.by_path.get(path):
        return {code: lesson.title(code) for code in LANGUAGES}
    name = PurePosixPath(path)
    for module in course.modules:
        for planned in module.lessons:
            if (module.folder, planned.name) == (name.parent.name, name.stem):
                return planned.titles
    return dict.fromkeys(LANGUAGES, name.stem)
