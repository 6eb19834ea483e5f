"""`blackbelt serve`: the site at once, each lesson when it has run, each change when it is saved.

It does what `mkdocs serve --dirty` does, with the differences that `server.py` lists, and one
more: whether single pages or the whole site is built is decided for each build. The whole site
goes into a new folder, so that the old one is served until the new one is whole.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import jinja2
from click import ClickException
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig

from blackbelt.config import Project, load_project
from blackbelt.glossary import Term, load_glossary
from blackbelt.prepare import Prepared
from blackbelt.problems import CommandError, CourseError, Problem
from blackbelt.site.background import Background
from blackbelt.site.live import Live
from blackbelt.site.server import Built, Server
from blackbelt.site.snapshot import Snapshot, snapshot

if TYPE_CHECKING:
    from blackbelt.site.plugin import BlackbeltPlugin

_log = logging.getLogger("mkdocs.plugins.blackbelt")


def serve(project: Project, names: tuple[str, ...], port: int) -> None:
    """Serve the course on 127.0.0.1 until Ctrl-C or a signal to end.

    Args:
        project: where the course lies.
        names: lessons to show; all of them if there are none.
        port: where to listen.

    Raises:
        CourseError: the roadmap is not valid, or a name is not known.
        CommandError: the port is taken.
        KeyboardInterrupt: the usual end.
    """
    _talk()
    # static-i18n asks the command line whether the other languages are built page by page, too.
    sys.argv.append("--dirty")
    _end_on_signals()
    server = _listen(port)
    background = Background(server.rebuild)
    with tempfile.TemporaryDirectory(prefix="blackbelt-site-", ignore_cleanup_errors=True) as made:
        live = Live(names, background, server.rebuild)
        site = _Site(project.root, f"http://127.0.0.1:{port}/", live, Path(made))
        try:
            site.build()
            site.watch(server)
            # Only now: runs take all cores, and nobody can look at anything yet.
            background.start()
            _log.info("Serving on %s", site.address)
            server.run(site.folder, site.update)
        finally:
            background.stop()
            site.stop()
            server.shutdown(wait=server.serve_thread.is_alive())


def _end_on_signals() -> None:
    """End on a closed terminal or a plain `kill` as on Ctrl-C, unless somebody ignores them."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _listen(port: int) -> Server:
    try:
        return Server(port)
    except OSError as error:
        what = f"port {port} of 127.0.0.1 cannot be used: {error.strerror}"
        raise CommandError(what, f"uv run blackbelt serve --port {port + 1}") from None


def _talk() -> None:
    """Show what MkDocs reports, as its own command does."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)-7s %(message)s"))
    logger = logging.getLogger("mkdocs")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # What it warns of, titles and links that are out of date, is what `Snapshot` is for.
    build_log = logging.getLogger("mkdocs.commands.build")
    build_log.addFilter(lambda record: "'dirty' build" not in record.getMessage())
    # Several lines for each build; ours says what was built.
    build_log.addFilter(lambda record: record.levelno > logging.INFO)
    logging.getLogger("mkdocs.plugins.mkdocs_static_i18n").setLevel(logging.WARNING)


class _Site:
    """The built site and what it was made of."""

    def __init__(self, root: Path, address: str, live: Live, made: Path) -> None:
        self.address = address
        self.folder = made
        self._root = root
        self._live = live
        self._made = made
        self._builds = 0
        self._snapshot: Snapshot | None = None
        self._told: frozenset[Problem] = frozenset()
        self._broken: set[str] = set()
        self._plugin: BlackbeltPlugin | None = None

    def stop(self) -> None:
        """Let the plugin finish what it does beside the server."""
        if self._plugin:
            self._plugin.on_shutdown()

    def update(self) -> Built | None:
        """Build what has changed. Whatever goes wrong, the site stays up as it was."""
        try:
            return self.build()
        except Exception as error:
            mistake = isinstance(error, CourseError | ClickException | jinja2.TemplateError)
            _log.error("the site stays as it was: %s", error, exc_info=not mistake)
            self._snapshot = None
            return None

    def build(self) -> Built | None:
        """Build what has changed; returns nothing if nothing has."""
        project = load_project(self._root)
        prepared, glossary = self._live.prepare(project), load_glossary(self._root)
        self._tell(prepared)
        now, before = snapshot(project, prepared, glossary), self._snapshot
        everything = before is None or before.everywhere != now.everywhere
        changed = frozenset() if before is None else now.changed(before)
        assets = before is not None and before.assets != now.assets
        if not (everything or changed or assets):
            return None
        began = perf_counter()
        folder = self._new_folder() if everything else self.folder
        for page in () if everything else changed:
            # MkDocs builds what is older than its source.
            os.utime(folder / page, (0, 0))
        self._build(folder, prepared, glossary, everything=everything)
        self.folder, self._snapshot = folder, now
        what = "the whole site" if everything else ", ".join(sorted(changed)) or "assets"
        _log.info("built in %.1f s: %s", perf_counter() - began, what.replace("/index.html", "/"))
        return Built(folder, changed, everything or assets)

    def _new_folder(self) -> Path:
        self._builds += 1
        # A request may still be reading from the folder before this one.
        shutil.rmtree(self._made / str(self._builds - 2), ignore_errors=True)
        return self._made / str(self._builds)

    def _build(
        self, folder: Path, prepared: Prepared, glossary: tuple[Term, ...], *, everything: bool
    ) -> None:
        config = self._configuration(folder)
        plugin: BlackbeltPlugin = config.plugins["blackbelt"]  # type: ignore[assignment]
        if plugin is not self._plugin:  # MkDocs keeps plugins that ask to be told of the start
            config.plugins.on_startup(command="serve", dirty=not everything)
            self._plugin = plugin
        plugin.serve(prepared, glossary, everything=everything)
        build(config, serve_url=self.address, dirty=not everything)

    def _configuration(self, folder: Path) -> MkDocsConfig:
        file = str(self._root / "mkdocs.yml")
        return load_config(config_file=file, site_dir=str(folder), site_url=self.address)

    def watch(self, server: Server) -> None:
        """Let the server look at everything that people edit."""
        config = self._configuration(self.folder)
        server.watch(config.docs_dir)
        server.watch(str(config.config_file_path))
        config.plugins.on_serve(server, config=config, builder=server.builder)

    def _tell(self, prepared: Prepared) -> None:
        """Say on the terminal what is newly wrong, and what no longer is."""
        problems = frozenset(prepared.problems)
        if new := problems - self._told:
            text = "\n".join(str(problem) for problem in sorted(new))
            _log.error("lessons with problems show them on their pages:\n%s", text)
        self._told = problems
        # A lesson that was broken and is running now is neither.
        broken = self._broken | {problem.path for problem in problems}
        mended = {rendered.lesson.path for rendered in prepared.lessons} & broken
        for path in sorted(mended):
            _log.info("%s is mended", path)
        self._broken = broken - mended
