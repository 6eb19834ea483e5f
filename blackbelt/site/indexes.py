"""What the pages of indexes show: names of the API, error messages, topics."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

from blackbelt.api_index import Name
from blackbelt.error_index import Message
from blackbelt.prepare import Prepared
from blackbelt.site.lesson_links import Sections, links

Groups = list[dict[str, Any]]


def api(prepared: Prepared, language: str) -> Groups:
    """Names below their first letters."""
    sections = Sections(prepared, language)
    return [
        {
            "title": letter,
            "address": f"letter-{letter.lower()}",
            "entries": [_name(name, sections) for name in names],
        }
        for letter, names in groupby(prepared.names, key=_letter)
    ]


def _letter(name: Name) -> str:
    return name.last.strip("_")[:1].upper() or "_"


def _name(name: Name, sections: Sections) -> dict[str, Any]:
    return {
        "address": name.name,
        "before": name.name.removesuffix(name.last),
        "last": name.last,
        "explained": [sections.link(m.lesson, m.use.section) for m in name.explained],
        "used": [sections.link(m.lesson, m.use.section) for m in name.used],
    }


def errors(prepared: Prepared, language: str) -> Groups:
    """Messages below their types."""
    sections = Sections(prepared, language)
    return [
        {
            "title": kind,
            "address": kind.lower(),
            "entries": [_message(message, sections) for message in messages],
        }
        for kind, messages in groupby(prepared.messages, key=lambda message: message.type)
    ]


def _message(message: Message, sections: Sections) -> dict[str, Any]:
    return {
        "address": message.address,
        "type": message.type,
        "text": message.text,
        "places": [sections.link(place.lesson, place.section) for place in message.places],
    }


def topics(prepared: Prepared, language: str) -> Groups:
    """Lessons of each topic, in reading order, those that are not written yet included."""
    roadmap = prepared.course.roadmap
    found = []
    for tag in roadmap.tags:
        numbers = [lesson.number for lesson in roadmap.reading_order if tag.id in lesson.tags]
        entries = links(prepared, numbers, language)
        found.append({"title": tag.names[language], "address": tag.id, "entries": entries})
    return found


# The pages by the name of their template.
INDEXES: dict[str, Callable[[Prepared, str], Groups]] = {
    "api.html": api,
    "errors.html": errors,
    "tags.html": topics,
}
