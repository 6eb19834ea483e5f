"""Hand-written pages exist in every language: a missing one would be served in the other."""

from collections.abc import Iterator
from pathlib import Path

from blackbelt.config import Project
from blackbelt.lesson import LANGUAGES
from blackbelt.markdown_files import pages
from blackbelt.problems import Problem


def check_pages(project: Project) -> Iterator[Problem]:
    """Check the pages of `docs/` and the introductions of modules."""
    for path in pages(project):
        shown = path.relative_to(project.root).as_posix()
        stem, _, language = path.stem.rpartition(".")
        if language not in LANGUAGES:
            what = "a page needs its language in the name: page.pl.md and page.en.md"
            yield Problem(shown, 1, what)
            continue
        for other in LANGUAGES:
            twin = Path(path.parent, f"{stem}.{other}.md")
            if not twin.is_file():
                what = f"page without its twin: write {twin.relative_to(project.root).as_posix()}"
                yield Problem(shown, 1, what)
