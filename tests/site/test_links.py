"""What the files of the built site say about each other, read without a browser."""

import gzip
import re
from dataclasses import fields
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin
from xml.etree import ElementTree

import nbformat
import pytest
from built_site import (
    LANGUAGES,
    OTHER,
    BuiltSite,
    LessonFile,
    addresses,
    lesson_files,
    localized,
    project,
    read_html,
)

from blackbelt.course import load_course
from blackbelt.strings import for_language

pytest_plugins = ["site_fixtures"]

# Of one page, compressed as a server sends it. The longest lesson has 39 kB, of which its words
# and its code alone, without any markup, are 29.
LARGEST_PAGE = 42_000
ERRORS = "404.html"

in_both_languages = pytest.mark.parametrize("language", LANGUAGES)
for_lessons = pytest.mark.parametrize("lesson", lesson_files(), ids=lambda lesson: lesson.number)


def broken_links(site: BuiltSite, address: str, file: Path) -> list[str]:
    """Links of a page that lead nowhere within the site."""
    broken = []
    for tag, name, link in read_html(file).links:
        found = site.resolve(address, link)
        if found is None or link.startswith("data:"):
            continue
        target, anchor = found
        if not target.is_file():
            broken.append(f"{address}: <{tag} {name}={link}>: no such file")
        elif anchor and anchor not in read_html(target).ids:
            broken.append(f"{address}: <{tag} {name}={link}>: no such anchor")
    return broken


def test_links_within_the_site_lead_somewhere(built: BuiltSite) -> None:
    pages = list(built.pages())
    assert len(pages) == 2 * len(addresses()) + 1
    links = [link for _, file in pages for link in read_html(file).links]
    assert len(links) > 10 * len(pages)
    assert [text for page in pages for text in broken_links(built, *page)] == []


def test_a_link_that_leads_nowhere_would_be_noticed(tmp_path: Path) -> None:
    site = BuiltSite(tmp_path, "https://example.org/course/", 0, "")
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here">1</a><a href="#gone">2</a><a href="b/">3</a>'
        '<img src="/course/c.svg"><a href="https://example.org/elsewhere">4</a>'
    )
    found = broken_links(site, "a.html", tmp_path / "a.html")
    assert [text.split("=")[1].split(">")[0] for text in found] == ["#gone", "b/", "/course/c.svg"]


def test_nothing_is_loaded_from_elsewhere(built: BuiltSite) -> None:
    external = [
        f"{address}: <{tag} {name}={link}>"
        for address, file in built.pages()
        for tag, name, link in read_html(file).links
        if tag not in ("a", "area") and not link.startswith("data:")
        if built.resolve(address, link) is None
    ]
    assert external == []


def test_stylesheets_load_only_what_is_here(built: BuiltSite) -> None:
    sheets = sorted(built.folder.rglob("*.css"))
    assert sheets
    wrong = []
    for sheet in sheets:
        address = sheet.relative_to(built.folder).as_posix()
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text(encoding="utf-8"), flags=re.S)
        for link in re.findall(r"url\(\s*[\"']?([^\"')]+)", text):
            found = built.resolve(address, link)
            inline = link.startswith(("data:", "#"))
            if not inline and (found is None or not found[0].is_file()):
                wrong.append(f"{address}: {link}")
        wrong += [f"{address}: {rule}" for rule in re.findall(r"@import[^;]*", text)]
    assert wrong == []


def test_every_page_exists_in_both_languages(built: BuiltSite) -> None:
    found = {address for address, _ in built.pages()} - {ERRORS}
    english = {address.removeprefix("en/") for address in found if address.startswith("en/")}
    polish = {address for address in found if not address.startswith("en/")}
    assert polish == english == set(addresses())


def test_pages_say_their_language(built: BuiltSite) -> None:
    wrong = [
        address
        for address, file in built.pages()
        if read_html(file).language != ("en" if address.startswith("en/") else "pl")
    ]
    assert wrong == []


@for_lessons
def test_headings_have_the_same_addresses(built: BuiltSite, lesson: LessonFile) -> None:
    polish, english = (built.page(localized(lesson.address, code)) for code in LANGUAGES)
    assert polish.headings == english.headings
    ids = [anchor for _, anchor in polish.headings]
    assert len(ids) >= 3
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_ids_are_unique(built: BuiltSite) -> None:
    repeated = {
        address: {anchor for anchor in ids if ids.count(anchor) > 1}
        for address, file in built.pages()
        if (ids := [i for i in read_html(file).ids if not i.startswith("__")])
    }
    assert {address: anchors for address, anchors in repeated.items() if anchors} == {}


def test_alternates_are_whole_and_mutual(built: BuiltSite) -> None:
    for address in addresses():
        expected = {code: built.url + localized(address, code) for code in LANGUAGES}
        expected["x-default"] = expected["pl"]
        for language in LANGUAGES:
            assert built.page(localized(address, language)).alternates == expected


def test_page_of_errors_is_no_translation_of_a_page(built: BuiltSite) -> None:
    assert read_html(built.folder / ERRORS).alternates == {}


def test_one_sitemap_lists_all_pages(built: BuiltSite) -> None:
    assert [
        file.relative_to(built.folder).as_posix() for file in built.folder.rglob("sitemap*.xml")
    ] == ["sitemap.xml"]
    space = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9"}
    links = {"x": "http://www.w3.org/1999/xhtml"}
    urls = ElementTree.parse(built.folder / "sitemap.xml").getroot().findall("s:url", space)
    listed = {url.findtext("s:loc", "", space) for url in urls}
    alternates = {link.get("href", "") for url in urls for link in url.findall("x:link", links)}
    assert alternates == {built.url + localized(a, code) for a in addresses() for code in LANGUAGES}
    assert listed == alternates


# Words


def foreign(language: str) -> list[str]:
    """Texts of the other language's interface that are too long to be something else."""
    own, other = for_language(language), for_language(OTHER[language])
    ours = [getattr(own, field.name) for field in fields(own)]
    theirs = [getattr(other, field.name) for field in fields(other)]
    texts = [text for text in theirs if isinstance(text, str) and text not in ours]
    texts = [re.split(r"\{", text)[0].strip() for text in texts]
    # Material's own.
    texts += {
        "pl": ["Skip to content", "Back to top", "Select language", "Table of contents"],
        "en": ["Przejdź do", "Spis treści", "Następna strona", "Poprzednia strona"],
    }[language]
    return [text for text in texts if len(text) >= 10 and " " in text]


@in_both_languages
def test_interface_speaks_the_language_of_the_page(built: BuiltSite, language: str) -> None:
    texts = foreign(language)
    assert len(texts) > 10
    found = set()
    for address in addresses():
        page = localized(address, language)
        said = unescape("\n".join(built.page(page).prose)).replace("\xa0", " ")
        found |= {
            (text, "lesson" if address.count("_") > 1 else address)
            for text in texts
            if text.replace("\xa0", " ") in said
        }
    assert found == set()


@in_both_languages
def test_interface_of_the_page_is_there_at_all(built: BuiltSite, language: str) -> None:
    strings = for_language(language)
    said = "\n".join(built.page(localized(lesson_files()[0].address, language)).prose)
    for text in (
        strings.download_notebook,
        strings.edit_lesson,
        strings.lesson_actions,
        strings.solution,
    ):
        assert text in said


def test_no_mark_is_left_over(built: BuiltSite) -> None:
    left = []
    for address, file in built.pages():
        text = file.read_text(encoding="utf-8")
        left += [
            f"{address}: {m}" for m in re.findall(r"<!-- (?:lessons|glossary|roadmap) -->", text)
        ]
        left += [f"{address}: {m!a}" for m in re.findall("[\ue0f0-\ue0f2]", text)]
        # Code may hold double braces, prose may not.
        left += [
            f"{address}: {line}" for line in read_html(file).prose if "{{" in line or "}}" in line
        ]
    assert left == []


def test_no_notebook_holds_both_languages(built: BuiltSite) -> None:
    notebooks = sorted(built.folder.rglob("*.ipynb"))
    assert len(notebooks) == 2 * len(lesson_files())
    for file in notebooks:
        text = file.read_text(encoding="utf-8")
        assert re.findall("[\ue0f0-\ue0f2]", text) == [], file.name
        notebook = nbformat.reads(text, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                outside_of_code = re.sub(
                    r"```.*?```|`[^`]*`|\$[^$]*\$", "", cell.source, flags=re.S
                )
                assert "{{" not in outside_of_code, f"{file.name}: {cell.id}"


# The home page


class _Roadmap(HTMLParser):
    """Lessons of the roadmap: number, title and address (or nothing), course or extra."""

    def __init__(self) -> None:
        super().__init__()
        self.lessons: list[tuple[bool, str, str, str]] = []
        self._extra = False
        self._part = ""
        self._item = ["", "", ""]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        classes = given.get("class", "").split()
        # The extra modules come last, in a container of their own.
        self._extra = self._extra or any(name.endswith("--extra") for name in classes)
        if "bb-lesson" in classes:
            self._item = ["", "", ""]
        for position, part in enumerate(("bb-lesson__number", "bb-lesson__title")):
            if part in classes:
                self._part = str(position)
        if tag == "a" and self._part == "1":
            self._item[2] = given.get("href", "")

    def handle_data(self, data: str) -> None:
        if self._part:
            self._item[int(self._part)] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "span":
            self._part = ""
        if tag == "li" and self._item[0]:
            number, title, address = (text.strip() for text in self._item)
            self.lessons.append((self._extra, number, title, address))
            self._item = ["", "", ""]


@in_both_languages
def test_roadmap_lists_all_lessons_and_links_the_written(built: BuiltSite, language: str) -> None:
    home = localized("", language)
    reader = _Roadmap()
    reader.feed((built.folder / home / "index.html").read_text(encoding="utf-8"))
    course = load_course(project())
    planned = [
        (
            module.extra,
            lesson.number,
            localized(f"lessons/{module.folder}/{lesson.name}/", language),
        )
        for module in course.modules
        for lesson in module.lessons
    ]
    assert sum(1 for extra, _, _ in planned if not extra) == 50
    assert sum(1 for extra, _, _ in planned if extra) > 0
    assert [(extra, number) for extra, number, _, _ in reader.lessons] == [p[:2] for p in planned]
    assert all(title for _, _, title, _ in reader.lessons)
    written = {localized(lesson.address, language) for lesson in lesson_files()}
    links = [
        urljoin(built.url + home, a).removeprefix(built.url) if a else ""
        for *_, a in reader.lessons
    ]
    assert links == [address if address in written else "" for *_, address in planned]


# Weight


@in_both_languages
@for_lessons
def test_page_is_light(
    built: BuiltSite, lesson: LessonFile, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (built.folder / localized(lesson.address, language) / "index.html").read_bytes()
    size = len(gzip.compress(data))
    with capsys.disabled():
        print(
            f"\n{lesson.name}.{language}: {len(data) / 1e3:.0f} kB, {size / 1e3:.1f} kB gzip ",
            end="",
        )
    assert size < LARGEST_PAGE
