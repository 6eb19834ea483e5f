"""A tiny course in a temporary folder, and the command line working on it."""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blackbelt.cli import main
from blackbelt.config import Project, load_project
from blackbelt.course import Course, load_course
from blackbelt.problems import Problem

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = ("1_first", "2_second")

# The beginning of every valid lesson.
TITLE = """\
# %% [markdown] lang="pl"
# # Tytuł
#
# Opis.

# %% [markdown] lang="en"
# # Title
#
# Description.

"""

_PYPROJECT = """\
[project]
name = "tiny"
version = "0"

[project.urls]
Repository = "https://github.com/someone/tiny"

[tool.blackbelt]
imports = ["torch", "numpy", "matplotlib", "IPython", "pandas", "seaborn"]
cell_seconds = {cell_seconds}
lesson_seconds = {lesson_seconds}
output_characters = 2000
"""

_PROBLEM = re.compile(
    r"^(?P<path>lessons[^:\n]*):(?P<line>\d+): (?P<what>.*?)\n    next: (?P<command>.*)$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Done:
    """What a command left behind: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems as they were printed for a person."""
        # The command ends its line, so the next problem cannot be part of it.
        parts = re.split(r"(?<=\n)(?=lessons[^:\n]*:\d+: )", self.err)
        found = [_PROBLEM.search(part) for part in parts]
        return tuple(
            Problem(f["path"], int(f["line"]), f["what"], f["command"].split("\n")[0])
            for f in found
            if f
        )

    def of(self, path: str) -> tuple[Problem, ...]:
        """The problems of one file."""
        return tuple(problem for problem in self.problems if problem.path == path)


class TinyCourse:
    """Two modules, the snippets of the repository, and the lessons that a test writes."""

    def __init__(self, root: Path, *, cell_seconds: int = 30, lesson_seconds: int = 300) -> None:
        self.root = root
        self._planned: list[tuple[str, str]] = []
        compiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "snippets", root / "snippets", ignore=compiled)
        text = _PYPROJECT.format(cell_seconds=cell_seconds, lesson_seconds=lesson_seconds)
        (root / "pyproject.toml").write_text(text, encoding="utf-8")
        for module in MODULES:
            (root / "lessons" / module).mkdir(parents=True)
        self.plan()

    def plan(self, *paths: str) -> None:
        """Put lessons into the roadmap, in this order."""
        for path in paths:
            _, module, file = path.split("/")
            self._planned.append((module, file.removesuffix(".py")))
        entries = [self._module(module) for module in MODULES]
        (self.root / "lessons" / "roadmap.toml").write_text("\n".join(entries), encoding="utf-8")

    def _module(self, folder: str) -> str:
        lessons = []
        for module, name in self._planned:
            if module == folder:
                number, _, slug = name.partition("_")
                fields = {"number": number, "slug": slug, "pl": f"Lekcja {slug}"}
                fields["en"] = f"Lesson {slug}"
                lessons.append(", ".join(f"{k} = {json.dumps(v)}" for k, v in fields.items()))
        return "\n".join(
            [
                "[[module]]",
                f'folder = "{folder}"',
                'title = { pl = "Moduł", en = "Module" }',
                'summary = { pl = "O czym.", en = "On what." }',
                "lessons = [",
                *(f"    {{ {lesson} }}," for lesson in lessons),
                "]\n",
            ]
        )

    def write(self, path: str, text: str | bytes, *, planned: bool = True) -> Path:
        """Write a lesson, and put it into the roadmap unless `planned` is false."""
        file = self.root / path
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        if planned:
            self.plan(path)
        return file

    @property
    def project(self) -> Project:
        return load_project(self.root)

    def load(self) -> Course:
        return load_course(self.project)

    def command(self, *arguments: str) -> Done:
        """Run `blackbelt` with these arguments in the course's folder."""
        return command(arguments, self.root)


def command(arguments: Sequence[str], folder: Path) -> Done:
    """Run `blackbelt` in a folder, inside this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return Done(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Case:
    """A lesson with mistakes, and the problems that it must have: each a line and a text."""

    source: str
    problems: tuple[tuple[int, str], ...]


def cases(text: str, cells: Mapping[str, str]) -> dict[str, Case]:
    """Read a list of lessons with mistakes.

    A lesson begins with `=== its name`. A line `► text` stands below the line in which a problem
    is expected, and says a part of its message. A line `@name` stands for one of the cells.
    """
    found: dict[str, Case] = {}
    for part in text.split("\n=== ")[1:]:
        name, _, body = part.partition("\n")
        lines: list[str] = []
        problems: list[tuple[int, str]] = []
        for line in body.strip("\n").split("\n"):
            if line.startswith("► "):
                problems.append((len(lines), line.removeprefix("► ")))
            elif line.startswith("@"):
                lines += cells[line[1:]].rstrip("\n").split("\n")
            else:
                lines.append(line)
        assert name not in found, f"two cases are called {name}"
        found[name] = Case("\n".join(lines) + "\n", tuple(problems))
    return found


def compare(found: tuple[Problem, ...], expected: Case) -> None:
    """Each expected problem is there, and there is no other."""
    left = list(found)
    for line, text in expected.problems:
        same = [problem for problem in left if problem.line == line and text in problem.what]
        assert same, f"line {line} should say {text!r}; problems: {[str(p) for p in found]}"
        left.remove(same[0])
    assert not left, f"not expected: {[str(problem) for problem in left]}"
