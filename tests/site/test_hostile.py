"""What a lesson prints is text on its page, whatever it looks like: seen in a browser.

`tests/test_outputs.py` looks at many more texts, without a browser.
"""

import functools
import re
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from built_site import LANGUAGES, Visit, localized
from playwright.sync_api import Browser, expect
from small_course import LESSON, mkdocs, write_course

pytest_plugins = ["site_fixtures"]

TEXTS = (
    "<script>window.hacked = 1</script>",
    "</pre></div><img src=x onerror='window.hacked = 2'><svg onload='window.hacked = 3'>",
    "[link](javascript:window.hacked=4) <a href='javascript:window.hacked=5'>there</a>",
    "<iframe srcdoc='<script>parent.hacked = 6</script>'></iframe>",
    "<style>body { display: none }</style><base href='//example.com/'>",
    "<meta http-equiv=refresh content='0; url=https://example.com/'>",
    "\x1b[31m<b onmouseover='window.hacked = 7'>red</b>\x1b[0m",
    "$\\href{javascript:window.hacked=8}{x}$ {{ config }} {% raw %} {: onclick='window.hacked=9' }",
    "~~~\n<details open ontoggle='window.hacked=10'>\n```",
)
SOURCE = f"""\
# %% [markdown] lang="pl"
# # Tytuł
#
# Opis.
#
# ## Pierwsza część

# %% [markdown] lang="en"
# # Title
#
# Description.
#
# ## First part

# %%
from IPython.display import HTML, Javascript, Markdown, display

TEXTS = {TEXTS!r}
for text in TEXTS:
    print(text)

# %%
display(HTML(TEXTS[0]), Javascript("window.hacked = 11"), Markdown(TEXTS[1]))

# %%
"".join(TEXTS)

# %% warns="UserWarning: <script>"
import warnings

warnings.warn("".join(TEXTS))

# %% raises="ValueError: <script>"
raise ValueError("".join(TEXTS))
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    course = tmp_path_factory.mktemp("hostile")
    write_course(course, SOURCE)
    site = course / "site"
    done = mkdocs(course, site, {})
    assert done.returncode == 0, done.stdout + done.stderr
    handler = functools.partial(_Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/"
        listening.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.mark.parametrize("language", LANGUAGES)
def test_outputs_are_inert(
    browser: Browser, address: str, watch: Callable[[Visit], None], language: str
) -> None:
    context = browser.new_context()
    window = Visit(context.new_page(), address)
    watch(window)
    page = window.open(localized(LESSON.removesuffix(".py") + "/", language), settled=True)
    page.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")
    outputs = page.locator(".nb-output")
    for number in range(outputs.count()):
        outputs.nth(number).scroll_into_view_if_needed()
        outputs.nth(number).hover()
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None
    # The policy had nothing to refuse: what it would have stopped was never there.
    window.assert_clean()
    expect(page.locator("h1")).to_be_visible()
    said = re.sub(r"\s+", " ", page.locator(".nb-output").first.inner_text())
    for text in TEXTS:
        shown = re.sub(r"\x1b\[\d+m", "", text)
        assert re.sub(r"\s+", " ", shown) in said
    # A traceback links to its line in the lesson's file.
    alive = "script, iframe, img, style, base, meta, svg, [onerror], [onload]"
    alive += ", a:not([href*='/blob/main/lessons/'])"
    found = page.locator(".nb-output").locator(alive)
    assert found.evaluate_all("all => all.map(e => e.outerHTML)") == []
    context.close()


def test_what_is_alive_would_be_noticed(
    browser: Browser, address: str, watch: Callable[[Visit], None]
) -> None:
    context = browser.new_context()
    window = Visit(context.new_page(), address)
    watch(window)
    page = window.open("about/", settled=True)
    for text in TEXTS[1:4]:
        page.evaluate(
            "text => document.querySelector('article').insertAdjacentHTML('beforeend', text)", text
        )
    page.wait_for_function("() => window.policyViolations.length >= 2")
    # The policy keeps even what is alive from running.
    assert page.evaluate("window.hacked") is None
    with pytest.raises(AssertionError):
        window.assert_clean()
    context.close()
