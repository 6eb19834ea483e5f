"""The header of a cell: `# %% [markdown] key=value ...`, with JSON values, as jupytext reads it."""

import difflib
import json
import re
from typing import Any

from blackbelt.lesson import LANGUAGES, CellKind, Expected, Options

HEADER = re.compile(r"^# %%(?P<rest>.*)$")
# jupytext takes these for headers, too; one spelling is enough.
NEARLY_HEADER = re.compile(r"^#(?:%%|\s\s+%%|\t%%)")

BELTS = ("white", "brown", "black")
ROLES: dict[CellKind, tuple[str, ...]] = {
    "markdown": ("prompt", "hint"),
    "code": ("starter", "check", "wrong", "solution"),
}
QUESTIONS = ("one", "many", "type", "order")
_MARKDOWN = ("lang", "exercise", "role", "belt", "minutes", "predict", "quiz", "question", "kind")
_KEYS: dict[CellKind, tuple[str, ...]] = {
    "markdown": _MARKDOWN,
    "code": ("lang", "fold", "measured", "raises", "warns", "exercise", "role", "says"),
}
_KEY = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*=\s*")
_EXPECTED = re.compile(r"^([A-Za-z_][\w.]*)(?::\s*(.*))?$", re.S)
# What a reader's progress is kept under: it must never need an escape or a second spelling.
_ID = re.compile(r"^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$")
_DECODER = json.JSONDecoder()


class HeaderError(ValueError):
    """The header of a cell is not as the format wants it; the message says why."""


def parse_header(rest: str) -> tuple[CellKind, Options]:
    """Read what follows `# %%`.

    Raises:
        HeaderError: misspelt or unknown key, value of another type, key used twice.
    """
    rest = rest.strip()
    kind: CellKind = "code"
    if rest.startswith("["):
        label, _, rest = rest.partition("]")
        if label != "[markdown":
            raise HeaderError(
                f"unknown kind of cell `{label}]`; only `[markdown]` and code are used"
            )
        kind = "markdown"
    values = _pairs(rest)
    for key in values:
        if key not in _KEYS[kind]:
            raise HeaderError(f"unknown key `{key}` on a {kind} cell{_hint(key, kind)}")
    return kind, _options(kind, values)


def _hint(key: str, kind: CellKind) -> str:
    other: CellKind = "code" if kind == "markdown" else "markdown"
    if key in _KEYS[other]:
        return f"; it belongs on a {other} cell"
    close = difflib.get_close_matches(key, _KEYS[kind], n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(_KEYS[kind])}"


def _pairs(text: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    position = 0
    while text[position:].strip():
        found = _KEY.match(text, position)
        if not found:
            raise HeaderError(f"expected key=value, found `{text[position:].strip()}`")
        try:
            value, position = _DECODER.raw_decode(text, found.end())
        except json.JSONDecodeError:
            raise HeaderError(
                f"the value of `{found[1]}` is not JSON; texts stand in double quotes, "
                'flags are `true`, as in `fold=true lang="pl"`'
            ) from None
        if found[1] in values:
            raise HeaderError(f"`{found[1]}` is given twice")
        values[found[1]] = value
    return values


def _options(kind: CellKind, values: dict[str, Any]) -> Options:
    role = _choice(values, "role", ROLES[kind])
    for key in ("fold", "measured"):
        if values.get(key, True) is not True:
            raise HeaderError(f"`{key}` is a flag: write `{key}=true` or leave it out")
    minutes = values.get("minutes")
    if minutes is not None and (type(minutes) is not int or minutes < 1):
        raise HeaderError("`minutes` is a whole number of at least 1, as in `minutes=5`")
    if (role is None) != (values.get("exercise") is None):
        raise HeaderError("`exercise` and `role` go together")
    if role != "prompt" and ("belt" in values or "minutes" in values):
        raise HeaderError("`belt` and `minutes` belong to the prompt of an exercise")
    _question(values)
    warns = values.get("warns", [])
    return Options(
        lang=_choice(values, "lang", LANGUAGES),
        fold="fold" in values,
        measured="measured" in values,
        raises=_expected("raises", values["raises"]) if "raises" in values else None,
        warns=tuple(_expected("warns", w) for w in (warns if isinstance(warns, list) else [warns])),
        exercise=_identifier(values, "exercise"),
        role=role,
        belt=_choice(values, "belt", BELTS),
        minutes=minutes,
        says=_text(values, "says"),
        predict=_identifier(values, "predict"),
        quiz=_identifier(values, "quiz"),
        question=_identifier(values, "question"),
        kind=_choice(values, "kind", QUESTIONS),
    )


def _question(values: dict[str, Any]) -> None:
    """Check which keys of questions stand together."""
    given = [key for key in ("exercise", "predict", "quiz") if key in values]
    if len(given) > 1:
        raise HeaderError(f"`{given[0]}` and `{given[1]}` do not go together: make two pairs")
    if ("quiz" in values) != ("question" in values):
        raise HeaderError(
            'a question of a quiz has both, `quiz="its-quiz"` and `question="its-id"`'
        )
    if "kind" in values and "quiz" not in values:
        hint = "; a prediction has exactly one right option" if "predict" in values else ""
        raise HeaderError(f"`kind` goes with `quiz` and `question`{hint}")


def _identifier(values: dict[str, Any], key: str) -> str | None:
    value = _text(values, key)
    if value is not None and not _ID.match(value):
        raise HeaderError(
            f"`{key}` is lower-case letters, digits and hyphens, "
            f'as in `{key}="slice-file"`, not `{value}`'
        )
    return value


def _text(values: dict[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise HeaderError(f'`{key}` is a text in double quotes, as in `{key}="..."`')
    return value


def _choice(values: dict[str, Any], key: str, allowed: tuple[str, ...]) -> str | None:
    value = values.get(key)
    if value is not None and value not in allowed:
        raise HeaderError(f"`{key}` is one of {', '.join(allowed)}, not `{value}`")
    return value


def _expected(key: str, value: object) -> Expected:
    found = _EXPECTED.match(value) if isinstance(value, str) else None
    if not found:
        raise HeaderError(
            f'`{key}` is "Type: a part of the message", as in `{key}="RuntimeError: view size"`'
        )
    return Expected(found[1], (found[2] or "").strip())
