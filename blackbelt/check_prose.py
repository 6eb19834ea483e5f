"""Rules of prose: both languages tell the same, in Markdown that reads everywhere."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

from blackbelt.lesson import Cell, Lesson, Prose
from blackbelt.links import LinkError, parse_link
from blackbelt.problems import Problem
from blackbelt.prose_facts import Facts, Found, facts
from blackbelt.tex import TexError, render_tex


def check_prose(lesson: Lesson) -> Iterator[Problem]:
    """Check every pair of a lesson by itself."""
    slugs: Counter[str] = Counter()
    titles = 0
    for index, pair in enumerate(lesson.prose):
        pl, en = facts(pair.pl.source), facts(pair.en.source)
        yield from _twins(lesson, pair, pl, en)
        yield from _portable(lesson, pair.pl, pl)
        yield from _portable(lesson, pair.en, en)
        for heading in en.headings:
            titles += heading.level == 1
            slugs[heading.slug] += 1
            if slugs[heading.slug] > 1:
                what = f"two headings share the address `#{heading.slug}`; reword one of them"
                yield Problem(lesson.path, pair.en.first + heading.line, what)
        if index == 0:
            yield from _opening(lesson, pair, pl)
    if titles > 1:
        what = f"{titles} headings of level 1; only the title is one"
        yield Problem(lesson.path, 1, what)


def _opening(lesson: Lesson, pair: Prose, pl: Facts) -> Iterator[Problem]:
    first = pl.headings[0] if pl.headings else None
    if first is None or first.level != 1 or first.line != 0:
        yield Problem(
            lesson.path, pair.pl.first, "the first prose cell begins with the title, `# Title`"
        )
    for language in ("pl", "en"):
        if not lesson.description(language) or lesson.description(language).startswith("#"):
            what = "a paragraph has to follow the title: it becomes the description of the page"
            yield Problem(lesson.path, pair.of(language).first, what)
    if lesson.blocks[0] is not pair:
        yield Problem(lesson.path, 1, "the first cell is the title, in prose")


def _twins(lesson: Lesson, pair: Prose, pl: Facts, en: Facts) -> Iterator[Problem]:
    if pl.shape != en.shape:
        yield Problem(lesson.path, pair.en.line, _shape_difference(pl.shape, en.shape))
    for what, ours, theirs in (
        ("links", pl.links, en.links),
        ("code spans", pl.spans, en.spans),
        ("images", pl.images, en.images),
        ("values", pl.values, en.values),
    ):
        yield from _only_in(lesson, pair.pl, what, ours, theirs, "English")
        yield from _only_in(lesson, pair.en, what, theirs, ours, "Polish")


def _only_in(
    lesson: Lesson,
    cell: Cell,
    what: str,
    here: tuple[Found, ...],
    there: tuple[Found, ...],
    other: str,
) -> Iterator[Problem]:
    known = {found.text for found in there}
    reported: set[str] = set()
    for found in here:
        if found.text not in known | reported:
            reported.add(found.text)
            text = f"twins differ in {what}: the {other} twin lacks `{found.text}`"
            yield Problem(lesson.path, cell.first + found.line, text)


def _shape_difference(pl: tuple[str, ...], en: tuple[str, ...]) -> str:
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, pl, en, autojunk=False).get_opcodes():
        if tag != "equal":
            ours = ", ".join(pl[i1:i2]) or "nothing"
            theirs = ", ".join(en[j1:j2]) or "nothing"
            return (
                f"twins differ in structure at block {i1 + 1}: Polish has {ours} "
                f"where English has {theirs} (headings, lists, tables, folds and alerts must pair)"
            )
    raise AssertionError("the shapes are equal")


def _portable(lesson: Lesson, cell: Cell, found: Facts) -> Iterator[Problem]:
    def problem(line: int, what: str) -> Problem:
        return Problem(lesson.path, cell.first + line, what)

    level = 1
    for heading in found.headings:
        if heading.has_math:
            yield problem(
                heading.line, "math in a heading breaks its address and the table of contents"
            )
        if level > 1 and heading.level > level + 1:
            yield problem(heading.line, f"heading jumps from level {level} to {heading.level}")
        level = heading.level
    lines = cell.source.split("\n")
    for number, (line, following) in enumerate(pairwise(lines), start=1):
        fold = line.strip() == "</details>" or line.strip().endswith("</summary>")
        if fold and following.strip(" >") and following.strip() != "</details>":
            yield problem(number, f"leave a blank line after `{line.strip()[-10:]}`")
    for value in found.nearly:
        yield problem(
            value.line, f"`{value.text}`: a value is written `{{{{ name }}}}`, with spaces"
        )
    for html in found.html:
        yield problem(
            html.line, f"`{html.text}`: the only HTML in prose is <details> and <summary>"
        )
    for image in found.images:
        what = f"image `{image.text}`: draw it in a cell and show it with show_figure"
        yield problem(image.line, what)
    for link in found.links:
        try:
            target = parse_link(link.text, lesson.path)
        except LinkError as error:
            yield problem(link.line, str(error))
            continue
        if target.path is not None and f"]({link.text})" not in cell.source:
            what = f"write the link as `[text]({link.text})`, without title or brackets"
            yield problem(link.line, what)


@dataclass(frozen=True)
class Link:
    """A link to a lesson and the line of the file in which it stands."""

    path: str
    anchor: str | None
    line: int


def links(lesson: Lesson) -> Iterator[Link]:
    """Every link to a lesson or one of its headings."""
    for pair in lesson.prose:
        for cell in (pair.pl, pair.en):
            for link in facts(cell.source).links:
                try:
                    target = parse_link(link.text, lesson.path)
                except LinkError:
                    continue
                if target.path is not None:
                    yield Link(target.path, target.anchor, cell.first + link.line)


def check_links(
    path: str,
    links: tuple[Link, ...],
    addresses: dict[str, frozenset[str]],
    broken: frozenset[str],
) -> Iterator[Problem]:
    """Check that linked lessons and headings exist.

    Args:
        path: the lesson with the links.
        links: what it links to.
        addresses: for the path of each lesson, the addresses of its headings.
        broken: lessons that exist but could not be read; links to them are left alone.
    """
    for link in links:
        if link.path not in broken and (what := _missing(link, addresses)):
            yield Problem(path, link.line, what)


def _missing(link: Link, addresses: dict[str, frozenset[str]]) -> str:
    if link.path not in addresses:
        return f"link to `{link.path}`, which does not exist"
    known = addresses[link.path]
    if link.anchor and link.anchor not in known:
        there = ", ".join(f"#{address}" for address in sorted(known))
        return f"link to `#{link.anchor}`, which {link.path} does not have; it has {there}"
    return ""


def heading_addresses(lesson: Lesson) -> frozenset[str]:
    """Addresses of all headings of a lesson, the same on both pages."""
    return frozenset(h.slug for pair in lesson.prose for h in facts(pair.en.source).headings)


def check_formulas(lesson: Lesson) -> Iterator[Problem]:
    """Check the TeX of a lesson; the build does it, since KaTeX takes a while to start."""
    for pair in lesson.prose:
        for cell in (pair.pl, pair.en):
            for formula in facts(cell.source).formulas:
                display = formula.text.startswith("$")
                try:
                    render_tex(formula.text.removeprefix("$"), display=display)
                except TexError as error:
                    what = f"KaTeX does not understand `{error.tex}`: {error.reason}"
                    yield Problem(lesson.path, cell.first + formula.line, what)
