"""Step 3: every rule that can be checked without running anything."""

from blackbelt.check_code import check_code, check_collisions, snippet_names
from blackbelt.check_pages import check_pages
from blackbelt.check_prose import check_links, check_prose, heading_addresses
from blackbelt.course import Course
from blackbelt.lesson import Lesson
from blackbelt.problems import Problem


def check(course: Course, lessons: tuple[Lesson, ...]) -> tuple[Problem, ...]:
    """Check these lessons of the course.

    Returns:
        All problems, those of reading included, in the order of files and lines.
    """
    problems = {*course.problems, *check_pages(course.project)}
    addresses = {lesson.path: heading_addresses(lesson) for lesson in course.lessons}
    broken = frozenset(problem.path for problem in course.problems)
    names = snippet_names(course.snippets)
    for lesson in lessons:
        problems.update(check_prose(lesson))
        problems.update(check_links(lesson, addresses, broken))
        problems.update(check_code(lesson, course.project, names))
        problems.update(check_collisions(lesson, course.snippets))
    return tuple(sorted(problems))
