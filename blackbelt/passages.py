"""Every text of the project that a person reads, with its language: what spelling is checked in.

Code, formulas and addresses are left out; what a lesson's code says to the reader is in.
"""

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blackbelt import code_facts
from blackbelt.config import Project
from blackbelt.course import Course
from blackbelt.lesson import LANGUAGES, Cell, Lesson
from blackbelt.markdown_files import pages, shown_by_github, split_front_matter
from blackbelt.prose_facts import VALUE, parser

_ALERT = re.compile(r"^\[![A-Z]+\]")
_ATTRIBUTES = re.compile(r"\{ ?[#.:][^}]*\}")
_CODE_SPAN = re.compile(r"`[^`]*`")
# Addresses, and names of files and attributes.
_NAMES = re.compile(r"https?://\S+|\w+(?:\.[A-Za-z]\w*)+")
# A word of a comment that is code: a call, an attribute, an index, an assignment, a path.
_CODE_WORD = re.compile(r"\S*[\w)\]][._(\[=/*@<>]+[\w(\[]\S*|\S*[_\[\]{}=<>@\\#]\S*|--?\w\S*")
_MAGIC_COMMENT = re.compile(r"#\s*(?:type:|noqa|fmt:|ruff:|pyright:|mypy:|pragma)")
# Arguments that hold a text in one language.
_BILINGUAL = {"pl": "pl", "en": "en", "alt_pl": "pl", "alt_en": "en"}
_FIELDS = _BILINGUAL | {f"definition_{code}": code for code in LANGUAGES}


@dataclass(frozen=True)
class Passage:
    """A text in one language.

    Attributes:
        path: the file, relative to the project's root.
        line: the line of the file in which its block begins, counted from 1.
        language: `pl` or `en`.
        text: what is left after leaving out code, formulas and addresses.
        foreign: whether it may be in the other language: the text of a link, or emphasised.
    """

    path: str
    line: int
    language: str
    text: str
    foreign: bool = False


def passages(course: Course) -> Iterator[Passage]:
    """Every text of lessons, pages, lists of titles and the files around them."""
    project = course.project
    for lesson in course.lessons:
        yield from of_lesson(lesson)
    for file in (*shown_by_github(project), *pages(project)):
        path = file.relative_to(project.root).as_posix()
        yield from _of_page(file.read_text(encoding="utf-8"), path)
    for file in (project.lessons / "roadmap.toml", project.docs / "glossary.toml"):
        yield from _of_toml(file, project)
    for file in project.root.glob("blackbelt/strings*.py"):
        yield from _of_strings(file, project)


def of_lesson(lesson: Lesson) -> Iterator[Passage]:
    """Prose, what code says to the reader, and comments."""
    for pair in lesson.prose:
        for language in LANGUAGES:
            cell = pair.of(language)
            yield from of_markdown(cell.source, lesson.path, cell.first, language)
    for cell in lesson.code:
        yield from _said(cell, lesson.path)
        yield from _comments(cell, lesson.path)
        if cell.options.says:
            yield Passage(lesson.path, cell.line, "en", _words_only(cell.options.says))


def of_markdown(text: str, path: str, first: int, language: str) -> Iterator[Passage]:
    """The words of Markdown that begins in line `first` of a file."""
    for token in parser().parse(text):
        line = first + (token.map[0] if token.map else 0)
        titled = 0
        for piece in token.children or []:
            if piece.type in ("em_open", "em_close", "link_open", "link_close"):
                titled += piece.nesting
            elif piece.type == "text":
                words = VALUE.sub(" ", _ATTRIBUTES.sub("", _ALERT.sub("", piece.content)))
                yield Passage(path, line, language, _NAMES.sub(" ", words), titled > 0)


def _of_page(text: str, path: str) -> Iterator[Passage]:
    language = "pl" if path.removesuffix(".md").endswith(".pl") else "en"
    front, body = split_front_matter(text)
    for value in _strings(_yaml(front)):
        # Templates, addresses and lists of parts have no spaces.
        if " " in value:
            yield Passage(path, 1, language, _words_only(value))
    yield from of_markdown(body, path, 1, language)


def _yaml(text: str) -> Any:
    # MkDocs brings it; a machine that only runs lessons has neither.
    import yaml

    return yaml.safe_load(text)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _of_toml(file: Path, project: Project) -> Iterator[Passage]:
    if not file.is_file():
        return
    text = file.read_text(encoding="utf-8")
    lines = text.split("\n")

    def walk(value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, part in value.items():
                if key in _FIELDS and isinstance(part, str):
                    yield _FIELDS[key], part
                else:
                    yield from walk(part)
        elif isinstance(value, list):
            for part in value:
                yield from walk(part)

    path = file.relative_to(project.root).as_posix()
    for language, value in walk(tomllib.loads(text)):
        line = next((number for number, row in enumerate(lines, 1) if value in row), 1)
        yield Passage(path, line, language, _words_only(value))


def _of_strings(file: Path, project: Project) -> Iterator[Passage]:
    """The site's own voice: constants whose name says their language."""
    path = file.relative_to(project.root).as_posix()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            for prefix, language in (("_POLISH", "pl"), ("_ENGLISH", "en")):
                if name.startswith(prefix):
                    yield from _constants(node.value, path, 0, language)


def _said(cell: Cell, path: str) -> Iterator[Passage]:
    """Texts of `say(pl=..., en=...)`, figures and their alternative texts."""
    if "pl=" not in cell.source:
        return
    for node in ast.walk(code_facts.parse(cell.source)):
        if isinstance(node, ast.keyword) and node.arg in _BILINGUAL:
            # A dictionary translates the English texts of a figure, which are its keys.
            value = node.value
            parts = value.values if isinstance(value, ast.Dict) else [value]
            for part in parts:
                yield from _constants(part, path, cell.first - 1, _BILINGUAL[node.arg])


def _constants(value: ast.expr, path: str, offset: int, language: str) -> Iterator[Passage]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = _words_only(re.sub(r"\{\w*\}", " ", node.value))
            yield Passage(path, offset + node.lineno, language, text)


def _comments(cell: Cell, path: str) -> Iterator[Passage]:
    if "#" not in cell.source:
        return
    for token in tokenize.generate_tokens(io.StringIO(cell.source + "\n").readline):
        if token.type == tokenize.COMMENT and not _MAGIC_COMMENT.match(token.string):
            text = _CODE_WORD.sub(" ", _words_only(token.string.lstrip("# ")))
            yield Passage(path, cell.first - 1 + token.start[0], "en", text)


def _words_only(text: str) -> str:
    return _NAMES.sub(" ", _CODE_SPAN.sub(" ", VALUE.sub(" ", text)))
