"""The feed is Atom that a reader understands, whatever titles and dates it holds."""

from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from blackbelt.feed import ATOM, Entry, Feed, atom

SPACE = {"a": ATOM}


def entry(number: int, **changes: object) -> Entry:
    values: dict[str, object] = {
        "url": f"https://example.org/{number}/",
        "title": f"Lesson {number}",
        "summary": "What it is about.",
        "updated": datetime(2026, 11, number, 12, tzinfo=UTC),
        "published": datetime(2026, 11, 1, tzinfo=UTC),
    }
    return Entry(**(values | changes))  # type: ignore[arg-type]


def read(*entries: Entry) -> ElementTree.Element:
    feed = Feed(
        language="pl",
        title="Kurs",
        subtitle="Wnętrze",
        url="https://example.org/feed.xml",
        home="https://example.org/",
        author="Kurs",
        entries=entries,
    )
    data = atom(feed)
    assert data.startswith(b"<?xml")
    assert data == atom(feed)
    return ElementTree.fromstring(data)


def test_newest_change_comes_first() -> None:
    root = read(entry(3), entry(9), entry(6))
    assert [e.findtext("a:title", "", SPACE) for e in root.iterfind("a:entry", SPACE)] == [
        "Lesson 9",
        "Lesson 6",
        "Lesson 3",
    ]
    assert root.findtext("a:updated", "", SPACE) == "2026-11-09T12:00:00Z"


def test_what_atom_demands_is_there() -> None:
    root = read(entry(3))
    assert root.tag == f"{{{ATOM}}}feed"
    assert root.get("{http://www.w3.org/XML/1998/namespace}lang") == "pl"
    [one] = root.iterfind("a:entry", SPACE)
    for element, names in ((root, ("id", "title", "updated")), (one, ("id", "title", "updated"))):
        for name in names:
            assert len(element.findall(f"a:{name}", SPACE)) == 1
            assert element.findtext(f"a:{name}", "", SPACE)
    assert root.findtext("a:author/a:name", "", SPACE)
    links = {link.get("rel"): link.get("href") for link in root.findall("a:link", SPACE)}
    assert links == {"self": "https://example.org/feed.xml", "alternate": "https://example.org/"}


def test_unknown_beginning_is_left_out() -> None:
    [one] = read(entry(3, published=None)).iterfind("a:entry", SPACE)
    assert one.find("a:published", SPACE) is None


def test_signs_of_xml_and_control_characters() -> None:
    text = 'a < b & "c" ]]> ąż \U0001f94b'
    [one] = read(entry(3, title=text + "\x1b[0m", summary=text)).iterfind("a:entry", SPACE)
    assert one.findtext("a:title", "", SPACE) == text + "[0m"
    assert one.findtext("a:summary", "", SPACE) == text


def test_changes_of_one_moment_have_an_order() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    root = read(*(entry(n, updated=moment) for n in (7, 2, 5)))
    assert [e.findtext("a:title", "", SPACE) for e in root.iterfind("a:entry", SPACE)] == [
        "Lesson 2",
        "Lesson 5",
        "Lesson 7",
    ]


def test_feed_without_entries_has_no_date_and_is_refused() -> None:
    with pytest.raises(ValueError, match="without entries"):
        read()
