"""What can be shown of the course right now, without waiting for any run."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from blackbelt.config import Project
from blackbelt.course import Course, load_course
from blackbelt.inline import needed_snippets
from blackbelt.lesson import Lesson
from blackbelt.prepare import Prepared, Rendered, StandIn, examine, render, stand_ins, titles
from blackbelt.problems import CourseError, Problem
from blackbelt.progress import Progress
from blackbelt.quotes import check_quotes
from blackbelt.results import Run
from blackbelt.site.background import Background
from blackbelt.store import known

# Lessons rendered for one build of the site, which takes half a second each: a course of sixty
# whose runs are all known is there in seconds, and its pages come in steps.
_AT_ONCE = 6


@dataclass(frozen=True)
class _Shown:
    """A lesson as it is shown, and what it was rendered from."""

    rendered: Rendered
    course: Course

    def fits(self, lesson: Lesson, course: Course) -> bool:
        if self.rendered.lesson.source != lesson.source:
            return False
        if self.course.snippets == course.snippets:
            return True
        return _helpers(lesson, self.course) == _helpers(lesson, course)


def _helpers(lesson: Lesson, course: Course) -> list[str]:
    """What a lesson uses of `snippets/`, the package itself included."""
    names = ("__init__", *needed_snippets(lesson, course.snippets))
    return [course.snippets.get(name, "") for name in names]


class Live:
    """Remembers each lesson, so that a save reads, checks and renders that lesson only."""

    def __init__(
        self, names: tuple[str, ...], background: Background, again: Callable[[], None]
    ) -> None:
        """Start with nothing.

        Args:
            names: lessons to show; all of them if there are none.
            background: runs what has no results.
            again: asks for another `prepare` soon.
        """
        self._names = names
        self._background = background
        self._again = again
        self._shown: dict[str, _Shown] = {}
        self._titles: dict[str, dict[str, str]] = {}
        self._started = False

    def prepare(self, project: Project) -> Prepared:
        """The course as far as its results are known.

        Raises:
            CourseError: the roadmap is not valid, or a name was never known.
        """
        course = load_course(project)
        sound, found = examine(course, self._chosen(course))
        problems = list(found)
        runs = self._runs(course, sound, problems)
        lessons: list[Rendered] = []
        waiting: list[StandIn] = []
        left = _AT_ONCE
        for lesson in sound:
            run, shown = runs.get(lesson.path), self._shown.get(lesson.path)
            if isinstance(run, tuple):
                problems += run
                continue
            if run and not (shown and shown.fits(lesson, course) and shown.rendered.run == run):
                if left:
                    left -= 1
                    shown = _Shown(render(lesson, run, course), course)
                    self._shown[lesson.path] = shown
                else:
                    self._again()
            if shown:  # if its new run is not finished: as it was before
                lessons.append(shown.rendered)
            else:
                waiting.append(StandIn(lesson.path, titles(course, lesson.path)))
        failed = self._failed(course, problems)
        self._started = True
        return Prepared(course, tuple(lessons), tuple(sorted(problems)), (*failed, *waiting))

    def _chosen(self, course: Course) -> tuple[Lesson, ...]:
        if not self._names:
            return course.lessons
        chosen: list[Lesson] = []
        for name in self._names:
            try:
                chosen += course.select((name,))
            except CourseError as error:
                # One that cannot be read says so on its page; one that was removed is gone.
                unknown = any(not problem.path.endswith(".py") for problem in error.problems)
                if unknown and not self._started:
                    raise
        return tuple(chosen)

    def _runs(
        self, course: Course, lessons: list[Lesson], problems: list[Problem]
    ) -> dict[str, Run | tuple[Problem, ...]]:
        """Outcomes by path; a lesson that is not among them is running or waits for its turn."""
        outcomes: dict[str, Run | tuple[Problem, ...]] = {}
        changed: list[Lesson] = []
        for lesson in lessons:
            shown = self._shown.get(lesson.path)
            if shown and shown.fits(lesson, course):
                outcomes[lesson.path] = shown.rendered.run
            else:
                changed.append(lesson)
        stored = known(course, changed, Progress())
        missing = [lesson for lesson in changed if lesson.path not in stored]
        ran = self._background.want(course, missing)
        for lesson in changed:
            outcome = stored.get(lesson.path) or ran.get(lesson.path)
            if isinstance(outcome, Run):
                outcome = tuple(check_quotes(lesson, outcome)) or outcome
            if outcome:
                outcomes[lesson.path] = outcome
        return outcomes

    def _failed(self, course: Course, problems: list[Problem]) -> list[StandIn]:
        """Stand-ins of broken lessons, under the titles that they had before, if they had any."""
        self._titles |= {lesson.path: titles(course, lesson.path) for lesson in course.lessons}
        failed = []
        for stand_in in stand_ins(course, problems):
            self._shown.pop(stand_in.path, None)
            last = self._titles.get(stand_in.path, stand_in.titles)
            failed.append(replace(stand_in, titles=last))
        return failed
