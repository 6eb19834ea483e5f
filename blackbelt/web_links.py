"""Links to the web, wherever they stand, and the rules that keep them true for years.

A lesson has one pair of prose for its links to PyTorch's documentation and source: with a new
release somebody reads each list once. Files of a repository are named at a release or a commit,
because a branch moves on and the page would say something else than what it links to.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from blackbelt.config import Project
from blackbelt.course import Course
from blackbelt.lesson import Lesson
from blackbelt.markdown_files import pages, shown_by_github, split_front_matter
from blackbelt.problems import Problem
from blackbelt.prose_facts import facts

_FILE = re.compile(r"^https://github\.com/[\w.-]+/[\w.-]+/(?:blob|tree|raw)/(?P<ref>[^/#?]+)")
_FIXED = re.compile(r"^(?:v?\d+(?:\.\d+)+(?:[.-]?(?:rc|post|a|b)\d+)?|[0-9a-f]{40})$")
_PYTORCH = re.compile(
    r"^https://(?:docs\.)?pytorch\.org/docs/|^https://docs\.pytorch\.org/"
    r"|^https://github\.com/pytorch/pytorch/(?:blob|tree|raw)/"
)
# Files that are no Markdown: an address ends where the text around it goes on.
_ADDRESS = re.compile(r"https?://[^\s\"'<>`)\]}]+")


@dataclass(frozen=True, order=True)
class WebLink:
    """An address and the place where somebody wrote it."""

    path: str
    line: int
    address: str


def in_markdown(text: str, path: str, first: int = 1) -> Iterator[WebLink]:
    """Links and pictures of Markdown that begins in line `first` of a file."""
    # The parser would take front matter for a heading; its lines still count.
    _, text = split_front_matter(text)
    lines = text.split("\n")
    found = facts(text)
    for link in chain(found.links, found.images):
        # Facts know where a block begins; a list of links is one block.
        after = range(link.line, len(lines))
        line = next((i for i in after if link.text in lines[i]), link.line)
        yield WebLink(path, first + line, link.text)


def in_lesson(lesson: Lesson) -> Iterator[WebLink]:
    """Links of a lesson's prose to the web, in both languages."""
    for pair in lesson.prose:
        for cell in (pair.pl, pair.en):
            for link in in_markdown(cell.source, lesson.path, cell.first):
                if link.address.startswith("https://"):
                    yield link


def of_course(course: Course) -> list[WebLink]:
    """Every link to the web: of lessons, pages, and the files around them."""
    project = course.project
    links = [link for lesson in course.lessons for link in in_lesson(lesson)]
    for file in (*shown_by_github(project), *pages(project)):
        # Pages name the repository this way, so that its address stands in one place.
        text = file.read_text(encoding="utf-8").replace("{{ repository }}", project.repository)
        links += in_markdown(text, _shown(file, project))
    data = (
        *sorted(project.root.glob(".github/ISSUE_TEMPLATE/*.yml")),
        project.root / "CITATION.cff",
    )
    for file in data:
        if file.is_file():
            for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
                for match in _ADDRESS.finditer(line):
                    links.append(WebLink(_shown(file, project), number, match[0]))
    return [link for link in links if link.address.startswith(("https://", "http://"))]


def check_web(lesson: Lesson) -> Iterator[Problem]:
    """Check the addresses of a lesson without asking the web."""
    places: dict[int, list[WebLink]] = {}
    for number, pair in enumerate(lesson.prose):
        for cell in (pair.pl, pair.en):
            for link in in_markdown(cell.source, lesson.path, cell.first):
                yield from check_address(link)
                if _PYTORCH.match(link.address):
                    places.setdefault(number, []).append(link)
    if len(places) > 1:
        home = places.pop(max(places))
        for link in chain.from_iterable(places.values()):
            what = (
                "links to PyTorch's documentation and source stand in one pair of prose, here "
                f"that of line {home[0].line}; name the file here and link to it there"
            )
            yield Problem(link.path, link.line, what)


def check_address(link: WebLink) -> Iterator[Problem]:
    """A file of a repository is named at a release or a commit."""
    if (found := _FILE.match(link.address)) and not _FIXED.match(found["ref"]):
        what = (
            f"link to `{found['ref']}`, which moves on: name a release, as in "
            "`/blob/v2.15.0/`, or the full hash of a commit"
        )
        yield Problem(link.path, link.line, what)


def check_hand_written(project: Project) -> Iterator[Problem]:
    """Check that files and headings exist which Markdown outside of the site links to."""
    for file in shown_by_github(project):
        path = _shown(file, project)
        for link in in_markdown(file.read_text(encoding="utf-8"), path):
            yield from check_address(link)
            if "://" in link.address or link.address.startswith("mailto:"):
                continue
            name, _, anchor = link.address.partition("#")
            target = file.parent / name if name else file
            if not target.exists():
                yield Problem(path, link.line, f"link to `{link.address}`: there is no such file")
            elif anchor and anchor not in _anchors(target):
                yield Problem(path, link.line, f"link to `{link.address}`: no such heading")


def _anchors(file: Path) -> set[str]:
    """Addresses that GitHub gives to the headings of a Markdown file."""
    if file.suffix != ".md":
        return set()
    headings = facts(file.read_text(encoding="utf-8")).headings
    plain = (re.sub(r"[^\w\- ]", "", heading.text.lower()) for heading in headings)
    return {text.replace(" ", "-") for text in plain}


def _shown(file: Path, project: Project) -> str:
    return file.relative_to(project.root).as_posix()
