"""Files beside the pages that tell others about them: the feeds, and a card for each page."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from blackbelt.cards import Card, card
from blackbelt.feed import Entry, Feed, atom
from blackbelt.history import Change
from blackbelt.lesson import LANGUAGES, Lesson
from blackbelt.links import page_url
from blackbelt.prepare import Prepared
from blackbelt.publish import FOLDER
from blackbelt.site.addresses import url
from blackbelt.strings import for_language
from blackbelt.text import plain

_CARDS = "cards"


def extras(prepared: Prepared, *, cards: bool) -> dict[str, bytes]:
    """Names below `docs/lessons/` and contents.

    Args:
        prepared: the course.
        cards: draw the cards, which nobody sees while the site is only served here.
    """
    found = dict(_feeds(prepared))
    if cards:
        for language in LANGUAGES:
            for name, wanted in _cards(prepared, language):
                found[_file(name, language)] = card(prepared.course.project, wanted)
    return found


def feed_address(prepared: Prepared, language: str) -> str | None:
    """Address of the feed below the site's root; nothing if no change is known."""
    known = any(prepared.history.of(r.lesson.path) for r in prepared.lessons)
    return url(f"{FOLDER}/feed.xml", language) if known else None


def card_address(uri: str, prepared: Prepared, language: str) -> str:
    """Address of the card of a page below the site's root; pages without one have the home page's.

    Args:
        uri: the page's file, relative to `docs/`.
        prepared: the course.
        language: `pl` or `en`.
    """
    name = PurePosixPath(uri)
    stem = name.name.split(".")[0]
    key = name.parent.name if stem == "index" else stem
    known = {name for name, _ in _cards(prepared, language)}
    inside = uri.startswith(f"{FOLDER}/") and key in known
    return f"{FOLDER}/{_file(key if inside else 'home', language)}"


def _file(name: str, language: str) -> str:
    # Without a dot before the language, which would make it a translation of another file.
    return f"{_CARDS}/{name}-{language}.png"


def _cards(prepared: Prepared, language: str) -> Iterator[tuple[str, Card]]:
    strings = for_language(language)
    site = strings.site_name
    yield "home", Card(strings.course, site, strings.way.motto)
    for module in prepared.course.modules:
        above = strings.module.format(number=module.number)
        yield module.folder, Card(above, module.titles[language], site)
    for rendered in prepared.lessons:
        lesson = rendered.lesson
        module = prepared.course.module(lesson.module)
        above = f"{strings.lesson} {lesson.number} · {module.titles[language]}"
        yield lesson.name, Card(above, plain(lesson.title(language)), site)


def _feeds(prepared: Prepared) -> Iterator[tuple[str, bytes]]:
    site = prepared.course.project.site_url
    for language in LANGUAGES:
        strings = for_language(language)
        address = feed_address(prepared, language)
        if address is None:
            continue
        entries = [_entry(r.lesson, prepared, language) for r in prepared.lessons]
        feed = Feed(
            language=language,
            title=f"{strings.site_name}: {strings.way.feed.lower()}",
            subtitle=strings.site_description,
            url=site + address,
            home=site + url("", language),
            author=strings.site_name,
            entries=[entry for entry in entries if entry],
        )
        yield f"feed.{language}.xml", atom(feed)


def _entry(lesson: Lesson, prepared: Prepared, language: str) -> Entry | None:
    changes: tuple[Change, ...] = prepared.history.of(lesson.path)
    if not changes:
        return None
    first = changes[-1].moment if prepared.history.complete else None
    return Entry(
        url=page_url(lesson.path, prepared.course.project.site_url, language),
        title=f"{lesson.number}. {plain(lesson.title(language))}",
        summary=plain(lesson.description(language)),
        updated=changes[0].moment,
        published=first,
    )
