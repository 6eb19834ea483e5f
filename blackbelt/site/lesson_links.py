"""Links to lessons as templates want them, and the way to and from a lesson."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from blackbelt.history import Change
from blackbelt.lesson import Lesson
from blackbelt.prepare import Prepared
from blackbelt.sections import titles
from blackbelt.site.addresses import url
from blackbelt.text import plain

# More than that is a list for the repository, to which the page links.
_CHANGES = 8


def links(prepared: Prepared, numbers: Iterable[str], language: str) -> list[dict[str, Any]]:
    """Number, title and address of lessons; those that are not written have no address."""
    found = []
    for number in numbers:
        planned = prepared.course.roadmap.by_number[number]
        folder = prepared.course.roadmap.places[number].folder
        lesson = prepared.by_number.get(number)
        title = plain(lesson.title(language)) if lesson else planned.titles[language]
        address = url(f"lessons/{folder}/{planned.name}/", language) if lesson else None
        found.append({"number": number, "title": title, "url": address})
    return found


def section(prepared: Prepared, lesson: Lesson, address: str, language: str) -> dict[str, Any]:
    """A link to a section of a lesson, or to the lesson if it is above all sections."""
    [link] = links(prepared, [lesson.number], language)
    headings = titles(prepared.by_path[lesson.path].pages[language].markdown)
    if address in headings and address != next(iter(headings)):
        link |= {"url": f"{link['url']}#{address}", "section": headings[address]}
    return link


def way(prepared: Prepared, lesson: Lesson, language: str) -> dict[str, Any]:
    """Lessons before and after, topics, and changes of a lesson."""
    course = prepared.course
    planned = course.roadmap.by_number[lesson.number]
    after = [p.number for p in course.roadmap.reading_order if lesson.number in p.needs]
    changes = prepared.history.of(lesson.path)
    repository = course.project.repository
    return {
        "needs": links(prepared, planned.needs, language),
        "leads_to": links(prepared, after, language),
        "topics": [
            {"name": tag.names[language], "url": url(f"tags/#{tag.id}", language)}
            for tag in course.roadmap.tags
            if tag.id in planned.tags
        ],
        "changes": [_change(change, repository) for change in changes[:_CHANGES]],
        "all_changes": f"{repository}/commits/main/{PurePosixPath(lesson.path)}",
    }


def _change(change: Change, repository: str) -> dict[str, str]:
    return {
        "date": change.date,
        "subject": change.subject,
        "url": f"{repository}/commit/{change.commit}",
    }
