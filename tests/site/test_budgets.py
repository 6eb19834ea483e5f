"""How many bytes and requests a lesson costs its reader; `benchmarks/site.py` shows the figures."""

import gzip
from collections.abc import Callable

import pytest
from built_site import LANGUAGES, BuiltSite, Server, Visit, localized, sample_lessons

pytest_plugins = ["site_fixtures"]

# A first visit: everything but figures, which depend on the lesson and come when they are seen.
MOST_REQUESTS, MOST_BYTES = 16, 240_000
COMPRESSED = (".html", ".css", ".js", ".json", ".svg", ".xml")
LESSONS = sample_lessons()


def weight(site: BuiltSite, path: str) -> int:
    """Bytes of an answer as a server that compresses sends it."""
    address = path.removeprefix(site.prefix)
    file = site.folder / (f"{address}index.html" if address.endswith("/") else address)
    data = file.read_bytes()
    return len(gzip.compress(data, 6)) if file.suffix in COMPRESSED else len(data)


@pytest.mark.parametrize("language", LANGUAGES)
def test_two_lessons_of_a_new_reader(
    visit: Callable[..., Visit], server: Server, built: BuiltSite, language: str
) -> None:
    assert len(LESSONS) >= 2
    page = visit().page
    asked: list[list[str]] = []
    for lesson in LESSONS[:2]:
        before = len(server.requests)
        page.goto(server.url + localized(lesson.address, language))
        page.evaluate("document.fonts.ready.then(() => true)")
        page.wait_for_load_state("networkidle")
        answers = server.requests[before:]
        asked.append([path for path, code in answers if code == 200 and "/img/" not in path])
    first, second = asked
    assert len(first) <= MOST_REQUESTS, first
    sizes = {path: weight(built, path) for path in first}
    assert sum(sizes.values()) <= MOST_BYTES, sizes
    fonts = [path for path in second if "/katex/fonts/" in path]
    assert len(second) - len(fonts) == 1, second
