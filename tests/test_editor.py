"""Opening the folder in VS Code is enough: its files fit the project, and lessons run there.

VS Code itself is not here. What it does with these files is done instead: the snippets are
expanded, the commands of tasks are parsed, their matchers read real output, and every lesson is
cut at VS Code's own cell markers and executed by an ordinary kernel, cell by cell, in the
workspace's folder.
"""

import json
import re
import shlex
import shutil
from pathlib import Path
from textwrap import dedent
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from tiny import REPOSITORY, TITLE, TinyCourse

from blackbelt.cli import _parser
from blackbelt.config import load_project
from blackbelt.course import load_course
from blackbelt.lesson import Cell, Lesson

VSCODE = REPOSITORY / ".vscode"
CONTAINERS = REPOSITORY / ".devcontainer"
COURSE = load_course(load_project(REPOSITORY))
LESSONS = {lesson.name: lesson for lesson in COURSE.lessons}

# The defaults of `jupyter.interactiveWindow.cellMarker.*`.
CODE_CELL = re.compile(r"^(#\s*%%|#\s*\<codecell\>|#\s*In\[\d*?\]|#\s*In\[ \])")
MARKDOWN_CELL = re.compile(r"^(#\s*%%\s*\[markdown\]|#\s*\<markdowncell\>)")
# `${1:default}`, `${2|first,second|}`, `$0`.
PLACEHOLDER = re.compile(r"\$\{\d+:([^}]*)\}|\$\{\d+\|([^,|]*)[^}]*\}|\$\d+")


def read(file: Path) -> Any:
    """JSON with comments on lines of their own, as VS Code and dev containers read it."""
    lines = file.read_text(encoding="utf-8").split("\n")
    return json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))


# Lessons in the Interactive Window


def vscode_cells(text: str) -> dict[int, str]:
    """What VS Code sends to the kernel for each code cell, by the line of its marker.

    It leaves out the marker and blank lines around the rest, and takes the indentation away.
    """
    cells: dict[int, list[str]] = {}
    here: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if CODE_CELL.match(line):
            here = []
            if not MARKDOWN_CELL.match(line):
                cells[number] = here
        else:
            here.append(line)
    return {number: dedent("\n".join(lines).strip("\n")) for number, lines in cells.items()}


def expected_error(lesson: Lesson, cell: Cell) -> tuple[str, str] | None:
    """The exception that a reader gets who runs all cells and answers no exercise."""
    if cell.options.raises:
        return cell.options.raises.type.split(".")[-1], cell.options.raises.text
    for exercise in lesson.exercises:
        if cell == exercise.check:
            return "AssertionError", ""
    return None


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_has_the_same_cells_in_vs_code(name: str) -> None:
    lesson = LESSONS[name]
    seen = vscode_cells(lesson.source)
    assert sorted(seen) == sorted(cell.line for cell in lesson.code)
    for cell in lesson.code:
        assert cell.source.strip() == seen[cell.line].strip()


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_runs_cell_by_cell_from_the_workspace(name: str, tmp_path: Path) -> None:
    assert read(VSCODE / "settings.json")["jupyter.notebookFileRoot"] == "${workspaceFolder}"
    for folder in ("lessons", "snippets"):
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=without)
    before = files(tmp_path)
    faults = execute(LESSONS[name], tmp_path)
    distributed = "snippets.distributed" in LESSONS[name].source
    if faults and (distributed or all(cell.options.measured for cell in faults)):
        # What it measured, or the processes that it waited for, shared the machine.
        faults = execute(LESSONS[name], tmp_path)
    assert {f"{LESSONS[name].path}:{cell.line}": what for cell, what in faults.items()} == {}
    # A reader's checkout stays clean.
    assert files(tmp_path) == before


def execute(lesson: Lesson, workspace: Path) -> dict[Cell, str]:
    """Run all cells in order; returns those that end in another way than they declare."""
    cells = vscode_cells(lesson.source)
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells.values())))
    resources = {"metadata": {"path": str(workspace)}}
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", allow_errors=True, resources=resources
    )
    client.execute()
    declared = {cell.line: cell for cell in lesson.code}
    faults = {}
    for line, done in zip(cells, notebook.cells, strict=True):
        cell = declared[line]
        got = [(o.ename, o.evalue) for o in done.outputs if o.output_type == "error"]
        kind, text = expected_error(lesson, cell) or ("", "")
        expected = [name for name, _ in got] == ([kind] if kind else [])
        if not expected or not all(text in said for _, said in got):
            faults[cell] = f"{got}, not {[kind, text]}"
    return faults


def test_a_cell_that_ends_otherwise_would_be_noticed(course: TinyCourse) -> None:
    cells = """\
# %% raises="ValueError: seven"
raise ValueError("seven 'pieces'")

# %% raises="ValueError: seven"
raise ValueError("eight")

# %% raises="ValueError: seven"
seven = 7

# %%
print(nothing)

# %%
assert seven == 7
"""
    course.write("lessons/1_first/01_wrong.py", TITLE + cells)
    faults = execute(course.load().lessons[0], course.root)
    assert [cell.line for cell in faults] == [14, 17, 20]


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return {path for path in found if "__pycache__" not in path}


# Snippets, tasks, settings


def expand(body: list[str]) -> str:
    """A snippet with the default of each placeholder."""
    defaults: dict[str, str] = {}
    text = "\n".join(body)
    for number, default in re.findall(r"\$\{(\d+):([^}]*)\}", text):
        defaults.setdefault(number, default)
    return PLACEHOLDER.sub(lambda match: match[1] or match[2] or "", text)


@pytest.mark.parametrize("name", ["Pair of prose", "Prediction", "Exercise"])
def test_snippets_are_sound_cells(name: str, course: TinyCourse) -> None:
    snippets = read(VSCODE / "lessons.code-snippets")
    assert name in snippets
    text = expand(snippets[name]["body"])
    if text.endswith("# %%\n"):  # where the cursor waits
        text += "print(1)\n"
    course.write("lessons/1_first/01_snippet.py", TITLE + text.rstrip("\n") + "\n")
    done = course.command("check")
    assert (done.err, done.code) == ("", 0)
    assert len(course.load().lessons[0].blocks) >= 2


def commands() -> list[str]:
    """Commands of tasks and dev containers, with a lesson open in the editor."""
    found = [task["command"] for task in read(VSCODE / "tasks.json")["tasks"]]
    for file in sorted(CONTAINERS.rglob("devcontainer.json")):
        settings = read(file)
        for key in ("postCreateCommand", "postAttachCommand"):
            found += settings[key].split(" && ")
    return [text.replace("${fileBasenameNoExtension}", next(iter(LESSONS))) for text in found]


def test_tasks_and_containers_call_commands_that_exist() -> None:
    known = [text for text in commands() if text.startswith("uv run blackbelt ")]
    for text in known:
        options = _parser().parse_args(shlex.split(text)[3:])
        lessons = getattr(options, "lessons", [])
        assert len(COURSE.select(tuple(lessons))) == (1 if lessons else len(LESSONS))
    assert len(known) == 6
    assert set(commands()) - set(known) == {"uv sync", "sudo chown vscode .venv"}


def test_the_matchers_of_tasks_find_a_problem(course: TinyCourse) -> None:
    course.write("lessons/1_first/01_broken.py", TITLE + "# %%\nimport requests\n")
    printed = course.command("check").err.splitlines()
    matchers = [task["problemMatcher"] for task in read(VSCODE / "tasks.json")["tasks"]]
    patterns = [matcher["pattern"] for matcher in matchers if matcher]
    assert len(patterns) == 3
    for pattern in patterns:
        found = [match for line in printed if (match := re.match(pattern["regexp"], line))]
        assert len(found) == 1
        parts = [found[0][pattern[key]] for key in ("file", "line")]
        assert parts == ["lessons/1_first/01_broken.py", "12"]
        assert found[0][pattern["message"]].startswith("import of `requests`")


def test_containers_differ_only_in_the_gpu_and_have_the_recommended_extensions() -> None:
    cpu = read(CONTAINERS / "devcontainer.json")
    cuda = read(CONTAINERS / "cuda" / "devcontainer.json")
    assert (CONTAINERS / cpu["build"]["dockerfile"]).is_file()
    assert (CONTAINERS / "cuda" / cuda["build"]["dockerfile"]).is_file()
    assert set(cuda["runArgs"]) - set(cpu["runArgs"]) == {"--gpus=all"}
    assert "hostRequirements" not in cpu  # who has no GPU is not asked for one
    different = {key for key in cpu | cuda if cpu.get(key) != cuda.get(key)}
    assert different == {"name", "build", "runArgs", "hostRequirements"}
    wanted = read(VSCODE / "extensions.json")["recommendations"]
    assert cpu["customizations"]["vscode"]["extensions"] == wanted
    # Formatters that the settings name are among them.
    settings = read(VSCODE / "settings.json")
    assert settings["[python]"]["editor.defaultFormatter"] in wanted


def test_settings_do_not_repeat_what_they_would_contradict() -> None:
    settings = read(VSCODE / "settings.json")
    pyproject = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f"line-length = {settings['[python]']['editor.rulers'][0]}\n" in pyproject
    port = next(iter(read(CONTAINERS / "devcontainer.json")["portsAttributes"]))
    assert _parser().parse_args(["serve"]).port == int(port)
