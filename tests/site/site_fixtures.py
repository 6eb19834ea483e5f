"""One build, one server and one browser for all tests of the site.

A plugin, which the tests name in `pytest_plugins`, and not a second `conftest.py`: mypy would
find two modules of that name.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from built_site import ROOT, BuiltSite, Server, Visit, fingerprint, project
from playwright.sync_api import Browser, BrowserContext, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Nobody else is reached. Playwright's routes would do it, too, but each request would go
    # through this process, and the browser's cache would be off.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltSite:
    """The real site; runs of lessons come from the cache where their code did not change.

    BLACKBELT_SITE names a finished site to test instead: the one that is about to be published.
    SOURCE_DATE_EPOCH has to be what it was built with.
    """
    # Now, and not a fixed day: a lesson that has to run keeps the day in the cache.
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    sources = fingerprint()
    if finished := os.environ.get("BLACKBELT_SITE"):
        return BuiltSite(Path(finished).resolve(), project().site_url, epoch, sources)
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "blackbelt.cli", "build", "--site-dir", str(folder)]
    environment = os.environ | {
        "SOURCE_DATE_EPOCH": str(epoch),
        "PYTHONHASHSEED": "1",
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()
        quiet = ("INFO", "run ", "done ", "lessons:")
        said = "\n".join(line for line in lines if not line.startswith(quiet))
        pytest.fail(f"`blackbelt build` failed:\n{said}", pytrace=False)
    return BuiltSite(folder, project().site_url, epoch, sources)


TYPES = {
    ".ipynb": "application/x-ipynb+json",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}


class _Handler(SimpleHTTPRequestHandler):
    """Serves a folder below a prefix, with the site's own page for what is missing."""

    def __init__(self, *args: Any, site: BuiltSite, log: Server, **options: Any) -> None:
        self._site, self._log = site, log
        self.extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES
        super().__init__(*args, directory=str(site.folder), **options)

    def translate_path(self, path: str) -> str:
        if not path.startswith(self._site.prefix):
            return str(self._site.folder / "outside-of-the-site")
        return super().translate_path("/" + path.removeprefix(self._site.prefix))

    def list_directory(self, path: str | os.PathLike[str]) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        body = (self._site.folder / "404.html").read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        # As GitHub Pages does.
        self.send_header("Cache-Control", "max-age=600")
        super().end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self._log.requests.append((self.path, int(code)))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal; `requests` has what was asked for."""


@pytest.fixture(scope="session")
def server(built: BuiltSite) -> Iterator[Server]:
    """The site under the path that it has when it is published, on a free port."""
    with serving(built) as started:
        yield started


@contextmanager
def serving(site: BuiltSite) -> Iterator[Server]:
    started = Server()
    handler = partial(_Handler, site=site, log=started)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        started.url = f"http://127.0.0.1:{listening.server_port}{site.prefix}"
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield started
        listening.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if os.environ.get("BLACKBELT_WITHOUT_BROWSER") == "1":
        pytest.skip("BLACKBELT_WITHOUT_BROWSER=1")
    program = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not shutil.which(program):
        pytest.fail(
            f"no Chromium at {program}: run `apt-get install -y chromium`, or name another one in "
            "CHROMIUM, or skip these tests with BLACKBELT_WITHOUT_BROWSER=1",
            pytrace=False,
        )
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield launched
        launched.close()


def _watch(visit: Visit) -> None:
    page, problems = visit.page, visit.problems
    page.add_init_script(
        "window.policyViolations = [];"
        "addEventListener('securitypolicyviolation',"
        " (e) => window.policyViolations.push(`policy: ${e.violatedDirective} ${e.blockedURI}`));"
    )

    own = (visit.site, "data:", "blob:", "chrome-error:")
    page.context.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(own)
            else problems.append(f"request outside of the site: {request.url}")
        ),
    )
    page.on(
        "console",
        lambda message: (
            problems.append(f"console {message.type}: {message.text} {message.location['url']}")
            if message.type in ("error", "warning")
            else None
        ),
    )
    page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
    page.on(
        "requestfailed",
        lambda request: (
            # What a busy browser had not loaded when the test went on to the next page.
            problems.append(f"failed: {request.url} {request.failure}")
            if request.failure != "net::ERR_ABORTED"
            else None
        ),
    )
    page.on(
        "response",
        lambda answer: (
            problems.append(f"status {answer.status}: {answer.url}")
            if answer.status >= HTTPStatus.BAD_REQUEST
            else None
        ),
    )


@pytest.fixture(scope="session")
def watch() -> Callable[[Visit], None]:
    """Writes down what goes wrong in a window that a test opens by itself."""
    return _watch


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Callable[..., Visit]]:
    """Open windows: `visit(width=360, color_scheme="dark")`."""
    with windows(browser, server) as opened:
        yield opened


@contextmanager
def windows(browser: Browser, server: Server) -> Iterator[Callable[..., Visit]]:
    contexts: list[BrowserContext] = []

    def new(width: int = 1280, **options: Any) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        opened = Visit(context.new_page(), server.url)
        _watch(opened)
        return opened

    yield new
    for context in contexts:
        context.close()
