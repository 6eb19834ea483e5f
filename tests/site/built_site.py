"""The built site as these tests see it: its pages, read with Python's own parser."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from playwright.sync_api import Page

from blackbelt.config import Project, load_project

ROOT = Path(__file__).parents[2]
# What a site is made of; `docs/lessons` is what the build itself writes.
SOURCES = ("blackbelt", "docs", "lessons", "snippets", "mkdocs.yml", "pyproject.toml")
LANGUAGES = ("pl", "en")
OTHER = {"pl": "en", "en": "pl"}
_LESSON = re.compile(r"^(\d+)_\w+\.py$")


@dataclass(frozen=True)
class LessonFile:
    """A lesson that is written, as its file names it."""

    module: str
    name: str

    @property
    def number(self) -> str:
        return self.name.split("_")[0]

    @property
    def path(self) -> str:
        return f"lessons/{self.module}/{self.name}.py"

    @property
    def address(self) -> str:
        return f"lessons/{self.module}/{self.name}/"


def project() -> Project:
    return load_project(ROOT)


def lesson_files() -> list[LessonFile]:
    """Lessons found, in the order of their numbers, or those that BLACKBELT_ONLY names."""
    only = os.environ.get("BLACKBELT_ONLY", "").split()
    files = [f for f in (ROOT / "lessons").glob("*/*.py") if _LESSON.match(f.name)]
    lessons = [LessonFile(file.parent.name, file.stem) for file in files]
    chosen = [x for x in lessons if not only or {x.number, x.name} & set(only)]
    return sorted(chosen, key=lambda lesson: lesson.number)


def sample_lessons() -> list[LessonFile]:
    """The first lesson of each module: what the slower browser tests look at."""
    first: dict[str, LessonFile] = {}
    for lesson in lesson_files():
        first.setdefault(lesson.module, lesson)
    return list(first.values())


def addresses() -> list[str]:
    """Every page, as the sources promise it, below the root of its language."""
    pages = [file.name.removesuffix(".pl.md") for file in (ROOT / "docs").glob("*.pl.md")]
    found = ["" if page == "index" else f"{page}/" for page in sorted(pages)]
    modules = sorted((ROOT / "lessons").glob("*/index.pl.md"))
    found += [f"lessons/{module.parent.name}/" for module in modules]
    return found + [lesson.address for lesson in lesson_files()]


def localized(address: str, language: str) -> str:
    return address if language == "pl" else f"{language}/{address}"


@dataclass
class Html:
    """What the tests want to know about one page.

    Attributes:
        links: `(tag, attribute, address)` of everything that names another resource.
        ids: addresses within the page.
        headings: `(level, id)` of the article's headings.
        prose: visible text that is not code, and texts of attributes that are read aloud.
        alternates: address by language code.
    """

    language: str = ""
    base: str = ""
    links: list[tuple[str, str, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    headings: list[tuple[str, str]] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    alternates: dict[str, str] = field(default_factory=dict)
    figures: list[dict[str, str]] = field(default_factory=list)


class _Reader(HTMLParser):
    _QUIET = ("pre", "code", "script", "style", "svg", "math", "annotation")
    _SPOKEN = ("title", "aria-label", "placeholder", "alt")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Html()
        self._quiet: list[str] = []
        self._article = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        page = self.page
        self._article = self._article or tag == "article"
        if tag == "html":
            page.language = given.get("lang", "")
        if tag in self._QUIET:
            self._quiet.append(tag)
        page.ids += [given[name] for name in ("id", "name") if given.get(name)]
        if re.fullmatch("h[1-6]", tag) and self._article:
            page.headings.append((tag, given.get("id", "")))
        if tag == "img" and "/img/" in given.get("src", ""):
            page.figures.append(given)
        page.prose += [given[name] for name in self._SPOKEN if given.get(name)]
        self._links(tag, given)

    def _links(self, tag: str, given: dict[str, str]) -> None:
        relation = given.get("rel", "").split()
        if tag == "link" and ("alternate" in relation or "canonical" in relation):
            if "alternate" in relation and "hreflang" in given:
                self.page.alternates[given.get("hreflang", "")] = given.get("href", "")
            return
        for name in ("href", "src", "action", "poster", "data-base"):
            if name in given and not (tag == "form" and not given[name]):
                self.page.links.append((tag, name, given[name]))
        for candidate in given.get("srcset", "").split(","):
            if candidate.strip():
                self.page.links.append((tag, "srcset", candidate.split()[0]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self._article = False
        if tag in self._quiet:
            self._quiet.remove(tag)

    def handle_data(self, data: str) -> None:
        if not self._quiet and data.strip():
            self.page.prose.append(" ".join(data.split()))


@cache
def read_html(file: Path) -> Html:
    reader = _Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    reader.close()
    return reader.page


@dataclass(frozen=True)
class BuiltSite:
    """A folder that `blackbelt build` wrote.

    Attributes:
        folder: the root of the site.
        url: the address it will be published at, with a slash at its end.
        epoch: the SOURCE_DATE_EPOCH it was built with.
        sources: fingerprint of what it was built from.
    """

    folder: Path
    url: str
    epoch: int
    sources: str

    @property
    def prefix(self) -> str:
        """Path below which the site is mounted, such as `/pytorch-black-belt/`."""
        return urlsplit(self.url).path

    def pages(self) -> Iterator[tuple[str, Path]]:
        """Address below the root and file of every page, the page of errors included."""
        for file in sorted(self.folder.rglob("*.html")):
            yield file.relative_to(self.folder).as_posix().removesuffix("index.html"), file

    def page(self, address: str) -> Html:
        name = f"{address}index.html" if address.endswith("/") or not address else address
        return read_html(self.folder / name)

    def resolve(self, base: str, link: str) -> tuple[Path, str] | None:
        """File and anchor that a link of the page `base` leads to; None if it leaves the site."""
        whole, anchor = urldefrag(urljoin(self.url + base, link))
        if not whole.startswith(self.url) and whole + "/" != self.url:
            return None
        path = unquote(urlsplit(whole).path)[len(self.prefix) :]
        file = self.folder / path
        return (file / "index.html" if not path or path.endswith("/") else file), unquote(anchor)


def fingerprint() -> str:
    """Hash of everything that a site is built from."""
    digest = hashlib.sha256()
    for name in SOURCES:
        start = ROOT / name
        for file in sorted(start.rglob("*")) if start.is_dir() else [start]:
            path = file.relative_to(ROOT).as_posix()
            generated = path.startswith("docs/lessons/") or "__pycache__" in path
            if file.is_file() and not generated:
                digest.update(path.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


@dataclass
class Server:
    """A running server.

    Attributes:
        url: address of the home page, with a slash at its end.
        requests: path and status of every request that was answered.
    """

    url: str = ""
    requests: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class Visit:
    """A browser window that writes down whatever goes wrong in it.

    Attributes:
        page: the window.
        site: address of the home page.
        problems: messages on the console, failed requests, requests to third parties.
    """

    page: Page
    site: str
    problems: list[str] = field(default_factory=list)

    def open(self, address: str, *, settled: bool = False) -> Page:
        """Go to an address below the home page; if settled, wait until nobody asks for more."""
        self.page.goto(self.site + address, wait_until="networkidle" if settled else "load")
        return self.page

    def assert_clean(self) -> None:
        found = [*self.problems, *self.page.evaluate("window.policyViolations")]
        assert not found, "\n".join(found)
