"""`blackbelt upgrade` with a real uv, an index of packages of its own, and releases that differ."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy
import pytest
from tiny import REPOSITORY, TITLE, TinyCourse

from blackbelt.compare import differences
from blackbelt.config import load_project
from blackbelt.results import Output, Run, StepRun

# Releases of a package that a lesson imports: the day, and what is in it.
RELEASES = {
    "1": ("2026-01-01", "def answer():\n    return 41\n"),
    "2": ("2026-02-01", "def answer():\n    return 42\n"),
    "3": (
        "2026-03-01",
        "import warnings\n\n\ndef answer():\n"
        "    warnings.warn('answer will go', DeprecationWarning)\n    return 41\n",
    ),
    "4": ("2026-04-01", "def reply():\n    return 41\n"),
    "5": ("2026-05-01", "def answer():\n    return 41\n"),
}
DAMAGED = "5"
LESSON = "lessons/1_first/01_answers.py"
STEADY = "lessons/1_first/02_steady.py"
PIN = 'exclude-newer = "2026-01-02T00:00:00Z"'
PYPROJECT = f"""
[tool.uv]
# A comment that stays.
{PIN}

[[tool.uv.index]]
url = "ADDRESS"
default = true
"""


def wheel(folder: Path, version: str) -> None:
    name = f"shifty-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: shifty\nVersion: {version}\n"
    files = {
        "shifty.py": RELEASES[version][1],
        f"{name}/METADATA": metadata,
        f"{name}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    with zipfile.ZipFile(folder / f"shifty-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            record.append(f"{path},sha256={digest.decode().rstrip('=')},{len(text)}\n")
        archive.writestr(f"{name}/RECORD", "".join([*record, f"{name}/RECORD,,\n"]))


class Index(SimpleHTTPRequestHandler):
    """A package index as PEP 700 has it: with the time at which each file came."""

    def do_GET(self) -> None:
        if self.path != "/simple/shifty/":
            super().do_GET()
            return
        files = []
        for version, (day, _) in RELEASES.items():
            name = f"shifty-{version}-py3-none-any.whl"
            digest = hashlib.sha256(Path(self.translate_path(f"/{name}")).read_bytes()).hexdigest()
            if version == DAMAGED:
                digest = "0" * 64
            file = {"filename": name, "url": f"/{name}", "hashes": {"sha256": digest}}
            files.append(file | {"upload-time": f"{day}T00:00:00Z"})
        index = {"meta": {"api-version": "1.1"}, "name": "shifty", "files": files}
        data = json.dumps(index | {"versions": list(RELEASES)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("index")
    for version in RELEASES:
        wheel(folder, version)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


def uv_run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`uv run` in the course's own environment, which has the package and borrows the engine."""
    site_packages = Path(numpy.__file__).parents[1]
    # Where this environment lies is not where the course's is.
    others = ("VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT")
    variables = {name: value for name, value in os.environ.items() if name not in others}
    variables |= {
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{site_packages}",
        # What other files were called on this port is not what they are now.
        "UV_CACHE_DIR": str(root.parent / "uv-cache"),
        "NO_PROXY": "127.0.0.1",
    }
    command = ["uv", "run", "--python", sys.base_prefix, "python", "-m", "blackbelt.cli"]
    return subprocess.run(
        [*command, *arguments],
        cwd=root,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def original(address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course whose lessons have run with the first release."""
    root = tmp_path_factory.mktemp("upgrade") / "course"
    root.mkdir()
    course = TinyCourse(root)
    course.write(LESSON, TITLE + "# %%\nimport shifty\n\nprint(shifty.answer())\n")
    course.write(STEADY, TITLE + '# %%\nprint("steady")\n')
    file = root / "pyproject.toml"
    text = file.read_text().replace('imports = ["torch"', 'imports = ["shifty", "torch"')
    needs = '[project]\nrequires-python = ">=3.11"\ndependencies = ["shifty"]'
    text = text.replace("[project]", needs, 1) + PYPROJECT.replace("ADDRESS", address)
    file.write_text(text)
    done = uv_run(root, "run")
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "course"
    shutil.copytree(original, copy, ignore=shutil.ignore_patterns(".venv"))
    return copy


def test_a_release_that_changes_outputs_is_pinned_and_shown(root: Path) -> None:
    before = (root / "pyproject.toml").read_text()
    done = uv_run(root, "upgrade", "--to", "2026-02-02", "--report", "told/lessons.md")
    assert done.returncode == 0, done.stderr
    after = (root / "pyproject.toml").read_text()
    assert after == before.replace(PIN, PIN.replace("01-02", "02-02"))
    assert "The pin moves from 2026-01-02 to 2026-02-02." in done.stdout
    assert "shifty v1 -> v2" in done.stdout
    assert f"{LESSON} puts out something else" in done.stdout
    assert "\n-41\n" in done.stdout
    assert "\n+42\n" in done.stdout
    assert STEADY not in done.stdout
    assert "-41\n" in (root / "told/lessons.md").read_text()
    # What ran in the trial is kept, and uv installs what was tried.
    again = uv_run(root, "run")
    assert again.returncode == 0, again.stderr
    assert "0 run, 2 unchanged" in again.stderr
    assert not (root / ".cache/upgrade").exists()


def test_nothing_new_is_not_reported(root: Path) -> None:
    done = uv_run(root, "upgrade", "--to", "2026-01-03", "--report", "told/lessons.md")
    assert done.returncode == 0, done.stderr
    assert "The pin moves from 2026-01-02 to 2026-01-03." in done.stdout
    assert not (root / "told/lessons.md").exists()


@pytest.mark.parametrize(
    ("day", "said"),
    [
        # In the library's own code, where Python hides it, and without a change of the output.
        ("2026-03-02", "undeclared warning: DeprecationWarning: answer will go"),
        ("2026-04-02", "AttributeError: module 'shifty' has no attribute 'answer'"),
    ],
)
def test_a_release_that_breaks_a_lesson_is_not_pinned(root: Path, day: str, said: str) -> None:
    kept = ("pyproject.toml", "uv.lock")
    before = [(root / name).read_bytes() for name in kept]
    done = uv_run(root, "upgrade", "--to", day, "--report", "told/lessons.md")
    assert done.returncode == 1
    assert [(root / name).read_bytes() for name in kept] == before
    assert "The pin stays at 2026-01-02" in done.stdout
    assert f"{LESSON}:" in done.stderr
    assert said in done.stderr
    told = (root / "told/lessons.md").read_text()
    assert said in told
    assert STEADY not in told
    # The course goes on as it was, with the results that it had.
    again = uv_run(root, "run")
    assert "0 run, 2 unchanged" in again.stderr, again.stderr


def test_a_release_that_cannot_be_installed_is_not_pinned(root: Path) -> None:
    before = (root / "pyproject.toml").read_bytes()
    done = uv_run(root, "upgrade", "--to", "2026-05-02")
    assert done.returncode == 1
    assert "the trial ended in `uv sync" in done.stderr
    assert "Hash mismatch" in done.stderr
    assert (root / "pyproject.toml").read_bytes() == before


def test_lessons_that_are_broken_already_are_mended_first(root: Path) -> None:
    file = root / LESSON
    file.write_text(file.read_text() + "\n# %%\n1 / 0\n")
    done = uv_run(root, "upgrade", "--to", "2026-02-02")
    assert done.returncode == 1
    assert f"{LESSON}:17: the cell raised ZeroDivisionError" in done.stderr
    assert PIN in (root / "pyproject.toml").read_text()
    assert not (root / ".cache/upgrade").exists()


@pytest.mark.parametrize(
    ("day", "said"),
    [
        ("next week", "`next week` is not a day"),
        ("2026-01-01", "2026-01-01 is before the present pin, 2026-01-02"),
        ((datetime.now(UTC) + timedelta(days=2)).date().isoformat(), "is in the future"),
    ],
)
def test_days_that_cannot_be_pinned(course: TinyCourse, day: str, said: str) -> None:
    file = course.root / "pyproject.toml"
    file.write_text(file.read_text() + PYPROJECT)
    done = course.command("upgrade", "--to", day)
    assert done.code == 1
    assert said in done.err
    assert "next: uv run blackbelt upgrade" in done.err


def test_a_course_without_a_pin_says_what_is_missing(course: TinyCourse) -> None:
    file = course.root / "pyproject.toml"
    # The same words elsewhere are not the pin.
    file.write_text(f"{file.read_text()}\n[tool.uv]\n\n[tool.other]\n{PIN}\n")
    done = course.command("upgrade")
    assert done.code == 1
    assert "no exclude-newer" in done.err


def test_the_course_itself_is_pinned_to_a_day_that_has_come() -> None:
    from blackbelt.pin import read_pin

    assert read_pin(load_project(REPOSITORY).root) <= datetime.now(UTC).date()


def test_a_difference_shows_both_languages(course: TinyCourse) -> None:
    course.write(LESSON, TITLE + "# %%\n1\n")
    (lesson,) = course.load().lessons

    def run(pl: str, en: str) -> Run:
        text = f"\ue0f0pl\ue0f1{pl}\ue0f0en\ue0f1{en}\ue0f2"
        return Run((StepRun((Output("text", text),)),))

    (found,) = differences(lesson, run("jeden", "one"), run("jeden", "two"), ("before", "after"))
    assert found.text.splitlines()[3:] == [" jeden", "-one", "+two"]
