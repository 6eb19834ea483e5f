"""Values of the run that prose quotes: each must exist and take its format specification."""

from collections.abc import Iterator

from blackbelt.lesson import Lesson
from blackbelt.problems import Problem
from blackbelt.prose_facts import VALUE
from blackbelt.results import Run
from blackbelt.typography import write_value


def check_quotes(lesson: Lesson, run: Run) -> Iterator[Problem]:
    """What prose quotes and cannot be written, with its line."""
    command = f"uv run blackbelt run {lesson.number}"
    for pair in lesson.prose:
        for language, cell in (("pl", pair.pl), ("en", pair.en)):
            for number, line in enumerate(cell.source.split("\n")):
                for match in VALUE.finditer(line):
                    if what := _unwritable(match["name"], match["spec"] or "", run, language):
                        text = f"`{match[0]}`: {what}"
                        yield Problem(lesson.path, cell.first + number, text, command)


def _unwritable(name: str, spec: str, run: Run, language: str) -> str:
    if name not in run.values:
        return "not a finite number, a text of at most 300 characters, or a tensor of one element"
    try:
        write_value(run.values[name], spec, language)
    except ValueError as error:
        return f"{run.values[name]!r} does not take this format: {error}"
    return ""
