"""The roadmap: every lesson of the course, written or not, what it needs, and its tags."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from blackbelt.config import Project
from blackbelt.lesson import LANGUAGES
from blackbelt.prerequisites import check_needs
from blackbelt.problems import CourseError, Problem

ROADMAP = "lessons/roadmap.toml"
_TAG = re.compile(r"^[a-z][a-z0-9-]*$")


@dataclass(frozen=True)
class Tag:
    """What a lesson is about, beside the subject of its module.

    Attributes:
        id: its address on the page of tags.
        names: by language.
    """

    id: str
    names: dict[str, str]


@dataclass(frozen=True)
class Planned:
    """A lesson of the roadmap, written or not.

    Attributes:
        number: such as `01`.
        slug: the rest of its file's name.
        titles: by language.
        needs: numbers of the lessons to know beforehand.
        tags: ids of its tags.
    """

    number: str
    slug: str
    titles: dict[str, str]
    needs: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.number}_{self.slug}"


@dataclass(frozen=True)
class Module:
    """A part of the course. `extra` ones are not counted among the fifty lessons."""

    folder: str
    titles: dict[str, str]
    summaries: dict[str, str]
    lessons: tuple[Planned, ...]
    extra: bool

    @property
    def number(self) -> int:
        return int(self.folder.split("_")[0])


@dataclass(frozen=True)
class Roadmap:
    """The modules, in the order of the file, and the tags that their lessons may have."""

    modules: tuple[Module, ...]
    tags: tuple[Tag, ...]

    @cached_property
    def reading_order(self) -> tuple[Planned, ...]:
        """Every lesson, in the order of the modules' numbers."""
        modules = sorted(self.modules, key=lambda module: module.number)
        return tuple(lesson for module in modules for lesson in module.lessons)

    @cached_property
    def places(self) -> dict[str, Module]:
        """The module of each lesson, by the lesson's number."""
        return {lesson.number: module for module in self.modules for lesson in module.lessons}

    @cached_property
    def by_number(self) -> dict[str, Planned]:
        return {lesson.number: lesson for lesson in self.reading_order}


def load_roadmap(project: Project) -> Roadmap:
    """Read the roadmap.

    Raises:
        CourseError: it is not valid, with the line of each mistake.
    """
    try:
        text = (project.root / ROADMAP).read_text(encoding="utf-8")
        data = tomllib.loads(text)
        modules = tuple(_module(entry) for entry in data["module"])
        tags = tuple(_tag(entry) for entry in data.get("tags", []))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CourseError([Problem(ROADMAP, 1, f"not a valid roadmap: {error!r}")]) from error
    roadmap = Roadmap(modules, tags)
    if problems := [Problem(ROADMAP, line, what) for line, what in _problems(roadmap, text)]:
        raise CourseError(problems)
    return roadmap


def _module(entry: dict[str, Any]) -> Module:
    titles = {code: entry["title"][code] for code in LANGUAGES}
    summaries = {code: entry["summary"][code] for code in LANGUAGES}
    lessons = tuple(_planned(item) for item in entry["lessons"])
    return Module(entry["folder"], titles, summaries, lessons, entry.get("extra", False))


def _planned(item: dict[str, Any]) -> Planned:
    for key in ("needs", "tags"):
        values = item.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise TypeError(f"{key} of lesson {item['number']} is not a list of texts")
    titles = {code: item[code] for code in LANGUAGES}
    needs, tags = tuple(item.get("needs", ())), tuple(item.get("tags", ()))
    return Planned(item["number"], item["slug"], titles, needs, tags)


def _tag(entry: dict[str, Any]) -> Tag:
    return Tag(entry["id"], {code: entry[code] for code in LANGUAGES})


def _problems(roadmap: Roadmap, text: str) -> Iterator[tuple[int, str]]:
    lines = _lines(text, "number")
    needs = {lesson.number: lesson.needs for lesson in roadmap.reading_order}
    for number, what in check_needs(needs):
        yield lines.get(number, 1), what
    for tag, what in _unlisted(roadmap.tags, roadmap):
        yield _lines(text, "id").get(tag, 1), what
    for number, what in _unknown(roadmap):
        yield lines.get(number, 1), what


def _unlisted(tags: tuple[Tag, ...], roadmap: Roadmap) -> Iterator[tuple[str, str]]:
    """Tags are few, and each is the tag of some lesson."""
    used = {tag for lesson in roadmap.reading_order for tag in lesson.tags}
    ids = [tag.id for tag in tags]
    for tag in dict.fromkeys(ids):
        if not _TAG.match(tag):
            yield tag, f"tag `{tag}`: an id is lower-case letters, digits and hyphens"
        if ids.count(tag) > 1:
            yield tag, f"tag `{tag}` is listed twice"
        if tag not in used:
            yield tag, f"no lesson has the tag `{tag}`; remove it from the list"


def _unknown(roadmap: Roadmap) -> Iterator[tuple[str, str]]:
    known = [tag.id for tag in roadmap.tags]
    for lesson in roadmap.reading_order:
        for tag in dict.fromkeys(lesson.tags):
            if tag not in known:
                listed = ", ".join(known) or "nothing"
                what = f"tag `{tag}` of lesson {lesson.number} is not in `tags`: {listed}"
                yield lesson.number, what
            if lesson.tags.count(tag) > 1:
                yield lesson.number, f"lesson {lesson.number} has the tag `{tag}` twice"


def _lines(text: str, key: str) -> dict[str, int]:
    """The last line of the file in which a key has a value; the parser of TOML does not tell."""
    found: dict[str, int] = {}
    pattern = re.compile(rf"""(?<![\w-]){key}\s*=\s*(?:"([^"]*)"|'([^']*)')""")
    for number, line in enumerate(text.split("\n"), start=1):
        for match in pattern.finditer(line):
            found[match[1] or match[2] or ""] = number
    return found
