"""Keeps the HTML of lessons, so that another title in the navigation converts no page again."""

from functools import partial
from typing import Any, NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from mkdocs.structure.toc import TableOfContents


class _Kept(NamedTuple):
    made_of: tuple[str, Any]
    html: str
    contents: TableOfContents
    anchors: set[str] | None


class HtmlCache:
    """Converting a page takes 0.2 s, putting its HTML into the theme 0.01 s."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def attach(self, page: Page, settings: object) -> None:
        """Let this page be converted only if its Markdown or the settings are new.

        MkDocs has no hook around the conversion; replacing `render` of one page is what
        mkdocs-jupyter does, too.
        """
        page.render = partial(self._render, page, settings)  # type: ignore[method-assign]

    def _render(self, page: Page, settings: object, config: MkDocsConfig, files: Files) -> None:
        made_of = (page.markdown or "", settings)
        kept = self._kept.get(page.file.dest_uri)
        if kept is None or kept.made_of != made_of:
            Page.render(page, config, files)
            assert page.content is not None
            kept = _Kept(made_of, page.content, page.toc, page.present_anchor_ids)
            self._kept[page.file.dest_uri] = kept
        page.content, page.toc, page.present_anchor_ids = kept.html, kept.contents, kept.anchors
