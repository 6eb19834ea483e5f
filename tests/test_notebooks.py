"""Downloaded notebooks, executed where a reader has them: without this repository."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from blackbelt.config import load_project
from blackbelt.lesson import LANGUAGES
from blackbelt.prepare import prepare
from blackbelt.progress import Progress
from blackbelt.scrub import scrub

ROOT = Path(__file__).parents[1]
# What a reader installs, and what executes the notebook.
PACKAGES = ("torch", "numpy", "matplotlib", "einops", "ipykernel", "nbclient")
AT_A_TIME = 2
SECONDS = 600

_NAME = re.compile(r"^\d+_\w+\.py$")
_WARNING_PLACE = re.compile(r"^\S*:\d+:\s*$")


def lesson_names() -> list[str]:
    """Lessons found, or those that BLACKBELT_ONLY names."""
    only = set(os.environ.get("BLACKBELT_ONLY", "").split())
    found = sorted(f.stem for f in (ROOT / "lessons").glob("*/*.py") if _NAME.match(f.name))
    return [name for name in found if not only or {name, name.split("_")[0]} & only]


CASES = [(name, language) for name in lesson_names() for language in LANGUAGES]


# The clean environment


def _uv() -> list[str]:
    if found := shutil.which("uv"):
        return [found]
    if importlib.util.find_spec("uv"):
        return [sys.executable, "-m", "uv"]
    pytest.fail("these tests need uv: `pip install uv`", pytrace=False)


def _constraints() -> list[str]:
    """Every package at exactly the version that built the site."""
    installed = importlib.metadata.distributions()
    return sorted({f"{dist.metadata['Name']}=={dist.version}" for dist in installed})


@dataclass(frozen=True)
class Clean:
    """An environment without this repository.

    Attributes:
        folder: where it is.
        environment: the variables that its programs get, and no others.
    """

    folder: Path
    environment: dict[str, str]

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """It is kept, under a hash of its versions: making it takes longer than using it."""
    wanted = json.dumps([platform.python_version(), PACKAGES, _constraints()])
    key = hashlib.sha256(wanted.encode()).hexdigest()[:16]
    folder = ROOT / ".cache" / "clean-venv" / key
    home = tmp_path_factory.mktemp("home")
    environment = {
        "PATH": f"{folder}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": "",
        # Two notebooks run side by side.
        "OMP_NUM_THREADS": "1",
        "MPLCONFIGDIR": str(folder / "matplotlib"),
    }
    if not (folder / "complete").is_file():
        _create(folder, environment)
    return Clean(folder, environment)


def _create(folder: Path, environment: dict[str, str]) -> None:
    constraints = folder.with_suffix(".txt")
    # With its CUDA libraries one takes gigabytes: those of other versions go.
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.parent.mkdir(parents=True)
    constraints.write_text("\n".join(_constraints()), encoding="utf-8")
    install = [*_uv(), "pip", "install", "--quiet", "--compile-bytecode", "--python", str(folder)]
    for command in (
        [*_uv(), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [*install, "--constraints", str(constraints), *PACKAGES],
    ):
        # Below the root, uv reads the date up to which packages count from `pyproject.toml`.
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    # Looks for fonts once, which would say so in the first notebook with a figure.
    _python(folder, environment, "import matplotlib.font_manager")
    (folder / "complete").touch()


def _python(folder: Path, environment: dict[str, str], code: str) -> str:
    command = [str(folder / "bin" / "python"), "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("module", ["snippets", "blackbelt", "jupytext"])
def test_environment_lacks_the_repository(clean: Clean, module: str) -> None:
    code = f"import importlib.util; print(importlib.util.find_spec({module!r}))"
    assert _python(clean.folder, clean.environment, code).strip() == "None"


def test_environment_has_the_same_versions(clean: Clean) -> None:
    code = f"import importlib.metadata as m; print([m.version(p) for p in {PACKAGES!r}])"
    expected = [importlib.metadata.version(package) for package in PACKAGES]
    assert ast.literal_eval(_python(clean.folder, clean.environment, code)) == expected


# Executing


def execute(notebook: Any, clean: Clean, folder: Path) -> Any:
    """Run all cells in an empty folder; what they put out replaces what was there."""
    folder.mkdir(parents=True)
    file = folder / "lesson.ipynb"
    emptied = nbformat.from_dict(json.loads(nbformat.writes(notebook)))
    for cell in emptied.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(emptied, file)
    command = [str(clean.folder / "bin" / "jupyter-execute"), "--inplace", "--allow-errors"]
    done = subprocess.run(
        [*command, f"--timeout={SECONDS // 2}", str(file)],
        cwd=folder,
        env=clean.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(file, as_version=4)


@dataclass(frozen=True)
class Executed:
    baked: Any
    again: Any
    folder: Path


@pytest.fixture(scope="session")
def notebooks() -> dict[tuple[str, str], Any]:
    """What readers download, by lesson and language."""
    prepared = prepare(load_project(ROOT), tuple(lesson_names()), Progress())
    problems = "\n".join(str(problem) for problem in prepared.problems)
    assert not problems, problems
    return {
        (rendered.lesson.name, language): nbformat.reads(text, as_version=4)
        for rendered in prepared.lessons
        for language, text in rendered.notebooks.items()
    }


@pytest.fixture(scope="session")
def executions(
    request: pytest.FixtureRequest,
    notebooks: dict[tuple[str, str], Any],
    clean: Clean,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[tuple[str, str], Future[Executed]]]:
    """Executions of the notebooks that the chosen tests ask for, a few at a time."""
    base = tmp_path_factory.mktemp("notebooks")

    def one(case: tuple[str, str]) -> Executed:
        folder = base / ".".join(case)
        baked = notebooks[case]
        return Executed(baked, execute(baked, clean, folder), folder)

    callspecs = [getattr(item, "callspec", None) for item in request.session.items]
    asked = {spec.params["case"] for spec in callspecs if spec and "case" in spec.params}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        futures = {case: pool.submit(one, case) for case in CASES if case in asked}
        yield futures
        for future in futures.values():
            future.cancel()


# Comparing


def _parts(cell: Any, folder: Path) -> list[tuple[str, str]]:
    """Outputs as kind and scrubbed text; printed text that came in pieces is one."""
    parts: list[tuple[str, str]] = []
    for output in cell.outputs:
        kind, text = output.output_type, ""
        if kind == "stream":
            kind, text = output.name, output.text
        elif kind == "error":
            text = f"{output.ename}: {output.evalue}"
        elif "image/png" in output.data:
            kind, text = "figure", output.data.get("text/plain", "")
        else:
            text = output.data.get("text/plain", "")
        if parts and kind in ("stdout", "stderr") and parts[-1][0] == kind:
            parts[-1] = (kind, parts[-1][1] + text)
        else:
            parts.append((kind, text))
    return [(kind, scrub(text, folder, ROOT).rstrip()) for kind, text in parts]


def _unexpected_stderr(expected: str, actual: str) -> str:
    """What is left of the text on stderr without the warnings that the lesson declares."""
    for warning in expected.splitlines():
        if warning not in actual:
            return f"the warning did not come: {warning}"
        actual = actual.replace(warning, "", 1)
    # Python writes where a warning comes from before it, and the line of code below it.
    lines = [line for line in actual.splitlines() if not _WARNING_PLACE.match(line)]
    return "\n".join(line for line in lines if line.strip() and not line.startswith("  "))


def _of(parts: list[tuple[str, str]], *kinds: str) -> list[tuple[str, str]]:
    return [part for part in parts if part[0] in kinds]


def _differences_of_cell(baked: Any, again: Any, folder: Path) -> Iterator[str]:
    tags = baked.metadata.get("tags", [])
    expected, actual = _parts(baked, folder), _parts(again, folder)
    errors = _of(actual, "error")
    if "raises-exception" not in tags and errors:
        yield f"raised {errors[0][1]}"
    if "raises-exception" in tags and errors != _of(expected, "error"):
        yield f"raised {errors}, not {_of(expected, 'error')}"
    warned, said = ("\n".join(text for _, text in _of(p, "stderr")) for p in (expected, actual))
    if rest := _unexpected_stderr(warned, said):
        yield f"on stderr: {rest}"
    if len(_of(expected, "figure")) != len(_of(actual, "figure")):
        yield f"{len(_of(actual, 'figure'))} figures, not {len(_of(expected, 'figure'))}"
    ordinary = ("stdout", "figure", "execute_result", "display_data")
    expected, actual = _of(expected, *ordinary), _of(actual, *ordinary)
    if "measured" in tags:
        # The numbers differ, but not what kinds of output there are.
        expected, actual = ([(kind, "") for kind, _ in parts] for parts in (expected, actual))
    if expected != actual:
        yield f"put out {actual}, not {expected}"


def differences(baked: Any, again: Any, folder: Path) -> list[str]:
    """How the second execution of a notebook differs from what readers are shown."""
    sources = [[cell.source for cell in notebook.cells] for notebook in (baked, again)]
    assert sources[0] == sources[1]
    return [
        f"{before.id}: {what}\n{before.source}\n"
        for before, after in zip(baked.cells, again.cells, strict=True)
        if before.cell_type == "code"
        for what in _differences_of_cell(before, after, folder)
    ]


@pytest.mark.parametrize("case", CASES, ids=".".join)
def test_notebook_does_what_it_shows(
    executions: dict[tuple[str, str], Future[Executed]], case: tuple[str, str]
) -> None:
    executed = executions[case].result()
    found = differences(executed.baked, executed.again, executed.folder)
    assert not found, "\n".join(found)
    left = {file.name for file in executed.folder.iterdir()} - {"lesson.ipynb"}
    assert not left, "the notebook leaves files in the reader's folder"


# The comparison itself


def _code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _falsify(source: str) -> str | None:
    """The cell with its first assertion turned round; None if it has none."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assert):
            condition = ast.get_source_segment(source, node.test)
            assert condition is not None
            return source.replace(condition, f"not ({condition})", 1)
    return None


def test_false_assertion_is_noticed(
    notebooks: dict[tuple[str, str], Any], clean: Clean, tmp_path: Path
) -> None:
    notebook = json.loads(nbformat.writes(notebooks[CASES[0]]))
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code" and "raises-exception" not in cell["metadata"].get(
            "tags", ()
        ):
            wrong = _falsify("".join(cell["source"]))
            if wrong:
                cell["source"] = wrong
                del notebook["cells"][number + 1 :]
                break
    else:
        pytest.fail("the first lesson asserts nothing")
    baked = nbformat.from_dict(nbformat.reads(json.dumps(notebook), as_version=4))
    folder = tmp_path / "empty"
    found = differences(baked, execute(baked, clean, folder), folder)
    assert len(found) == 1
    assert f"{cell['id']}: raised AssertionError" in found[0]


@pytest.fixture
def shown(notebooks: dict[tuple[str, str], Any]) -> tuple[Any, Any]:
    """A notebook and a copy of it, as if it had been executed and had done the same."""
    baked = notebooks[CASES[0]]
    return baked, nbformat.reads(nbformat.writes(baked), as_version=4)


def _first_with(notebook: Any, kind: str, tag: str = "") -> Any:
    for cell in _code_cells(notebook):
        tags = cell.metadata.get("tags", [])
        if kind in [o.output_type for o in cell.outputs] and (tag in tags if tag else not tags):
            return cell
    pytest.skip(f"the first lesson has no such cell: {kind} {tag}")


def test_nothing_is_noticed_where_nothing_differs(shown: tuple[Any, Any], tmp_path: Path) -> None:
    assert differences(*shown, tmp_path) == []


def test_other_text_is_noticed(shown: tuple[Any, Any], tmp_path: Path) -> None:
    _first_with(shown[1], "stream").outputs[0].text += "more\n"
    assert len(differences(*shown, tmp_path)) == 1


def test_other_numbers_are_right_in_a_measurement(shown: tuple[Any, Any], tmp_path: Path) -> None:
    _first_with(shown[1], "stream", "measured").outputs[0].text = "12 s\n"
    assert differences(*shown, tmp_path) == []


def test_missing_figure_is_noticed(shown: tuple[Any, Any], tmp_path: Path) -> None:
    cell = _first_with(shown[1], "display_data")
    cell.outputs = [o for o in cell.outputs if o.output_type != "display_data"]
    assert "0 figures, not" in differences(*shown, tmp_path)[0]


@pytest.mark.parametrize(("name", "value"), [("ename", "KeyError"), ("evalue", "something else")])
def test_other_exception_is_noticed(
    shown: tuple[Any, Any], tmp_path: Path, name: str, value: str
) -> None:
    cell = _first_with(shown[1], "error", "raises-exception")
    cell.outputs[-1][name] = value
    assert value in differences(*shown, tmp_path)[0]


def test_missing_exception_is_noticed(shown: tuple[Any, Any], tmp_path: Path) -> None:
    cell = _first_with(shown[1], "error", "raises-exception")
    cell.outputs = []
    assert len(differences(*shown, tmp_path)) == 1


def test_text_on_stderr_is_noticed(shown: tuple[Any, Any], tmp_path: Path) -> None:
    cell = _first_with(shown[1], "stream")
    noise = nbformat.v4.new_output("stream", name="stderr", text="[W123] no such thing\n")
    cell.outputs.append(noise)
    assert "no such thing" in differences(*shown, tmp_path)[0]


def test_warning_may_come_from_another_place() -> None:
    actual = "/tmp/ipykernel_1/2.py:3: UserWarning: beware\n  x = beware()\n"
    assert _unexpected_stderr("UserWarning: beware", actual) == ""
    assert "did not come" in _unexpected_stderr("UserWarning: careful", actual)
    assert _unexpected_stderr("", actual) != ""
