"""What a lesson is: cells as they stand in the file, and the blocks that they form."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

CellKind = Literal["markdown", "code"]
LANGUAGES = ("pl", "en")

_TITLE = re.compile(r"^#\s+(.+?)\s*#*$", re.M)


@dataclass(frozen=True)
class Expected:
    """A declared exception or warning: the name of its type and a part of its text."""

    type: str
    text: str

    def matches(self, type_name: str, message: str) -> bool:
        return self.type.split(".")[-1] == type_name and self.text in message

    def __str__(self) -> str:
        return f"{self.type}: {self.text}" if self.text else self.type


@dataclass(frozen=True)
class Options:
    """What the header of a cell declares. `lessons/README.md` explains each key."""

    lang: str | None = None
    fold: bool = False
    measured: bool = False
    raises: Expected | None = None
    warns: tuple[Expected, ...] = ()
    exercise: str | None = None
    role: str | None = None
    belt: str | None = None
    minutes: int | None = None
    says: str | None = None
    predict: str | None = None
    quiz: str | None = None
    question: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class Cell:
    """A cell of the file.

    Attributes:
        kind: prose or code.
        source: the text, for prose without the comment signs.
        line: line of the `# %%` header, counted from 1.
        first: line of the file in which `source` begins.
        options: the declared options.
    """

    kind: CellKind
    source: str
    line: int
    first: int
    options: Options


@dataclass(frozen=True)
class Prose:
    """The same prose in both languages."""

    pl: Cell
    en: Cell

    def of(self, language: str) -> Cell:
        return self.pl if language == "pl" else self.en


@dataclass(frozen=True)
class Exercise:
    """A task with a check that is proven to fail before and to pass after the solution."""

    id: str
    belt: str
    minutes: int
    prompt: Prose
    starter: Cell
    check: Cell
    hints: tuple[Prose, ...]
    wrong: tuple[Cell, ...]
    solution: Cell


@dataclass(frozen=True)
class Choice:
    """An option of a question, as Markdown: what the reader picks, and why it is right or not."""

    text: str
    reason: str
    right: bool


@dataclass(frozen=True)
class Wording:
    """A question in one language, as Markdown."""

    text: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Question:
    """A question that the reader answers before the truth shows.

    Attributes:
        id: unique in the lesson; what a reader's progress is kept under.
        kind: `one` or `many` right options, `type` an answer, or `order` the options.
        pair: the cells that hold it.
        pl, en: what they say. The choices of `order` stand in the right order.
    """

    id: str
    kind: str
    pair: Prose
    pl: Wording
    en: Wording

    def of(self, language: str) -> Wording:
        return self.pl if language == "pl" else self.en


@dataclass(frozen=True)
class Quiz:
    """Questions in a row that are scored together."""

    id: str
    questions: tuple[Question, ...]


Block = Prose | Cell | Exercise | Question | Quiz


@dataclass(frozen=True)
class Lesson:
    """A lesson as it was written.

    Attributes:
        path: file, relative to the project's root, with forward slashes.
        module: name of the folder that holds it, such as `1_tensors`.
        number: such as `01`; unique in the course.
        slug: the rest of the file's name; unique in the course.
        source: the whole text of the file.
        blocks: prose pairs, code cells, exercises and questions, in the order of the file.
    """

    path: str
    module: str
    number: str
    slug: str
    source: str
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        """Name of the file without its ending, such as `01_storage_vs_view`."""
        return f"{self.number}_{self.slug}"

    @property
    def prose(self) -> Iterator[Prose]:
        """Every pair, those of exercises and questions included, in the order of the file."""
        for block in self.blocks:
            if isinstance(block, Prose):
                yield block
            elif isinstance(block, Exercise):
                yield block.prompt
                yield from block.hints
            elif isinstance(block, Question):
                yield block.pair
            elif isinstance(block, Quiz):
                yield from (question.pair for question in block.questions)

    @property
    def exercises(self) -> tuple[Exercise, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Exercise))

    @property
    def predictions(self) -> tuple[Question, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Question))

    @property
    def quizzes(self) -> tuple[Quiz, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Quiz))

    @cached_property
    def code(self) -> tuple[Cell, ...]:
        """Every code cell in the order in which a run executes them."""
        cells: list[Cell] = []
        for block in self.blocks:
            if isinstance(block, Cell):
                cells.append(block)
            elif isinstance(block, Exercise):
                cells += [block.starter, block.check, *block.wrong, block.solution]
        return tuple(cells)

    def title(self, language: str) -> str:
        """The first heading, as Markdown."""
        first = next(self.prose, None)
        found = _TITLE.search(first.of(language).source) if first else None
        return found[1] if found else self.name

    def description(self, language: str) -> str:
        """The first paragraph, as Markdown on one line."""
        first = next(self.prose, None)
        source = _TITLE.sub("", first.of(language).source, count=1) if first else ""
        return " ".join(source.strip().split("\n\n")[0].split())
