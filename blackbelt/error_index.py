"""Which lessons show an error message: gathered from what cells raised, warned and printed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from blackbelt.languages import keep
from blackbelt.lesson import Cell, Lesson
from blackbelt.plan import plan
from blackbelt.prose_facts import facts
from blackbelt.results import Output, Run
from blackbelt.sections import pairs

# `RuntimeError: shape '[4]' is invalid`; what is only printed has to look like an exception.
_MESSAGE = re.compile(r"^(?P<type>(?:\w+\.)*\w+): (?P<text>\S.*)$")
_PRINTED = re.compile(r"^(?:\w+\.)*[A-Z]\w*(?:Error|Warning|Exception)$")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_LONGEST = 300
_WORDS_OF_ADDRESS = 10


@dataclass(frozen=True)
class Shown:
    """A place in which a lesson shows a message.

    Attributes:
        lesson: the lesson.
        section: address of the heading above it.
    """

    lesson: Lesson
    section: str


@dataclass(frozen=True)
class Message:
    """An error message or warning.

    Attributes:
        type: such as `RuntimeError`.
        text: its first line.
        address: on the page; it stays when only numbers of the message change.
        places: where lessons show it, in the order of the course.
    """

    type: str
    text: str
    address: str
    places: tuple[Shown, ...]


def error_index(lessons: list[tuple[Lesson, Run]]) -> tuple[Message, ...]:
    """Every message that lessons show, by type and text."""
    places: dict[str, dict[Shown, None]] = {}
    texts: dict[str, tuple[str, str]] = {}
    for lesson, run in lessons:
        for kind, text, section in shown_messages(lesson, run):
            address = _address(kind, text)
            texts.setdefault(address, (kind, text))
            places.setdefault(address, {})[Shown(lesson, section)] = None
    found = [
        Message(kind, text, address, tuple(places[address]))
        for address, (kind, text) in texts.items()
    ]
    return tuple(sorted(found, key=lambda m: (m.type, m.text.lower(), m.address)))


def shown_messages(lesson: Lesson, run: Run) -> Iterator[tuple[str, str, str]]:
    """Type, text and section of each message; those of exercises are the course's own."""
    steps = plan(lesson)
    section = ""
    for block in lesson.blocks:
        for pair in pairs(block):
            headings = facts(pair.en.source).headings if "#" in pair.en.source else ()
            section = headings[-1].slug if headings else section
        if isinstance(block, Cell):
            for output in run.of(steps, block).outputs:
                for kind, text in _messages(output):
                    yield kind, text, section


def _messages(output: Output) -> Iterator[tuple[str, str]]:
    """Messages of an output, in English where a program speaks both languages."""
    text = keep(output.text, "en")
    raised = output.kind in ("error", "warning")
    lines = [text] if raised else text.split("\n")
    for line in lines if output.kind != "figure" else ():
        found = _MESSAGE.match(" ".join(line.split("\n")[0].split()))
        if found and (raised or _PRINTED.match(found["type"])):
            yield found["type"].rpartition(".")[2], _short(found["text"])


def _short(text: str) -> str:
    text = text.strip().rstrip(",:")
    if len(text) <= _LONGEST:
        return text
    return text[:_LONGEST].rpartition(" ")[0] + " …"


def _address(kind: str, text: str) -> str:
    words = re.findall(r"[a-z_]+", _NUMBER.sub(" ", text.lower()))
    return "-".join([kind.lower(), *words[:_WORDS_OF_ADDRESS]])
