"""The copy for reading offline opens from a folder, with every link and without a server."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from built_site import (
    LANGUAGES,
    OTHER,
    ROOT,
    BuiltSite,
    Visit,
    addresses,
    localized,
    read_html,
    sample_lessons,
)
from playwright.sync_api import Browser, expect

from blackbelt.strings import for_language

pytest_plugins = ["site_fixtures"]

LESSON = sample_lessons()[0]
in_both_languages = pytest.mark.parametrize("language", LANGUAGES)


def file_of(address: str, language: str) -> str:
    """The file that stands for an address of the site on a server."""
    if address.count("/") == 2 or not address:
        return localized(f"{address}index.html", language)
    return localized(f"{address.removesuffix('/')}.html", language)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("offline") / "a copy"
    command = [sys.executable, "-m", "blackbelt.cli", "build", "--offline"]
    done = subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def reader(
    browser: Browser, copy: Path, watch: Callable[[Visit], None]
) -> Iterator[Callable[..., Visit]]:
    contexts = []

    def new(**options: Any) -> Visit:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        contexts.append(context)
        opened = Visit(context.new_page(), copy.as_uri() + "/")
        watch(opened)
        return opened

    yield new
    for context in contexts:
        context.close()


def test_every_page_is_there(copy: Path) -> None:
    pages = {file.relative_to(copy).as_posix() for file in copy.rglob("*.html")}
    assert pages == {file_of(a, language) for a in addresses() for language in LANGUAGES}


def test_every_link_names_a_file(copy: Path) -> None:
    site = BuiltSite(copy, "https://example.org/", 0, "")
    wrong = []
    number = 0
    for file in sorted(copy.rglob("*.html")):
        page = file.relative_to(copy).as_posix()
        for tag, name, link in read_html(file).links:
            if link.startswith(("https://", "data:", "mailto:")) or name == "data-base":
                continue
            number += 1
            found = site.resolve(page, link)
            if link.startswith("/") or link.endswith("/") or not found or not found[0].is_file():
                wrong.append(f"{page}: <{tag} {name}={link}>")
            elif found[1] and found[1] not in read_html(found[0]).ids:
                wrong.append(f"{page}: <{tag} {name}={link}>: no such anchor")
    assert wrong == []
    assert number > 1000


@in_both_languages
@pytest.mark.parametrize(
    "address", ["", f"lessons/{LESSON.module}/", LESSON.address, "glossary/", "about/"]
)
def test_page_opens_without_a_complaint(
    reader: Callable[..., Visit], address: str, language: str
) -> None:
    window = reader()
    page = window.open(file_of(address, language), settled=True)
    expect(page.locator("h1")).to_be_visible()
    assert page.evaluate("document.fonts.check('16px Roboto')")
    # The style sheet is there: without it the header would not be dark.
    header = page.locator(".md-header").evaluate("e => getComputedStyle(e).backgroundColor")
    assert header == "rgb(22, 24, 29)"
    for picture in page.locator("article img[src]").all():
        width = "e => { e.loading = 'eager'; return e.decode().then(() => e.naturalWidth); }"
        assert picture.evaluate(width) > 0
    window.assert_clean()


@in_both_languages
@pytest.mark.parametrize("address", ["", LESSON.address], ids=["home", "lesson"])
def test_languages_switch(reader: Callable[..., Visit], address: str, language: str) -> None:
    window = reader()
    page = window.open(file_of(address, language))
    page.locator(".md-header .md-select button").hover()
    page.locator(f".md-header .md-select__link[hreflang={OTHER[language]}]").click()
    page.wait_for_url(window.site + file_of(address, OTHER[language]))
    expect(page.locator("html")).to_have_attribute("lang", OTHER[language])
    window.assert_clean()


@in_both_languages
def test_reader_goes_through_the_course(reader: Callable[..., Visit], language: str) -> None:
    window = reader()
    page = window.open(file_of("", language))
    page.locator(".bb-hero__actions a").first.click()
    page.wait_for_url(window.site + file_of(LESSON.address, language))
    page.locator(".bb-bar__facts a").first.click()
    page.wait_for_url(window.site + file_of(f"lessons/{LESSON.module}/", language))
    page.locator(".md-header .md-logo").click()
    page.wait_for_url(window.site + file_of("", language))
    window.assert_clean()


@in_both_languages
@pytest.mark.parametrize("ending", [".ipynb", ".py"])
def test_notebook_and_source_are_beside_the_page(
    reader: Callable[..., Visit], copy: Path, ending: str, language: str
) -> None:
    """A browser saves a file of a folder or shows it, as it likes; here it has to exist."""
    page = reader().open(file_of(LESSON.address, language))
    link = page.locator(f".bb-bar__actions a[download][href$='{ending}']")
    address = link.evaluate("e => e.href")
    file = (copy / file_of(LESSON.address, language)).parent / address.rsplit("/", 1)[1]
    assert address == file.as_uri()
    if ending == ".py":
        assert file.read_bytes() == (ROOT / LESSON.path).read_bytes()
    else:
        notebook = json.loads(file.read_text(encoding="utf-8"))
        assert notebook["metadata"]["blackbelt"]["language"] == language


@in_both_languages
def test_page_says_that_there_is_no_search(reader: Callable[..., Visit], language: str) -> None:
    page = reader().open(file_of(LESSON.address, language))
    said = for_language(language).offline.split("{")[0].strip()
    expect(page.locator(".md-banner")).to_contain_text(said)
    expect(page.locator(".md-header [role=search], .md-search")).to_have_count(0)


def test_the_site_on_a_server_says_nothing_about_it(built: BuiltSite) -> None:
    text = (built.folder / "index.html").read_text(encoding="utf-8")
    assert "md-banner" not in text
    assert for_language("pl").offline.split(".")[0] not in text
