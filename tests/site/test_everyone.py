"""The site for everyone: by keyboard, read aloud, enlarged, in other colours, on paper."""

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe import violations
from built_site import LANGUAGES, Visit, localized, sample_lessons
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pypdf import PdfReader

from blackbelt.strings import for_language

pytest_plugins = ["site_fixtures"]

Open = Callable[..., Visit]
LESSON = sample_lessons()[0]
# One page of each kind; the page of errors is what any unknown address gives.
KINDS = [
    "",
    f"lessons/{LESSON.module}/",
    LESSON.address,
    "glossary/",
    "how-to-use/",
    "no-such-page",
]
NARROW, WIDE = 360, 1280
# More than any page has: reaching it means that the focus does not get out.
MOST_STOPS = 1000

in_both_languages = pytest.mark.parametrize("language", LANGUAGES)
on_all_kinds = pytest.mark.parametrize("address", KINDS, ids=lambda address: address or "home")
on_both_screens = pytest.mark.parametrize("width", [NARROW, WIDE])


def unfold(page: Page) -> None:
    page.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")


# axe-core


# Half of the combinations: what axe finds depends on one of these, hardly ever on two.
@pytest.mark.parametrize(
    ("language", "scheme", "width"), [("pl", "light", WIDE), ("en", "dark", NARROW)]
)
@on_all_kinds
def test_axe_finds_nothing(
    visit: Open, address: str, language: str, scheme: str, width: int
) -> None:
    page = visit(width=width, color_scheme=scheme).open(localized(address, language))
    unfold(page)
    assert violations(page) == []


def test_axe_would_find_something(visit: Open) -> None:
    page = visit().open("")
    page.evaluate(
        "document.querySelector('article').insertAdjacentHTML('beforeend',"
        " '<p style=\"color: #bbb\">grey</p><img src=x.png><button></button>')"
    )
    found = " ".join(violations(page))
    for rule in ("color-contrast", "image-alt", "button-name"):
        assert rule in found


# The keyboard


STOP = """() => {
    const e = document.activeElement;
    if (!e || e === document.body) return null;
    // The radio buttons of the colours are invisible, and their labels show the focus.
    const shown = e.matches('.md-option') ? e.nextElementSibling : e;
    const style = getComputedStyle(shown);
    const boxes = [...shown.getClientRects()].filter(r => r.width && r.height);
    const box = boxes[0] || new DOMRect(-9, -9, 0, 0);
    const x = box.left + Math.min(box.width / 2, 20), y = box.top + Math.min(box.height / 2, 8);
    const top = document.elementFromPoint(x, y);
    return {
        what: e.outerHTML.slice(0, 150).replace(/\\s+/g, ' '),
        ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1,
        visible: x >= 0 && x <= innerWidth && y >= 0 && y <= innerHeight,
        covered: !top || !(shown.contains(top) || top.contains(shown)),
        name: [e.ariaLabel, e.title, e.innerText, e.labels?.[0]?.innerText,
            e.querySelector('img')?.alt].find(text => text?.trim()),
        number: Number(e.dataset.number),
    };
}"""


def stops(page: Page, key: str = "Tab") -> Iterator[dict[str, Any]]:
    """Each element that the keyboard comes to, until it leaves the page."""
    # Now, because tooltips come and go.
    page.evaluate("[...document.querySelectorAll('*')].forEach((e, i) => (e.dataset.number ||= i))")
    for _ in range(MOST_STOPS):
        page.keyboard.press(key)
        stop: dict[str, Any] | None = page.evaluate(STOP)
        if stop and (stop["covered"] or not stop["visible"]):
            # A font or a picture may just have moved it, and tooltips come and go.
            page.wait_for_timeout(300)
            stop = page.evaluate(STOP)
        if stop is None:
            return
        yield stop
    pytest.fail(f"the keyboard does not get out of the page: {stop}")


@on_both_screens
@on_all_kinds
def test_keyboard_reaches_everything_visibly(visit: Open, address: str, width: int) -> None:
    language = "pl" if width == WIDE else "en"
    page = visit(width=width, reduced_motion="reduce").open(localized(address, language))
    unfold(page)
    found = list(stops(page))
    for stop in found:
        assert stop["ring"], f"no ring around {stop['what']}"
        assert stop["visible"], f"focus outside of the window: {stop['what']}"
        assert not stop["covered"], f"something covers {stop['what']}"
        assert stop["name"], f"no name: {stop['what']}"
    order = [stop["number"] for stop in found]
    assert order == sorted(order), "the order of the focus is not that of the text"
    assert len(order) == len(set(order))
    links = page.locator("article a[href]:visible").count()
    assert len(found) > max(links, 5)


def test_focus_that_is_not_seen_would_be_noticed(visit: Open) -> None:
    page = visit(reduced_motion="reduce").open("about/")
    page.evaluate(
        "document.querySelector('article').insertAdjacentHTML('afterbegin',"
        ' \'<a href="#1" style="outline: none">ringless</a>'
        '<a href="#2" style="position: absolute; left: -99px">away</a>'
        '<a href="#3"></a><p style="position: relative"><a href="#4">under</a>'
        '<b style="position: absolute; inset: 0"></b></p>\')'
    )
    found = {m[1]: stop for stop in stops(page) if (m := re.search(r'href="#(\d)"', stop["what"]))}
    assert not found["1"]["ring"]
    assert not found["2"]["visible"]
    assert not found["3"]["name"]
    assert found["4"]["covered"]


def test_keyboard_goes_back_the_same_way(visit: Open) -> None:
    page = visit(reduced_motion="reduce").open("about/")
    # The list of the search is a stop only while it is open, which is after its input.
    forward = [stop["number"] for stop in stops(page) if "md-search__scroll" not in stop["what"]]
    back = [stop["number"] for stop, _ in zip(stops(page, "Shift+Tab"), forward, strict=False)]
    assert back == forward[::-1]


@in_both_languages
def test_first_stop_skips_to_the_text(visit: Open, language: str) -> None:
    page = visit().open(localized(LESSON.address, language))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className").startswith("md-skip")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("!!document.activeElement.closest('article')")


def test_menu_of_a_telephone_works_by_keyboard(visit: Open) -> None:
    window = visit(width=NARROW, reduced_motion="reduce")
    page = window.open("about/")
    menu, drawer = page.locator(".md-header [for=__drawer]"), page.locator("#__drawer")
    menu.focus()
    page.keyboard.press("Enter")
    expect(drawer).to_be_checked()
    page.wait_for_function("() => !!document.activeElement.closest('.md-sidebar--primary')")
    page.keyboard.press("Escape")
    expect(drawer).not_to_be_checked()
    expect(menu).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_function("() => !!document.activeElement.closest('.md-sidebar--primary')")
    inside = []
    for stop in stops(page):
        if not page.evaluate("!!document.activeElement.closest('.md-sidebar--primary')"):
            break
        assert not stop["covered"], stop["what"]
        inside.append(stop)
    # Going on to the text closes what would cover it.
    expect(drawer).not_to_be_checked()
    assert len(inside) >= 3
    window.assert_clean()


@in_both_languages
def test_language_is_chosen_by_keyboard(visit: Open, language: str) -> None:
    window = visit()
    page = window.open(localized(LESSON.address, language))
    page.locator(".md-header .md-select button").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter" if language == "pl" else "Shift+Tab")
    if language == "en":
        page.keyboard.press("Enter")
    other = "en" if language == "pl" else "pl"
    page.wait_for_url(window.site + localized(LESSON.address, other))
    expect(page.locator("html")).to_have_attribute("lang", other)


# Names


@in_both_languages
def test_sections_and_cells_say_what_they_are(visit: Open, language: str) -> None:
    strings = for_language(language)
    page = visit().open(localized(LESSON.address, language))
    expect(page.get_by_role("group", name=strings.output).first).to_be_visible()
    link = page.locator("article h2 .headerlink").first
    expect(link).to_have_accessible_name(strings.permalink)
    # Material moves titles into its tooltips; names stay.
    link.focus()
    expect(page.locator(".md-tooltip2__inner:visible")).to_have_count(1)
    expect(link).to_have_accessible_name(strings.permalink)
    expect(page.locator(".md-code__nav[role=none]").first).to_be_attached()
    expect(page.locator(".md-code__nav:not([role=none])")).to_have_count(0)


# Motion, colours, enlargement


MOVING = """() => {
    const slow = (e, part) => {
        const { transitionDuration, animationDuration, scrollBehavior } = getComputedStyle(e, part);
        const durations = `${transitionDuration},${animationDuration}`.split(',');
        return scrollBehavior === 'smooth' || durations.some(x => parseFloat(x) > .002);
    };
    return [...document.querySelectorAll('*')]
        .filter(e => ['', '::before', '::after'].some(part => slow(e, part)))
        .map(e => e.outerHTML.slice(0, 100));
}"""


@on_all_kinds
def test_nothing_moves_for_those_who_ask(visit: Open, address: str) -> None:
    page = visit(reduced_motion="reduce").open(address)
    assert page.evaluate(MOVING) == []


def test_motion_is_there_otherwise(visit: Open) -> None:
    assert visit().open("").evaluate(MOVING) != []


@on_both_screens
def test_forced_colours_keep_icons_and_edges(visit: Open, width: int) -> None:
    window = visit(width=width, forced_colors="active")
    page = window.open(LESSON.address)
    assert page.evaluate("matchMedia('(forced-colors: active)').matches")
    ground = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    for selector, part in (
        (".bb-action__icon", ""),
        ("article summary", "::before"),
        ("article summary", "::after"),
    ):
        icon = page.locator(selector).first
        color = icon.evaluate("(e, part) => getComputedStyle(e, part).backgroundColor", part)
        assert color not in (ground, "rgba(0, 0, 0, 0)"), selector
    edge = page.locator("article .nb-input pre > code").first
    assert edge.evaluate("e => getComputedStyle(e).borderTopStyle") == "solid"
    window.assert_clean()


# Paper


@in_both_languages
def test_paper_has_the_solutions(visit: Open, language: str) -> None:
    strings = for_language(language)
    page = visit(color_scheme="dark").open(localized(LESSON.address, language))
    solution = page.locator(".exercise details.nb-solution pre > code").last
    lines = [line.strip() for line in (solution.text_content() or "").splitlines()]
    long = [re.sub(r"\s", "", line) for line in lines if 25 < len(line) < 70]
    assert long
    printed = PdfReader(io.BytesIO(page.pdf(format="A4")))
    text = re.sub(r"\s", "", "".join(sheet.extract_text() for sheet in printed.pages))
    for line in long:
        assert line in text
    assert re.sub(r"\s", "", strings.solution) in text
    assert re.sub(r"\s", "", strings.download_notebook) not in text
    # What was folded before is folded again on the screen.
    assert page.locator("details[open]").count() == 0


# Without scripts


@pytest.fixture
def without_scripts(browser: Browser, server: Any) -> Iterator[Callable[[str], Page]]:
    contexts: list[BrowserContext] = []

    def new(address: str) -> Page:
        context = browser.new_context(java_script_enabled=False)
        contexts.append(context)
        page = context.new_page()
        page.goto(server.url + address)
        return page

    yield new
    for context in contexts:
        context.close()


@in_both_languages
def test_lesson_is_read_without_scripts(
    without_scripts: Callable[[str], Page], language: str
) -> None:
    strings = for_language(language)
    page = without_scripts(localized(LESSON.address, language))
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator("article > .nb-input").first).to_be_visible()
    expect(page.locator("article > .nb-output").first).to_be_visible()
    expect(page.locator(".md-sidebar--primary .md-nav__link").first).to_be_visible()
    expect(page.locator(".md-sidebar--secondary .md-nav__link").first).to_be_visible()
    expect(page.get_by_text(strings.download_notebook)).to_be_visible()
    solution = page.locator(".exercise details.nb-solution").first
    expect(solution.locator("pre").first).to_be_hidden()
    solution.locator("summary").click()
    expect(solution.locator("pre").first).to_be_visible()
    other = "en" if language == "pl" else "pl"
    page.locator(".md-header .md-select button").focus()
    page.locator(f".md-select__link[hreflang={other}]").click()
    expect(page.locator("html")).to_have_attribute("lang", other)


@on_all_kinds
def test_pages_are_there_without_scripts(
    without_scripts: Callable[[str], Page], address: str
) -> None:
    page = without_scripts(address)
    expect(page.locator("h1").first).to_be_visible()
    assert page.locator("main a[href]:visible").count() >= 2


def test_page_of_errors_speaks_both_languages_without_scripts(
    without_scripts: Callable[[str], Page],
) -> None:
    page = without_scripts("no-such-page")
    expect(page.locator(".bb-not-found[lang=pl]")).to_be_visible()
    expect(page.locator(".bb-not-found[lang=en]")).to_be_visible()
