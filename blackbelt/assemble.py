"""Step 2: cells become a lesson: language pairs, code, whole exercises and questions."""

from itertools import groupby
from pathlib import PurePosixPath
from typing import NamedTuple

from blackbelt.lesson import (
    Block,
    Cell,
    Exercise,
    Lesson,
    Options,
    Prose,
    Question,
    Quiz,
    Wording,
)
from blackbelt.problems import CourseError, Problem
from blackbelt.read import FOLDER, NAME

_OTHER = {"pl": "en", "en": "pl"}


def assemble(path: str, source: str, cells: tuple[Cell, ...]) -> Lesson:
    """Build a lesson from its cells.

    Args:
        path: `lessons/N_module/NN_slug.py`.
        source: text of the file.
        cells: what `read_cells` made of it.

    Raises:
        CourseError: prose without its twin, an exercise that is not whole, or a question that is
            not one.
    """
    problems: list[Problem] = []
    parts = PurePosixPath(path)
    name = NAME.match(parts.name)
    if not name or not FOLDER.match(parts.parent.name):
        what = "a lesson is `lessons/N_module/NN_slug.py`, in lower case with underscores"
        raise CourseError([Problem(path, 1, what)])
    blocks: list[Block] = []
    for part, group in groupby(cells, key=lambda cell: _part(cell.options)):
        members = list(group)
        if part.exercise:
            blocks += filter(None, [_exercise(part.exercise, members, path, problems)])
        elif part.predict:
            blocks += _questions(part.predict, members, path, problems)
        elif part.quiz:
            blocks.append(_quiz(part.quiz, members, path, problems))
        else:
            blocks += _pair(members, path, problems)
    problems += _repeated(blocks, path)
    if problems:
        raise CourseError(problems)
    return Lesson(path, parts.parent.name, name["number"], name["slug"], source, tuple(blocks))


class _Part(NamedTuple):
    """What cells in a row belong to together."""

    exercise: str | None
    predict: str | None
    quiz: str | None


def _part(options: Options) -> _Part:
    return _Part(options.exercise, options.predict, options.quiz)


def _questions(name: str, cells: list[Cell], path: str, problems: list[Problem]) -> list[Question]:
    """Questions under one name: one, unless the author repeated it."""
    pairs = [pair for pair in _pair(cells, path, problems) if isinstance(pair, Prose)]
    try:
        from blackbelt.questions import read_question
    except ModuleNotFoundError:
        # Recording needs what lessons need, not what builds the site: there a question is prose.
        unread = Wording("", ())
        return [Question(name, "one", pair, unread, unread) for pair in pairs]
    return [q for pair in pairs if (q := read_question(name, pair, path, problems))]


def _quiz(name: str, cells: list[Cell], path: str, problems: list[Problem]) -> Quiz:
    found: list[Question] = []
    for question, group in groupby(cells, key=lambda cell: cell.options.question):
        found += _questions(question or "", list(group), path, problems)
    return Quiz(name, tuple(found))


def _pair(cells: list[Cell], path: str, problems: list[Problem]) -> list[Prose | Cell]:
    """Put twins together; code cells stay as they are."""
    result: list[Prose | Cell] = []
    waiting: Cell | None = None
    for cell in [*cells, None]:
        language = cell.options.lang if cell and cell.kind == "markdown" else None
        if waiting and language != "en":
            problems.append(_lonely(waiting, path))
            waiting = None
        if cell is None:
            break
        if cell.kind == "code":
            result.append(cell)
        elif language is None:
            what = 'prose without a language: write `# %% [markdown] lang="pl"` or `lang="en"`'
            problems.append(Problem(path, cell.line, what))
        elif language == "pl":
            waiting = cell
        elif waiting:
            result.append(Prose(waiting, cell))
            waiting = None
        else:
            problems.append(_lonely(cell, path))
    return result


def _lonely(cell: Cell, path: str) -> Problem:
    language = cell.options.lang or ""
    place = "right after" if language == "pl" else "right before"
    keys = [("predict", cell.options.predict), ("question", cell.options.question)]
    same = "".join(f' {key}="{name}"' for key, name in keys if name)
    what = (
        f'prose without its twin: a [markdown] cell with lang="{_OTHER[language]}"{same} '
        f'has to stand {place} this lang="{language}" cell'
    )
    return Problem(path, cell.line, what)


def _exercise(name: str, cells: list[Cell], path: str, problems: list[Problem]) -> Exercise | None:
    before = len(problems)
    where = cells[0].line
    prose = [cell for cell in cells if cell.kind == "markdown"]
    pairs = [pair for pair in _pair(prose, path, problems) if isinstance(pair, Prose)]
    prompts = [pair for pair in pairs if pair.pl.options.role == "prompt"]
    hints = tuple(pair for pair in pairs if pair.pl.options.role == "hint")
    code = {
        role: [c for c in cells if c.options.role == role and c.kind == "code"] for role in _CODE
    }
    if len(prompts) != 1:
        problems.append(Problem(path, where, f"exercise `{name}` needs exactly one prompt pair"))
    for role in ("starter", "check", "solution"):
        if (found := len(code[role])) != 1:
            what = f'exercise `{name}` needs exactly one cell with role="{role}", found {found}'
            problems.append(Problem(path, where, what))
    problems += _order(name, cells, path)
    problems += [
        Problem(
            path, cell.line, f'wrong answer of exercise `{name}` needs says="part of the message"'
        )
        for cell in code["wrong"]
        if not cell.options.says
    ]
    if prompts:
        problems += _belt(name, prompts[0], path)
    if len(problems) > before:
        return None
    options = prompts[0].pl.options
    return Exercise(
        id=name,
        belt=options.belt or "",
        minutes=options.minutes or 0,
        prompt=prompts[0],
        starter=code["starter"][0],
        check=code["check"][0],
        hints=hints,
        wrong=tuple(code["wrong"]),
        solution=code["solution"][0],
    )


_CODE = ("starter", "check", "wrong", "solution")
_SEQUENCE = ("prompt", "starter", "check", "hint", "wrong", "solution")


def _order(name: str, cells: list[Cell], path: str) -> list[Problem]:
    """A fixed order makes the file runnable from top to bottom: the solution comes last."""
    ranks = [_SEQUENCE.index(cell.options.role or "") for cell in cells]
    for cell, rank, previous in zip(cells[1:], ranks[1:], ranks, strict=False):
        if rank < previous:
            order = ", ".join(_SEQUENCE)
            what = f"exercise `{name}`: `{cell.options.role}` comes too late; the order is {order}"
            return [Problem(path, cell.line, what)]
    return []


def _belt(name: str, prompt: Prose, path: str) -> list[Problem]:
    problems = []
    for cell in (prompt.pl, prompt.en):
        if cell.options.belt is None or cell.options.minutes is None:
            what = (
                f'the prompt of exercise `{name}` needs belt="white" (brown, black) and minutes=5'
            )
            problems.append(Problem(path, cell.line, what))
    if not problems and (prompt.pl.options.belt, prompt.pl.options.minutes) != (
        prompt.en.options.belt,
        prompt.en.options.minutes,
    ):
        what = f"the two prompts of exercise `{name}` differ in belt or minutes"
        problems.append(Problem(path, prompt.en.line, what))
    return problems


def _repeated(blocks: list[Block], path: str) -> list[Problem]:
    """Names are unique in a lesson: what a reader did is remembered under them."""
    seen: set[str] = set()
    problems = []
    for block in blocks:
        for name, line in _names(block):
            if name in seen:
                what = (
                    f"two exercises or questions are called `{name}`, "
                    "or other cells stand between its cells"
                )
                problems.append(Problem(path, line, what))
            seen.add(name)
    return problems


def _names(block: Block) -> list[tuple[str, int]]:
    """Name and line of everything in a block that has a name."""
    if isinstance(block, Exercise):
        return [(block.id, block.prompt.pl.line)]
    if isinstance(block, Question):
        return [(block.id, block.pair.pl.line)]
    if isinstance(block, Quiz) and block.questions:
        names = [(question.id, question.pair.pl.line) for question in block.questions]
        return [(block.id, names[0][1]), *names]
    return []
