"""The list of queries that the search has to answer: queries.toml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from built_site import LANGUAGES, ROOT, addresses, lesson_files, localized

from blackbelt.problems import CourseError, Problem

FILE = Path(__file__).with_name("queries.toml")
_NEXT = "uv run pytest tests/site/test_search.py"


@dataclass(frozen=True)
class Query:
    """What somebody asks.

    Attributes:
        line: its line in the list.
        language: of the page that it is asked on.
        text: what is typed or pasted.
        page: address of the page that answers it, below the root of the site.
        section: address within the page, or nothing if any will do.
    """

    line: int
    language: str
    text: str
    page: str
    section: str = ""


def targets() -> dict[str, str]:
    """Addresses by the names that the list uses for pages."""
    names = {address.rstrip("/").rsplit("/", 1)[-1]: address for address in addresses()}
    return names | {lesson.number: lesson.address for lesson in lesson_files()}


def load(file: Path, pages: Mapping[str, str]) -> list[Query]:
    """Read a list, whose entries stand on one line each.

    Raises:
        CourseError: there are entries that cannot be used.
    """
    found: list[Query] = []
    problems: list[Problem] = []
    seen: dict[tuple[str, str], int] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip().startswith("{"):
            continue
        try:
            query = _query(number, line, pages)
            before = seen.setdefault((query.language, query.text.lower()), number)
            if before != number:
                raise ValueError(f"{query.text!r} is asked in line {before} already")
            found.append(query)
        except ValueError as error:
            name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
            problems.append(Problem(str(name), number, str(error), _NEXT))
    if problems:
        raise CourseError(problems)
    return found


def _query(number: int, line: str, pages: Mapping[str, str]) -> Query:
    entry = tomllib.loads(f"entry = {line.strip().rstrip(',')}")["entry"]
    spoken = [language for language in LANGUAGES if entry.get(language)]
    if len(spoken) != 1:
        raise ValueError('a query has one text, such as `pl = "gradient"`')
    text = entry[spoken[0]]
    if unknown := entry.keys() - {*LANGUAGES, "page", "section"}:
        raise ValueError(f"{text!r} has {', '.join(sorted(unknown))}, which means nothing here")
    if not entry.get("page"):
        raise ValueError(f'{text!r} has no target: add `page = "..."`')
    if entry["page"] not in pages:
        raise ValueError(f"{text!r} has the target {entry['page']!r}, which is no page of the site")
    address = localized(pages[entry["page"]], spoken[0])
    return Query(number, spoken[0], text, address, entry.get("section", ""))
