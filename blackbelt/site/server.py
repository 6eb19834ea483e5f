"""MkDocs' development server, without the waiting.

It differs from MkDocs' in three ways, which MkDocs has no setting for:

- A finished run asks for a rebuild, not only a changed file.
- Pages are served as they were while others are built; MkDocs holds all requests back.
- A browser reloads if the page that it shows has changed, not on every rebuild: else the whole
  course would flicker while its lessons run.
"""

import posixpath
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mkdocs.livereload import LiveReloadServer

# Seconds between two looks at the files, and of silence before a rebuild: an editor that saves
# writes more than once. Together they are most of what a save of prose has to wait.
_LOOK, _SILENCE = 0.1, 0.05
_POLL = re.compile(r"/livereload/(?P<version>[0-9]+)/[0-9]+")


@dataclass(frozen=True)
class Built:
    """What a build has changed.

    Attributes:
        root: folder of the site.
        pages: written files, relative to the folder, that are not as they were.
        everything: whether that holds for all of them.
    """

    root: Path
    pages: frozenset[str] = frozenset()
    everything: bool = False


class Server(LiveReloadServer):
    """Serves one site; `run` ends with KeyboardInterrupt."""

    def __init__(self, port: int) -> None:
        """Listen on this port of 127.0.0.1.

        Raises:
            OSError: the port is taken.
        """
        super().__init__(lambda: None, "127.0.0.1", port, root=".", polling_interval=_LOOK)
        # Versions are milliseconds, as MkDocs' script expects; `_epoch_cond` guards them.
        self._all_since = self._visible_epoch
        self._since: dict[str, int] = {}
        self.server_bind()
        self.server_activate()

    def rebuild(self) -> None:
        """Ask for a rebuild, from any thread."""
        with self._rebuild_cond:
            self._want_rebuild = True
            self._rebuild_cond.notify_all()

    def run(self, root: Path, build: Callable[[], Built | None]) -> None:
        """Serve this folder.

        Args:
            root: folder of the site.
            build: called when something may have changed; returns nothing if nothing has.
        """
        self.root = str(root)
        self.observer.start()
        self.serve_thread.start()
        while True:
            self._await_change()
            if built := build():
                self._show(built)

    def _await_change(self) -> None:
        with self._rebuild_cond:
            # In short steps: on Windows a waiting thread receives no KeyboardInterrupt.
            while not self._rebuild_cond.wait_for(lambda: self._want_rebuild, timeout=0.25):
                pass
            while self._rebuild_cond.wait(timeout=_SILENCE):
                pass
            self._want_rebuild = False

    def _show(self, built: Built) -> None:
        with self._epoch_cond:
            now = max(round(time.monotonic() * 1000), self._visible_epoch + 1)
            self.root = str(built.root)
            self._wanted_epoch = self._visible_epoch = now
            if built.everything:
                self._all_since = now
            self._since |= dict.fromkeys(built.pages, now)
            self._epoch_cond.notify_all()

    def _serve_request(
        self, environ: dict[str, Any], start_response: Any
    ) -> Iterable[bytes] | None:
        poll = _POLL.fullmatch(environ["PATH_INFO"])
        if poll is None:
            answer: Iterable[bytes] | None = super()._serve_request(environ, start_response)
            return answer
        start_response("200 OK", [("Content-Type", "text/plain")])
        seen, file = int(poll["version"]), _file(environ.get("HTTP_REFERER", ""))
        with self._epoch_cond:
            # MkDocs' script asks again if the answer is not newer than what it knows.
            self._epoch_cond.wait_for(
                lambda: self._version(file) > seen, timeout=self.poll_response_timeout
            )
            return [b"%d" % self._version(file)]

    def _version(self, file: str | None) -> int:
        """When the page changed last; a browser that does not name its page shows any of them."""
        if file is None:
            return self._visible_epoch
        return max(self._all_since, self._since.get(file, 0))


def _file(address: str) -> str | None:
    """The written file of a page, relative to the site's folder."""
    if not address:
        return None
    path = unquote(urlsplit(address).path)
    return posixpath.normpath(f"{path}index.html" if path.endswith("/") else path).lstrip("/")
