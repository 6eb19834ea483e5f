"""Markdown of one line as plain text, for titles and descriptions outside of the page's body."""

import re
from functools import lru_cache

from blackbelt.prose_facts import parser

_SPACES = re.compile(r"[ \n]+")


@lru_cache(maxsize=2048)  # the roadmap, with every title, belongs to the context of each page
def plain(markdown: str) -> str:
    """The words of a line of Markdown, without its marks."""
    words = []
    for token in parser().parseInline(markdown)[0].children or []:
        if token.type in ("text", "code_inline", "math_inline"):
            words.append(token.content)
        elif token.type in ("softbreak", "hardbreak"):
            words.append(" ")
    return _SPACES.sub(" ", "".join(words)).strip()
