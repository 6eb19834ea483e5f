"""Joins the style sheets and the scripts of `mkdocs.yml` into one file each.

Each part of the site keeps a file of its own, and a reader's first visit still asks for two.
"""

import hashlib
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import minify
from mkdocs.config.config_options import ExtraScriptValue
from mkdocs.config.defaults import MkDocsConfig

from blackbelt.problems import CourseError, Problem

_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|/|#", re.I)
# A string is matched so that an address within it is left alone.
_ADDRESS = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
    r"""|(?<![\w-])url\(\s*(?P<quote>["']?)(?P<address>(?:\\.|[^"'()\\])*)(?P=quote)\s*\)""",
    re.S | re.I,
)
_FIRST_ONLY = re.compile(r"@(?:import|charset|namespace)\b", re.I)


@dataclass(frozen=True)
class Bundle:
    """One file of the site in the place of several.

    Attributes:
        address: below the root of the site.
        content: its text.
        sources: the files it takes the place of, relative to `docs/`.
    """

    address: str
    content: str
    sources: tuple[str, ...]


def bundle(config: MkDocsConfig, *, hashed: bool) -> tuple[Bundle, ...]:
    """Let the pages load one style sheet and one script instead of all that are configured.

    Scripts that are modules or not deferred stay as they are: they would run at another time.

    Args:
        config: is changed.
        hashed: put a hash of the content into the names, so that browsers keep the files for
            ever. A server that builds single pages would not change the name on the others.

    Raises:
        CourseError: a file is missing, or cannot be joined with others.
    """
    bundles: list[Bundle] = []
    sheets = [sheet for sheet in config.extra_css if not _ELSEWHERE.match(sheet)]
    if sheets:
        made = _join(config, sheets, join_styles, ".css", hashed=hashed)
        config.extra_css = [made.address, *(s for s in config.extra_css if s not in sheets)]
        bundles.append(made)
    scripts = [script for script in config.extra_javascript if _ordinary(script)]
    if scripts:
        made = _join(config, [str(s) for s in scripts], join_scripts, ".js", hashed=hashed)
        whole = ExtraScriptValue(made.address)
        whole.load_dict({"path": made.address, "defer": True})
        whole.validate()
        others = [script for script in config.extra_javascript if script not in scripts]
        config.extra_javascript = [whole, *others]
        bundles.append(made)
    return tuple(bundles)


def _ordinary(script: ExtraScriptValue | str) -> bool:
    if isinstance(script, str) or _ELSEWHERE.match(script.path):
        return False
    return script.defer and not script.async_ and not script.type


def _join(
    config: MkDocsConfig,
    names: Sequence[str],
    join: Callable[[Sequence[tuple[str, str]], str], str],
    ending: str,
    *,
    hashed: bool,
) -> Bundle:
    sources = [(name, _read(config, name)) for name in names]
    home = posixpath.dirname(names[0])
    try:
        content = join(sources, home)
    except CourseError as error:
        raise CourseError(_place(config, p.path, p.what) for p in error.problems) from None
    mark = f".{hashlib.sha256(content.encode()).hexdigest()[:8]}" if hashed else ""
    return Bundle(posixpath.join(home, f"bundle{mark}{ending}"), content, tuple(names))


def _read(config: MkDocsConfig, name: str) -> str:
    try:
        return (Path(config.docs_dir) / name).read_text(encoding="utf-8")
    except OSError:
        raise CourseError([_place(config, name, f"docs/{name} is missing")]) from None


def _place(config: MkDocsConfig, name: str, what: str) -> Problem:
    """The problem of a file at the line of `mkdocs.yml` that names it."""
    lines = Path(config.config_file_path).read_text(encoding="utf-8").splitlines()
    line = next((number for number, text in enumerate(lines, start=1) if name in text), 1)
    return Problem("mkdocs.yml", line, what, "uv run blackbelt build")


def join_styles(sources: Sequence[tuple[str, str]], home: str) -> str:
    """One style sheet, in the order of the sources.

    Args:
        sources: address below the site's root and text of each style sheet.
        home: folder of the result; addresses in the style sheets are made relative to it.

    Raises:
        CourseError: a style sheet has a rule that means something only in a file of its own.
    """
    return "\n".join(_style(name, text, home) for name, text in sources) + "\n"


def _style(name: str, text: str, home: str) -> str:
    small = _minified("text/css", name, text)
    if found := _FIRST_ONLY.search(_ADDRESS.sub("", small)):
        what = f"docs/{name} has {found[0]}, which cannot be joined with other style sheets"
        raise CourseError([Problem(name, 1, what)])

    def moved(match: re.Match[str]) -> str:
        address = match["address"]
        if match["string"] or not address or _ELSEWHERE.match(address):
            return match[0]
        place = posixpath.join(posixpath.dirname(name), address)
        return f"url({match['quote']}{posixpath.relpath(place, home)}{match['quote']})"

    return _ADDRESS.sub(moved, small)


def join_scripts(sources: Sequence[tuple[str, str]], home: str) -> str:
    """One script, in the order of the sources.

    Each keeps its names to itself, and one that fails is reported without keeping the others
    from running, as if it had been loaded alone.
    """
    del home  # Scripts name no files relative to themselves.
    whole = "(()=>{{try{{{}\n}}catch(error){{reportError(error)}}}})();"
    return "".join(
        _minified("application/javascript", name, whole.format(text)) + ";\n"
        for name, text in sources
    )


def _minified(kind: str, name: str, text: str) -> str:
    try:
        return str(minify.string(kind, text)).rstrip(";")
    except minify.MinifyError as error:
        raise CourseError([Problem(name, 1, f"docs/{name} is not valid: {error}")]) from None
