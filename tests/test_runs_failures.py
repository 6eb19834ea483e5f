"""Every way in which a running lesson can fail: one message, the others finished and kept.

The lessons are written as in `tiny.cases`, and all of them run by one command, side by side, in
real kernels. What the cells themselves do wrong is in `test_faults.py`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tiny import TITLE, Done, TinyCourse, cases

CELL_SECONDS = 10
LESSON_SECONDS = 20
GOOD = "lessons/2_second/90_good.py"
# Command lines by which processes are told from those of others.
SLEEP = f"{os.getpid()}7777"

FAILING = cases(
    """
=== hangs
@title
# %%
import threading

print("one")
print("two")
threading.Event().wait()
► the cell ran longer than 10 s (cell_seconds in pyproject.toml)\\n    | one\\n    | two

=== hangs_in_c
@title
# %%
import ctypes

sleep = ctypes.PyDLL(None).sleep  # keeps the interpreter to itself

# %%
sleep(1000)
► the cell ran longer than 10 s (cell_seconds in pyproject.toml)

=== is_slow
@title
# %%
import time

time.sleep(7)

# %%
time.sleep(7)

# %%
time.sleep(7)
► the lesson ran longer than 20 s (lesson_seconds in pyproject.toml)

=== exits
@title
# %%
► the kernel died in this cell: it ended with exit code 3 (os._exit, or a library
import os

print("before", flush=True)
os._exit(3)

=== is_killed
@title
# %%
► it was killed by signal 9 (SIGKILL), most likely because memory ran out
import os
import signal

os.kill(os.getpid(), signal.SIGKILL)

=== crashes
@title
# %%
import ctypes


def crash() -> None:
    ctypes.string_at(0)


# %%
x = 1
crash()
► the kernel died in this cell: segmentation fault (signal 11)

=== aborts
@title
# %%
import os

os.abort()
► the kernel died in this cell: it was ended by signal 6 (SIGABRT)

=== leaves_a_process
@title
# %%
import subprocess
import sys

x = 1
process = subprocess.Popen(["sleep", "@sleep"])
► the lesson leaves a child process behind: sleep @sleep; wait for it, or end it

# %%
x = 2

=== leaves_a_process_of_another_session
@title
# %%
import subprocess

process = subprocess.Popen(["sleep", "@sleep"], start_new_session=True, env={})
► the lesson leaves a child process behind: sleep @sleep; wait for it, or end it

=== leaves_a_daemon
@title
# %%
import os
import time

# %%
# Twice forked, in a session of its own, and without an environment.
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
► the lesson leaves a child process behind: sleep @sleep; wait for it, or end it
        os.execve("/bin/sleep", ["sleep", "@sleep"], {})
    os._exit(0)
status = os.wait()

=== leaves_a_forked_process
@title
# %%
import multiprocessing
import threading

context = multiprocessing.get_context("fork")
worker = context.Process(target=threading.Event().wait)
worker.start()
► the lesson leaves a child process behind:

=== leaves_a_thread
@title
# %%
import threading

event = threading.Event()
thread = threading.Thread(target=event.wait, name="waits for ever")

# %%
thread.start()
► the lesson leaves a thread behind: waits for ever; join it, or make it a daemon

# %%
x = 1

=== leaves_a_pool
@title
# %%
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(1)
one = pool.submit(int, "1").result()
► the lesson leaves a thread behind: ThreadPoolExecutor-

=== writes_elsewhere
@title
# %%
from pathlib import Path


def write(text: str) -> None:
    Path("@elsewhere/written").write_text(text)


# %%
x = 1
write("x")
► the cell writes outside of the lesson's folder: @elsewhere/written; write to the working

=== removes_elsewhere
@title
# %%
import os

os.remove("@elsewhere/kept")
► the cell writes outside of the lesson's folder: @elsewhere/kept; write to the working

=== writes_in_a_fork
@title
# %%
import multiprocessing
from pathlib import Path

worker = multiprocessing.get_context("fork").Process(
    target=Path("@elsewhere/forked").write_text, args=("x",)
)
worker.start()
► the cell writes outside of the lesson's folder: @elsewhere/forked; write to the working
worker.join()

=== floods
@title
# %%
line = "x" * 100
while True:
    print(line)
► the cell floods its output and was stopped; at most 2,000 characters are shown

=== floods_in_c
@title
# %%
import os

while True:
    os.write(1, b"x" * 1000)
► the cell floods its output and was stopped; at most 2,000 characters are shown

=== floods_with_displays
@title
# %%
from IPython.display import display

while True:
    display(1)
► the cell floods its output and was stopped; at most 2,000 characters are shown

=== needs_a_package
@title
# %%
import a_package_of_nobody
► `a_package_of_nobody` is not installed: add it to `dependencies` and to `imports` of

=== disk_is_full
@title
# %%
with open("/dev/full", "w") as file:
► OSError: [Errno 28] No space left on device; free some space on the disk of the
    file.write("x")
""",
    {"title": TITLE},
)
# These are sound, odd as they are.
SOUND = {
    "bytes": """\
# %%
import os

size = os.write(1, b"caf\\xff\\xfe \\x1b[2J\\x1b]0;title\\x07\\x1b[31mred\\x1b[0m\\n")
""",
    "files": """\
# %%
import os
import shutil
import tempfile
from pathlib import Path

Path("here").write_text("x")
Path.home().joinpath("mine").write_text("x")
os.makedirs("a/b")
shutil.rmtree("a")
with tempfile.NamedTemporaryFile() as file:
    size = file.write(b"x")
with open(os.devnull, "w") as nothing:
    size += nothing.write("x")
names = ",".join(sorted(path.name for path in Path.cwd().iterdir()))
print(names)
""",
    "ends_what_it_starts": """\
# %%
import subprocess
import threading

process = subprocess.Popen(["sleep", "1000"])
process.terminate()
thread = threading.Thread(target=int)
thread.start()
daemon = threading.Thread(target=threading.Event().wait, daemon=True)
daemon.start()
""",
    "is_another": """\
# %%
import random

import numpy as np
import torch

print(random.random(), np.random.rand(), torch.rand(1).item())
""",
    "is_alone": """\
# %%
import os
import random

import numpy as np
import torch

leads = os.getsid(0) == os.getpid()
print(leads, torch.get_num_threads(), torch.cuda.is_initialized())
print(random.random(), np.random.rand(), torch.rand(1).item())
""",
}


def path_of(name: str) -> str:
    names = [*FAILING, *SOUND]
    return f"lessons/1_first/{names.index(name) + 1:02}_{name}.py"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere").resolve()
    (folder / "kept").touch()
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, elsewhere: Path) -> tuple[TinyCourse, Done]:
    """A course with every lesson above, after `blackbelt run`."""
    root = tmp_path_factory.mktemp("course")
    course = TinyCourse(root, cell_seconds=CELL_SECONDS, lesson_seconds=LESSON_SECONDS)
    file = root / "pyproject.toml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"torch",', '"torch", "a_package_of_nobody",'), encoding="utf-8")
    for name, case in FAILING.items():
        course.write(path_of(name), filled(case.source, elsewhere))
    for name, cells in SOUND.items():
        course.write(path_of(name), TITLE + cells)
    course.write(GOOD, TITLE + '# %%\nprint("sound")\n')
    return course, course.command("run")


def filled(text: str, elsewhere: Path) -> str:
    return text.replace("@sleep", SLEEP).replace("@elsewhere", str(elsewhere)).replace("\\n", "\n")


@pytest.mark.parametrize("name", FAILING)
def test_failure(name: str, ran: tuple[TinyCourse, Done], elsewhere: Path) -> None:
    _, done = ran
    found = done.of(path_of(name))
    wanted = [(line, filled(text, elsewhere)) for line, text in FAILING[name].problems]
    assert [problem.line for problem in found] == [line for line, _ in wanted], found
    for problem, (_, text) in zip(found, wanted, strict=True):
        assert text in problem.what
        assert problem.command == f"uv run blackbelt run {Path(path_of(name)).name[:2]}"


def test_the_other_lessons_are_finished_and_kept(ran: tuple[TinyCourse, Done]) -> None:
    course, done = ran
    assert done.code == 1
    assert "Traceback" not in done.err
    assert {problem.path for problem in done.problems} == {path_of(name) for name in FAILING}
    assert len(list((course.root / ".cache" / "runs").iterdir())) == len(SOUND) + 1


def test_nothing_is_left_running(ran: tuple[TinyCourse, Done]) -> None:
    lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if SLEEP in line]


def test_what_happened_elsewhere_is_what_the_lessons_did(
    ran: tuple[TinyCourse, Done], elsewhere: Path
) -> None:
    assert sorted(path.name for path in elsewhere.iterdir()) == ["forked", "written"]


def printed(course: TinyCourse, name: str) -> str:
    """What a sound lesson printed, from the cache; it is not executed again."""
    from blackbelt.progress import Progress
    from blackbelt.store import known

    loaded = course.load()
    lessons = loaded.select((f"{[*FAILING, *SOUND].index(name) + 1:02}",))
    run = known(loaded, lessons, Progress())[path_of(name)]
    return "".join(output.text for step in run.steps for output in step.outputs)


def test_bytes_that_are_no_text_are_shown_replaced(ran: tuple[TinyCourse, Done]) -> None:
    course, _ = ran
    assert printed(course, "bytes") == "caf\ufffd\ufffd \x1b[31mred\x1b[0m\n"


def test_home_and_temporary_files_are_not_in_the_working_directory(
    ran: tuple[TinyCourse, Done],
) -> None:
    course, _ = ran
    assert printed(course, "files") == "here\n"


def test_a_forked_kernel_is_like_a_new_one(ran: tuple[TinyCourse, Done]) -> None:
    course, _ = ran
    state, numbers = printed(course, "is_alone").splitlines()
    # A session of its own, one thread, and no CUDA.
    assert state == "True 1 False"
    # Every generator draws something else in another lesson.
    assert not set(numbers.split()) & set(printed(course, "is_another").split())


def test_report_shows_seconds_and_memory(ran: tuple[TinyCourse, Done]) -> None:
    course, _ = ran
    done = course.command("run", "90", "--report")
    assert done.code == 0
    (line,) = (line for line in done.out.splitlines() if "90_good" in line)
    found = re.search(r"(\d+\.\d) +(\d+) +(\d+) *$", line)
    assert found, line
    peak, start = int(found[2]), int(found[3])
    # Python with torch takes more than 100 MB, and a lesson that prints a word hardly more.
    assert 100 < start <= peak < start + 200


def test_memory_of_a_lesson_is_in_its_report(course: TinyCourse) -> None:
    big = '# %%\ndata = b"x" * 300_000_000\n\n# %%\ndel data\n'
    course.write("lessons/1_first/01_big.py", TITLE + big)
    course.write("lessons/1_first/02_small.py", TITLE + "# %%\nx = 1\n")
    done = course.command("run", "--report")
    took = {}
    for line in done.out.splitlines():
        if found := re.search(r"(01_big|02_small)\b.* (\d+) +(\d+) *$", line):
            took[found[1]] = int(found[2]) - int(found[3])
    assert took["01_big"] >= 290
    assert took["02_small"] < 100


def needs_namespaces() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    return not shutil.which("unshare") or subprocess.run(command, check=False).returncode != 0


WRITES = """\
# %%
from pathlib import Path

Path("big").write_bytes(bytes(1_000_000))
print("sound")
"""


@pytest.mark.skipif(needs_namespaces(), reason="a small disk needs user namespaces (Linux)")
@pytest.mark.parametrize("full", [".cache", "tmp"])
def test_disk_is_full(full: str, course: TinyCourse) -> None:
    """A real file system with little room, where this one command keeps its files."""
    course.write(GOOD, TITLE + WRITES)
    folder = course.root / full
    folder.mkdir()
    size = "4k" if full == ".cache" else "500k"
    script = 'mount -t tmpfs -o size="$1" none "$2" && exec "$3" -m blackbelt.cli run'
    inside = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    done = subprocess.run(
        [*inside, size, str(folder), sys.executable],
        cwd=course.root,
        env=os.environ | ({"TMPDIR": str(folder)} if full == "tmp" else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr
    problems = Done(done.returncode, done.stdout, done.stderr).of(GOOD)
    if full == "tmp":
        assert [(problem.line, problem.command) for problem in problems] == [
            (14, "uv run blackbelt run 90")
        ]
    else:
        # The result could not be kept, and is good all the same.
        assert (done.returncode, problems) == (0, ())
    # With room again, the same folder works.
    again = course.command("run")
    assert again.code == 0, again.err
    assert "1 run, 0 unchanged" in again.err
    assert "0 run, 1 unchanged" in course.command("run").err
