"""Sections of a lesson's page: their addresses and titles."""

import re
from functools import lru_cache

from blackbelt.prose_facts import parser

# As `write_prose` leaves them.
_HEADING = re.compile(r"^#{1,6} (?P<title>.+?) \{ #(?P<address>[a-z0-9-]+) \}$", re.M)


@lru_cache(maxsize=512)  # a server asks again for pages that did not change
def titles(markdown: str) -> dict[str, str]:
    """Titles of a page as HTML, by address."""
    return {found["address"]: _html(found["title"]) for found in _HEADING.finditer(markdown)}


@lru_cache(maxsize=4096)
def _html(title: str) -> str:
    return str(parser().renderInline(title))
