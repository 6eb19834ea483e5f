"""Finds and ends what a lesson leaves behind: processes, however they tried to get away."""

import contextlib
from collections.abc import Iterator

import psutil

# Variable in the environment of a kernel and of all that it starts; the value is its run's own.
MARKER = "BLACKBELT_RUN"
# Helpers that libraries keep for the whole life of a process: no lesson can end them.
_HELPERS = (
    "multiprocessing.resource_tracker",
    "multiprocessing.forkserver",
    "torch/_inductor/compile_worker",
)
_SECONDS = 5.0


def below(pid: int) -> list[psutil.Process]:
    """Every process that descends from this one."""
    with contextlib.suppress(psutil.Error):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def marked(marker: str) -> Iterator[psutil.Process]:
    """Every process that carries the marker of a run, its kernel included.

    It finds what is left where orphans are not handed to the keeper of the kernel (macOS).
    """
    for process in psutil.process_iter():
        # A process of somebody else cannot be read, and is none of ours.
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARKER) == marker:
                yield process


def command_lines(processes: list[psutil.Process], grace: float) -> dict[int, str]:
    """Command lines, by pid, of those that are still alive after some seconds of grace.

    Args:
        processes: the processes; zombies and helpers of libraries do not count.
        grace: seconds for those that are about to end.
    """
    _, alive = psutil.wait_procs([p for p in processes if _counts(p)], timeout=grace)
    found = {}
    for process in alive:
        with contextlib.suppress(psutil.Error):
            if _counts(process):
                found[process.pid] = " ".join(process.cmdline()) or process.name()
    return found


def _counts(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        line = " ".join(process.cmdline())
        return not any(helper in line for helper in _HELPERS)
    return False


def end(pid: int, marker: str | None = None) -> None:
    """Kill what descends from a process, and what carries the marker; the process stays.

    Killing is repeated until nothing is found, because a process may have forked meanwhile.
    """
    for _ in range(20):
        found = below(pid)
        if marker is not None:
            found += [p for p in marked(marker) if p.pid != pid and p not in found]
        alive = [p for p in found if _is_alive(p)]
        if not alive:
            return
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=_SECONDS)


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
