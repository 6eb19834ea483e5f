"""Step 6, too: a lesson and its run become one notebook that needs nothing but packages."""

import json
import re
from typing import Any

from blackbelt import code_facts
from blackbelt.course import Course
from blackbelt.figures import png_size
from blackbelt.inline import needed_snippets, without_snippet_imports
from blackbelt.languages import keep
from blackbelt.lesson import Cell, Exercise, Lesson, Prose, Question, Quiz
from blackbelt.plan import plan
from blackbelt.render import fenced
from blackbelt.render_question import question_for_notebook
from blackbelt.results import Output, Run, StepRun
from blackbelt.strings import for_language
from blackbelt.tables import table_for_notebook
from blackbelt.tracebacks import traceback_for_notebook
from blackbelt.write_prose import prose_for_notebook, text_for_notebook

_SETUP = """# @title {title}
import importlib.util
import os
import subprocess
import sys

# The language in which helpers speak and label figures.
os.environ["BLACKBELT_LANGUAGES"] = "{language}"
# What this lesson imports and a fresh Colab may lack.
packages = {packages}
missing = [name for name in packages if importlib.util.find_spec(name) is None]
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *missing], check=True)"""

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def render_notebook(lesson: Lesson, run: Run, language: str, course: Course) -> str:
    """Render a lesson as the text of an `.ipynb` file, outputs included."""
    builder = _Builder(lesson, run, language, course)
    cells = builder.cells()
    for number, cell in enumerate(cells):
        # Derived from the position: two builds write the same bytes.
        cell["id"] = f"{lesson.name.replace('_', '-')[:50]}-{number:03}"
    notebook = {
        "cells": cells,
        "metadata": _METADATA | {"blackbelt": {"lesson": lesson.path, "language": language}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


class _Builder:
    def __init__(self, lesson: Lesson, run: Run, language: str, course: Course) -> None:
        self._lesson = lesson
        self._run = run
        self._language = language
        self._course = course
        self._words = for_language(language)
        self._steps = plan(lesson)

    def cells(self) -> list[dict[str, Any]]:
        blocks = list(self._lesson.blocks)
        title, rest = blocks[0], blocks[1:]
        cells = [self._prose(title)] if isinstance(title, Prose) else []
        cells += [self._setup(), *self._helpers()]
        for block in rest:
            if isinstance(block, Prose):
                cells.append(self._prose(block))
            elif isinstance(block, Exercise):
                cells += self._exercise(block)
            elif isinstance(block, Question):
                cells.append(self._question(block, self._words.learning.predict))
            elif isinstance(block, Quiz):
                cells += self._quiz(block)
            elif block.options.lang in (None, self._language):
                cells.append(self._code(block, self._run.of(self._steps, block)))
        if self._lesson.exercises:
            cells.append(_markdown(f"## {self._words.solutions}"))
            for exercise in self._lesson.exercises:
                cells += self._solution(exercise)
        return cells

    def _setup(self) -> dict[str, Any]:
        source = _SETUP.format(
            title=self._words.setup, language=self._language, packages=self._packages()
        )
        return _folded(source)

    def _packages(self) -> list[str]:
        sources = [cell.source for cell in self._lesson.code]
        sources += [self._course.snippets[name] for name in self._needed()]
        found = {i.module.split(".")[0] for s in sources for i in code_facts.imports(s)}
        return sorted(found & set(self._course.project.imports))

    def _needed(self) -> tuple[str, ...]:
        return needed_snippets(self._lesson, self._course.snippets)

    def _helpers(self) -> list[dict[str, Any]]:
        return [
            _folded(f"# @title {self._words.helpers}: {name}\n{without_snippet_imports(source)}")
            for name, source in ((name, self._course.snippets[name]) for name in self._needed())
        ]

    def _prose(self, pair: Prose) -> dict[str, Any]:
        site = self._course.project.site_url
        return _markdown(
            prose_for_notebook(pair, self._language, self._run.values, self._lesson, site)
        )

    def _question(self, question: Question, label: str) -> dict[str, Any]:
        language, site = self._language, self._course.project.site_url

        def write(text: str) -> str:
            return text_for_notebook(text, language, self._run.values, self._lesson, site)

        words = self._words.learning
        return _markdown(question_for_notebook(question, language, words, label, write))

    def _quiz(self, quiz: Quiz) -> list[dict[str, Any]]:
        form, total = self._words.learning.question, len(quiz.questions)
        return [
            self._question(question, form.format(number=number, total=total))
            for number, question in enumerate(quiz.questions, start=1)
        ]

    def _code(self, cell: Cell, result: StepRun, *, may_raise: bool = False) -> dict[str, Any]:
        options = cell.options
        # Jupyter goes on after a cell that carries this tag.
        tags = ["raises-exception"] if options.raises or may_raise else []
        tags += ["measured"] if options.measured else []
        metadata: dict[str, Any] = {"tags": tags} if tags else {}
        if options.fold:
            metadata |= {"jupyter": {"source_hidden": True}, "cellView": "form"}
        outputs = [
            self._output(output)
            for output in result.outputs
            if output.language in (None, self._language)
        ]
        source = without_snippet_imports(cell.source)
        if not source.strip():
            source = "# " + self._words.helpers
        return _code(source, metadata, outputs)

    def _exercise(self, exercise: Exercise) -> list[dict[str, Any]]:
        prompt = self._prose(exercise.prompt)
        belt = self._words.belts[exercise.belt]
        minutes = self._words.minutes.format(minutes=exercise.minutes)
        # Below the heading, where the page shows its badge.
        heading, _, body = prompt["source"].partition("\n")
        prompt["source"] = f"{heading}\n\n*{belt} · {minutes}*\n{body}"
        check = exercise.check
        failed = self._run.of(self._steps, check, exercise.starter)
        cells = [
            prompt,
            self._code(exercise.starter, self._run.of(self._steps, exercise.starter)),
            self._code(check, failed, may_raise=True),
        ]
        for number, hint in enumerate(exercise.hints, start=1):
            label = self._words.hint.format(number=number)
            cells.append(_markdown(_fold(label, self._prose(hint)["source"])))
        if exercise.wrong:
            cells.append(_markdown(_fold(self._words.wrong_answers, self._wrong(exercise))))
        return cells

    def _wrong(self, exercise: Exercise) -> str:
        parts = []
        for answer in exercise.wrong:
            result = self._run.of(self._steps, exercise.check, answer)
            message = "\n".join(keep(output.text, self._language) for output in result.outputs)
            parts += [fenced(answer.source, "python"), fenced(message, "text")]
        return "\n\n".join(parts)

    def _solution(self, exercise: Exercise) -> list[dict[str, Any]]:
        source = self._prose(exercise.prompt)["source"]
        title = re.sub(r"^#+\s*", "", source.split("\n", 1)[0])
        solution, check = exercise.solution, exercise.check
        return [
            _markdown(f"### {title}"),
            self._code(solution, self._run.of(self._steps, solution)),
            self._code(check, self._run.of(self._steps, check, solution)),
        ]

    def _output(self, output: Output) -> dict[str, Any]:
        text = keep(output.text, self._language)
        if output.kind == "text":
            return {"output_type": "stream", "name": "stdout", "text": text}
        if output.kind == "error":
            name, _, value = text.partition(": ")
            trace = traceback_for_notebook(output, self._steps, text)
            return {"output_type": "error", "ename": name, "evalue": value, "traceback": trace}
        if output.kind == "warning":
            return {"output_type": "stream", "name": "stderr", "text": text + "\n"}
        if output.kind == "figure":
            return _figure(output, text)
        data = {"text/plain": text}
        if output.table:
            data["text/html"] = table_for_notebook(output.table)
        kind = {"output_type": "execute_result", "execution_count": None}
        return {**kind, "data": data, "metadata": {}}


def _figure(output: Output, text: str) -> dict[str, Any]:
    data, metadata = {"text/plain": text}, {}
    if output.png:
        width, height = png_size(output.png)
        data["image/png"] = output.png
        metadata["image/png"] = {"width": width, "height": height}
    else:
        # A recording keeps of a figure only what its page shows.
        data["image/svg+xml"] = output.svg
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def _markdown(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def _code(source: str, metadata: dict[str, Any], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": metadata,
        "outputs": outputs,
        "source": source,
    }


def _folded(source: str) -> dict[str, Any]:
    return _code(source, {"jupyter": {"source_hidden": True}, "cellView": "form"}, [])


def _fold(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"
