"""The process that kernels are forked from: it has imported what takes seconds to import.

`python -m blackbelt.warm` is started by `blackbelt.provision`. Its standard input is a pipe
whose other end only the build holds: when it closes, the build is over, however it ended.

Each connection to its socket is one kernel. A *keeper* is forked for it, which forks the kernel,
inherits the orphans of the lesson (on Linux), tells how the kernel ended, and kills everything
below it when the connection closes. So nothing outlives a lesson, or a build that is killed.
"""

import contextlib
import ctypes
import gc
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from blackbelt import leftovers

# What lessons import, and what the first optimizer (torch._dynamo) and the kernel import. Not
# the backend of matplotlib, which ties itself to the kernel that imports it.
MODULES = (
    "numpy",
    "torch",
    "torch._dynamo",
    "torch.distributed",
    "torch.nn.parallel.distributed",
    "torch.profiler",
    "torch.utils.data",
    "matplotlib.pyplot",
    "einops",
    "ipykernel.kernelapp",
    "ipykernel.zmqshell",
    "blackbelt.kernel",
)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CUDA_NOT_INITIALIZED = 3


def main() -> None:
    """Serve until the build is over."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    # Ctrl-C is the build's business: it closes connections, and the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    preloaded = sys.argv[2] == "preload"
    if preloaded:
        _preload()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            break
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _keep(connection, preloaded)
        connection.close()
    # Keepers have lost their connections, too, and are cleaning up: let them.
    with contextlib.suppress(ChildProcessError):
        signal.signal(signal.SIGALRM, lambda *_: leftovers.end(os.getpid()))
        signal.alarm(10)
        while True:
            os.wait()
    # The folders of all kernels are in this one, and a killed build cannot remove them.
    shutil.rmtree(Path.cwd(), ignore_errors=True)


def _request(connection: socket.socket) -> dict[str, Any]:
    """What a build wants, or nothing if it was killed before it could say that."""
    with connection.makefile("r", encoding="utf-8") as stream, contextlib.suppress(ValueError):
        found: dict[str, Any] = json.loads(stream.readline())
        return found
    return {}


def _preload() -> None:
    # `-m` puts the working directory first, and it is no place for modules.
    sys.path[:] = [path for path in sys.path if path not in ("", str(Path.cwd()))]
    for name in MODULES:
        # The course may be run without some of them, and a lesson will say which it needs.
        with contextlib.suppress(ModuleNotFoundError):
            __import__(name)
    if _cuda_is_initialized():
        sys.exit("CUDA is initialised after the imports: kernels cannot be forked")
    if len(threads()) > 1:
        sys.exit(f"threads run after the imports, kernels cannot be forked: {threads()}")
    # Pages that the garbage collector never touches stay shared with every kernel.
    gc.collect()
    gc.freeze()


def threads() -> list[str]:
    """Threads of this process, also those that Python does not know."""
    folder = Path("/proc/self/task")
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [""]


def _cuda_is_initialized() -> bool:
    """Whether the driver is initialised, even by a library that torch knows nothing of."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return True
    with contextlib.suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")
        return bool(driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != _CUDA_NOT_INITIALIZED)
    return False


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _keep(connection: socket.socket, preloaded: bool) -> NoReturn:
    """Be the keeper of one kernel: start it, report its end, and end all that it leaves."""
    try:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        if request := _request(connection):
            try:
                _run_kernel(connection, request, preloaded)
            finally:
                # On Linux every orphan is below the keeper; elsewhere the marker tells.
                marker = None if sys.platform == "linux" else request["env"][leftovers.MARKER]
                leftovers.end(os.getpid(), marker)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _run_kernel(connection: socket.socket, request: dict[str, Any], preloaded: bool) -> None:
    """Start the kernel and watch it until the build is done with it, or is no more."""
    wakes, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    keeper = os.getpid()
    kernel = os.fork()
    if kernel == 0:
        signal.set_wakeup_fd(-1)
        os.close(wakes)
        os.close(wake)
        _become_kernel(connection, request, keeper, preloaded)
    _send(connection, {"pid": kernel, "keeper": keeper})
    while True:
        ready, _, _ = select.select([connection.fileno(), wakes], [], [])
        if wakes in ready:
            os.read(wakes, 4096)
            for pid, status in _ended():
                if pid == kernel:
                    _send(connection, {"status": os.waitstatus_to_exitcode(status)})
        if connection.fileno() in ready:
            return


def _ended() -> list[tuple[int, int]]:
    """Children that have ended: the kernel, and orphans that were handed to the keeper."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(ended)
    return found


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


def _become_kernel(
    connection: socket.socket, request: dict[str, Any], keeper: int, preloaded: bool
) -> NoReturn:
    """Leave the state of the warm process behind, and be the kernel until it ends."""
    code = 1
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _set_surroundings(request)
        if not preloaded:
            os.execve(request["cmd"][0], request["cmd"], request["env"])
        _run_app(connection, request["cmd"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(OSError, ValueError):
                if stream is not None:
                    stream.flush()
        os._exit(code)


def _set_surroundings(request: dict[str, Any]) -> None:
    """Working directory, environment, standard files, paths of modules, and random state."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    # If memory runs out, the lesson is to be ended and not the build.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    tempfile.tempdir = None
    wanted = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*wanted, *(path for path in sys.path if path and path not in wanted)]
    if numpy := sys.modules.get("numpy"):
        # `random` seeds itself after a fork. These two would draw the same in every kernel.
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()


def _run_app(connection: socket.socket, command: list[str]) -> None:
    from ipykernel.kernelapp import IPKernelApp

    arguments = command[command.index("-f") :]
    sys.argv = [*command[:1], *arguments]
    app: Any = IPKernelApp.instance()
    app.initialize(arguments)
    # Now its sockets are bound: who connects before that waits for the next attempt.
    _send(connection, {"ready": True})
    connection.close()
    app.start()


if __name__ == "__main__":
    main()
