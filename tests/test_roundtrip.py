"""Lessons are jupytext's percent format: other tools read and write them without a loss.

From a lesson to a notebook and back, everything comes back as it was, except for blank lines at
the end of the file. (In an `.ipynb` file, keys of a header are also sorted.)
"""

import json
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from tiny import REPOSITORY

from blackbelt.assemble import assemble
from blackbelt.config import load_project
from blackbelt.course import Course, load_course
from blackbelt.lesson import Lesson
from blackbelt.notebook import render_notebook
from blackbelt.plan import plan
from blackbelt.prose_facts import facts
from blackbelt.read import read_cells, read_text
from blackbelt.results import Output, Run, StepRun

LESSONS = sorted((REPOSITORY / "lessons").glob("*/*.py"))
GOLDEN = sorted((REPOSITORY / "tests" / "golden").glob("*.py"))
FILES = [*LESSONS, *GOLDEN]
NAMES = [path.stem for path in FILES]
# Keys whose value is kept as it is.
NAMED = [*("lang", "exercise", "role", "belt", "minutes", "says")]
NAMED += ["predict", "quiz", "question", "kind"]

# What cells of the three kinds look like to every other program.
ODD = '''\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] lang="pl"
# # Tytuł "w cudzysłowie"
#
#
# - lista
#   - głębiej
#
#     kod

# %% [markdown] lang="en"
# # Title
#
# # %% is not a cell here
#     indented

# %% fold=true raises="ValueError: [a] = {b}, \\"c\\""
x = """
# comment in a text

"""
# a comment at the end

# %% warns=["A: one", "B: two"]
def f() -> None:
    """Blank lines inside."""

    pass


# %% exercise="id" role="wrong" says="ąę #1"
f()
'''


def text_of(path: Path) -> str:
    return read_text(path, path.name)


def options_of(text: str) -> list[set[str]]:
    """Keys in the header of each cell, read in the most naive way."""
    headers = re.findall(r"^# %%(.*)$", text, re.M)
    return [set(re.findall(r'(?:^| )([a-z]+)=(?=[\["\dt])', header)) for header in headers]


def same_cells(text: str) -> None:
    ours = read_cells(text, "x.py")
    theirs = jupytext.reads(text, fmt="py:percent").cells
    assert [cell.kind for cell in ours] == [cell.cell_type for cell in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.source == other.source, f"line {mine.line}"
    # jupytext notes there how many blank lines follow a cell that is not followed by one.
    notes = {"lines_to_next_cell"}
    assert options_of(text) == [set(cell.metadata) - notes for cell in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        options = mine.options
        for key in NAMED:
            assert getattr(options, key) == other.metadata.get(key), f"line {mine.line}"
        for key in ("fold", "measured"):
            assert getattr(options, key) is other.metadata.get(key, False), f"line {mine.line}"
        declared = [options.raises] if options.raises else []
        assert [str(e) for e in declared] == [*filter(None, [other.metadata.get("raises")])]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_jupytext_reads_the_same_cells(path: Path) -> None:
    same_cells(text_of(path))


def test_jupytext_reads_the_same_odd_cells() -> None:
    same_cells(ODD)


def there_and_back(text: str) -> str:
    notebook = jupytext.reads(text, fmt="py:percent")
    # As Jupyter's server hands it to the browser; nbformat.writes would also sort the keys.
    sent = json.dumps(notebook)
    again: str = jupytext.writes(nbformat.reads(sent, as_version=4), fmt="py:percent")
    # Jupyter adds its YAML header, which the engine skips.
    return re.sub(r"\A# ---\n.*?^# ---\n\n", "", again, flags=re.M | re.S)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_lesson_survives_jupyter(path: Path) -> None:
    text = text_of(path)
    again = there_and_back(text)
    assert again.rstrip("\n") == text.rstrip("\n")
    assert [(c.kind, c.source, c.options) for c in read_cells(again, "x.py")] == [
        (c.kind, c.source, c.options) for c in read_cells(text, "x.py")
    ]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_lines_of_cells_are_those_of_the_file(path: Path) -> None:
    text = text_of(path)
    lines = text.split("\n")
    for cell in read_cells(text, "x.py"):
        assert lines[cell.line - 1].startswith("# %%")
        begin = "# " if cell.kind == "markdown" else ""
        for offset, line in enumerate(cell.source.split("\n")):
            assert lines[cell.first - 1 + offset].rstrip() == f"{begin}{line}".rstrip()


@pytest.fixture(scope="module")
def course() -> Course:
    return load_course(load_project(REPOSITORY))


def pretend(lesson: Lesson) -> Run:
    """Results as a run could have left them, without the minutes that it takes."""
    everything = (
        Output("text", "printed\n"),
        Output("result", "tensor([1.])"),
        Output("warning", "UserWarning: careful"),
        Output("error", "ValueError: two\nlines", line=1),
    )
    found = (facts(pair.pl.source).values for pair in lesson.prose)
    values: dict[str, bool | int | float | str] = {v.text: 1.5 for vs in found for v in vs}
    # Some specifications are for whole numbers only.
    whole = re.findall(r"\{\{ (\w+):[^}]*d \}\}", lesson.source)
    values |= dict.fromkeys(whole, 15)
    return Run(tuple(StepRun(everything) for _ in plan(lesson)), values)


@pytest.mark.parametrize("language", ["pl", "en"])
@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_notebooks_are_valid(path: Path, language: str, course: Course) -> None:
    shown = f"lessons/1_first/{path.name}"
    if path in LESSONS:
        shown = path.relative_to(REPOSITORY).as_posix()
    text = text_of(path)
    lesson = assemble(shown, text, read_cells(text, shown))
    notebook = json.loads(render_notebook(lesson, pretend(lesson), language, course))
    nbformat.validate(notebook)
    assert notebook["metadata"]["blackbelt"] == {"lesson": shown, "language": language}
    identifiers = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identifiers)) == len(identifiers)
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for source in code:
        assert "from snippets" not in source
        compile(source, "cell", "exec")
    prose = "\n".join(c["source"] for c in notebook["cells"] if c["cell_type"] == "markdown")
    assert not re.search(r"\]\([^):]*\.py\b|\{\{ |\[!\w+\]", re.sub("`[^`]*`|```.*?```", "", prose))
