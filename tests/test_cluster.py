"""Lessons on a real Dask cluster: a scheduler and workers on this machine, some of them killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import psutil
import pytest
from tiny import REPOSITORY, TITLE, Done, TinyCourse

from blackbelt.progress import Progress
from blackbelt.results import Run
from blackbelt.store import known

SOUND = "lessons/1_first/01_sound.py"
GPU = "lessons/1_first/02_gpu.py"
FAILS = "lessons/1_first/03_fails.py"
HELD = "lessons/2_second/04_held.py"
WHERE = '# %%\nimport os\n\nprint(os.environ["WORKER"])\n'


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = monotonic() + 60
    tick = threading.Event()
    while not condition():
        assert monotonic() < deadline, f"{what} did not come about"
        tick.wait(0.02)


class Cluster:
    """A scheduler and its workers, each a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.family: dict[int, psutil.Process] = {}
        self.address = ""

    def schedule(self, allowed_failures: int = 3) -> None:
        file = self.folder / "scheduler.json"
        environment = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures)}
        arguments = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]
        self._start("dask_scheduler", [*arguments, "--scheduler-file", str(file)], environment)
        wait_until(lambda: file.is_file() and file.read_text().endswith("}"), "the scheduler")
        self.address = json.loads(file.read_text())["address"]

    def work(self, name: str, *more: str, path: Path | None = None) -> None:
        environment = {"WORKER": name}
        if path:
            environment["PYTHONPATH"] = str(path)
        arguments = [self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard"]
        arguments += ["--name", name, "--local-directory", str(self.folder / name), *more]
        self.workers[name] = self._start("dask_worker", arguments, environment)
        log = self.folder / f"dask_worker-{len(self._processes)}.log"
        wait_until(lambda: b"Registered to" in log.read_bytes(), f"the worker {name}")

    def _start(
        self, program: str, arguments: list[str], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments]
        number = len(self._processes) + 1
        with (self.folder / f"{program}-{number}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=os.environ | environment, stdout=log, stderr=log
            )
        self._processes.append(process)
        return process

    def end_scheduler(self) -> None:
        self._processes[0].kill()
        self._processes[0].wait()

    def descendants(self, name: str) -> list[psutil.Process]:
        """What a worker has started; remembered, so that it ends with the test at the latest."""
        try:
            found: list[psutil.Process] = psutil.Process(self.workers[name].pid).children(
                recursive=True
            )
        except psutil.NoSuchProcess:
            return []
        self.family |= {process.pid: process for process in found}
        return found

    def holder(self, file: Path) -> str:
        """The worker in whose lesson this file is open, if there is one."""
        for name in self.workers:
            for process in self.descendants(name):
                try:
                    if str(file) in [opened.path for opened in process.open_files()]:
                        return name
                except psutil.NoSuchProcess:
                    continue
        return ""

    def close(self) -> None:
        for name in self.workers:
            self.descendants(name)
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        for left in self.family.values():
            try:
                left.kill()
            except psutil.NoSuchProcess:
                continue


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster
    finally:
        cluster.close()


class Command:
    """A command in a thread of this process, while the test does something to the cluster."""

    def __init__(self, course: TinyCourse, *arguments: str) -> None:
        command = [sys.executable, "-m", "blackbelt.cli", *arguments]
        self._process = subprocess.Popen(
            command, cwd=course.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self) -> Done:
        try:
            out, err = self._process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        return Done(self._process.returncode, out, err)


def run_of(course: TinyCourse, path: str) -> Run:
    loaded = course.load()
    return known(loaded, [loaded.by_path[path]], Progress())[path]


def printed(course: TinyCourse, path: str) -> str:
    run = run_of(course, path)
    return "".join(output.text for step in run.steps for output in step.outputs).strip()


def test_what_comes_back_is_what_a_local_run_gives(
    course: TinyCourse, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (course.root / "snippets" / "own.py").write_text('OWN = "from this course"\n')
    source = "# %%\nfrom snippets.own import OWN\n\nprint(OWN)\n\n# %%\nvalue = 7\nprint(value)\n"
    course.write(SOUND, TITLE + source)
    course.write(GPU, TITLE + WHERE + '\n# %%\nwanted = "cuda"\n')
    course.write(FAILS, TITLE + "# %%\nfirst = 1\n\n# %%\nsecond = 2\nfirst / 0\n")
    subprocess.run(["git", "init", "-q"], cwd=course.root, check=True)
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "x"]
    subprocess.run([*commit, "--allow-empty"], cwd=course.root, check=True)
    cluster.schedule()
    cluster.work("plain")
    cluster.work("gpu", "--resources", "GPU=1")
    there = course.command("run", "--scheduler", cluster.address)
    assert there.code == 1
    assert f"sent  3 to 2 workers of {cluster.address}" in there.err
    # The lesson that speaks of CUDA went to the worker that says it has a GPU.
    assert printed(course, GPU) == "gpu"
    assert printed(course, SOUND) == "from this course\n7"
    far = run_of(course, SOUND)
    # Kept: nothing is left to run here but what failed, and that fails as it did there.
    monkeypatch.setenv("WORKER", "here")
    here = course.command("run")
    assert "lessons: 1 run, 2 unchanged, 1 failed" in here.err
    assert there.problems == here.problems
    assert [(p.path, p.line) for p in here.problems] == [(FAILS, 16)]
    assert course.command("run", "--fresh", "01", "02").code == 0
    assert printed(course, GPU) == "here"
    near = run_of(course, SOUND)
    assert [step.outputs for step in far.steps] == [step.outputs for step in near.steps]
    assert (far.values, far.provenance) == (near.values, near.provenance)
    assert len(far.provenance.commit) == 10


HELD_LESSON = """\
# %%
import os
import time
from pathlib import Path

# %%
with Path({hold!r}).open() as stream:
    while Path({hold!r}).exists():
        time.sleep(0.01)

# %%
print(os.environ["WORKER"])
"""


@pytest.fixture
def hold(course: TinyCourse, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file; while it exists, the lesson `HELD` stays in its second cell."""
    file = tmp_path_factory.mktemp("hold") / "hold"
    file.touch()
    course.write(HELD, TITLE + HELD_LESSON.format(hold=str(file)))
    return file


def kill(cluster: Cluster, name: str) -> list[psutil.Process]:
    """Kill a worker; returns what it had started."""
    orphans = cluster.descendants(name)
    worker = cluster.workers.pop(name)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    return orphans


def test_the_lesson_of_a_worker_that_is_killed_is_retried_elsewhere(
    course: TinyCourse, cluster: Cluster, hold: Path
) -> None:
    course.write(SOUND, TITLE + WHERE)
    cluster.schedule()
    cluster.work("a")
    cluster.work("b")
    command = Command(course, "run", "--scheduler", cluster.address)
    wait_until(lambda: cluster.holder(hold), "the lesson's cell")
    first = cluster.holder(hold)
    orphans = kill(cluster, first)
    other = "a" if first == "b" else "b"
    wait_until(lambda: cluster.holder(hold) == other, "the lesson on the other worker")
    # What the dead worker had started ends by itself.
    wait_until(lambda: not any(map(alive, orphans)), "the end of the lesson's first processes")
    hold.unlink()
    done = command.end()
    assert done.code == 0, done.err
    assert printed(course, HELD) == other
    assert "lessons: 2 run" in done.err
    assert "moved 04_held  to tcp://" in done.err


def alive(process: psutil.Process) -> bool:
    # Nobody may be there to reap an orphan in a container.
    return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE


def test_a_lesson_that_kills_every_worker_is_given_up(
    course: TinyCourse, cluster: Cluster, hold: Path
) -> None:
    cluster.schedule(allowed_failures=1)
    cluster.work("a")
    cluster.work("b")
    command = Command(course, "run", "--scheduler", cluster.address)
    for _ in range(2):
        wait_until(lambda: cluster.holder(hold), "the lesson's cell")
        kill(cluster, cluster.holder(hold))
    done = command.end()
    assert done.code == 1
    (problem,) = done.of(HELD)
    assert "2 workers died while they ran it" in problem.what
    assert problem.command == "uv run blackbelt run 04"


def test_the_end_of_the_scheduler_ends_the_wait(
    course: TinyCourse, cluster: Cluster, hold: Path
) -> None:
    cluster.schedule()
    cluster.work("a")
    command = Command(course, "run", "--scheduler", cluster.address)
    wait_until(lambda: cluster.holder(hold), "the lesson's cell")
    cluster.end_scheduler()
    done = command.end()
    assert done.code == 1
    (problem,) = done.of(HELD)
    assert problem.what == "the cluster is gone: its scheduler does not answer any more"
    assert "Traceback" not in done.err


def test_a_worker_with_another_engine_is_refused(course: TinyCourse, cluster: Cluster) -> None:
    course.write(SOUND, TITLE + WHERE)
    other = cluster.folder / "other"
    shutil.copytree(REPOSITORY / "blackbelt", other / "blackbelt")
    with (other / "blackbelt" / "run.py").open("a") as stream:
        stream.write("# Changed.\n")
    cluster.schedule()
    cluster.work("other", path=other)
    done = course.command("run", "--scheduler", cluster.address)
    assert done.code == 1
    assert "blackbelt: the worker tcp://127.0.0.1:" in done.err
    assert "has engine " in done.err
    assert "Install this commit of the course there\n    next: git rev-parse HEAD" in done.err
    assert "01_sound" not in done.err


def test_without_a_scheduler_there_is_one_message(
    course: TinyCourse, monkeypatch: pytest.MonkeyPatch
) -> None:
    course.write(SOUND, TITLE + WHERE)
    monkeypatch.setattr("blackbelt.cluster._CONNECT_SECONDS", 1)
    done = course.command("run", "--scheduler", "tcp://127.0.0.1:1")
    assert done.code == 1
    assert done.err.startswith("blackbelt: no Dask scheduler answers at tcp://127.0.0.1:1")
    assert done.err.endswith("next: uv run dask scheduler\n")


def test_without_dask_there_is_a_command_to_install_it(course: TinyCourse) -> None:
    absent = 'import sys; sys.modules["distributed"] = None; from blackbelt import cli; '
    program = absent + 'sys.exit(cli.main(["run", "--scheduler", "tcp://127.0.0.1:1"]))'
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=course.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "blackbelt: --scheduler needs Dask, which is not installed here\n"
        "    next: uv sync --extra cluster\n"
    )
