"""What a built site was made of, so that a rebuild writes the pages that changed and no others.

MkDocs compares the times of a page's file and its source. That is not enough here: a page of a
lesson changes with its run, an index with the titles of lessons, every page with the navigation.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from blackbelt.config import Project
from blackbelt.glossary import Term
from blackbelt.lesson import LANGUAGES
from blackbelt.markdown_files import pages_of_docs
from blackbelt.prepare import Prepared
from blackbelt.publish import FOLDER
from blackbelt.site import lesson_links, module_map, nav, pages
from blackbelt.site.addresses import url
from blackbelt.site.indexes import INDEXES

THEME = Path(__file__).parent / "theme"
_CONFIGURATION = ("mkdocs.yml", "pyproject.toml")


@dataclass(frozen=True)
class Snapshot:
    """Hashes of what a site was made of.

    Attributes:
        everywhere: what all pages are made of: navigation, glossary, theme, configuration.
        assets: files that pages load.
        pages: for each written file, below the site's folder, what only it is made of.
    """

    everywhere: str
    assets: str
    pages: dict[str, str]

    def changed(self, before: "Snapshot") -> frozenset[str]:
        """Pages that are not as they were."""
        return frozenset(p for p, made_of in self.pages.items() if before.pages.get(p) != made_of)


def snapshot(project: Project, prepared: Prepared, glossary: tuple[Term, ...]) -> Snapshot:
    """Take the snapshot of a site that would be built now."""
    written = dict(_lessons(prepared)) | dict(_by_hand(project, prepared, glossary))
    everywhere = [
        sorted(written),
        [nav.build(prepared, project, language) for language in LANGUAGES],
        [pages.roadmap(prepared, language) for language in LANGUAGES],
        glossary,
        [(project.root / name).read_bytes() for name in _CONFIGURATION],
        _times(THEME),
    ]
    return Snapshot(_hash(everywhere), _hash(_times(project.docs / "assets")), written)


def _lessons(prepared: Prepared) -> Iterator[tuple[str, str]]:
    for rendered in prepared.lessons:
        for language in LANGUAGES:
            file = _lesson_file(rendered.lesson.module, rendered.lesson.name, language)
            way = lesson_links.way(prepared, rendered.lesson, language)
            yield file, _hash([rendered.fingerprint, way])
    for stand_in in prepared.stand_ins:
        for language in LANGUAGES:
            file = _lesson_file(stand_in.module, stand_in.name, language)
            yield file, _hash(pages.stand_in(stand_in, language))


def _lesson_file(module: str, name: str, language: str) -> str:
    return url(f"{FOLDER}/{module}/{name}/index.html", language)


def _by_hand(
    project: Project, prepared: Prepared, glossary: tuple[Term, ...]
) -> Iterator[tuple[str, str]]:
    for path in pages_of_docs(project):
        yield from _page(path, path.relative_to(project.docs), project, prepared, glossary)
    for module in prepared.course.modules:
        for path in (project.lessons / module.folder).glob("*.md"):
            uri = Path(FOLDER) / path.relative_to(project.lessons)
            yield from _page(path, uri, project, prepared, glossary)


def _page(
    path: Path, uri: Path, project: Project, prepared: Prepared, glossary: tuple[Term, ...]
) -> Iterator[tuple[str, str]]:
    page = PurePosixPath(uri.as_posix())
    name, _, language = page.stem.rpartition(".")
    if language in LANGUAGES:
        folder = page.parent if name == "index" else page.parent / name
        text = path.read_text(encoding="utf-8")
        body = pages.expand(text, page.as_posix(), prepared, glossary, project, language)
        made_of = [body, _generated(page, name, prepared, language)]
        yield url((folder / "index.html").as_posix(), language), _hash(made_of)


def _generated(page: PurePosixPath, name: str, prepared: Prepared, language: str) -> object:
    """What templates add to a page."""
    if index := INDEXES.get(f"{name}.html"):
        return index(prepared, language)
    if page.parts[0] == FOLDER:
        module = prepared.course.module(page.parent.name)
        return module_map.picture(module, prepared, language)
    return None


def _times(folder: Path) -> list[tuple[str, int]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.as_posix(), path.stat().st_mtime_ns) for path in files]


def _hash(parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
