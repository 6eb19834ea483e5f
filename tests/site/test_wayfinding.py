"""The pages that show the way, as they were built; and what other sites are told about pages."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree

import pytest
from axe import violations
from built_site import (
    LANGUAGES,
    BuiltSite,
    LessonFile,
    Visit,
    addresses,
    lesson_files,
    localized,
    project,
    read_html,
)
from PIL import Image

from blackbelt.course import load_course
from blackbelt.history import read_history
from blackbelt.strings import for_language

pytest_plugins = ["site_fixtures"]

in_both_languages = pytest.mark.parametrize("language", LANGUAGES)
for_lessons = pytest.mark.parametrize("lesson", lesson_files(), ids=lambda lesson: lesson.number)
ATOM = {"a": "http://www.w3.org/2005/Atom"}


class Head(HTMLParser):
    """What the head of a page tells other programs."""

    def __init__(self) -> None:
        super().__init__()
        self.meta: dict[str, str] = {}
        self.links: list[dict[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "meta" and (name := given.get("property") or given.get("name")):
            assert name not in self.meta, f"{name} stands twice"
            self.meta[name] = given.get("content", "")
        elif tag == "link":
            self.links.append(given)

    def relation(self, name: str, kind: str = "") -> list[str]:
        return [
            link["href"]
            for link in self.links
            if name in link.get("rel", "").split() and link.get("type", "") == kind
        ]


def head(site: BuiltSite, address: str) -> Head:
    found = Head()
    found.feed((site.folder / address / "index.html").read_text(encoding="utf-8"))
    return found


def text(site: BuiltSite, address: str) -> str:
    return (site.folder / address / "index.html").read_text(encoding="utf-8")


# What other sites are told


@in_both_languages
def test_each_page_describes_itself(built: BuiltSite, language: str) -> None:
    lessons = {lesson.address for lesson in lesson_files()}
    for address in addresses():
        page = localized(address, language)
        found = head(built, page)
        assert found.relation("canonical") == [built.url + page]
        meta = found.meta
        assert meta["og:url"] == built.url + page
        assert meta["og:title"]
        assert meta["og:description"] == meta["description"]
        assert len(meta["og:description"]) > 20
        assert "`" not in meta["og:title"] + meta["og:description"]
        assert meta["og:locale"] == {"pl": "pl_PL", "en": "en_GB"}[language]
        assert meta["og:type"] == ("article" if address in lessons else "website")
        assert meta["twitter:card"] == "summary_large_image"


@in_both_languages
def test_cards_are_there(built: BuiltSite, language: str) -> None:
    for address in addresses():
        meta = head(built, localized(address, language)).meta
        card = meta["og:image"]
        assert card.startswith(built.url)
        assert card.endswith(f"-{language}.png")
        file = built.folder / card.removeprefix(built.url)
        with Image.open(file) as image:
            size = (meta["og:image:width"], meta["og:image:height"])
            assert tuple(str(side) for side in image.size) == size
    lessons = [head(built, localized(x.address, language)).meta["og:image"] for x in lesson_files()]
    assert len(set(lessons)) == len(lessons)


def test_descriptions_of_two_lessons_differ(built: BuiltSite) -> None:
    found = [
        head(built, localized(lesson.address, language)).meta["description"]
        for lesson in lesson_files()
        for language in LANGUAGES
    ]
    assert len(set(found)) == len(found)


@in_both_languages
def test_feed_of_each_language(built: BuiltSite, language: str) -> None:
    known = read_history(project().root)
    dated = {x.address for x in lesson_files() if known.of(x.path)}
    if not dated:
        pytest.skip("git knows no change of any lesson here")
    for address in addresses():
        page = localized(address, language)
        [link] = head(built, page).relation("alternate", "application/atom+xml")
        assert urljoin(built.url + page, link) == built.url + localized(
            "lessons/feed.xml", language
        )
    file = built.folder / localized("lessons/feed.xml", language)
    root = ElementTree.parse(file).getroot()
    links = [e.findtext("a:id", "", ATOM) for e in root.iterfind("a:entry", ATOM)]
    expected = {built.url + localized(address, language) for address in dated}
    assert set(links) <= expected
    assert len(links) == min(30, len(expected))
    for element in root.iter("{http://www.w3.org/2005/Atom}link"):
        assert urlsplit(element.get("href", "")).scheme == "https"
        assert element.get("href", "").startswith(built.url)


# Indexes


@in_both_languages
def test_index_of_names_leads_to_sections(built: BuiltSite, language: str) -> None:
    """That all links lead somewhere is tested for the whole site; here: to the right place."""
    page = localized("api/", language)
    html = text(built, page)
    ids = built.page(page).ids
    assert "torch.Tensor.view" in ids
    entry = html.partition('id="torch.Tensor.view"')[2].partition('class="bb-index__entry"')[0]
    assert for_language(language).way.explained in entry
    first = re.search(r'href="([^"]+)"', entry)
    assert first
    assert first[1].endswith("lessons/1_tensors/01_storage_vs_view/#predict-when-view-raises")
    letters = re.findall(r'<a href="#(letter-[a-z_])">', html)
    assert letters == sorted(letters)
    assert set(letters) <= set(ids)


@in_both_languages
def test_index_of_messages(built: BuiltSite, language: str) -> None:
    page = localized("errors/", language)
    address = "runtimeerror-view-size-is-not-compatible-with-input-tensor-s-size"
    entry = text(built, page).partition(f'id="{address}"')[2]
    assert "view size is not compatible with input tensor&#39;s size and stride" in entry
    assert "lessons/1_tensors/01_storage_vs_view/#what-breaks-and-how-to-notice" in entry


def test_addresses_of_entries_are_the_same_in_both_languages(built: BuiltSite) -> None:
    for name in ("api/", "errors/", "tags/"):
        polish, english = (built.page(localized(name, code)).ids for code in LANGUAGES)
        assert [i for i in polish if not i.startswith("__")] == [
            i for i in english if not i.startswith("__")
        ]


@in_both_languages
@for_lessons
def test_lesson_and_its_topics_know_each_other(
    built: BuiltSite, lesson: LessonFile, language: str
) -> None:
    roadmap = load_course(project()).roadmap
    page = localized(lesson.address, language)
    topics = localized("tags/", language)
    links = {urljoin(built.url + page, link) for _, _, link in built.page(page).links}
    back = {urljoin(built.url + topics, link) for _, _, link in built.page(topics).links}
    tags = roadmap.by_number[lesson.number].tags
    assert tags
    assert {f"{built.url}{topics}#{tag}" for tag in tags} <= links
    assert built.url + page in back


# Modules and lessons


@in_both_languages
def test_module_page_lists_all_its_lessons(built: BuiltSite, language: str) -> None:
    course = load_course(project())
    written = {lesson.number: lesson for lesson in lesson_files()}
    planned = for_language(language).planned
    for module in course.modules:
        page = localized(f"lessons/{module.folder}/", language)
        html = text(built, page)
        ids = built.page(page).ids
        links = {urljoin(built.url + page, link) for _, _, link in built.page(page).links}
        for lesson in module.lessons:
            assert f"lesson-{lesson.number}" in ids
            own = html.partition(f'id="lesson-{lesson.number}"')[2].partition("<h3")[0]
            if lesson.number in written:
                address = localized(written[lesson.number].address, language)
                assert built.url + address in links
            else:
                assert f"<li>{planned}" in own
            for number in lesson.needs:
                assert re.search(rf"\b{number}\. ", own), f"{lesson.number} needs {number}"


@in_both_languages
def test_map_is_for_the_eye_and_out_of_the_way_of_the_keyboard(
    built: BuiltSite, language: str
) -> None:
    html = text(built, localized("lessons/1_tensors/", language))
    [picture] = re.findall(r'<div class="bb-map" aria-hidden="true">.*?</svg>', html, re.S)
    assert picture.count("<rect") == 7
    assert picture.count("<a ") == picture.count('tabindex="-1"') > 0
    ElementTree.fromstring(picture.partition(">")[2].strip())


@in_both_languages
def test_outcomes_are_those_of_the_lesson(built: BuiltSite, language: str) -> None:
    lesson = next(x for x in load_course(project()).lessons if x.number == "01")
    html = text(built, localized("lessons/1_tensors/", language))
    details = re.findall(r'<details class="bb-learnt">(.*?)</details>', html, re.S)[0]
    items = re.findall(r"<li>(.*?)</li>", details, re.S)
    assert len(items) == 4
    source = " ".join(lesson.source.replace("\n#", " ").split())
    for item in items:
        first = re.sub(r"<[^>]+>|\s", " ", item).split()[0]
        assert first in source


@in_both_languages
@for_lessons
def test_lesson_names_what_to_know_before(
    built: BuiltSite, lesson: LessonFile, language: str
) -> None:
    roadmap = load_course(project()).roadmap
    html = text(built, localized(lesson.address, language))
    bar = html.partition('class="bb-bar__needs"')[2].partition("</p>")[0]
    assert re.findall(r"\b(\d\d[a-d]?)\. ", bar) == list(roadmap.by_number[lesson.number].needs)


@in_both_languages
@for_lessons
def test_lesson_says_what_changed(built: BuiltSite, lesson: LessonFile, language: str) -> None:
    changes = read_history(project().root).of(lesson.path)
    html = text(built, localized(lesson.address, language))
    folded = html.partition('<details class="bb-changes"')[2].partition("</details>")[0]
    shown = re.findall(r"/commit/([0-9a-f]{40})", folded)
    assert shown == [change.commit for change in changes[:8]]


def test_page_of_errors_speaks_both_languages_and_has_no_card(built: BuiltSite) -> None:
    html = (built.folder / "404.html").read_text(encoding="utf-8")
    assert re.findall(r'<section class="bb-not-found" lang="(\w\w)">', html) == list(LANGUAGES)
    assert "og:image" not in html
    assert 'rel="canonical"' not in html
    assert read_html(Path(built.folder / "404.html")).alternates == {}


# In a browser


@in_both_languages
def test_box_narrows_the_list(visit: Callable[..., Visit], language: str) -> None:
    window = visit()
    page = window.open(localized("api/", language))
    box = page.get_by_role("searchbox", name=for_language(language).way.filter)
    shown = page.locator(".bb-index__entry:visible")
    everything = shown.count()
    box.fill("TENSOR vie")
    names = [name.strip() for name in shown.locator("dt").all_inner_texts()]
    assert "torch.Tensor.view" in names
    assert all("tensor" in name.lower() and "vie" in name.lower() for name in names)
    letters = {name.rpartition(".")[2].strip("_")[0].lower() for name in names}
    assert page.locator(".bb-index__group:visible").count() == len(letters)
    box.fill("no such name")
    assert page.get_by_text(for_language(language).way.nothing_found).is_visible()
    box.fill("")
    assert shown.count() == everything
    window.assert_clean()


def test_index_is_whole_without_scripts(visit: Callable[..., Visit]) -> None:
    page = visit(java_script_enabled=False).open("errors/")
    assert page.locator(".bb-index__entry:visible").count() > 3
    assert page.locator(".bb-filter").count() == 0


@pytest.mark.parametrize("address", ["api/", "errors/", "tags/", "lessons/1_tensors/"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(
    visit: Callable[..., Visit], address: str, width: int
) -> None:
    window = visit(width=width, color_scheme="dark")
    page = window.open(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    window.assert_clean()


@pytest.mark.parametrize("address", ["api/", "errors/", "tags/", "lessons/4_architecture/"])
@pytest.mark.parametrize(
    ("scheme", "width", "language"), [("light", 1280, "pl"), ("dark", 360, "en")]
)
def test_axe_finds_nothing(
    visit: Callable[..., Visit], address: str, scheme: str, width: int, language: str
) -> None:
    page = visit(width=width, color_scheme=scheme).open(localized(address, language))
    assert violations(page) == []
