"""A web server that compresses, and a browser that counts: for the benchmarks of the site."""

import gzip
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

# GitHub Pages compresses these. Fonts, pictures and the search's own files are compressed already.
COMPRESSED = (".html", ".css", ".js", ".json", ".svg", ".xml", ".ipynb", ".txt")
_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    # Nobody else is reached. Playwright's routes would do it, too, but switch the cache off.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@dataclass
class Served:
    """A folder on a server.

    Attributes:
        url: address of the home page, with a slash at its end.
        requests: path and bytes of each answer.
    """

    url: str = ""
    requests: list[tuple[str, int]] = field(default_factory=list)


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, log: Served, prefix: str, **options: Any) -> None:
        self._log, self._prefix = log, prefix
        super().__init__(*arguments, **options)

    def translate_path(self, path: str) -> str:
        return super().translate_path("/" + path.removeprefix(self._prefix))

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        if file.is_dir() and self.path.partition("?")[0].endswith("/"):
            file /= "index.html"
        if not file.is_file():
            self._log.requests.append((self.path, 0))
            self.send_error(404)
            return
        data = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(file)))
        if file.suffix in COMPRESSED:
            data = gzip.compress(data, 6, mtime=0)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(data)
        self._log.requests.append((self.path, len(data)))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def served(folder: Path, prefix: str = "/") -> Iterator[Served]:
    """Serve a folder below this path on a free port until the end of the block."""
    log = Served()
    handler = partial(_Handler, log=log, prefix=prefix, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        log.url = f"http://127.0.0.1:{server.server_port}{prefix}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield log
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium, which `CHROMIUM` may name."""
    program = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not shutil.which(program):
        raise SystemExit(f"no Chromium at {program}: install it, or name another one in CHROMIUM")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=list(_OPTIONS))
        try:
            yield launched
        finally:
            launched.close()


@dataclass
class Visitor:
    """A window of somebody who has not been here before, and what the visit costs.

    Attributes:
        foreign: requests to third parties, none of which is let through.
        errors: what the browser reports on its console.
    """

    page: Page
    site: Served
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, address: str) -> list[tuple[str, int]]:
        """Go to a page and read it to its end; returns what the server answered."""
        before = len(self.site.requests)
        self.page.goto(self.site.url + address, wait_until="networkidle")
        self.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        self.page.wait_for_load_state("networkidle")
        return self.site.requests[before:]


def visitor(browser: Browser, site: Served) -> Visitor:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    made = Visitor(page, site)

    own = (site.url, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else made.foreign.append(r.url))
    page.on("console", lambda m: made.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: made.errors.append(str(error)))
    return made
