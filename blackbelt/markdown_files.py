"""Markdown that is no lesson: pages of the site, and what GitHub shows."""

import re
from pathlib import Path

from blackbelt.config import Project

_FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.S | re.M)


def pages_of_docs(project: Project) -> list[Path]:
    """Hand-written pages of `docs/`; the build writes those of lessons to `docs/lessons/`."""
    generated = project.docs / "lessons"
    return [path for path in project.docs.rglob("*.md") if generated not in path.parents]


def pages(project: Project) -> list[Path]:
    """All hand-written pages of the site: those of `docs/`, and the introductions of modules."""
    return sorted([*pages_of_docs(project), *project.lessons.glob("*/*.md")])


def shown_by_github(project: Project) -> list[Path]:
    """Markdown that GitHub shows and MkDocs does not build."""
    patterns = ("*.md", ".github/**/*.md", "lessons/*.md")
    return sorted(path for pattern in patterns for path in project.root.glob(pattern))


def split_front_matter(text: str) -> tuple[str, str]:
    """The YAML before a page, and the page with empty lines in its place: line numbers hold."""
    found = _FRONT_MATTER.match(text)
    if not found:
        return "", text
    return found[1], "\n" * found[0].count("\n") + text[found.end() :]
