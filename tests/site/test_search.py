"""The search, used in a browser as a reader uses it."""

import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe import violations
from built_site import LANGUAGES, BuiltSite, Server, Visit, lesson_files, localized
from playwright.sync_api import Browser, Locator, Page, expect
from search_queries import FILE, Query, load, targets

from blackbelt.problems import CourseError
from blackbelt.strings import for_language

pytest_plugins = ["site_fixtures"]

Open = Callable[..., Visit]
QUERIES = load(FILE, targets())
LESSON = next(lesson for lesson in lesson_files() if lesson.number == "01").address
FIRST = 3  # where the answer has to be
BUDGET = 150_000  # bytes for opening the search and for the first query together
# What a web server compresses; Pagefind's own files are compressed already.
TEXTS = {".html", ".css", ".js", ".json"}
LONG = (
    "RuntimeError: view size is not compatible with input tensor's size and stride (at least one "
    "dimension spans across two contiguous subspaces). Use .reshape(...) instead."
)

in_both_languages = pytest.mark.parametrize("language", LANGUAGES)


def box(page: Page) -> Locator:
    return page.get_by_role("combobox")


def status(page: Page) -> Locator:
    return page.locator("#search-status")


def ask(page: Page, text: str, language: str) -> None:
    """Type or paste, and wait for the answer."""
    strings = for_language(language)
    box(page).fill("")
    expect(status(page)).to_have_text(strings.search_hint)
    box(page).fill(text)
    expect(status(page)).not_to_have_text(
        re.compile(f"^({re.escape(strings.search_hint)}|{re.escape(strings.search_loading)})$")
    )


def answers(page: Page, site: str) -> list[list[str]]:
    """Addresses of each page that was found, its sections after it."""
    found: list[list[str]] = page.locator("[role=listbox] [role=group]").evaluate_all(
        "groups => groups.map(g => [...g.querySelectorAll('[role=option]')].map(o => o.href))"
    )
    return [[address.removeprefix(site) for address in group] for group in found]


@pytest.fixture(scope="module")
def asking(browser: Browser, server: Server) -> Iterator[dict[str, Page]]:
    """A window for each language, with the search open."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    pages = {}
    for language in LANGUAGES:
        page = pages[language] = context.new_page()
        page.goto(server.url + localized("about/", language))
        box(page).focus()
    yield pages
    context.close()


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.language} {query.text[:40]}")
def test_query_finds_its_page(
    asking: dict[str, Page], server: Server, built: BuiltSite, query: Query
) -> None:
    assert not query.section or query.section in built.page(query.page).ids
    page = asking[query.language]
    ask(page, query.text, query.language)
    found = answers(page, server.url)
    assert query.page in [group[0] for group in found[:FIRST]]
    if query.section:
        sections = next(group for group in found if group[0] == query.page)
        assert f"{query.page}#{query.section}" in sections
    other = [group[0] for group in found if group[0].startswith("en/") != (query.language == "en")]
    assert not other, "pages of the other language"


def test_list_is_long_enough() -> None:
    assert len(QUERIES) >= 40
    assert len([query for query in QUERIES if query.language == "pl"]) >= 25


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('{ pl = "gradient" },', "2: 'gradient' has no target"),
        ('{ pl = "gradient", page = "99" },', "2: 'gradient' has the target '99', which is no"),
        ('{ page = "01" },', "2: a query has one text"),
        ('{ pl = "a", page = "01", secton = "b" },', "2: 'a' has secton"),
        ('{ pl = "a", page = "01" },\n{ pl = "A", page = "01" },', "3: 'A' is asked in line 2"),
        ('{ pl = "a" page = "01" },', "2: "),
    ],
)
def test_bad_entry_is_named_with_its_line(tmp_path: Path, entry: str, says: str) -> None:
    file = tmp_path / "queries.toml"
    file.write_text(f"queries = [\n{entry}\n]\n", encoding="utf-8")
    with pytest.raises(CourseError) as error:
        load(file, {"01": "lessons/1_tensors/01_storage_vs_view/"})
    assert f"{file}:{says}" in str(error.value)
    assert "next: uv run pytest" in str(error.value)


@in_both_languages
@pytest.mark.parametrize("nonsense", ["zzzzqqq", "qwertyuiop asdfgh", "<b>zzzzqqq</b>"])
def test_nothing_found_is_said(asking: dict[str, Page], language: str, nonsense: str) -> None:
    page = asking[language]
    ask(page, nonsense, language)
    expect(status(page)).to_have_text(for_language(language).search_none.format(query=nonsense))
    expect(page.locator("[role=option]")).to_have_count(0)
    expect(box(page)).to_have_attribute("aria-expanded", "false")
    assert page.locator("#search-status *").count() == 0


@in_both_languages
@pytest.mark.parametrize("text", ["gradient", LONG], ids=["word", "message"])
def test_first_query_is_within_its_budget(
    visit: Open, server: Server, built: BuiltSite, language: str, text: str
) -> None:
    window = visit()
    page = window.open(localized(LESSON, language), settled=True)
    before = len(server.requests)
    page.keyboard.press("/")
    ask(page, text, language)
    page.wait_for_load_state("networkidle")
    asked = [path.partition("?")[0] for path, code in server.requests[before:] if code == 200]
    files = [built.folder / path.removeprefix(built.prefix) for path in asked]
    assert len(files) == len(set(files))
    sizes = {
        file.name: len(gzip.compress(file.read_bytes()))
        if file.suffix in TEXTS
        else file.stat().st_size
        for file in files
    }
    assert f"wasm.{language}.pagefind" in sizes
    assert sum(sizes.values()) <= BUDGET, sizes
    window.assert_clean()


def test_nobody_downloads_a_search_that_is_not_opened(visit: Open, server: Server) -> None:
    before = len(server.requests)
    visit().open(LESSON, settled=True)
    assert not [path for path, _ in server.requests[before:] if "pagefind" in path]


@pytest.mark.parametrize("key", ["/", "s", "f", "Control+k", "Meta+k"])
def test_shortcut_opens_and_escape_closes(visit: Open, key: str) -> None:
    page = visit().open(LESSON)
    link = page.locator("article p a").first
    link.focus()
    page.keyboard.press(key)
    expect(box(page)).to_be_focused()
    expect(page.locator(".md-search__output")).to_be_visible()
    expect(box(page)).to_have_value("")
    page.keyboard.press("Escape")
    expect(link).to_be_focused()
    expect(page.locator(".md-search__output")).to_be_hidden()


def test_arrows_choose_and_enter_goes_there(visit: Open, server: Server) -> None:
    page = visit().open("about/")
    box(page).focus()
    ask(page, "magazyn danych", "pl")
    options = page.get_by_role("option")
    expect(box(page)).to_have_attribute("aria-expanded", "true")
    assert options.first.get_attribute("aria-selected") == "false"
    for index in (0, 1):
        page.keyboard.press("ArrowDown")
        chosen = options.nth(index)
        expect(chosen).to_have_attribute("aria-selected", "true")
        identifier = str(chosen.get_attribute("id"))
        expect(box(page)).to_have_attribute("aria-activedescendant", identifier)
    expect(box(page)).to_be_focused()
    target = str(options.nth(1).evaluate("option => option.href"))
    page.keyboard.press("Enter")
    page.wait_for_url(target)
    assert target.startswith(f"{server.url}{LESSON}#")
    anchor = target.partition("#")[2]
    place = page.locator(f"[id='{anchor}']").bounding_box()
    assert place
    assert 0 <= place["y"] < 300


def test_answers_scroll_with_the_keyboard_and_tab_leaves(visit: Open) -> None:
    page = visit().open("about/")
    box(page).focus()
    ask(page, "gradient", "pl")
    page.keyboard.press("Tab")
    expect(page.locator(".md-search__scrollwrap")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".md-search__output")).to_be_hidden()
    page.keyboard.press("Shift+Tab")
    expect(box(page)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    expect(page.locator(".md-search__output")).to_be_hidden()


def test_up_from_the_box_is_the_last_answer_and_back(visit: Open) -> None:
    page = visit().open("about/")
    box(page).focus()
    ask(page, "gradcheck", "pl")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("option").last).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowDown")
    expect(page.locator("[aria-selected=true]")).to_have_count(0)
    assert box(page).get_attribute("aria-activedescendant") is None


def test_enter_at_once_goes_to_the_first_answer(visit: Open, server: Server) -> None:
    page = visit().open("en/about/")
    page.keyboard.press("/")
    page.keyboard.type("gradcheck")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("10_custom_autograd_function"))
    assert page.url.startswith(f"{server.url}en/")


def test_hit_on_the_same_page_closes_the_search(visit: Open) -> None:
    page = visit().open(LESSON)
    box(page).focus()
    ask(page, "magazyn danych", "pl")
    page.locator("[role=option][href*='#one-storage']").click()
    expect(page.locator(".md-search__output")).to_be_hidden()
    assert page.url.endswith("#one-storage-many-descriptions")


def test_count_is_announced_in_polish(asking: dict[str, Page]) -> None:
    page = asking["pl"]
    expect(status(page)).to_have_attribute("role", "status")
    ask(page, "save_for_backward", "pl")
    expect(status(page)).to_have_text(re.compile(r"^Znaleziono (1.stronę|[2-4].strony|\d+.stron)"))


def test_no_lesson_has_all_words_is_said(asking: dict[str, Page]) -> None:
    page = asking["pl"]
    ask(page, "save_for_backward qwertyuiop gradcheck", "pl")
    expect(status(page)).to_have_text(for_language("pl").search_some)
    assert "10_custom_autograd" in answers(page, "")[0][0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fills_a_telephone(visit: Open, scheme: str) -> None:
    window = visit(width=360, color_scheme=scheme)
    page = window.open(LESSON)
    page.get_by_role("button", name="Szukaj").click()
    ask(page, "gradient", "pl")
    page.wait_for_timeout(400)  # Material's transition
    shown = page.locator(".md-search__inner").bounding_box()
    assert shown == {"x": 0, "y": 0, "width": 360, "height": 800}
    results = page.locator(".md-search__scrollwrap")
    assert results.evaluate(
        "e => e.scrollWidth <= e.clientWidth && e.scrollHeight > e.clientHeight"
    )
    ground = results.evaluate("e => getComputedStyle(e).backgroundColor")
    assert (max(int(part) for part in re.findall(r"\d+", ground)[:3]) > 128) == (scheme == "light")
    page.get_by_role("option").first.click()
    expect(page.locator(".md-search__output")).to_be_hidden()
    window.assert_clean()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "dark")])
@pytest.mark.parametrize("text", ["magazyn danych", "zzzzqqq", ""])
def test_axe_finds_nothing_in_the_open_search(
    visit: Open, width: int, scheme: str, text: str
) -> None:
    page = visit(width=width, color_scheme=scheme, reduced_motion="reduce").open("about/")
    page.keyboard.press("/")
    if text:
        ask(page, text, "pl")
        page.keyboard.press("ArrowDown")
    page.wait_for_timeout(400)  # the colours of Material's transition are none of the theme's
    assert violations(page) == []


@pytest.mark.parametrize("text", ["gradient", "rozgłaszanie", LONG], ids=["one", "two", "long"])
def test_answers_come_at_once(asking: dict[str, Page], server: Server, text: str) -> None:
    page = asking["pl"]
    ask(page, text, "pl")  # what has to be downloaded is there now
    seconds = page.evaluate(
        """async ([engine, bundle, text]) => {
            const found = await (await import(engine)).load(bundle, "pl");
            await found.find(text);
            const times = [];
            for (let i = 0; i < 5; i++) {
                const began = performance.now();
                await found.find(text);
                times.push(performance.now() - began);
            }
            return Math.min(...times) / 1000;
        }""",
        [f"{server.url}assets/js/search-engine.js", f"{server.url}pagefind/", text],
    )
    assert seconds < 0.1


def test_is_absent_without_scripts_and_from_files(
    visit: Open, built: BuiltSite, browser: Browser
) -> None:
    page = visit(java_script_enabled=False).open(LESSON)
    expect(box(page)).to_be_hidden()
    expect(page.locator(".bb-search-open")).to_be_hidden()
    context = browser.new_context()
    page = context.new_page()
    page.goto((built.folder / LESSON / "index.html").as_uri())
    expect(page.locator(".bb-search, .bb-search-open")).to_have_count(0)
    context.close()


def test_a_search_that_cannot_be_loaded_says_so_and_tries_again(visit: Open) -> None:
    page = visit().open("about/")
    page.context.route("**/pagefind.js", lambda route: route.abort())
    box(page).fill("gradient")
    expect(status(page)).to_have_text(for_language("pl").search_failed)
    page.context.unroute("**/pagefind.js")
    page.reload()
    ask(page, "gradient", "pl")
    expect(page.get_by_role("option").first).to_be_visible()
