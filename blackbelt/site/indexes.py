"""What the pages of indexes show: names of the API, error messages, topics."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

from blackbelt.api_index import Name
from blackbelt.error_index import Message
from blackbelt.prepare import Prepared
from blackbelt.site.lesson_links import links, section

Groups = list[dict[str, Any]]


def api(prepared: Prepared, language: str) -> Groups:
    """Names below their first letters."""
    return [
        {"title": letter, "address": f"letter-{letter.lower()}", "entries": entries}
        for letter, names in groupby(prepared.names, key=_letter)
        if (entries := [_name(name, prepared, language) for name in names])
    ]


def _letter(name: Name) -> str:
    return name.last.strip("_")[:1].upper() or "_"


def _name(name: Name, prepared: Prepared, language: str) -> dict[str, Any]:
    def place(mention: Any) -> dict[str, Any]:
        return section(prepared, mention.lesson, mention.use.section, language)

    return {
        "address": name.name,
        "before": name.name.removesuffix(name.last),
        "last": name.last,
        "explained": [place(mention) for mention in name.explained],
        "used": [place(mention) for mention in name.used],
    }


def errors(prepared: Prepared, language: str) -> Groups:
    """Messages below their types."""
    return [
        {
            "title": kind,
            "address": kind.lower(),
            "entries": [_message(message, prepared, language) for message in messages],
        }
        for kind, messages in groupby(prepared.messages, key=lambda message: message.type)
    ]


def _message(message: Message, prepared: Prepared, language: str) -> dict[str, Any]:
    return {
        "address": message.address,
        "type": message.type,
        "text": message.text,
        "places": [section(prepared, p.lesson, p.section, language) for p in message.places],
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
