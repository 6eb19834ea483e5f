"""The Atom feed of new and changed lessons, in one language."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from xml.etree import ElementTree

ATOM = "http://www.w3.org/2005/Atom"
# What a reader has not seen among the last thirty changes is in the list of lessons.
_ENTRIES = 30

ElementTree.register_namespace("", ATOM)


@dataclass(frozen=True)
class Entry:
    """A lesson in the feed.

    Attributes:
        url: whole address of its page, which is its identity, too.
        title: as plain text.
        summary: as plain text.
        updated: when it changed last.
        published: when it was written, if that is known.
    """

    url: str
    title: str
    summary: str
    updated: datetime
    published: datetime | None


@dataclass(frozen=True)
class Feed:
    """A feed; all addresses are whole ones.

    Attributes:
        language: `pl` or `en`.
        title: as plain text.
        subtitle: as plain text.
        url: of the feed itself.
        home: of the page that it belongs to.
        author: who writes the lessons.
        entries: in any order.
    """

    language: str
    title: str
    subtitle: str
    url: str
    home: str
    author: str
    entries: Sequence[Entry]


def atom(feed: Feed) -> bytes:
    """The feed as a file; the newest change comes first.

    Raises:
        ValueError: there are no entries, and so nothing that happened at any time.
    """
    newest = sorted(feed.entries, key=lambda entry: (-entry.updated.timestamp(), entry.url))
    if not newest:
        raise ValueError("a feed without entries has no date")
    language = "{http://www.w3.org/XML/1998/namespace}lang"
    root = ElementTree.Element(f"{{{ATOM}}}feed", {language: feed.language})
    _texts(root, id=feed.url, title=feed.title, subtitle=feed.subtitle)
    _texts(root, updated=_moment(newest[0].updated))
    _link(root, feed.url, "self", "application/atom+xml")
    _link(root, feed.home, "alternate", "text/html")
    _texts(ElementTree.SubElement(root, f"{{{ATOM}}}author"), name=feed.author)
    for entry in newest[:_ENTRIES]:
        _entry(ElementTree.SubElement(root, f"{{{ATOM}}}entry"), entry)
    ElementTree.indent(root)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _entry(element: ElementTree.Element, entry: Entry) -> None:
    _texts(element, id=entry.url, title=entry.title, updated=_moment(entry.updated))
    if entry.published:
        _texts(element, published=_moment(entry.published))
    _link(element, entry.url, "alternate", "text/html")
    _texts(element, summary=entry.summary)


def _texts(parent: ElementTree.Element, **texts: str) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, f"{{{ATOM}}}{name}").text = _clean(text)


def _link(parent: ElementTree.Element, url: str, relation: str, kind: str) -> None:
    attributes = {"href": url, "rel": relation, "type": kind}
    ElementTree.SubElement(parent, f"{{{ATOM}}}link", attributes)


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _clean(text: str) -> str:
    """Without control characters, which XML has no way to write."""
    return "".join(letter for letter in text if letter >= " " or letter in "\n\t")
