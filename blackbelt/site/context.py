"""What the templates of a page get beside what MkDocs gives them."""

import html
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin

from mkdocs.structure.pages import Page

from blackbelt.prepare import Prepared
from blackbelt.publish import FOLDER
from blackbelt.site import extras, lesson_links, module_map, pages
from blackbelt.site.indexes import INDEXES
from blackbelt.strings import for_language


def of_page(page: Page, prepared: Prepared, language: str, site_url: str) -> dict[str, Any]:
    """Variables of a page's template; what belongs to one kind of page goes into its `meta`."""
    project, uri = prepared.course.project, page.file.src_uri
    template = page.meta.get("template")
    found: dict[str, Any] = {
        "strings": for_language(language),
        "feed_url": extras.feed_address(prepared, language),
        "card_url": urljoin(site_url, extras.card_address(uri, prepared, language)),
    }
    if template == "home.html":  # no other page shows it
        found["roadmap"] = pages.roadmap(prepared, language)
    if template in INDEXES:
        found["groups"] = INDEXES[template](prepared, language)
    if rendered := pages.find(prepared, uri):
        page.meta["lesson"] = pages.header(rendered, prepared, project, page, language)
        page.meta["lesson"] |= lesson_links.way(prepared, rendered.lesson, language)
        page.edit_url = page.meta["lesson"]["edit_url"]
    elif uri.startswith(f"{FOLDER}/"):
        page.edit_url = f"{project.repository}/edit/main/{uri}"
        if uri.endswith(".md"):
            module = prepared.course.module(PurePosixPath(uri).parent.name)
            page.meta["map"] = module_map.picture(module, prepared, language)
            page.meta.setdefault("description", html.escape(module.summaries[language]))
    return found
