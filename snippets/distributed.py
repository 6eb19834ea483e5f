"""Several ranks on one CPU: forked gloo workers for a cell, torchrun for a script.

`launch` runs a function that a cell defines in processes forked from the kernel, which
takes a fraction of a second because nothing is imported again. On a cluster the same
function would be the body of a script, started by torchrun; `torchrun` does that here.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

import torch

# Imported before the fork: otherwise each rank imports it for itself, which takes
# seconds and looks like a hang.
import torch._dynamo
import torch.distributed as dist
import torch.nn.parallel.distributed
from torch._C._distributed_c10d import FileStore  # dist.FileStore, typed

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1

# The command `torchrun`, in a process that ends when its parent does: it answers
# SIGTERM by stopping its workers.
_TORCHRUN = f"""
import ctypes, runpy, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGTERM)})
runpy.run_module("torch.distributed.run", run_name="__main__")
"""

# The script, without the interpreter's shutdown, in which torch 2.15 sometimes aborts
# when all work is done ("terminate called without an active exception").
_RUN = """
import os, pathlib, runpy, sys
pathlib.Path(f"{os.getpid()}.pid").touch()
runpy.run_path("script.py", run_name="__main__")
sys.stdout.flush()
os._exit(0)
"""


# A parent that has run backward() on a machine with a GPU owns threads of autograd.
_AUTOGRAD_FORK = "Unable to handle autograd's threading in combination with fork"


def _kill_group(pid: int) -> None:
    """Kill a process that leads a group, and whatever it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _loopback() -> dict[str, str]:
    """Make gloo talk over loopback: a laptop's host name often leads elsewhere."""
    names = {"linux": "lo", "darwin": "lo0"}
    return {"GLOO_SOCKET_IFNAME": names[sys.platform]} if sys.platform in names else {}


@dataclass(frozen=True)
class _Job:
    """What the parent tells its ranks."""

    folder: Path
    world_size: int
    timeout: float

    def result(self, rank: int) -> Path:
        return self.folder / f"result{rank}.pt"

    def failure(self, rank: int) -> Path:
        return self.folder / f"failure{rank}.txt"


def _work(job: _Job, fn: Callable[[int], object], rank: int) -> None:
    os.setsid()  # leads a group, so that the parent can kill its children too
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Two ranks would mix their output letter by letter: it goes to a file instead.
    log = (job.folder / f"log{rank}.txt").open("w")
    for descriptor in (1, 2):
        os.dup2(log.fileno(), descriptor)
    sys.stdout = sys.stderr = log
    # First of all: the parent's pool of threads does not exist in a forked child.
    torch.set_num_threads(1)
    os.environ.update(_loopback() | os.environ)
    try:
        dist.init_process_group(
            "gloo",
            store=FileStore(str(job.folder / "store"), job.world_size),
            rank=rank,
            world_size=job.world_size,
            # A backstop: the parent kills a hanging rank long before.
            timeout=timedelta(seconds=2 * job.timeout + 1),
        )
        torch.save(fn(rank), job.result(rank))
        dist.destroy_process_group()
    except BaseException:
        part = job.folder / f"part{rank}.txt"
        part.write_text(traceback.format_exc())
        part.rename(job.failure(rank))
    finally:
        log.flush()
        # Not even atexit runs: the kernel's handlers are the parent's business.
        os._exit(0)


def _start(worker: BaseProcess) -> None:
    with warnings.catch_warnings():
        # Python 3.12+ warns of a fork with threads; `_work` heeds it, with one thread.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded")
        worker.start()


def _raise_failure(job: _Job, workers: Sequence[BaseProcess]) -> None:
    # When a rank is killed or fails, its peers soon fail too: find the cause.
    for rank, worker in enumerate(workers):
        if worker.exitcode is not None and worker.exitcode < 0:
            name = signal.Signals(-worker.exitcode).name
            raise RuntimeError(f"rank {rank} was killed by {name}")
    ranks = [rank for rank in range(job.world_size) if job.failure(rank).exists()]
    ranks.sort(key=lambda rank: job.failure(rank).stat().st_mtime_ns)
    if ranks:
        text = job.failure(ranks[0]).read_text()
        if _AUTOGRAD_FORK in text:
            raise RuntimeError(
                "backward() has run in this process, and its threads do not survive a "
                "fork: restart the kernel and run that backward() inside launch(), "
                "with world_size=1"
            )
        raise RuntimeError(f"rank {ranks[0]} failed:\n{text}")
    for rank, worker in enumerate(workers):
        if worker.exitcode is not None and not job.result(rank).exists():
            raise RuntimeError(f"rank {rank} ended without a result")


def _wait(job: _Job, workers: Sequence[BaseProcess]) -> None:
    """Return when all ranks have ended; raise if one fails or does not end in time."""
    deadline = time.monotonic() + job.timeout
    running = {worker.sentinel: rank for rank, worker in enumerate(workers)}
    while running:
        ended = wait(list(running), max(0.0, deadline - time.monotonic()))
        if not ended:
            late = ", ".join(str(rank) for rank in running.values())
            raise TimeoutError(f"still running after {job.timeout:g} s: rank {late}")
        for sentinel in ended:
            if isinstance(sentinel, int):
                workers[running.pop(sentinel)].join()
        _raise_failure(job, workers)


def launch(
    fn: Callable[[int], T], world_size: int = 2, timeout: float = 30.0
) -> list[T]:
    """Run `fn(rank)` in `world_size` processes that form one gloo process group.

    The processes are forked, so `fn` may be defined in a notebook and read its
    variables; what it changes or prints stays in the child. Each rank has one thread,
    and cannot have children of multiprocessing: in it, use DataLoader(num_workers=0).

    Args:
        fn: called with the rank; returns numbers, tensors, or containers of them.
        world_size: how many processes.
        timeout: seconds after which a hang is an error.

    Returns:
        What each rank returned, in order of rank.

    Raises:
        RuntimeError: a rank failed (the message holds its traceback) or was killed.
        TimeoutError: a rank was still running, waiting for another one perhaps.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise NotImplementedError("launch() needs fork: use Linux, WSL, macOS or Colab")
    if torch.cuda.is_initialized():
        raise RuntimeError("CUDA does not survive a fork: launch() before using it")
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(
        prefix="ranks-", ignore_cleanup_errors=True
    ) as name:
        job = _Job(Path(name), world_size, timeout)
        workers: list[BaseProcess] = []
        try:
            for rank in range(world_size):
                worker: BaseProcess = context.Process(
                    target=_work, args=(job, fn, rank), daemon=True
                )
                _start(worker)
                workers.append(worker)
            _wait(job, workers)
            return [
                torch.load(job.result(rank), weights_only=False)
                for rank in range(world_size)
            ]
        finally:
            for worker in workers:
                if worker.pid is not None:
                    _kill_group(worker.pid)
                worker.kill()  # it may not have become the leader of its group yet
                worker.join()


def torchrun(source: str, processes: int = 2, timeout: float = 90.0) -> str:
    """Run a script under torchrun, return what it printed, in order of rank.

    Args:
        source: text of the script; indentation common to all lines is removed.
        processes: how many processes on this machine.
        timeout: seconds after which torchrun and its workers are killed.

    Raises:
        RuntimeError: the script failed; the message holds what it wrote to stderr.
        TimeoutError: it was still running.
    """
    with tempfile.TemporaryDirectory(
        prefix="torchrun-", ignore_cleanup_errors=True
    ) as folder:
        Path(folder, "script.py").write_text(textwrap.dedent(source))
        Path(folder, "run.py").write_text(_RUN)
        command = [sys.executable, "-c", _TORCHRUN, "--standalone"]
        command += ["--local-addr=127.0.0.1", f"--nproc-per-node={processes}"]
        # Each rank writes a file of its own: on one pipe their lines would mix.
        command += ["--redirects=1", f"--log-dir={folder}/log"]
        with subprocess.Popen(
            [*command, "run.py"],
            cwd=folder,
            env=_loopback() | {"OMP_NUM_THREADS": "1"} | os.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                _, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"still running after {timeout:g} s") from None
            finally:
                # Each worker leads a group of its own; SIGTERM it may ignore.
                for file in Path(folder).glob("*.pid"):
                    _kill_group(int(file.stem))
                process.kill()
        if process.returncode != 0:
            raise RuntimeError(f"torchrun: exit status {process.returncode}\n{errors}")
        logs = Path(folder, "log").glob("*/attempt_0/*/stdout.log")
        by_rank = sorted(logs, key=lambda log: int(log.parent.name))
        return "".join(log.read_text() for log in by_rank)
