"""Figures, tables, tracebacks and links to the source, the way a reader meets them."""

import re
import time
from collections.abc import Callable

import pytest
from built_site import (
    LANGUAGES,
    ROOT,
    BuiltSite,
    LessonFile,
    Visit,
    lesson_files,
    localized,
    project,
    sample_lessons,
)
from playwright.sync_api import Locator, Page, Route, expect

from blackbelt.strings import for_language

pytest_plugins = ["site_fixtures"]

Open = Callable[..., Visit]
LESSONS = sample_lessons()
in_both_languages = pytest.mark.parametrize("language", LANGUAGES)
for_lessons = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.number)
for_one = pytest.mark.parametrize("lesson", LESSONS[:1], ids=lambda lesson: lesson.number)


def viewer(page: Page) -> Locator:
    return page.locator("dialog.nb-viewer")


def first_figure(page: Page) -> Locator:
    return page.locator("a.nb-zoom:visible").first


# Figures open as large as the window


@in_both_languages
@for_one
def test_figure_opens_and_closes_with_the_keyboard(
    visit: Open, lesson: LessonFile, language: str
) -> None:
    window = visit()
    page = window.open(localized(lesson.address, language))
    said = for_language(language).outputs
    link = first_figure(page)
    described = link.locator("img").get_attribute("alt")
    assert described
    expect(viewer(page)).to_be_hidden()
    link.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=said.figure)
    expect(dialog).to_be_visible()
    expect(dialog.get_by_role("img", name=described)).to_be_visible()
    expect(dialog.get_by_role("button", name=said.close)).to_be_focused()
    page.keyboard.press("Escape")
    expect(viewer(page)).to_be_hidden()
    expect(link).to_be_focused()
    assert page.url.endswith(lesson.address)
    window.assert_clean()


@for_one
def test_figure_opens_with_a_click_and_closes_with_the_next(
    visit: Open, lesson: LessonFile
) -> None:
    window = visit()
    page = window.open(lesson.address)
    small = first_figure(page).locator("img").bounding_box()
    first_figure(page).click()
    large = viewer(page).locator("img").bounding_box()
    assert small and large
    assert large["width"] > 1.3 * small["width"]
    assert large["width"] / large["height"] == pytest.approx(
        small["width"] / small["height"], rel=0.02
    )
    assert large["x"] >= 0
    assert large["x"] + large["width"] <= 1280
    viewer(page).locator("img").click()
    expect(viewer(page)).to_be_hidden()
    first_figure(page).click()
    viewer(page).locator("button").click()
    expect(viewer(page)).to_be_hidden()
    window.assert_clean()


@for_one
def test_figure_on_a_telephone_is_as_large_as_it_was_drawn(visit: Open, lesson: LessonFile) -> None:
    page = visit(width=360).open(lesson.address)
    link = first_figure(page)
    drawn = int(link.locator("img").get_attribute("width") or 0)
    assert drawn > 360
    link.click()
    large = viewer(page).locator("img").bounding_box()
    assert large
    assert large["width"] >= drawn - 1
    stage = viewer(page).locator(".nb-viewer__stage")
    stage.evaluate("e => e.scrollTo(9999, 0)")
    assert stage.evaluate("e => e.scrollLeft") > drawn - 400


@for_one
def test_figure_without_scripts_is_a_link_to_the_picture(visit: Open, lesson: LessonFile) -> None:
    page = visit(java_script_enabled=False).open(lesson.address)
    expect(viewer(page)).to_be_hidden()
    source = first_figure(page).locator("img").get_attribute("src")
    first_figure(page).click()
    page.wait_for_url(re.compile(r"/lessons/img/[0-9a-f]{12}\.\w+$"))
    assert source
    assert page.url.endswith(source.rpartition("/")[2])


@for_one
def test_new_tab_shows_the_picture(visit: Open, lesson: LessonFile) -> None:
    page = visit().open(lesson.address)
    with page.context.expect_page() as opened:
        first_figure(page).click(modifiers=["ControlOrMeta"])
    opened.value.wait_for_load_state()
    assert "/img/" in opened.value.url
    expect(viewer(page)).to_be_hidden()


def test_pages_without_figures_have_no_viewer(built: BuiltSite) -> None:
    for address in ("", "glossary/", "en/"):
        assert "nb-viewer" not in (built.folder / address / "index.html").read_text()


# Nothing jumps while a page loads

SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    const moved = entry.sources.map((s) => s.node && s.node.nodeName + "." + s.node.className);
    window.shifts.push([entry.value, moved.join(" ")]);
  }
}).observe({ type: "layout-shift", buffered: true });
"""


def arrive_late(route: Route) -> None:
    """Text stands long before its pictures arrive."""
    time.sleep(0.03)
    route.continue_()


@pytest.mark.parametrize("width", [1280, 360])
@for_lessons
def test_figures_move_nothing_when_they_arrive(visit: Open, lesson: LessonFile, width: int) -> None:
    window = visit(width=width)
    page = window.page
    page.add_init_script(SHIFTS)
    page.route("**/img/*", arrive_late)
    window.open(lesson.address)
    height = page.evaluate("document.documentElement.scrollHeight")
    for top in range(0, height, 700):
        page.evaluate("top => scrollTo(0, top)", top)
        page.wait_for_timeout(40)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollHeight") == height
    shifts = page.evaluate("window.shifts")
    # Half of what Google calls good; the fonts have a part in it.
    assert sum(value for value, _ in shifts) < 0.05, shifts


def test_a_jump_would_be_noticed(visit: Open) -> None:
    window = visit()
    window.page.add_init_script(SHIFTS)
    page = window.open(LESSONS[0].address)
    page.wait_for_timeout(100)
    page.evaluate(
        "document.querySelector('article').insertAdjacentHTML('afterbegin',"
        " '<p>' + 'more '.repeat(900) + '</p>')"
    )
    page.wait_for_function("window.shifts.some(([value]) => value > 0.05)")


# From a cell to its lines in the repository


def source_links(page: Page) -> list[tuple[str, str]]:
    links = page.locator(".nb-source > a")
    found: list[tuple[str, str]] = links.evaluate_all(
        "found => found.map(e => [e.href, e.getAttribute('aria-label') || e.title])"
    )
    return found


@in_both_languages
@for_lessons
def test_every_cell_links_to_its_lines(visit: Open, lesson: LessonFile, language: str) -> None:
    window = visit()
    page = window.open(localized(lesson.address, language))
    lines = (ROOT / lesson.path).read_text(encoding="utf-8").split("\n")
    cells = page.locator(".nb-source + .nb-input code")
    assert cells.count() == page.locator(".nb-input").count() > 10
    texts = cells.evaluate_all("found => found.map(e => e.textContent)")
    links = source_links(page)
    assert len(links) == len(texts)
    start = f"{project().repository}/blob/main/{lesson.path}#L"
    for (href, name), text in zip(links, texts, strict=True):
        assert href.startswith(start), href
        first, _, last = href.removeprefix(start).partition("-L")
        said = lines[int(first) - 1 : int(last or first)]
        assert said == text.rstrip("\n").split("\n"), href
        assert first in name
        assert (last or first) in name
        assert "GitHub" in name


@for_one
def test_link_to_the_source_shows_itself_to_mouse_keyboard_and_touch(
    visit: Open, lesson: LessonFile
) -> None:
    def opacity(link: Locator) -> float:
        return float(link.evaluate("e => getComputedStyle(e).opacity"))

    def seen(link: Locator) -> None:
        expect(link).to_have_css("opacity", re.compile(r"^(1|0\.[89]\d*)$"))

    page = visit().open(lesson.address)
    link = page.locator("article > .nb-source > a").first
    page.mouse.move(0, 0)
    assert opacity(link) == 0
    page.locator("article > .nb-input").first.hover()
    seen(link)
    page.mouse.move(0, 0)
    page.wait_for_function("e => getComputedStyle(e).opacity === '0'", arg=link.element_handle())
    # The next stop after a cell's link is its button to copy.
    link.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    expect(link).to_be_focused()
    seen(link)
    touch = visit(width=360, has_touch=True, is_mobile=True).open(lesson.address)
    link = touch.locator("article > .nb-source > a").first
    seen(link)
    box = link.bounding_box()
    assert box
    assert box["width"] >= 24
    assert box["height"] >= 24


# Outputs tell themselves apart


@for_lessons
def test_outputs_differ_from_inputs_without_colours(visit: Open, lesson: LessonFile) -> None:
    page = visit().open(lesson.address)
    style = "e => [getComputedStyle(e).borderLeftWidth, getComputedStyle(e).boxShadow]"
    code = page.locator("article > .nb-input").first.evaluate(style)
    output = page.locator("article > .nb-output").first.evaluate(style)
    assert code != output


@in_both_languages
def test_exceptions_and_warnings_are_named(built: BuiltSite, language: str) -> None:
    words = for_language(language)
    found = 0
    for lesson in lesson_files():
        text = (built.folder / localized(lesson.address, language) / "index.html").read_text()
        for kind, label in (("nb-error", "error"), ("nb-stderr", "warning")):
            marks = len(re.findall(rf'class="nb-text {kind}"', text))
            assert marks == len(re.findall(rf'nb-label--{label}"', text)), lesson.path
            found += marks
        assert text.count(words.expected_exception) >= text.count('class="nb-trace"')
    assert found


@for_lessons
def test_traceback_unfolds(visit: Open, lesson: LessonFile) -> None:
    page = visit(width=360).open(lesson.address)
    trace = page.locator(".nb-trace")
    if not trace.count():
        pytest.skip("no exception in this lesson")
    expect(trace.first.locator(".nb-here").first).to_be_visible()
    folds = page.locator(".nb-calls:visible")
    for number in range(folds.count()):
        fold = folds.nth(number)
        expect(fold.locator("pre")).to_be_hidden()
        fold.locator("summary").click()
        expect(fold.locator("pre")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
