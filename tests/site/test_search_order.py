"""In which order the search finds pages: Pagefind and our engine over pages made for that."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from built_site import ROOT
from playwright.sync_api import Browser, Page

from blackbelt.site.search import FOLDER, index

pytest_plugins = ["site_fixtures"]

HTML = """\
<html lang="{language}"><head><meta name="search-boost" content="{boost}"></head><body><article>
<h1>{title}</h1>{body}</article></body></html>
"""
FILLING = "<p>" + "Zwykły tekst o czymś innym, który ma tu tylko zajmować miejsce. " * 12 + "</p>"
MESSAGE = "Expected all tensors to be on the same device, but found at least two devices"
CODE = "<div class='nb-input highlight'><pre><code>{}</code></pre></div>"
OUTPUT = "<div class='nb-output'><pre class='nb-text'>{}</pre></div>"

PAGES = {
    "prose": ("Pierwsza", f"<p>Tu jest alfa.</p>{FILLING}"),
    "code": ("Druga", CODE.format("alfa") + FILLING),
    "output": ("Trzecia", OUTPUT.format("alfa") + FILLING),
    "about": ("Rozgłaszanie kształtów", f"<p>Zasada.</p>{FILLING}"),
    "mentions": ("Inna", f"<p>Było już rozgłaszanie, czyli rozgłaszanie kształtów.</p>{FILLING}"),
    "message": ("Urządzenia", OUTPUT.format(f"RuntimeError: {MESSAGE}, cuda:0 and cpu!")),
    "scattered": (
        "Rozrzucone",
        "<p>two least found but device same the on be to tensors all expected devices</p>" * 3,
    ),
    "code-name": ("Nazwy", CODE.format("torch.einsum('ij,jk-&gt;ik', a, b)")),
    "torch": ("Biblioteka torch", f"<p>Pakiet torch.</p>{FILLING}"),
    "markup": ("Znaczniki", OUTPUT.format("&lt;img src=x onerror=beta()&gt; beta")),
}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("order")
    for name, (title, body) in PAGES.items():
        text = HTML.format(language="pl", boost=1, title=title, body=body)
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    english = HTML.format(language="en", boost=1, title="Alfa", body="<p>alfa</p>")
    (folder / "en.html").write_text(english, encoding="utf-8")
    unwanted = HTML.format(language="pl", boost=0, title="alfa", body="<p>alfa</p>")
    (folder / "unwanted.html").write_text(unwanted, encoding="utf-8")
    engine = ROOT / "docs" / "assets" / "js" / "search-engine.js"
    (folder / engine.name).write_bytes(engine.read_bytes())
    index(folder)
    return folder


@pytest.fixture(scope="module")
def page(site: Path, browser: Browser) -> Iterator[Page]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/prose.html")
        page.evaluate(
            "async () => { const module = await import('/search-engine.js');"
            " window.engine = await module.load('/pagefind/', 'pl'); }"
        )
        yield page
        context.close()
        server.shutdown()


def find(page: Page, query: str) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("query => engine.find(query)", query)
    return found


def names(page: Page, query: str) -> list[str]:
    return [hit["address"].removesuffix(".html") for hit in find(page, query)["pages"]]


def test_prose_before_code_before_outputs(page: Page) -> None:
    assert names(page, "alfa") == ["prose", "code", "output"]


@pytest.mark.parametrize("query", ["rozgłaszanie", "rozglaszaniu kształtów", "ROZGŁASZANIA"])
def test_what_a_page_is_about_before_what_it_mentions(page: Page, query: str) -> None:
    assert names(page, query) == ["about", "mentions"]


@pytest.mark.parametrize(
    "query",
    [
        MESSAGE,
        f"RuntimeError: {MESSAGE}, cuda:1 and cuda:3! (when checking argument for mat1)",
        f'  File "train.py", line 12, in <module>\nRuntimeError: {MESSAGE}, cuda:1 and meta!',
    ],
)
def test_pasted_message_counts_in_its_order(page: Page, query: str) -> None:
    assert names(page, query)[0] == "message"


@pytest.mark.parametrize("query", ["torch.einsum", "einsum(", "torch.einsum('bij,bjk->bik', q, k)"])
def test_names_of_the_api_are_found_in_code(page: Page, query: str) -> None:
    assert names(page, query)[0] == "code-name"


@pytest.mark.parametrize("query", ["zzzzqqq", "alfabetyzacja", "gamma", "?!", "alf"])
def test_only_what_was_asked_is_found(page: Page, query: str) -> None:
    found = names(page, query)
    assert found == (["prose", "code", "output"] if query == "alf" else [])


def test_words_that_no_page_has_together_are_owned_up_to(page: Page) -> None:
    assert find(page, "alfa")["all"]
    found = find(page, "alfa zzzzqqq einsum")
    assert not found["all"]
    assert found["pages"]


def test_excerpt_is_the_text_as_it_was_written(page: Page) -> None:
    (hit,) = find(page, "einsum")["pages"][0]["hits"]
    words = [
        (part["before"], part.get("word", ""), part.get("after", "")) for part in hit["excerpt"]
    ]
    assert "".join("".join(word) for word in words).strip() == "torch.einsum('ij,jk->ik', a, b)"
    assert [word for _, word, _ in words if word] == ["einsum"]
    excerpt = find(page, "było rozgłaszanie")["pages"][0]["hits"][0]["excerpt"]
    assert "rozgłaszanie" in [part.get("word") for part in excerpt]


def test_markup_comes_as_text(page: Page) -> None:
    (hit,) = find(page, "beta")["pages"][0]["hits"]
    assert any("<img" in part["before"] for part in hit["excerpt"])


def test_indexing_again_gives_the_same_bytes_and_keeps_old_files(site: Path) -> None:
    def tree() -> dict[str, bytes]:
        files = [path for path in (site / FOLDER).rglob("*") if path.is_file()]
        return {path.relative_to(site).as_posix(): path.read_bytes() for path in files}

    before = tree()
    index(site)
    assert tree() == before
    (site / "new.html").write_text(
        HTML.format(language="pl", boost=1, title="Nowa", body="<p>delta</p>"), encoding="utf-8"
    )
    index(site)
    after = tree()
    assert before.keys() <= after.keys()
    assert after["pagefind/sections.pl.json"] != before["pagefind/sections.pl.json"]
