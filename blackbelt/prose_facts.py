"""Facts about a cell of prose: headings, links, code spans, values, structure.

The parser follows CommonMark with tables, strikethrough and `$math$`: what VS Code, Jupyter
and Colab have in common.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

VALUE = re.compile(r"\{\{ +(?P<name>[A-Za-z_]\w*)(?::(?P<spec>[^{}\s]*))? *\}\}")
# What looks like a value but is not written as one.
_NEARLY = re.compile(r"\{\{.*?\}\}")
ALERT = re.compile(r"^\[!(NOTE|TIP|IMPORTANT|WARNING|CAUTION)\]", re.I)
_FOLD = re.compile(r"^</?(?:details|summary)\b", re.I)
_TAGS = re.compile(r"<[!/]?[A-Za-z-][^>]*>")
_ALLOWED_TAG = re.compile(r"^</?(?:details|summary)>$")


@dataclass(frozen=True)
class Heading:
    level: int
    text: str
    line: int
    has_math: bool

    @property
    def slug(self) -> str:
        return slugify(self.text)


@dataclass(frozen=True)
class Found:
    """A piece of text and the line of the cell, counted from 0, in which its block begins."""

    text: str
    line: int


@dataclass(frozen=True)
class Facts:
    """What the checks need to know about a cell of prose; lines count from 0."""

    headings: tuple[Heading, ...]
    links: tuple[Found, ...]
    spans: tuple[Found, ...]
    images: tuple[Found, ...]
    values: tuple[Found, ...]
    nearly: tuple[Found, ...]
    html: tuple[Found, ...]
    formulas: tuple[Found, ...]
    shape: tuple[str, ...]


@cache
def parser() -> MarkdownIt:
    """The parser of lesson prose."""
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return markdown.use(dollarmath_plugin, allow_space=False, allow_digits=False)


def slugify(text: str) -> str:
    """Address of an English heading: its letters and digits, joined by hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain.replace("`", "")).strip("-")


@cache
def facts(source: str) -> Facts:
    """Parse a cell of prose."""
    tokens = parser().parse(source)
    inline = [token for token in tokens if token.type == "inline"]
    return Facts(
        headings=tuple(_headings(tokens)),
        links=tuple(_attributes(inline, "link_open", "href")),
        spans=tuple(_contents(inline, "code_inline")),
        images=tuple(_attributes(inline, "image", "src")),
        values=tuple(_values(tokens)),
        nearly=tuple(_nearly(tokens)),
        html=tuple(_html(tokens)),
        formulas=tuple(_formulas(tokens)),
        shape=tuple(_shape(tokens)),
    )


def _line(token: Token) -> int:
    return token.map[0] if token.map else 0


def _headings(tokens: list[Token]) -> Iterator[Heading]:
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            math = any(child.type.startswith("math") for child in inline.children or [])
            yield Heading(int(opening.tag[1]), inline.content, _line(opening), math)


def _attributes(inline: list[Token], kind: str, name: str) -> Iterator[Found]:
    for token in inline:
        for child in token.children or []:
            if child.type == kind:
                yield Found(str(child.attrs.get(name, "")), _line(token))


def _contents(inline: list[Token], kind: str) -> Iterator[Found]:
    for token in inline:
        for child in token.children or []:
            if child.type == kind:
                yield Found(child.content, _line(token))


def _values(tokens: list[Token]) -> Iterator[Found]:
    for token in tokens:
        if token.type in ("inline", "html_block", "math_block"):
            for match in VALUE.finditer(token.content):
                yield Found(match["name"], _line(token))


def _nearly(tokens: list[Token]) -> Iterator[Found]:
    """Double braces that are no value; in formulas they are TeX."""
    for token in tokens:
        pieces = [token] if token.type == "html_block" else token.children or []
        for piece in pieces:
            if piece.type in ("text", "code_inline", "html_block"):
                for match in _NEARLY.finditer(piece.content):
                    if not VALUE.fullmatch(match[0]):
                        yield Found(match[0], _line(token))


def _formulas(tokens: list[Token]) -> Iterator[Found]:
    """TeX, with a leading `$` where it stands on a line of its own."""
    for token in tokens:
        if token.type == "math_block":
            yield Found("$" + token.content.strip(), _line(token))
        for child in token.children or []:
            if child.type.startswith("math_inline"):
                yield Found(child.content, _line(token))


def _html(tokens: list[Token]) -> Iterator[Found]:
    """HTML other than folds."""
    for token in tokens:
        pieces = [token] if token.type == "html_block" else token.children or []
        for piece in pieces:
            if piece.type in ("html_block", "html_inline"):
                for tag in _TAGS.findall(piece.content):
                    if not _ALLOWED_TAG.match(tag):
                        yield Found(tag, _line(token))


def _shape(tokens: list[Token]) -> Iterator[str]:
    """The order of the blocks that both languages must share; paragraphs may differ."""
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            yield f"heading {token.tag[1]}"
        elif token.type in ("fence", "code_block"):
            yield "code block"
        elif token.type == "math_block":
            yield "formula"
        elif token.type == "table_open":
            yield "table"
        elif token.type in ("list_item_open", "tr_open"):
            yield "list item" if token.type == "list_item_open" else "row"
        elif token.type == "html_block" and _FOLD.match(token.content.lstrip()):
            yield "fold"
        elif token.type == "blockquote_open":
            alert = ALERT.match(tokens[index + 2].content) if index + 2 < len(tokens) else None
            yield f"alert {alert[1].upper()}" if alert else "quotation"
