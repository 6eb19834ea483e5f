"""Sections of a lesson: what begins them, and their titles on its page."""

import re
from functools import lru_cache

from blackbelt.lesson import Block, Exercise, Prose, Question, Quiz
from blackbelt.prose_facts import parser

# As `write_prose` leaves them.
_HEADING = re.compile(r"^#{1,6} (?P<title>.+?) \{ #(?P<address>[a-z0-9-]+) \}$", re.M)


def pairs(block: Block) -> tuple[Prose, ...]:
    """The prose of a block that stands open on the page, where a section can begin."""
    if isinstance(block, Prose):
        return (block,)
    if isinstance(block, Exercise):
        return (block.prompt,)
    if isinstance(block, Question):
        return (block.pair,)
    if isinstance(block, Quiz):
        return tuple(question.pair for question in block.questions)
    return ()


@lru_cache(maxsize=512)  # a server asks again for pages that did not change
def titles(markdown: str) -> dict[str, str]:
    """Titles of a page as HTML, by address."""
    return {found["address"]: _html(found["title"]) for found in _HEADING.finditer(markdown)}


@lru_cache(maxsize=4096)
def _html(title: str) -> str:
    return str(parser().renderInline(title))
