"""Results are kept under a hash of what they depend on, and survive whatever ends a build."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, time

import psutil
import pytest
from tiny import TITLE, Done, TinyCourse

from blackbelt.keys import run_key
from blackbelt.progress import Progress
from blackbelt.store import known

ALONE = "lessons/1_first/81_alone.py"
INNER = "lessons/1_first/82_inner.py"
OUTER = "lessons/2_second/83_outer.py"
NAMES = {"81_alone", "82_inner", "83_outer"}

ALONE_LESSON = (
    TITLE
    + """\
# %%
first = 1

# %% raises="ValueError: too large"
raise ValueError("too large by 1")

# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=5
# ### Szóstka

# %% [markdown] lang="en" exercise="six" role="prompt" belt="white" minutes=5
# ### Six

# %% exercise="six" role="starter"
answer = 0

# %% exercise="six" role="check"
assert answer == 6, f"six is wanted, not {answer}"

# %% [markdown] lang="pl" exercise="six" role="hint"
# Policz palce.

# %% [markdown] lang="en" exercise="six" role="hint"
# Count.

# %% exercise="six" role="solution"
answer = 6
"""
)
INNER_LESSON = TITLE + "# %%\nfrom snippets.inner import INNER\n\nprint(INNER)\n"
OUTER_LESSON = TITLE + "# %%\nfrom snippets.outer import OUTER\n\nprint(OUTER)\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> TinyCourse:
    """Three lessons that have run: one alone, one with a snippet, one with a snippet's snippet."""
    course = TinyCourse(tmp_path_factory.mktemp("store"))
    (course.root / "snippets" / "inner.py").write_text('INNER = "inner 1"\n')
    outer = 'from snippets.inner import INNER\n\nOUTER = f"outer 1, {INNER}"\n'
    (course.root / "snippets" / "outer.py").write_text(outer)
    course.write(ALONE, ALONE_LESSON)
    course.write(INNER, INNER_LESSON)
    course.write(OUTER, OUTER_LESSON)
    done = course.command("run")
    assert (done.code, ran(done)) == (0, NAMES), done.err
    return course


@pytest.fixture
def course(original: TinyCourse, tmp_path: Path) -> TinyCourse:
    """A copy of it that a test may change; a key does not know where the course lies."""
    shutil.copytree(original.root, tmp_path, dirs_exist_ok=True)
    copy = TinyCourse.__new__(TinyCourse)
    copy.__dict__ |= original.__dict__ | {"root": tmp_path}
    return copy


def ran(done: Done) -> set[str]:
    """Names of the lessons that a command executed."""
    return set(re.findall(r"^(?:done|FAIL) +(\w+) ", done.err, re.M))


def edit(course: TinyCourse, path: str, *changes: tuple[str, str]) -> None:
    file = course.root / path
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def entry(course: TinyCourse, path: str) -> Path:
    """The file that holds the result of a lesson."""
    loaded = course.load()
    key = run_key(loaded.by_path[path], loaded.snippets)
    return course.root / ".cache" / "runs" / f"{key}.json"


def printed(course: TinyCourse, path: str) -> str:
    """What the kept run of a lesson printed."""
    loaded = course.load()
    run = known(loaded, [loaded.by_path[path]], Progress())[path]
    return "".join(output.text for step in run.steps for output in step.outputs)


PROSE = {
    "words": [("Opis.", "Inny opis."), ("Description.", "Another description.")],
    "lines": [("# Opis.", "# Opis.\n#\n# Drugi."), ("# Description.", "# Text.\n#\n# More.")],
    "prompt": [("### Szóstka", "### Sześć"), ("### Six", "### A six")],
    "hint": [("Policz palce.", "Policz raz jeszcze."), ("Count.", "Count again.")],
    "minutes": [("minutes=5", "minutes=15")],
    "fold": [("# %%\nfirst", "# %% fold=true\nfirst")],
}


@pytest.mark.parametrize("name", PROSE)
def test_a_prose_edit_executes_nothing(course: TinyCourse, name: str) -> None:
    edit(course, ALONE, *PROSE[name])
    done = course.command("run")
    assert (done.code, ran(done)) == (0, set()), done.err
    assert "0 run, 3 unchanged" in done.err


CODE = {
    "code": [("first = 1", "first = 2")],
    "comment": [("first = 1", "first = 1  # of many")],
    "declared exception": [('raises="ValueError: too large"', 'raises="ValueError: too"')],
    "order": [
        ("# %%\nfirst = 1\n\n", ""),
        ("# %% [markdown] lang=\"pl\" exercise=\"six\" role=\"prompt\"",
         "# %%\nfirst = 1\n\n# %% [markdown] lang=\"pl\" exercise=\"six\" role=\"prompt\""),
    ],
    "check": [("six is wanted, not", "six is wanted and not")],
}  # fmt: skip


@pytest.mark.parametrize("name", CODE)
def test_a_code_edit_executes_that_lesson_only(course: TinyCourse, name: str) -> None:
    edit(course, ALONE, *CODE[name])
    done = course.command("run")
    assert (done.code, ran(done)) == (0, {"81_alone"}), done.err


def test_a_changed_snippet_executes_the_lessons_that_import_it(course: TinyCourse) -> None:
    edit(course, "snippets/outer.py", ("outer 1", "outer 2"))
    assert ran(course.command("run")) == {"83_outer"}
    assert printed(course, OUTER) == "outer 2, inner 1\n"
    edit(course, "snippets/inner.py", ("inner 1", "inner 2"))
    assert ran(course.command("run")) == {"82_inner", "83_outer"}
    assert printed(course, INNER) == "inner 2\n"
    assert printed(course, OUTER) == "outer 2, inner 2\n"
    edit(course, "snippets/bilingual.py", ("import os", "import os  # for one variable"))
    assert ran(course.command("run")) == set()


@pytest.mark.parametrize("line", ["from .inner import INNER", "from snippets import inner"])
def test_a_snippet_is_found_however_another_imports_it(course: TinyCourse, line: str) -> None:
    text = f"{line}\n\nOUTER = str({line.rsplit(maxsplit=1)[-1]})\n"
    (course.root / "snippets" / "outer.py").write_text(text, encoding="utf-8")
    loaded = course.load()
    before = run_key(loaded.by_path[OUTER], loaded.snippets)
    edit(course, "snippets/inner.py", ("inner 1", "inner 2"))
    loaded = course.load()
    assert run_key(loaded.by_path[OUTER], loaded.snippets) != before


def _truncate(file: Path, _: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _change(file: Path, _: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "too large by 1" in text
    file.write_text(text.replace("too large by 1", "too large by 2"), encoding="utf-8")


def _older(file: Path, _: Path) -> None:
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(data | {"format": 1}), encoding="utf-8")


def _older_code(file: Path, _: Path) -> None:
    """A run that is sound, but not one of this engine."""
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(data["run"]), encoding="utf-8")


DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "truncated": (_truncate, "truncated or damaged (not JSON)"),
    "empty": (lambda file, _: file.write_bytes(b""), "truncated or damaged (not JSON)"),
    "garbage": (lambda file, _: file.write_bytes(os.urandom(999)), "truncated or damaged"),
    "nested": (lambda file, _: file.write_text("[" * 99_999), "truncated or damaged"),
    "another file": (lambda file, _: file.write_text('{"a": 1}'), "not an entry of this cache"),
    "bare run": (_older_code, "not an entry of this cache"),
    "changed by hand": (_change, "damaged (its checksum differs)"),
    "older format": (_older, "format 1, not"),
    "renamed": (lambda file, other: shutil.copyfile(other, file), "the entry of another run"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_an_entry_that_cannot_be_trusted_is_reported_and_run_again(
    course: TinyCourse, name: str
) -> None:
    damage, why = DAMAGE[name]
    file = entry(course, ALONE)
    damage(file, entry(course, INNER))
    done = course.command("run")
    assert (done.code, ran(done)) == (0, {"81_alone"}), done.err
    lines = [line for line in done.err.splitlines() if line.startswith("cache")]
    assert len(lines) == 1
    assert f".cache/runs/{file.name}" in lines[0]
    assert why in lines[0]
    again = course.command("run")
    assert (again.code, ran(again), "cache" in again.err) == (0, set(), False)


def test_the_build_goes_on_where_nothing_can_be_kept(course: TinyCourse) -> None:
    shutil.rmtree(course.root / ".cache" / "runs")
    (course.root / ".cache" / "runs").write_text("not a folder")
    done = course.command("run")
    assert (done.code, ran(done)) == (0, NAMES), done.err
    assert done.err.count("results cannot be kept, the build goes on") == 1
    assert ran(course.command("run")) == NAMES


def test_a_full_disk_costs_a_warning(course: TinyCourse) -> None:
    text = TITLE + "".join(f'# %%\nprint("x" * {1000 + i})\n\n' for i in range(20))
    course.write(ALONE, text, planned=False)
    folder = course.root / ".cache" / "runs"
    # One page less than the entry needs.
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system of 16 KB")
    try:
        done = course.command("run", "81")
        left = list(folder.iterdir())
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert (done.code, ran(done)) == (0, {"81_alone"}), done.err
    assert done.err.count("results cannot be kept, the build goes on: [Errno 28]") == 1
    assert left == []


def test_what_killed_builds_left_is_removed_after_a_day(course: TinyCourse) -> None:
    folder = course.root / ".cache" / "runs"
    old, young = folder / ".a.json-1-2.tmp", folder / ".b.json-3-4.tmp"
    for file in (old, young):
        file.write_text('{"half')
    yesterday = time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    entry(course, ALONE).unlink()
    assert ran(course.command("run")) == {"81_alone"}
    assert (old.exists(), young.exists()) == (False, True)


class Build:
    """`blackbelt run` in a process of its own."""

    def __init__(self, course: TinyCourse, *arguments: str) -> None:
        command = [sys.executable, "-m", "blackbelt.cli", "run", *arguments]
        self.process = subprocess.Popen(
            command, cwd=course.root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)

    def wait_for(self, text: str) -> None:
        self.wait_until(lambda: any(text in line for line in self.lines))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = monotonic() + 60
        while not condition():
            assert monotonic() < deadline, f"it did not come about: {self.lines}"
            self._reader.join(0.02)

    def end(self) -> Done:
        code = self.process.wait(60)
        self._reader.join(5)
        return Done(code, "", "".join(self.lines))


@contextmanager
def building(course: TinyCourse, *arguments: str) -> Iterator[Build]:
    """A build; whatever processes are left of it at the end are killed, each by its id."""
    build = Build(course, *arguments)
    family = {build.process.pid: psutil.Process(build.process.pid)}
    done = threading.Event()

    def follow() -> None:
        while not done.wait(0.05):
            for parent in list(family.values()):
                try:
                    family.update({child.pid: child for child in parent.children(recursive=True)})
                except psutil.NoSuchProcess:
                    continue

    watcher = threading.Thread(target=follow)
    watcher.start()
    try:
        yield build
    finally:
        done.set()
        watcher.join()
        for process in family.values():
            # psutil knows a process by its start, too: a reused id is left alone.
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        build.process.wait()


def test_two_builds_at_once_do_not_harm_each_other(course: TinyCourse) -> None:
    shutil.rmtree(course.root / ".cache")
    with building(course) as one, building(course) as other:
        ends = [one.end(), other.end()]
    assert [end.code for end in ends] == [0, 0], [end.err for end in ends]
    done = course.command("run")
    assert (done.code, ran(done), "cache" in done.err) == (0, set(), False), done.err


HELD = "lessons/2_second/84_held.py"
# Waits while the test holds it; its code is the same when it is run again.
HELD_LESSON = """\
# %%
import time
from pathlib import Path

# %%
while Path({hold!r}).exists():
    time.sleep(0.01)
"""


@pytest.mark.parametrize("moment", ["run   84_held", "done  81_alone"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_stopped_leaves_a_cache_that_the_next_one_uses(
    course: TinyCourse, tmp_path: Path, how: signal.Signals, moment: str
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    course.write(HELD, TITLE + HELD_LESSON.format(hold=str(hold)))
    entry(course, ALONE).unlink()
    with building(course) as build:
        build.wait_for(moment)
        if moment.startswith("done"):
            build.wait_until(entry(course, ALONE).is_file)
        build.process.send_signal(how)
        stopped = build.end()
    assert stopped.code == (130 if how == signal.SIGINT else -signal.SIGKILL), stopped.err
    hold.unlink()
    done = course.command("run")
    assert done.code == 0, done.err
    assert "cache" not in done.err
    # What was finished is kept, however the build ended.
    kept = {"84_held"} if moment.startswith("done") else {"84_held", "81_alone"}
    assert {"84_held"} <= ran(done) <= kept
    assert ran(course.command("run")) == set()
