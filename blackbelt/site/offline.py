"""A copy of the site that is read from a folder: every link names a file, nothing needs a server.

A browser that opens `file://` addresses shows the list of a folder where a server would show its
`index.html`, and lets no script read another file; so there is no search.
"""

import os
import posixpath
from collections.abc import Callable
from typing import Any

import jinja2
from mkdocs.structure.files import Files
from mkdocs.utils.templates import url_filter

_VARIABLE = "BLACKBELT_OFFLINE"


def ask() -> None:
    """Let the builds of this process make such a copy."""
    os.environ[_VARIABLE] = "1"


def asked() -> bool:
    return os.environ.get(_VARIABLE) == "1"


def name_files(env: jinja2.Environment, files: Files) -> None:
    """Let the templates' `url` filter name the files of pages."""
    names = {_address(file.dest_uri): file.url for file in files.documentation_pages()}
    env.filters["url"] = _filter(names)


def _address(file: str) -> str:
    """The address that a page has on a server, as the engine names it in templates."""
    folder, name = posixpath.split(file)
    parts = [folder, "" if name == "index.html" else name.removesuffix(".html")]
    return "".join(f"{part}/" for part in parts if part)


def _filter(names: dict[str, str]) -> Callable[[Any, object], str]:
    @jinja2.pass_context
    def url(context: Any, value: object) -> str:
        address, mark, anchor = str(value).partition("#")
        if ":" in address or (mark and not address):
            return url_filter(context, str(value))
        # static-i18n's links from one home page to the other begin at the root of a server.
        address = address.removeprefix("/") if address != "." else ""
        file = names.get(address, address)
        return url_filter(context, (file or "index.html") + mark + anchor)

    return url
