"""Kernels are forked from a process that has imported torch, and end with the build, always.

The command runs as a process of its own here, because these tests interrupt and kill it.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from tiny import TITLE, Done, TinyCourse

from blackbelt import provision, watch
from blackbelt.durations import longest_first

# A busy machine takes half a minute to import torch and what draws.
SECONDS = 180.0
FIRST, SECOND = "lessons/1_first/01_first.py", "lessons/2_second/02_second.py"
# A lesson that says where it is, starts what tries to stay, and then waits to be ended.
STAYS = """\
# %%
import os
import subprocess
import sys
import threading
from pathlib import Path

waits = "import signal; signal.pause()"
children = [
    subprocess.Popen([sys.executable, "-c", waits], start_new_session=True, env={{}}),
    subprocess.Popen([sys.executable, "-c", waits]),
]
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        # A daemon, as the books teach it.
        os.execve(sys.executable, [sys.executable, "-c", waits], {{}})
    os._exit(0)
status = os.wait()
os.write(os.open("{file}", os.O_WRONLY | os.O_APPEND), f"{{os.getpid()}}\\n".encode())
threading.Event().wait()
"""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; fail if it does not come."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:.0f} s: {what}"
        time.sleep(0.02)


class Build:
    """`blackbelt run` as a process, and everything that descends from it."""

    def __init__(self, course: TinyCourse, *arguments: str, **variables: str) -> None:
        # Not in pytest's folder: with its name, those of sockets could be too long for it.
        self._folder = Path(tempfile.mkdtemp(prefix="kernels-"))
        self._log = (course.root / "build.log").open("w+", encoding="utf-8")
        self._seen: set[psutil.Process] = set()
        self.process = psutil.Popen(
            [sys.executable, "-m", "blackbelt.cli", "run", *arguments],
            cwd=course.root,
            env=os.environ | {"TMPDIR": str(self._folder)} | variables,
            stdout=self._log,
            stderr=self._log,
            # A process group of its own, to which a terminal would send Ctrl-C.
            start_new_session=True,
        )

    def look(self) -> set[psutil.Process]:
        """Everything that was ever seen below the build."""
        with contextlib.suppress(psutil.Error):
            self._seen.update(self.process.children(recursive=True))
        return self._seen

    def command_lines(self) -> list[str]:
        lines = []
        for process in self.look():
            with contextlib.suppress(psutil.Error):
                lines.append(" ".join(process.cmdline()))
        return lines

    def alive(self) -> list[psutil.Process]:
        """Those that are still running."""
        found = []
        for process in self._seen:
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def folders(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("blackbelt-*"))

    def text(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        for process in [self.process, *self.alive()]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture
def builds() -> Iterator[list[Build]]:
    """Builds that are ended when the test is over, however it ends."""
    started: list[Build] = []
    yield started
    for build in started:
        build.close()


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """A file that lessons write to, outside of their folder."""
    file = tmp_path / "said"
    file.touch()
    return file


def staying(course: TinyCourse, said: Path) -> None:
    for path in (FIRST, SECOND):
        course.write(path, TITLE + STAYS.format(file=said))


def interrupt(build: Build) -> None:
    os.killpg(build.process.pid, signal.SIGINT)


def kill(build: Build) -> None:
    build.process.kill()


def kill_group(build: Build) -> None:
    os.killpg(build.process.pid, signal.SIGKILL)


# Moments of a build. Each is waited for, by what can be seen from outside.
MOMENTS: Mapping[str, Callable[[Build, Path], bool]] = {
    "while torch is imported": lambda build, _: any("warm" in x for x in build.command_lines()),
    "while kernels start": lambda build, _: len(build.look()) > 1,
    "in a cell": lambda build, said: (
        bool(build.look()) and len(said.read_text(encoding="ascii").splitlines()) >= 1
    ),
}


ENDS = [(end, moment) for end in (interrupt, kill) for moment in MOMENTS]


@pytest.mark.parametrize(("end", "moment"), [*ENDS, (kill_group, "in a cell")])
def test_nothing_stays_behind(
    end: Callable[[Build], None], moment: str, course: TinyCourse, said: Path, builds: list[Build]
) -> None:
    staying(course, said)
    builds.append(build := Build(course))
    until(lambda: MOMENTS[moment](build, said), moment)
    build.look()
    end(build)
    build.process.wait(SECONDS)
    until(lambda: not build.alive(), f"{build.alive()} to end")
    if moment == "in a cell":
        # Two in sessions of their own, one below the kernel, the kernel, keeper and warm process.
        assert len(build.look()) >= 6
    # Not even folders.
    until(lambda: not build.folders(), f"{build.folders()} to go")
    if end is interrupt:
        assert build.process.returncode == 130
        assert "Traceback" not in build.text()


@pytest.mark.parametrize("victim", ["warm process", "keeper"])
def test_helper_that_is_killed(
    victim: str, course: TinyCourse, said: Path, builds: list[Build]
) -> None:
    """The memory of the machine ends, and the system picks a process of ours."""
    course.write(FIRST, TITLE + STAYS.format(file=said))
    builds.append(build := Build(course))
    until(lambda: said.stat().st_size, "the lesson runs")
    kernel = psutil.Process(int(said.read_text(encoding="ascii")))
    build.look()
    keeper = kernel.parent()
    assert keeper is not None
    if victim == "keeper":
        keeper.kill()
        build.process.wait(SECONDS)
        assert build.process.returncode == 1
        assert "the kernel died in this cell" in build.text()
    else:
        warm = keeper.parent()
        assert warm is not None
        warm.kill()
        build.process.terminate()
        build.process.wait(SECONDS)
    until(lambda: not build.alive(), f"{build.alive()} to end")


def test_cache_is_good_after_a_build_was_killed(
    course: TinyCourse, said: Path, builds: list[Build]
) -> None:
    course.write(FIRST, TITLE + '# %%\nprint("sound")\n')
    course.write(SECOND, TITLE + STAYS.format(file=said))
    builds.append(build := Build(course))
    until(lambda: "done  01_first" in build.text() and said.stat().st_size, "one is done")
    build.look()
    build.process.kill()
    build.process.wait(SECONDS)
    until(lambda: not build.alive(), "everything ends")
    assert "0 run, 1 unchanged" in course.command("run", "01").err


SAYS = """\
# %%
import os
import sys

print(os.getpid(), os.getppid(), "torch" in sys.modules, "snippets" in sys.modules)
"""


def outputs(course: TinyCourse) -> list[str]:
    """What the lessons of the cache printed."""
    found = []
    for file in (course.root / ".cache" / "runs").glob("*.json"):
        steps = json.loads(file.read_bytes())["run"]["steps"]
        found.append("".join(output["text"] for step in steps for output in step["outputs"]))
    return found


def test_kernels_are_forked(course: TinyCourse) -> None:
    course.write(FIRST, TITLE + SAYS)
    course.write(SECOND, TITLE + SAYS + "second = True\n")
    done = course.command("run")
    assert done.code == 0, done.err
    told = [text.split() for text in outputs(course)]
    # Each in a process of its own, with torch and without snippets, which an author may edit.
    assert len({pid for pid, *_ in told}) == len({parent for _, parent, *_ in told}) == 2
    assert {tuple(rest) for _, _, *rest in told} == {("True", "False")}


def test_figures_are_drawn_as_in_an_ordinary_kernel(
    course: TinyCourse, builds: list[Build]
) -> None:
    drawing = "# %%\nfrom matplotlib import pyplot as plt\n\nlines = plt.plot([1, 2])\n"
    course.write(FIRST, TITLE + drawing)
    for variables in ({}, {"BLACKBELT_PLAIN_KERNELS": "1"}):
        builds.append(build := Build(course, **variables))
        build.process.wait(SECONDS)
        (problem,) = Done(1, "", build.text()).problems
        assert "a figure in one language only" in problem.what


def test_ordinary_kernels_work_as_well(course: TinyCourse, builds: list[Build]) -> None:
    course.write(FIRST, TITLE + SAYS)
    course.write(SECOND, TITLE + "# %%\nimport os\n\nos._exit(3)\n")
    builds.append(build := Build(course, BLACKBELT_PLAIN_KERNELS="1"))
    build.process.wait(SECONDS)
    assert [text.split()[2:] for text in outputs(course)] == [["False", "False"]]
    done = Done(build.process.returncode, "", build.text())
    (problem,) = done.problems
    assert problem.path == SECOND
    assert "the kernel died in this cell: it ended with exit code 3" in problem.what


def test_warm_process_that_cannot_import(course: TinyCourse, builds: list[Build]) -> None:
    course.write(FIRST, TITLE + "# %%\nx = 1\nprint(x)\n")
    course.write(SECOND, TITLE + "# %%\nx = 2\nprint(x)\n")
    broken = course.root / "broken"
    broken.mkdir()
    (broken / "einops.py").write_text('raise ValueError("einops is broken")\n', encoding="utf-8")
    builds.append(build := Build(course, PYTHONPATH=str(broken)))
    build.process.wait(SECONDS)
    assert build.process.returncode == 0, build.text()
    assert sorted(outputs(course)) == ["1\n", "2\n"]
    line = "kernels are started one by one, which is slower: ValueError: einops is broken"
    assert build.text().count("kernels are started one by one") == 1
    assert line in build.text()


def test_nothing_is_forked_from_a_process_that_has_threads(
    course: TinyCourse, builds: list[Build]
) -> None:
    course.write(FIRST, TITLE + "# %%\nx = 1\nprint(x)\n")
    threaded = course.root / "threaded"
    threaded.mkdir()
    source = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    (threaded / "einops.py").write_text(source, encoding="utf-8")
    builds.append(build := Build(course, PYTHONPATH=str(threaded)))
    until(lambda: "kernels are started one by one" in build.text(), "the line")
    build.process.wait(SECONDS)
    assert "threads run after the imports" in build.text()
    assert outputs(course) == ["1\n"]
    until(lambda: not build.alive(), "everything ends")


def test_a_command_leaves_nothing_running(course: TinyCourse, builds: list[Build]) -> None:
    course.write(FIRST, TITLE + "# %%\nx = 1\n")
    builds.append(build := Build(course))
    until(lambda: build.look() and build.process.poll() is not None, "the command ends")
    assert build.process.returncode == 0, build.text()
    assert not build.alive()
    assert not build.folders()


def test_temporary_folder_with_a_long_name(
    course: TinyCourse, tmp_path: Path, builds: list[Build]
) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    course.write(FIRST, TITLE + "# %%\nx = 1\n")
    builds.append(build := Build(course, TMPDIR=str(folder)))
    build.process.wait(SECONDS)
    assert build.process.returncode == 0, build.text()
    assert not list(folder.glob("blackbelt-*"))


def test_the_longest_lesson_begins_first(course: TinyCourse) -> None:
    course.write("lessons/1_first/01_quick.py", TITLE + "# %%\nx = 1\n")
    slow = "# %%\nimport time\n\ntime.sleep(0.5)\n"
    course.write("lessons/1_first/02_slow.py", TITLE + slow)
    assert course.command("run").code == 0
    course.write("lessons/1_first/03_new.py", TITLE + "# %%\nx = 1\n")
    order = [x.slug for x in longest_first(course.load().lessons, course.project)]
    assert order == ["new", "slow", "quick"]
    done = course.command("run", "--fresh")
    assert re.findall(r"^run   \d\d_(\w+)", done.err, re.M) == order


@pytest.mark.parametrize("text", ["", "[1", "[]", '{"a": "b"}'])
def test_damaged_durations_are_forgotten(text: str, course: TinyCourse) -> None:
    course.write(FIRST, TITLE + "# %%\nx = 1\n")
    file = course.root / ".cache" / "durations.json"
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    assert course.command("run").code == 0
    assert list(json.loads(file.read_bytes())) == [FIRST]


def test_line_in_a_dump() -> None:
    dump = """\
Thread 0x1 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 5 in wait

Current thread 0x2 (most recent call first):
  File "/tmp/ipykernel_7/1.py", line 3 in crash
  File "/tmp/ipykernel_7/2.py", line 8 in <module>
  File "/x/IPython/core/interactiveshell.py", line 3577 in run_code
"""
    # The cell that runs, and not the function of an earlier one.
    assert watch.line_in_dump(dump) == 8
    assert watch.line_in_dump("") == 0


def test_kernels_may_keep_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it each of them would compile torch again, which takes seconds."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    variables = provision.environment()
    assert "PYTHONDONTWRITEBYTECODE" not in variables
    # Here it lies beside the packages already.
    assert "PYTHONPYCACHEPREFIX" not in variables
