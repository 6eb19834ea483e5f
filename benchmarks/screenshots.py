"""Pictures of pages for review: uv run python benchmarks/screenshots.py FOLDER [--site SITE]

Each page is taken as it is on a desktop in the light and in the dark, and on a telephone, once as
it opens and once from top to end. Without `--site` the site is built first.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from browsing import browser, served
from building import build
from many_lessons import REPOSITORY
from playwright.sync_api import Page

from blackbelt.config import load_project

SCREENS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 780}, "color_scheme": "light"},
}


def pages(site: Path) -> Iterator[tuple[str, str]]:
    """Name and address of one page of each kind, in both languages where it matters."""
    notebooks = sorted((site / "lessons").rglob("*.ipynb"))
    lessons = [notebook.parent.relative_to(site).as_posix() + "/" for notebook in notebooks]
    yield "home", ""
    yield "home-en", "en/"
    yield "module", lessons[0].rsplit("/", 2)[0] + "/"
    yield "lesson", lessons[0]
    yield "lesson-en", f"en/{lessons[-1]}"
    for name in ("glossary", "how-to-use", "api", "errors"):
        yield name, f"{name}/"
    yield "not-found", "404.html"


def take(page: Page, folder: Path, name: str) -> None:
    page.screenshot(path=folder / f"{name}.png")
    # Pictures come when they are looked at.
    page.evaluate("for (const e of document.images) e.loading = 'eager'")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=folder / f"{name}-whole.png", full_page=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    parser.add_argument("--site", type=Path, help="a built site, to take pictures of that one")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    # The page of errors is published for any address, and so names its files from the root.
    prefix = urlsplit(load_project(REPOSITORY).site_url).path
    with tempfile.TemporaryDirectory(prefix="blackbelt-screenshots-") as made:
        site = options.site or Path(made) / "site"
        if not options.site:
            build(site)
        with served(site, prefix) as server, browser() as chromium:
            for screen, settings in SCREENS.items():
                page = chromium.new_context(**settings).new_page()
                for name, address in pages(site):
                    page.goto(server.url + address, wait_until="networkidle")
                    take(page, options.folder, f"{name}-{screen}")
    print(f"{len(list(options.folder.glob('*.png')))} pictures in {options.folder}")


if __name__ == "__main__":
    main()
