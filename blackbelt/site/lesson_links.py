"""Links to lessons as templates want them, and the way to and from a lesson."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from blackbelt.history import Change
from blackbelt.lesson import Lesson
from blackbelt.links import parse_link
from blackbelt.prepare import Prepared
from blackbelt.prose_facts import facts
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


class Sections:
    """Links to sections of lessons in one language; an index has thousands of them."""

    def __init__(self, prepared: Prepared, language: str) -> None:
        self._links = {
            link["number"]: link for link in links(prepared, prepared.by_number, language)
        }
        self._headings = {
            rendered.lesson.number: titles(rendered.pages[language].markdown)
            for rendered in prepared.lessons
        }

    def link(self, lesson: Lesson, address: str) -> dict[str, Any]:
        """A link to a section, or to the lesson if it is above all sections."""
        link, headings = self._links[lesson.number], self._headings[lesson.number]
        if address not in headings or address == next(iter(headings)):
            return link
        return {**link, "url": f"{link['url']}#{address}", "section": headings[address]}


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
        "mentions": links(prepared, _mentioned(prepared, lesson, planned.needs), language),
        "topics": [
            {"name": tag.names[language], "url": url(f"tags/#{tag.id}", language)}
            for tag in course.roadmap.tags
            if tag.id in planned.tags
        ],
        "changes": [_change(change, repository) for change in changes[:_CHANGES]],
        "all_changes": f"{repository}/commits/main/{PurePosixPath(lesson.path)}",
    }


def _mentioned(prepared: Prepared, lesson: Lesson, needs: tuple[str, ...]) -> list[str]:
    """Lessons that the prose of this one links to, in reading order, without what it needs."""
    numbers = {
        target.number
        for pair in lesson.prose
        for link in facts(pair.en.source).links
        if link.text.partition("#")[0].endswith(".py")
        if (target := prepared.course.by_path.get(parse_link(link.text, lesson.path).path or ""))
    }
    numbers -= {lesson.number, *needs}
    return [p.number for p in prepared.course.roadmap.reading_order if p.number in numbers]


def _change(change: Change, repository: str) -> dict[str, str]:
    return {
        "date": change.date,
        "subject": change.subject,
        "url": f"{repository}/commit/{change.commit}",
    }
