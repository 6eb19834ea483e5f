"""The day up to which releases are taken: `exclude-newer` under `[tool.uv]`."""

import re
from datetime import UTC, date, datetime
from pathlib import Path

from blackbelt.problems import CommandError

FILE = "pyproject.toml"
_COMMAND = "uv run blackbelt upgrade"
# Only within its table, and only the day: comments and the order of keys stay as they are.
_TABLE = re.compile(r"^\[tool\.uv\]\s*$.*?(?=^\[|\Z)", re.M | re.S)
_KEY = re.compile(r'^(exclude-newer\s*=\s*")(\d{4}-\d\d-\d\d)(T00:00:00Z")', re.M)


def read_pin(root: Path) -> date:
    """The day that `pyproject.toml` names.

    Raises:
        CommandError: it names none.
    """
    _, found = _find(root)
    return date.fromisoformat(found[2])


def pinned(root: Path, day: date) -> str:
    """The text of `pyproject.toml` with another day."""
    text, found = _find(root)
    return f"{text[: found.start(2)]}{day.isoformat()}{text[found.end(2) :]}"


def _find(root: Path) -> tuple[str, re.Match[str]]:
    text = (root / FILE).read_text(encoding="utf-8")
    table = _TABLE.search(text)
    found = _KEY.search(text, table.start(), table.end()) if table else None
    if not found:
        what = f'no exclude-newer = "YYYY-MM-DDT00:00:00Z" under [tool.uv] in {FILE}'
        raise CommandError(what, _COMMAND)
    return text, found


def wanted_day(text: str | None, pin: date) -> date:
    """The day to move to: what was asked for, or today (UTC).

    Raises:
        CommandError: not a day, in the future, or before the pin.
    """
    today = datetime.now(UTC).date()
    try:
        day = date.fromisoformat(text) if text else today
    except ValueError:
        raise CommandError(f"`{text}` is not a day, such as {today}", _COMMAND) from None
    if day > today:
        # Installations would resolve differently until that day has come.
        raise CommandError(f"{day} is in the future", _COMMAND)
    if day < pin:
        raise CommandError(f"{day} is before the present pin, {pin}", _COMMAND)
    return day
