"""A cell of prose as the page and the notebook want it."""

import re
from collections.abc import Callable

from blackbelt import links
from blackbelt.lesson import Lesson, Prose
from blackbelt.portable import to_python_markdown
from blackbelt.prose_facts import ALERT, facts
from blackbelt.results import Value
from blackbelt.strings import for_language
from blackbelt.typography import fill, pieces, set_type

_SIGNS = {"note": "ℹ", "tip": "💡", "important": "❗", "warning": "⚠", "caution": "⛔"}
_CALLOUT = re.compile(r"^(?P<quote>[ \t]*(?:>[ \t]*)+)(?P<mark>\[![A-Za-z]+\])[ \t]*$", re.M)


def prose_for_page(pair: Prose, language: str, values: dict[str, Value]) -> str:
    """Markdown for Python-Markdown, with addresses of headings and links between pages."""
    text = _outside_code(pair.of(language).source, links.for_page)
    text = _typeset(text, language, values)
    lines = text.split("\n")
    addresses = [heading.slug for heading in facts(pair.en.source).headings]
    for heading, address in zip(facts(text).headings, addresses, strict=True):
        lines[heading.line] = f"{lines[heading.line].rstrip(' #')} {{ #{address} }}"
    return to_python_markdown("\n".join(lines), language=language)


def text_for_page(text: str, language: str, values: dict[str, Value]) -> str:
    """The same for a part of a cell that has no headings."""
    text = _typeset(_outside_code(text, links.for_page), language, values)
    return to_python_markdown(text, language=language)


def prose_for_notebook(
    pair: Prose, language: str, values: dict[str, Value], lesson: Lesson, site_url: str
) -> str:
    """Markdown that needs no site around it: whole addresses, plain callouts."""
    return text_for_notebook(pair.of(language).source, language, values, lesson, site_url)


def text_for_notebook(
    text: str, language: str, values: dict[str, Value], lesson: Lesson, site_url: str
) -> str:
    """The same for a part of a cell."""

    def absolute(part: str) -> str:
        return links.for_notebook(part, lesson.path, site_url, language)

    text = _outside_code(text, absolute)
    return _plain_callouts(_typeset(text, language, values), language)


def _typeset(text: str, language: str, values: dict[str, Value]) -> str:
    return set_type(fill(text, values, language), language)


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    return "".join(
        part if verbatim and not part.startswith("](") else change(part)
        for verbatim, part in pieces(text)
    )


def _plain_callouts(text: str, language: str) -> str:
    """Notebooks show alerts as plain quotations: give them a bold title instead."""

    def title(match: re.Match[str]) -> str:
        alert = ALERT.match(match["mark"])
        if not alert:
            return match[0]
        name = alert[1].lower()
        quote = match["quote"].rstrip()
        return f"{quote} **{_SIGNS[name]} {for_language(language).alerts[name]}**\n{quote}"

    return _CALLOUT.sub(title, text)
