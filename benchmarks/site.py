"""What the site costs its readers, beside its budget and beside plain mkdocs-jupyter.

    uv run python benchmarks/site.py [--builds]

The other column is the same lessons, as the notebooks that readers download, built by
mkdocs-jupyter and Material as both come out of the box. Bytes are what a server that compresses
sends. With `--builds` the site is built twice more, and a course of sixty lessons once.
The exit code is 1 if a figure is above its budget.
"""

import argparse
import filecmp
import gzip
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from browsing import Visitor, browser, served, visitor
from building import build, run
from many_lessons import many_lessons

PLAIN = """\
site_name: Lessons
theme: { name: material }
plugins: [search, mkdocs-jupyter]
"""
QUERY = "gradient"
SECOND_QUERY = """text => new Promise(done => {
    const input = document.querySelector(".md-search__input");
    const began = performance.now();
    new MutationObserver(() => done(performance.now() - began))
        .observe(document.getElementById("search-results"), { childList: true });
    input.value = text;
    input.dispatchEvent(new Event("input", { bubbles: true }));
})"""
SAVES = "python benchmarks/serve.py"
RUNS = "python benchmarks/overhead.py; uv run blackbelt run --fresh --report"


@dataclass(frozen=True)
class Figure:
    """One row of the report; without a budget it is there to compare."""

    name: str
    unit: str
    ours: float
    plain: float | None = None
    budget: float | None = None

    @property
    def kept(self) -> bool:
        return self.budget is None or self.ours <= self.budget

    def __str__(self) -> str:
        def number(value: float | None) -> str:
            return "–" if value is None else f"{value:,.{0 if value >= 100 else 1}f}"

        row = f"{self.name:<46}{number(self.ours):>9}{number(self.budget):>9}"
        return f"{row}{number(self.plain):>9}  {self.unit}{'' if self.kept else '  ABOVE'}"


def lesson_pages(site: Path) -> list[Path]:
    return sorted(notebook.parent / "index.html" for notebook in site.rglob("*.ipynb"))


def build_plain(folder: Path, site: Path) -> list[Path]:
    """Build the notebooks of a site with mkdocs-jupyter; returns the pages."""
    (folder / "docs").mkdir(parents=True)
    (folder / "mkdocs.yml").write_text(PLAIN, encoding="utf-8")
    (folder / "docs" / "index.md").write_text("# Lessons\n", encoding="utf-8")
    for notebook in site.rglob("*.ipynb"):
        shutil.copy(notebook, folder / "docs" / notebook.name.replace(".", "_", 1))
    run("mkdocs", "build", "--quiet", folder=folder)
    return sorted(file for file in (folder / "site").glob("*_*/index.html"))


def sizes(pages: Sequence[Path]) -> tuple[float, float]:
    """Mean kilobytes of the pages, and compressed."""
    data = [page.read_bytes() for page in pages]
    small = [len(gzip.compress(page, 6, mtime=0)) for page in data]
    return statistics.mean(map(len, data)) / 1000, statistics.mean(small) / 1000


def text_only(pages: Sequence[Path]) -> float:
    """Mean kilobytes of what is written in a lesson, without any markup, compressed."""
    notebooks = [next(page.parent.glob("*.ipynb")) for page in pages]
    texts = []
    for notebook in notebooks:
        cells = nbformat.read(notebook, as_version=4).cells
        parts = [cell.source for cell in cells]
        parts += [o.get("text", "") for cell in cells for o in cell.get("outputs", ())]
        texts.append(len(gzip.compress("\n".join(parts).encode(), 6, mtime=0)))
    return statistics.mean(texts) / 1000


@dataclass(frozen=True)
class Reading:
    """What two lessons cost a new reader: kilobytes and requests, without figures."""

    first: tuple[int, float]
    second: tuple[int, float]
    foreign: int
    errors: int


def total(answers: Sequence[tuple[str, int]]) -> tuple[int, float]:
    counted = [(path, size) for path, size in answers if "/lessons/img/" not in path]
    return len(counted), sum(size for _, size in counted) / 1000


def read(reader: Visitor, pages: Sequence[Path], site: Path) -> Reading:
    one, two = (page.relative_to(site).parent.as_posix() + "/" for page in pages[:2])
    first, second = total(reader.open(one)), total(reader.open(two))
    return Reading(first, second, len(reader.foreign), len(reader.errors))


def search(reader: Visitor, page: Path, site: Path) -> tuple[float, float]:
    """Kilobytes of opening the search and of the first query; milliseconds of a second one."""
    reader.open(page.relative_to(site).parent.as_posix() + "/")
    window, before = reader.page, len(reader.site.requests)
    window.keyboard.press("/")
    window.keyboard.insert_text(QUERY)
    window.locator("#search-results [role=option]").first.wait_for()
    window.wait_for_load_state("networkidle")
    size = sum(size for _, size in reader.site.requests[before:]) / 1000
    return size, float(window.evaluate(SECOND_QUERY, f"{QUERY} tensor"))


def measure(folder: Path) -> list[Figure]:
    site = folder / "site"
    build(site)
    polish = [page for page in lesson_pages(site) if "en" not in page.relative_to(site).parts[0]]
    plain = build_plain(folder / "plain", site)
    html, small = sizes(lesson_pages(site))
    plain_html, plain_small = sizes(plain)
    with browser() as chromium:
        with served(site) as server:
            ours = read(visitor(chromium, server), polish, site)
            found, quick = search(visitor(chromium, server), polish[0], site)
        with served(folder / "plain" / "site") as server:
            other = read(visitor(chromium, server), plain, folder / "plain" / "site")
    return [
        Figure("lesson page, mean: HTML", "kB", html, plain_html, 40),
        Figure("lesson page, mean: compressed", "kB", small, plain_small, 12),
        Figure("  of which its text alone, compressed", "kB", text_only(lesson_pages(site))),
        Figure("first lesson: requests", "", ours.first[0], other.first[0], 15),
        Figure("first lesson: bytes", "kB", ours.first[1], other.first[1], 230),
        Figure("next lesson: requests", "", ours.second[0], other.second[0], 1),
        Figure("next lesson: bytes", "kB", ours.second[1], other.second[1], 10),
        Figure("requests to third parties", "", ours.foreign, other.foreign, 0),
        Figure("errors on the console", "", ours.errors, other.errors, 0),
        Figure("opening the search and a first query", "kB", found, None, 150),
        Figure("answer to a second query", "ms", quick, None, 100),
    ]


def measure_builds(folder: Path) -> list[Figure]:
    cached = build(folder / "again")
    build(folder / "third")
    same = filecmp.dircmp(folder / "again", folder / "third")
    different = len(_different(same))
    course = folder / "course"
    many_lessons(course, 60)
    build(course / "site", course)
    return [
        Figure("build of this course, all cached", "s CPU", cached),
        Figure("files that differ between two builds", "", different, None, 0),
        Figure(
            "build of 60 lessons x 2, all cached", "s CPU", build(course / "s", course), None, 12
        ),
    ]


def _different(pair: "filecmp.dircmp[str]") -> list[str]:
    below = [name for part in pair.subdirs.values() for name in _different(part)]
    return [*pair.diff_files, *pair.left_only, *pair.right_only, *below]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", action="store_true", help="measure builds, too (minutes)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="blackbelt-benchmark-") as made:
        folder = Path(made)
        figures = measure(folder)
        if options.builds:
            figures += measure_builds(folder)
    print(f"{'':<46}{'here':>9}{'budget':>9}{'plain':>9}")
    print("\n".join(map(str, figures)))
    print(f"saves while serving: {SAVES}\nruns of lessons: {RUNS}")
    return 0 if all(figure.kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
