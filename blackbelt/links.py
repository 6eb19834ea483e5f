"""Links of prose: to another lesson's file, to a heading, or to the web."""

import posixpath
import re
from dataclasses import dataclass

_LESSON = re.compile(r"^lessons/\d_[a-z0-9_]+/\d\d[a-z]?_[a-z0-9_]+\.py$")
# A link of Markdown whose address is a lesson's file: `](../1_tensors/01_x.py#anchor)`.
_IN_TEXT = re.compile(r"\]\((?P<file>[^()\s:]*\.py)(?P<anchor>#[\w-]+)?\)|\]\((?P<own>#[\w-]+)\)")


class LinkError(ValueError):
    """A link that lessons do not allow; the message says what is allowed."""


@dataclass(frozen=True)
class Target:
    """Where a link leads: a lesson's path and anchor, or neither for the web."""

    path: str | None
    anchor: str | None


def parse_link(address: str, path: str) -> Target:
    """Understand a link in the lesson at `path`.

    Raises:
        LinkError: neither a lesson, nor a heading, nor an `https://` address.
    """
    if address.startswith("https://"):
        return Target(None, None)
    file, _, anchor = address.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), file)) if file else path
    if ":" in address or not _LESSON.match(target):
        raise LinkError(
            f"link to `{address}`: links lead to a lesson (`../2_autograd/08_x.py#heading`), "
            "to a heading of this one (`#heading`), or to an https:// address"
        )
    return Target(target, anchor or None)


def for_page(text: str) -> str:
    """Rewrite links to lessons so that they name the page's file."""

    def page(match: re.Match[str]) -> str:
        if match["own"]:
            return match[0]
        return f"]({match['file'].removesuffix('.py')}.ipynb{match['anchor'] or ''})"

    return _IN_TEXT.sub(page, text)


def for_notebook(text: str, path: str, site_url: str, language: str) -> str:
    """Rewrite links to lessons as whole addresses: a downloaded notebook has no neighbours."""

    def absolute(match: re.Match[str]) -> str:
        address = (match["file"] or "") + (match["anchor"] or match["own"] or "")
        target = parse_link(address, path)
        url = page_url(target.path or path, site_url, language)
        return f"]({url}#{target.anchor})" if target.anchor else f"]({url})"

    return _IN_TEXT.sub(absolute, text)


def page_url(path: str, site_url: str, language: str) -> str:
    """Address of a lesson's page: Polish at the root of the site, English below `en/`."""
    prefix = "" if language == "pl" else f"{language}/"
    return f"{site_url}{prefix}{path.removesuffix('.py')}/"
