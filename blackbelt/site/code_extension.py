"""A Python-Markdown extension: code with as many colours as the theme has, and no more markup.

Pygments marks each bracket, each name and each of its nine kinds of strings. The theme gives most
of them the colour of their surroundings, and these marks were half of a lesson's page.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from pygments.filter import Filter
from pygments.lexer import Lexer
from pygments.token import (
    Comment,
    Generic,
    Keyword,
    Name,
    Number,
    Operator,
    String,
    Text,
)
from pymdownx.highlight import Highlight, HighlightExtension

# From the special to the general: what a kind of token is shown as. All others are plain text.
_SHOWN = (
    (Comment.Preproc, Comment.Preproc),
    (Comment, Comment),
    (String.Doc, Comment),
    (String.Escape, String.Escape),
    (String, String),
    (Number, Number),
    (Keyword.Constant, Text),
    (Keyword, Keyword),
    (Operator.Word, Keyword),
    (Name.Decorator, Keyword),
    (Name.Builtin, Name.Builtin),
    (Name.Class, Name.Function),
    (Name.Exception, Name.Function),
    (Name.Function, Name.Function),
    (Name.Namespace, Name.Function),
    (Name.Tag, Keyword),
    (Name.Attribute, Name.Attribute),
    (Generic, Generic),
)


def shown(kind: Any) -> Any:
    """The kind of token that stands for all kinds of one colour."""
    return next((as_what for part, as_what in _SHOWN if kind in part), Text)


class _FewColours(Filter):
    def filter(self, lexer: Lexer, stream: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, str]]:
        # Pygments writes neighbours of one kind as one element.
        for kind, text in stream:
            yield shown(kind), text


class _Highlight(Highlight):
    def get_lexer(self, *arguments: Any, **options: Any) -> tuple[Lexer, str]:
        lexer, name = super().get_lexer(*arguments, **options)
        lexer.add_filter(_FewColours())
        return lexer, name


class CodeExtension(HighlightExtension):
    """Takes the options of pymdownx.highlight, and its place."""

    def get_pymdownx_highlighter(self) -> type[Highlight]:
        return _Highlight


def makeExtension(**options: Any) -> CodeExtension:  # noqa: N802 (the name is Python-Markdown's)
    return CodeExtension(**options)
