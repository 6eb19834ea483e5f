"""The whole course: the roadmap and the lessons that are written so far."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from blackbelt.assemble import assemble
from blackbelt.config import Project
from blackbelt.lesson import Lesson
from blackbelt.problems import CourseError, Problem
from blackbelt.read import read_cells, read_text
from blackbelt.roadmap import ROADMAP, Module, Roadmap, load_roadmap


@dataclass(frozen=True)
class Course:
    """Everything that a build starts from.

    Attributes:
        project: where it lies.
        roadmap: every module and lesson, written or not.
        lessons: lessons that could be read, in the order of the roadmap.
        problems: what is wrong with the others.
    """

    project: Project
    roadmap: Roadmap
    lessons: tuple[Lesson, ...]
    problems: tuple[Problem, ...]

    @property
    def modules(self) -> tuple[Module, ...]:
        """The modules in the order of the roadmap."""
        return self.roadmap.modules

    @cached_property
    def by_path(self) -> dict[str, Lesson]:
        return {lesson.path: lesson for lesson in self.lessons}

    @cached_property
    def snippets(self) -> dict[str, str]:
        """Source of each module of `snippets/`, by its name."""
        files = sorted(self.project.snippets.glob("*.py"))
        return {file.stem: file.read_text(encoding="utf-8") for file in files}

    def module(self, folder: str) -> Module:
        return next(module for module in self.modules if module.folder == folder)

    def select(self, names: tuple[str, ...]) -> tuple[Lesson, ...]:
        """Lessons with these numbers or names; all lessons if there are none.

        Raises:
            CourseError: a name that no lesson has.
        """
        if not names:
            return self.lessons
        chosen = []
        for name in names:
            wanted = name.removesuffix(".py").split("/")[-1]
            found = [x for x in self.lessons if wanted in (x.number, x.name, x.slug)]
            if not found:
                broken = [p for p in self.problems if wanted in p.path.split("/")[-1]]
                what = f"no lesson `{name}`; there are: {', '.join(x.name for x in self.lessons)}"
                raise CourseError(broken or [Problem("lessons", 1, what)])
            chosen += found
        return tuple(chosen)


def load_course(project: Project) -> Course:
    """Read the roadmap and every lesson. A lesson that cannot be read leaves the others alone.

    Raises:
        CourseError: the roadmap itself is not valid.
    """
    roadmap = load_roadmap(project)
    modules = roadmap.modules
    order = {planned.name: i for i, planned in enumerate(p for m in modules for p in m.lessons)}
    lessons: list[Lesson] = []
    problems: list[Problem] = []
    for file in sorted(project.lessons.glob("*/*.py")):
        path = file.relative_to(project.root).as_posix()
        try:
            lessons.append(_read(path, read_text(file, path)))
        except CourseError as error:
            problems += error.problems
    problems += _places(lessons, modules)
    lessons.sort(key=lambda lesson: order.get(lesson.name, len(order)))
    return Course(project, roadmap, tuple(lessons), tuple(problems))


@lru_cache(maxsize=256)  # a server reads the course on each save, and one lesson has changed
def _read(path: str, text: str) -> Lesson:
    return assemble(path, text, read_cells(text, path))


def _places(lessons: list[Lesson], modules: tuple[Module, ...]) -> Iterator[Problem]:
    """Numbers and slugs are unique, and each lesson stands where the roadmap has it."""
    planned = {(module.folder, lesson.name) for module in modules for lesson in module.lessons}
    numbers: dict[str, str] = {}
    slugs: dict[str, str] = {}
    for lesson in lessons:
        for kind, value, seen in (("number", lesson.number, numbers), ("slug", lesson.slug, slugs)):
            if value in seen:
                what = f"{kind} `{value}` is already taken by {seen[value]}"
                yield Problem(lesson.path, 1, what)
            seen.setdefault(value, lesson.path)
        if (lesson.module, lesson.name) not in planned:
            name = f"{lesson.module}/{lesson.name}"
            what = f"`{name}` is not in {ROADMAP}; add it there or rename the file"
            yield Problem(lesson.path, 1, what)
