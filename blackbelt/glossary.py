"""The glossary: its file, and the pattern that finds its terms in prose."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blackbelt.lesson import LANGUAGES
from blackbelt.problems import CourseError, Problem

FILE = "docs/glossary.toml"


@dataclass(frozen=True)
class Term:
    """A term in both languages; the mappings have a key for each language.

    Attributes:
        id: address on the glossary page.
        names: the term.
        forms: what is recognised in prose, inflected forms included.
        definitions: one sentence.
        lesson: number of the lesson that shows it best, or nothing.
        hover: whether prose explains the term on hover.
    """

    id: str
    names: dict[str, str]
    forms: dict[str, tuple[str, ...]]
    definitions: dict[str, str]
    lesson: str
    hover: dict[str, bool]


def load_glossary(root: Path) -> tuple[Term, ...]:
    """Read the glossary.

    Raises:
        CourseError: the file is not valid, or two terms share an id.
    """
    try:
        data = tomllib.loads((root / FILE).read_text(encoding="utf-8"))
        terms = tuple(_term(entry) for entry in data["term"])
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise CourseError([Problem(FILE, 1, f"not a valid glossary: {error!r}")]) from error
    seen: set[str] = set()
    for term in terms:
        if term.id in seen:
            raise CourseError([Problem(FILE, 1, f"two terms have the id `{term.id}`")])
        seen.add(term.id)
    return terms


def _term(entry: dict[str, Any]) -> Term:
    return Term(
        id=entry["id"],
        names={code: entry[code] for code in LANGUAGES},
        forms={code: tuple(entry[f"forms_{code}"]) for code in LANGUAGES},
        definitions={code: entry[f"definition_{code}"] for code in LANGUAGES},
        lesson=entry.get("lesson", ""),
        hover={code: entry.get(f"hover_{code}", True) for code in LANGUAGES},
    )


def pattern(terms: tuple[Term, ...], language: str) -> tuple[re.Pattern[str], dict[str, Term]]:
    """A pattern that finds every form, longest first, and the term of each form in lower case."""
    forms = {
        form.lower(): term
        for term in terms
        if term.hover[language]
        for form in term.forms[language]
    }
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    # A space of a term may have become a no-break space.
    words = "|".join(re.escape(form).replace(r"\ ", r"[\s\u00a0]") for form in longest_first)
    return re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.I), forms
