"""Step 6: a lesson and its run become the Markdown of one page."""

import re
from dataclasses import dataclass

from blackbelt.figures import Picture
from blackbelt.lesson import Block, Cell, Exercise, Lesson, Prose, Question, Quiz
from blackbelt.page_outputs import Outputs
from blackbelt.plan import plan
from blackbelt.render_question import question_for_page, quiz_for_page
from blackbelt.results import Run, StepRun
from blackbelt.strings import Strings, for_language
from blackbelt.write_prose import prose_for_page, text_for_page

_WORDS_A_MINUTE = 180
_CODE_LINES_A_MINUTE = 30


@dataclass(frozen=True)
class Page:
    """One page: its Markdown, and the files that it shows."""

    markdown: str
    pictures: tuple[Picture, ...]


def render_page(lesson: Lesson, run: Run, language: str, images: str, source: str = "") -> Page:
    """Render a lesson in one language.

    Args:
        lesson: the lesson.
        run: its results.
        language: `pl` or `en`.
        images: address of the folder of images, relative to the page's file.
        source: address of the lesson's file in the repository, to which cells link.

    Raises:
        KeyError: prose quotes a value that the run does not have.
    """
    renderer = _Renderer(lesson, run, language, images, source)
    blocks = [renderer.block(block) for block in lesson.blocks]
    markdown = "\n\n".join(block for block in blocks if block) + "\n"
    return Page(markdown, renderer.pictures)


def reading_minutes(lesson: Lesson, language: str) -> int:
    """Minutes to read the page without folded code and exercises; at least one."""
    words = sum(len(re.findall(r"\w+", pair.of(language).source)) for pair in lesson.prose)
    story = [b for b in lesson.blocks if isinstance(b, Cell) and not b.options.fold]
    lines = sum(1 for cell in story for line in cell.source.splitlines() if line.strip())
    return max(1, round(words / _WORDS_A_MINUTE + lines / _CODE_LINES_A_MINUTE))


def fenced(source: str, attributes: str) -> str:
    """A fenced block that is longer than any run of backticks in it."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", source)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence} {attributes}\n{source}\n{fence}"


class _Renderer:
    def __init__(self, lesson: Lesson, run: Run, language: str, images: str, source: str) -> None:
        self._steps = plan(lesson)
        self._run = run
        self._language = language
        self._words: Strings = for_language(language)
        self._source = source
        name = f"{lesson.name}.py"
        self._shown = Outputs(self._steps, self._words, images, name, source)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return tuple(self._shown.pictures.values())

    def block(self, block: Block) -> str:
        if isinstance(block, Prose):
            return prose_for_page(block, self._language, self._run.values)
        if isinstance(block, Exercise):
            return self._exercise(block)
        if isinstance(block, Question | Quiz):
            return self._asked(block)
        if block.options.lang not in (None, self._language):
            return ""
        return self._cell(block)

    def _asked(self, block: Question | Quiz) -> str:
        language, words = self._language, self._words.learning

        def write(text: str) -> str:
            return text_for_page(text, language, self._run.values)

        if isinstance(block, Quiz):
            return quiz_for_page(block, language, words, write)
        return question_for_page(block, language, words, words.predict, write)

    def _cell(self, cell: Cell) -> str:
        code = self._code(cell)
        if cell.options.fold:
            code = self._details("nb-fold", self._words.show_code, code)
        return f"{code}\n\n{self._outputs(cell, self._result(cell))}".rstrip()

    def _code(self, cell: Cell) -> str:
        code = fenced(cell.source, "{ .python .nb-input }")
        return f"{self._link(cell)}\n\n{code}" if self._source else code

    def _link(self, cell: Cell) -> str:
        """To the cell's lines in the lesson's file."""
        first, last = cell.first, cell.first + cell.source.count("\n")
        said = self._words.outputs
        name = said.source_lines if last > first else said.source_line
        lines = f"L{first}-L{last}" if last > first else f"L{first}"
        title = name.format(first=first, last=last)
        return f'<div class="nb-source"><a href="{self._source}#{lines}" title="{title}"></a></div>'

    def _result(self, cell: Cell, after: Cell | None = None) -> StepRun:
        return self._run.of(self._steps, cell, after)

    def _outputs(self, cell: Cell, result: StepRun) -> str:
        return self._shown.group(cell, result)

    def _details(self, kind: str, summary: str, body: str) -> str:
        opening = f'<details class="{kind}" markdown="1">\n<summary>{summary}</summary>'
        return f"{opening}\n\n{body}\n\n</details>"

    def _exercise(self, exercise: Exercise) -> str:
        words = self._words
        meta = (
            f'<p class="exercise__meta"><span class="belt belt--{exercise.belt}">'
            f"{words.belts[exercise.belt]}</span>"
            f"<span>{words.minutes.format(minutes=exercise.minutes)}</span></p>"
        )
        parts = [meta, prose_for_page(exercise.prompt, self._language, self._run.values)]
        parts += [self._code(exercise.starter)]
        failed = self._outputs(exercise.check, self._result(exercise.check, exercise.starter))
        check = f"{self._code(exercise.check)}\n\n{failed}"
        parts += [self._details("exercise__check", words.check, check)]
        for number, hint in enumerate(exercise.hints, start=1):
            text = prose_for_page(hint, self._language, self._run.values)
            parts.append(self._details("exercise__hint", words.hint.format(number=number), text))
        if exercise.wrong:
            parts.append(
                self._details("exercise__wrong", words.wrong_answers, self._wrong(exercise))
            )
        parts.append(self._details("nb-solution", words.solution, self._solution(exercise)))
        body = "\n\n".join(parts)
        opening = f'<div class="exercise exercise--{exercise.belt}" data-exercise="{exercise.id}"'
        return f'{opening} markdown="1">\n\n{body}\n\n</div>'

    def _wrong(self, exercise: Exercise) -> str:
        parts = []
        for answer in exercise.wrong:
            message = self._outputs(exercise.check, self._result(exercise.check, answer))
            parts += [self._code(answer), message]
        return "\n\n".join(parts)

    def _solution(self, exercise: Exercise) -> str:
        solution = exercise.solution
        checked = self._outputs(exercise.check, self._result(exercise.check, solution))
        printed = self._outputs(solution, self._result(solution))
        return "\n\n".join(part for part in (self._code(solution), printed, checked) if part)
