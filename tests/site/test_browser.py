"""The site in a browser, the way a reader meets it."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from built_site import (
    LANGUAGES,
    OTHER,
    ROOT,
    BuiltSite,
    LessonFile,
    Server,
    Visit,
    addresses,
    localized,
    project,
    sample_lessons,
)
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from blackbelt.config import Project
from blackbelt.glossary import load_glossary

pytest_plugins = ["site_fixtures"]

Open = Callable[..., Visit]
PAGES = [localized(page, language) for page in addresses() for language in LANGUAGES]
LESSONS = sample_lessons()
NARROW = 360
# Of a first visit, pictures and fonts of formulas left out: these depend on the text.
MOST_REQUESTS = 15

# One page of each kind, for what does not depend on the page's text.
KINDS = ["", "glossary/", *(f"lessons/{x.module}/" for x in LESSONS[:1])]
KINDS += [lesson.address for lesson in LESSONS[:1]]

in_both_languages = pytest.mark.parametrize("language", LANGUAGES)
for_lessons = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.number)


def name(address: str) -> str:
    return address or "home"


def luminance(page: Page, selector: str) -> float:
    """Lightness from 0 to 1 of an element's own ground."""
    color = page.locator(selector).first.evaluate("e => getComputedStyle(e).backgroundColor")
    red, green, blue = (int(part) for part in re.findall(r"\d+", color)[:3])
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def sticking_out(page: Page) -> list[str]:
    """Elements that make a page scroll sideways on a telephone, with all folds open."""
    page.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")
    wide: list[str] = page.evaluate(
        """width => [...document.querySelectorAll('body *')].filter(e => {
            if (e.getBoundingClientRect().right <= width + 0.5) return false;
            for (let p = e.parentElement; p && p !== document.body; p = p.parentElement) {
                if (getComputedStyle(p).overflowX !== 'visible') return false;
                if (getComputedStyle(p).position === 'fixed') return false;
            }
            return true;
        }).slice(0, 5).map(e => e.outerHTML.slice(0, 120))""",
        NARROW,
    )
    width = page.evaluate("document.documentElement.scrollWidth")
    return [*wide, f"{width} pixels wide"] if width > NARROW else []


def path_of(page: Page) -> str:
    return str(page.evaluate("location.pathname"))


# Every page


@pytest.mark.parametrize("address", PAGES, ids=name)
def test_page_opens_without_a_complaint_and_fits_a_telephone(visit: Open, address: str) -> None:
    window = visit()
    page = window.open(address, settled=True)
    language = "en" if address.startswith("en/") else "pl"
    assert page.locator("html").get_attribute("lang") == language
    expect(page.locator("h1")).to_have_count(1)
    expect(page.locator("h1")).to_be_visible()
    policy = page.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content")
    assert policy
    assert "default-src 'none'" in policy
    assert "'unsafe-eval'" not in policy
    scripts = next(part for part in policy.split(";") if part.strip().startswith("script-src "))
    assert "'unsafe-inline'" not in scripts
    # Lazy pictures and fonts are requested when the reader comes to them.
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    window.assert_clean()
    page.set_viewport_size({"width": NARROW, "height": 800})
    assert sticking_out(page) == []


def test_what_sticks_out_of_a_telephone_would_be_noticed(visit: Open) -> None:
    page = visit(width=NARROW).open("")
    assert sticking_out(page) == []
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend',"
        " '<div id=wide><svg width=400 height=9></svg></div>')"
    )
    found = sticking_out(page)
    assert "svg" in found[0], found


def test_a_complaint_would_be_noticed(visit: Open) -> None:
    window = visit()
    page = window.open("")
    page.evaluate(
        """() => {
            console.warn('beware');
            const image = new Image();
            image.src = 'https://example.com/pixel.png';
            document.body.append(image);
            const style = document.createElement('style');
            style.textContent = 'body { color: red }';
            document.head.append(style);
        }"""
    )
    page.wait_for_function("window.policyViolations.length >= 2")
    with pytest.raises(AssertionError):
        window.assert_clean()
    noticed = [*window.problems, *page.evaluate("window.policyViolations")]
    for part in ("beware", "img-src https://example.com/pixel.png", "style-src-elem"):
        assert any(part in problem for problem in noticed)


@for_lessons
def test_first_visit_asks_for_few_files(
    visit: Open, server: Server, built: BuiltSite, lesson: LessonFile
) -> None:
    before = len(server.requests)
    visit().open(lesson.address, settled=True)
    text = ("/img/", "/katex/fonts/")
    asked = [r for r in server.requests[before:] if not any(part in r[0] for part in text)]
    assert (f"{built.prefix}{lesson.address}", 200) in asked
    assert {status for _, status in asked} == {200}
    # Chromium asks for the icon on its own terms: when it is busy, twice.
    ours = [r for r in asked if "favicon" not in r[0]]
    assert len(ours) == len(set(ours))
    assert len(asked) <= MOST_REQUESTS, "\n".join(sorted(path for path, _ in asked))


def test_a_request_to_a_third_party_would_be_noticed(visit: Open) -> None:
    window = visit(bypass_csp=True)
    page = window.open("")
    page.evaluate("() => fetch('https://example.com/').catch(() => 0)")
    assert "request outside of the site: https://example.com/" in window.problems


# Colours


@in_both_languages
@pytest.mark.parametrize("address", KINDS, ids=name)
def test_colours_follow_the_system(visit: Open, address: str, language: str) -> None:
    light = visit(color_scheme="light").open(localized(address, language))
    assert light.locator("body").get_attribute("data-md-color-scheme") == "default"
    assert luminance(light, "body") > 0.9
    dark = visit(color_scheme="dark").open(localized(address, language))
    assert dark.locator("body").get_attribute("data-md-color-scheme") == "slate"
    assert luminance(dark, "body") < 0.2


PALETTE = ".md-header [data-md-component=palette] label:visible"


def choose_dark(page: Page) -> None:
    """Go from the system's choice over light to dark."""
    page.locator(PALETTE).click()
    expect(page.locator("#__palette_1")).to_be_checked()
    page.locator(PALETTE).click()
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "slate")


@in_both_languages
@pytest.mark.parametrize("address", KINDS, ids=name)
def test_reader_can_choose_colours(visit: Open, address: str, language: str) -> None:
    window = visit(color_scheme="light")
    page = window.open(localized(address, language))
    choose_dark(page)
    assert luminance(page, "body") < 0.2
    page.reload()
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "slate")
    # After dark comes the system's choice again.
    page.locator(PALETTE).click()
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "default")
    assert luminance(page, "body") > 0.9
    window.assert_clean()


# Languages


def switch_to(page: Page, language: str) -> None:
    page.locator(".md-header .md-select button").hover()
    page.locator(f".md-header .md-select__link[hreflang={language}]").click()


def assert_at(page: Page, anchor: str) -> None:
    """The section stands just below the header."""
    top = f"document.getElementById({json.dumps(anchor)}).getBoundingClientRect().top"
    page.wait_for_function(f"{top} > -5 && {top} < 200")


@in_both_languages
@for_lessons
def test_switch_keeps_lesson_and_section(visit: Open, lesson: LessonFile, language: str) -> None:
    window = visit()
    page = window.open(localized(lesson.address, language))
    ids = page.locator("article h2[id]").evaluate_all("found => found.map(e => e.id)")
    assert len(ids) >= 3
    first, second = ids[1], ids[-2]
    page.goto(f"{window.site}{localized(lesson.address, language)}#{first}")
    assert_at(page, first)
    switch_to(page, OTHER[language])
    page.wait_for_url(f"**/{localized(lesson.address, OTHER[language])}#{first}")
    expect(page.locator("html")).to_have_attribute("lang", OTHER[language])
    assert_at(page, first)
    # And back, from the section that the reader went to in the meantime.
    page.locator(f".md-sidebar--secondary a[href='#{second}']").click()
    page.wait_for_function(f"location.hash === '#{second}'")
    switch_to(page, language)
    page.wait_for_url(f"**/{localized(lesson.address, language)}#{second}")
    expect(page.locator("html")).to_have_attribute("lang", language)
    assert_at(page, second)
    window.assert_clean()


@in_both_languages
@pytest.mark.parametrize("address", KINDS, ids=name)
def test_switch_keeps_the_page(visit: Open, address: str, language: str) -> None:
    window = visit()
    page = window.open(localized(address, language))
    switch_to(page, OTHER[language])
    page.wait_for_url(window.site + localized(address, OTHER[language]))
    expect(page.locator("html")).to_have_attribute("lang", OTHER[language])
    window.assert_clean()


# A lesson


@in_both_languages
@for_lessons
def test_next_and_previous(visit: Open, lesson: LessonFile, language: str) -> None:
    window = visit()
    page = window.open(localized(lesson.address, language))
    here = path_of(page)
    forward = page.locator(".md-footer__link--next")
    title = forward.locator(".md-footer__title .md-ellipsis").inner_text().strip()
    forward.click()
    page.wait_for_function("path => location.pathname !== path", arg=here)
    expect(page.locator("html")).to_have_attribute("lang", language)
    # Lessons are listed by number, which their headings do not repeat.
    assert re.sub(r"^\d+\. ", "", title) in page.locator("h1").inner_text().replace("\xa0", " ")
    page.locator(".md-footer__link--prev").click()
    page.wait_for_function("path => location.pathname === path", arg=here)
    window.assert_clean()


def downloaded(page: Page, ending: str) -> tuple[str, bytes]:
    """Name and content of the file that the link with this ending of its address saves."""
    with page.expect_download() as waiting:
        page.locator(f".bb-bar__actions a[download][href$='{ending}']").click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def code_outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


@in_both_languages
@for_lessons
def test_notebook_of_the_language_is_downloaded(
    visit: Open, lesson: LessonFile, language: str
) -> None:
    window = visit()
    page = window.open(localized(lesson.address, language))
    file, content = downloaded(page, ".ipynb")
    assert file == f"{lesson.name}.{language}.ipynb"
    notebook = nbformat.reads(content.decode(), as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.blackbelt == {"lesson": lesson.path, "language": language}
    heading = notebook.cells[0].source.splitlines()[0].removeprefix("# ").replace("`", "")
    title = page.locator("h1").evaluate("e => e.firstChild.textContent + e.textContent")
    assert heading.replace("\xa0", " ") in title.replace("\xa0", " ")
    assert any(output.output_type == "stream" for output in code_outputs(notebook))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, cell.id, "exec")
    window.assert_clean()


@in_both_languages
@for_lessons
def test_source_is_downloaded(visit: Open, lesson: LessonFile, language: str) -> None:
    window = visit()
    page = window.open(localized(lesson.address, language))
    file, content = downloaded(page, ".py")
    assert file == f"{lesson.name}.py"
    assert content == (ROOT / lesson.path).read_bytes()
    compile(content, file, "exec")
    window.assert_clean()


@in_both_languages
@for_lessons
def test_links_out_of_the_lesson(visit: Open, lesson: LessonFile, language: str) -> None:
    page = visit().open(localized(lesson.address, language))
    course: Project = project()
    owner, repository = course.repository.rstrip("/").split("/")[-2:]
    notebook = f"{localized(lesson.address, language)}{lesson.name}.{language}.ipynb"
    links = page.locator(".bb-bar__actions a").evaluate_all(
        "found => found.map(e => e.href).filter(href => !href.startsWith(location.origin))"
    )
    assert links == [
        f"https://colab.research.google.com/github/{owner}/{repository}/blob/gh-pages/{notebook}",
        f"https://vscode.dev/github/{owner}/{repository}/blob/main/{lesson.path}",
        f"{course.repository}/edit/main/{lesson.path}",
    ]


def tooltip(page: Page) -> Locator:
    return page.locator(".md-tooltip2__inner:visible")


@in_both_languages
@for_lessons
def test_term_explains_itself(visit: Open, lesson: LessonFile, language: str) -> None:
    window = visit()
    page = window.open(localized(lesson.address, language))
    definitions = [term.definitions[language] for term in load_glossary(ROOT)]
    term = page.locator("article p abbr:visible").first
    term.scroll_into_view_if_needed()
    expect(tooltip(page)).to_have_count(0)
    term.hover()
    expect(tooltip(page)).to_have_count(1)
    assert tooltip(page).inner_text().strip() in definitions
    page.mouse.move(0, 0)
    expect(tooltip(page)).to_have_count(0)
    window.assert_clean()


@in_both_languages
@pytest.mark.parametrize("lesson", LESSONS[:1], ids=lambda lesson: lesson.number)
def test_term_explains_itself_to_the_keyboard(
    visit: Open, lesson: LessonFile, language: str
) -> None:
    page = visit().open(localized(lesson.address, language))
    definitions = [term.definitions[language] for term in load_glossary(ROOT)]
    page.locator("article p abbr:visible").first.focus()
    expect(tooltip(page)).to_have_count(1)
    assert tooltip(page).inner_text().strip() in definitions


@in_both_languages
@for_lessons
def test_solution_unfolds(visit: Open, lesson: LessonFile, language: str) -> None:
    window = visit()
    page = window.open(localized(lesson.address, language))
    solutions = page.locator(".exercise details.nb-solution")
    assert solutions.count() >= 1
    for number in range(solutions.count()):
        solution = solutions.nth(number)
        expect(solution.locator("pre").first).to_be_hidden()
        solution.locator("summary").click()
        expect(solution.locator("pre").first).to_be_visible()
    window.assert_clean()


@for_lessons
def test_code_can_be_copied(visit: Open, lesson: LessonFile) -> None:
    window = visit(permissions=["clipboard-read", "clipboard-write"])
    page = window.open(lesson.address)
    cells = page.locator("article > .nb-input")
    buttons = cells.locator("button[data-md-type=copy], button.md-clipboard")
    expect(buttons).to_have_count(cells.count())
    cells.first.hover()
    buttons.first.click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text !== '')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == cells.first.locator("code").inner_text().strip()
    window.assert_clean()


# Figures


def figures(page: Page) -> list[Locator]:
    """All figures, unfolded, scrolled to and loaded."""
    page.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")
    found: list[Locator] = page.locator("article img[src*='/img/']").all()
    for figure in found:
        figure.scroll_into_view_if_needed()
        figure.evaluate("e => e.decode()")
    return found


@in_both_languages
@for_lessons
def test_figures_load_and_say_what_they_show(
    visit: Open, built: BuiltSite, lesson: LessonFile, language: str
) -> None:
    window = visit()
    page = window.open(localized(lesson.address, language))
    notebook_file = f"{localized(lesson.address, language)}{lesson.name}.{language}.ipynb"
    notebook = nbformat.read(built.folder / notebook_file, as_version=4)
    shown = [o.data for o in code_outputs(notebook) if o.output_type == "display_data"]
    described = {" ".join(data["text/plain"].split()) for data in shown if "image/png" in data}
    found = figures(page)
    assert found
    for figure in found:
        size = figure.evaluate("e => [e.naturalWidth, e.naturalHeight, e.width, e.height]")
        assert size[0] > 0 and size[2] > 0
        width, height = (int(figure.get_attribute(side) or 0) for side in ("width", "height"))
        assert width > 0 and height > 0
        assert width / height == pytest.approx(size[0] / size[1], rel=0.02)
        assert " ".join((figure.get_attribute("alt") or "").split()) in described
    window.assert_clean()


@dataclass(frozen=True)
class Seen:
    """Lightness of a figure as the reader sees it, from 0 to 255: of all pixels, and the ground."""

    pixels: list[int]
    ground: int

    @property
    def mean(self) -> float:
        return sum(self.pixels) / len(self.pixels)


def seen(figure: Locator) -> Seen:
    figure.scroll_into_view_if_needed()
    figure.evaluate("e => e.decode()")
    with Image.open(io.BytesIO(figure.screenshot())) as shot:
        image = shot.convert("L")
    # The frame: in the middle there may be a photograph, which does not change.
    width, height = image.size
    sides = ((0, 0, width, 2), (0, height - 2, width, height), (0, 0, 2, height))
    frame = sorted(b"".join(image.crop(side).tobytes() for side in sides))
    return Seen(sorted(image.tobytes()), frame[len(frame) // 2])


def vectors(page: Page) -> list[Locator]:
    return [f for f in figures(page) if (f.get_attribute("src") or "").endswith(".svg")]


def assert_follows(light: Seen, dark: Seen, what: str) -> None:
    """The ground is light, then dark; text is drawn in the opposite."""
    assert light.ground > 200, what
    assert dark.ground < 80, what
    assert dark.mean < light.mean, what
    assert light.pixels[len(light.pixels) // 500] < 90, what
    assert dark.pixels[-len(dark.pixels) // 500] > 170, what


@in_both_languages
@for_lessons
def test_figures_follow_the_colours(visit: Open, lesson: LessonFile, language: str) -> None:
    light = vectors(visit(color_scheme="light").open(localized(lesson.address, language)))
    dark = vectors(visit(color_scheme="dark").open(localized(lesson.address, language)))
    assert light, "no figure of this lesson is a vector: none of them can follow the colours"
    assert len(light) == len(dark)
    for before, after in zip(light, dark, strict=True):
        assert_follows(seen(before), seen(after), before.get_attribute("alt") or "")


@in_both_languages
@pytest.mark.parametrize("lesson", LESSONS[:1], ids=lambda lesson: lesson.number)
def test_figures_follow_the_reader(visit: Open, lesson: LessonFile, language: str) -> None:
    page = visit(color_scheme="light").open(localized(lesson.address, language))
    drawn = vectors(page)
    light = [seen(figure) for figure in drawn]
    choose_dark(page)
    for figure, before in zip(drawn, light, strict=True):
        assert_follows(before, seen(figure), figure.get_attribute("alt") or "")


# The page of errors


@in_both_languages
def test_missing_page_speaks_the_language_of_its_address(visit: Open, language: str) -> None:
    window = visit()
    missing = localized("no/such/page/", language)
    page = window.open(missing, settled=True)
    expect(page.locator("html")).to_have_attribute("lang", language)
    expect(page.locator(f".bb-not-found[lang={language}]")).to_be_visible()
    expect(page.locator(f".bb-not-found[lang={OTHER[language]}]")).to_be_hidden()
    # The browser reports the status of the page itself, and nothing else.
    expected = [x for x in window.problems if window.site + missing in x and "404" in x]
    assert len(expected) == 2
    assert [problem for problem in window.problems if problem not in expected] == []
    assert page.evaluate("window.policyViolations") == []
    window.problems.clear()
    page.locator(f".bb-not-found[lang={language}] a").click()
    page.wait_for_url(window.site + localized("", language))
    window.assert_clean()


@in_both_languages
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_missing_page_fits_a_telephone(visit: Open, language: str, scheme: str) -> None:
    page = visit(width=NARROW, color_scheme=scheme).open(localized("no-such-page", language))
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
    assert (luminance(page, "body") < 0.2) == (scheme == "dark")


def test_file_of_errors_opens_without_a_complaint(visit: Open) -> None:
    window = visit()
    window.open("404.html", settled=True)
    window.assert_clean()
