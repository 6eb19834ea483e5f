"""The index of the search: Pagefind over the sections of a built site.

Beside Pagefind's files stands one of ours for each language, which says where each section is, so
that the search knows pages and ranks them before it downloads a single text.
"""

import contextlib
import gzip
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blackbelt.files import write_whole
from blackbelt.site.search_text import Text, document, read

FOLDER = "pagefind"
_log = logging.getLogger("mkdocs.plugins.blackbelt")
# Positions of words in one file of the index. Pagefind's 20,000 make files of 40 KB, of which a
# query for one word needs a few lines; tests/site/test_search.py counts what a reader downloads.
_POSITIONS = "3000"
# What the site does not use: Pagefind's own interfaces, its worker, and a stemmer for no language.
_UNUSED = ("*-ui.*", "pagefind-highlight.js", "pagefind-worker.js", "wasm.unknown.pagefind")


def index(site: Path) -> None:
    """Write the index of a built site, in place of the one that is there.

    Raises:
        RuntimeError: Pagefind failed.
        OSError: the site is being rebuilt or cannot be written to.
    """
    pages = dict(_pages(site))
    with tempfile.TemporaryDirectory(prefix="blackbelt-search-") as made:
        sources, bundle = Path(made, "pages"), Path(made, FOLDER)
        languages = _write_sections(pages, sources)
        if not languages:
            return
        _pagefind(sources, bundle)
        _tidy(bundle)
        for language in languages:
            data = _map(pages, bundle, language)
            text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
            (bundle / f"sections.{language}.json").write_text(text, encoding="utf-8")
        _replace(site / FOLDER, bundle)


def _pages(site: Path) -> list[tuple[str, Text]]:
    """Pages by their address below the root of the site."""
    found = []
    for file in sorted(site.rglob("*.html")):
        page = read(file.read_text(encoding="utf-8"))
        if page.boost > 0 and page.sections[0].title:
            found.append((file.relative_to(site).as_posix().removesuffix("index.html"), page))
    return found


def _write_sections(pages: Mapping[str, Text], folder: Path) -> set[str]:
    """Write each section as a page whose path names its page and anchor; returns the languages."""
    for number, page in enumerate(pages.values()):
        for section in page.sections:
            name = f"{number}/{section.anchor}.html" if section.anchor else f"{number}.html"
            file = folder / page.language / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(document(section, page.language), encoding="utf-8")
    return {page.language for page in pages.values()}


def _pagefind(site: Path, bundle: Path) -> None:
    command = [sys.executable, "-m", "pagefind", "--site", str(site), "--output-path", str(bundle)]
    done = subprocess.run(
        command,
        env=os.environ | {"PAGEFIND_UNSTABLE_INDEX_CHUNK_SIZE": _POSITIONS},
        capture_output=True,
        text=True,
        check=False,
        # Ctrl-C in a terminal reaches a whole group; the index is finished within a second.
        start_new_session=True,
    )
    if done.returncode:
        raise RuntimeError(f"Pagefind failed:\n{done.stdout}{done.stderr}")


def _tidy(bundle: Path) -> None:
    for pattern in _UNUSED:
        for path in bundle.glob(pattern):
            path.unlink()
    entry = bundle / "pagefind-entry.json"
    # Its languages come in any order, and two builds have to be the same.
    entry.write_text(json.dumps(json.loads(entry.read_text("utf-8")), sort_keys=True), "utf-8")


def _map(pages: Mapping[str, Text], bundle: Path, language: str) -> dict[str, list[Any]]:
    """Pages by their number: address, title, boost, and the names of their sections' records."""
    described: dict[str, list[Any]] = {
        str(number): [address, page.sections[0].title, page.boost, []]
        for number, (address, page) in enumerate(pages.items())
        if page.language == language
    }
    for file in sorted(bundle.glob(f"fragment/{language}_*.pf_fragment")):
        text = gzip.decompress(file.read_bytes()).removeprefix(b"pagefind_dcd")
        number = json.loads(text)["url"].removesuffix(".html").split("/")[2]
        described[number][3].append(file.stem.removeprefix(f"{language}_"))
    return described


def _replace(target: Path, bundle: Path) -> None:
    """Put a bundle where an older one may be in use.

    What the older one has under other names stays: a browser that has begun with it goes on.
    """
    if not target.exists():
        shutil.move(bundle, target)
        return
    files = [path for path in bundle.rglob("*") if path.is_file()]
    # What says what to load comes when all that is there.
    for path in sorted(files, key=lambda path: path.suffix == ".json"):
        write_whole(target / path.relative_to(bundle), path.read_bytes())


class Indexer:
    """Indexes beside the server, one site after the other; only the newest one is wanted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: Path | None = None
        self._thread: threading.Thread | None = None
        self._last: Path | None = None
        self._stopping = False

    def want(self, site: Path) -> None:
        """Index this site soon; until then it has the index of the one before."""
        if self._last and self._last != site:
            # The one before may be gone by now; what is lost is a second without a search.
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(self._last / FOLDER, site / FOLDER, dirs_exist_ok=True)
        with self._lock:
            self._wanted = site
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._work, name="search")
                self._thread.start()

    def stop(self) -> None:
        """Wait for the index that is being made: its folder is about to be removed."""
        with self._lock:
            self._stopping, self._wanted, thread = True, None, self._thread
        if thread:
            thread.join()

    def _work(self) -> None:
        while site := self._next():
            try:
                index(site)
                self._last = site
            except (OSError, RuntimeError, KeyError) as error:
                with self._lock:
                    outdated = self._stopping or self._wanted is not None
                if not outdated:  # else its pages were being written again while it read them
                    _log.warning("the search stays as it was: %s", error)

    def _next(self) -> Path | None:
        with self._lock:
            site, self._wanted = self._wanted, None
            if site is None:
                self._thread = None
            return site
