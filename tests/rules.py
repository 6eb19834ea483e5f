"""The page of rules, made from the tests that prove them: `uv run python tests/rules.py`.

Each case of these tests is a lesson with a mistake and the message that it must get. So the page
names no rule that is not enforced, and a new one is on it as soon as it is tested.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import test_faults
import test_question_faults
import test_web_links
from tiny import REPOSITORY, Case

FILE = REPOSITORY / "lessons" / "RULES.md"
GROUPS: Mapping[str, Mapping[str, Case]] = {
    "The file and its cells": test_faults.READING,
    "Pairs of prose": test_faults.PAIRS,
    "Prose": test_faults.PROSE,
    "Links to the web": test_web_links.FAULTS,
    "Code": test_faults.CODE,
    "Exercises": test_faults.EXERCISES,
    "Predictions and quizzes": test_question_faults.FAULTS,
    "When the lesson runs": test_faults.RUNNING,
}
_HEAD = """\
# Every mistake that the checks know

Made from the tests of the checks by `uv run python tests/rules.py`. The last table is about \
`uv run blackbelt run`, the others are about `uv run blackbelt check`. The format itself is \
explained in [How a lesson is written](README.md).
"""


def page() -> str:
    """The page as it has to be."""
    return "\n".join([_HEAD, *_tables()])


def _tables() -> Iterator[str]:
    for title, cases in GROUPS.items():
        yield f"## {title}\n\n| Mistake | Message |\n|---|---|"
        for name, case in cases.items():
            messages = dict.fromkeys(text.split("\\n")[0] for _, text in case.problems)
            if messages:
                mistake = (name[0].upper() + name[1:]).replace("_", " ")
                yield f"| {mistake} | {'<br>'.join(map(_code, messages))} |"
        yield ""


def _code(message: str) -> str:
    """A message as it is, in a cell of a table; some hold backticks and bars."""
    escaped = message.replace("|", "\\|")
    return f"`` {escaped} ``" if "`" in message else f"`{escaped}`"


def main(file: Path = FILE) -> None:
    file.write_text(page().rstrip("\n") + "\n", encoding="utf-8")
    print(f"wrote {file.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
