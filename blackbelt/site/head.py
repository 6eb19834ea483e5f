"""Corrections of a page's `<head>` that Material and static-i18n leave to do."""

import re
from urllib.parse import urljoin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

_ALTERNATE = re.compile(r'<link rel="alternate" href="([^"]*)" hreflang="([^"]*)">')


def absolute_alternates(output: str, page: Page, config: MkDocsConfig) -> str:
    """Give the links to the other language whole addresses, and name the default language.

    Search engines want whole addresses. The space in `rel="alternate "` is the same token to
    them; Material's script, which selects the exact text, would ask each of these addresses for
    a sitemap and get a 404.
    """
    here = urljoin(config.site_url or "", page.url)

    def absolute(match: re.Match[str]) -> str:
        link = f'<link rel="alternate " href="{urljoin(here, match[1])}" hreflang="{match[2]}">'
        return link + (link.replace(match[2] + '">', 'x-default">') if match[2] == "pl" else "")

    return _ALTERNATE.sub(absolute, output)


def without_alternates(output: str) -> str:
    """Drop the links to other languages from a page that has no address of its own."""
    return _ALTERNATE.sub("", output)
