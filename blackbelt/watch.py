"""Notes, inside the kernel, what a lesson does beyond its cells: files that it writes outside of
its folder, processes and threads that it starts, memory that it takes.

Notes go to a file, so that those of forked children, and of a kernel that dies, are not lost.
"""

import contextlib
import faulthandler
import functools
import json
import os
import re
import signal
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

FOLDER = "BLACKBELT_FOLDER"
NOTES = "notes.jsonl"
CRASH = "crash.txt"

# Events of `sys.addaudithook` that change files, and which of their arguments are paths.
_CHANGES = {
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "shutil.rmtree": (0,),
    "sqlite3.connect": (0,),
}
_SPAWNS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system")
_WATCHED = {"open", *_CHANGES, *_SPAWNS}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in ', re.M)
# Files of the system that programs write to without leaving anything behind.
_DEVICES = ("/dev/", "/proc/")


class _Watch:
    """The notes of one kernel."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / NOTES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        allowed = {str(folder), os.path.realpath(folder), os.environ.get("MPLCONFIGDIR", "")}
        allowed.add(sys.pycache_prefix or "")
        self._allowed = tuple(path.rstrip("/") + "/" for path in allowed if path) + _DEVICES
        self._busy = threading.local()
        # Thread, and the note that says where it was started.
        self.threads: list[tuple[weakref.ref[threading.Thread], int]] = []

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        # Called for everything that Python does: what is not watched has to cost nothing.
        if event not in _WATCHED or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            self._see(event, arguments)
        except Exception:
            # An exception here would end what the lesson does, in a way no reader sees.
            return
        finally:
            self._busy.now = False

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING and not isinstance(path, int):
                self._see_change("open", path)
        elif event in _CHANGES:
            for index in _CHANGES[event]:
                self._see_change(event, arguments[index])
        elif event in _SPAWNS:
            self._note({"kind": "process"})

    def started(self, thread: threading.Thread) -> None:
        """Note a thread that is about to run."""
        self.threads.append((weakref.ref(thread), len(self.threads)))
        with contextlib.suppress(OSError):
            self._note({"kind": "thread", "id": len(self.threads) - 1})

    def _see_change(self, event: str, path: Any) -> None:
        text = os.fsdecode(path)
        # With `dir_fd` the name alone says nothing; whoever opened the folder was seen.
        if event == "os.mkdir" and Path(text).is_dir():
            return
        if event == "sqlite3.connect" and (text in ("", ":memory:") or text.startswith("file:")):
            return
        path = Path(text).absolute()
        # Removing a link does nothing to what it points to; opening it does.
        real = path.resolve() if event == "open" else path.parent.resolve() / path.name
        if not f"{real}/".startswith(self._allowed) and "__pycache__" not in real.parts:
            self._note({"kind": "write", "path": str(path)})

    def _note(self, note: dict[str, Any]) -> None:
        line = json.dumps(note | {"line": current_line()}) + "\n"
        os.write(self._file, line.encode())


_watch: _Watch | None = None


def start() -> None:
    """Begin to take notes. Hooks cannot be removed, so they end with the process."""
    global _watch  # noqa: PLW0603
    folder = os.environ.get(FOLDER)
    if not folder or _watch is not None:
        return
    # Left open: it is written to when the process crashes, or when the engine asks where it is.
    crash = Path(folder, CRASH).open("w", encoding="utf-8")  # noqa: SIM115
    faulthandler.enable(crash, all_threads=True)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, crash, all_threads=True)
    _watch = _Watch(Path(folder))
    sys.addaudithook(_watch.hook)
    _watch_threads(_watch)


def _watch_threads(watch: _Watch) -> None:
    # Python before 3.12 has no event for them.
    start_thread = threading.Thread.start

    @functools.wraps(start_thread)
    def start(self: threading.Thread) -> None:
        watch.started(self)
        start_thread(self)

    threading.Thread.start = start  # type: ignore[method-assign]


def peak_memory() -> int:
    """Most bytes of memory that this process has had at once, libraries included."""
    with contextlib.suppress(ModuleNotFoundError):
        return _peak_memory()
    return 0


def _peak_memory() -> int:
    # Not on Windows.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def threads_left(grace: float) -> list[dict[str, Any]]:
    """Threads of the lesson that are alive after some seconds and would keep a program running."""
    if _watch is None:
        return []
    deadline = time.monotonic() + grace
    left = []
    for reference, number in _watch.threads:
        thread = reference()
        if thread is None or thread.daemon:
            continue
        with contextlib.suppress(RuntimeError):
            thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            left.append({"id": number, "name": thread.name})
    return left


def line_in_dump(text: str) -> int:
    """Line of the running cell in what faulthandler wrote last, or 0."""
    for thread in re.split(r"^(?:Current thread|Thread) 0x", text, flags=re.M)[::-1]:
        frames = [(file, int(line)) for file, line in _FRAME.findall(thread)]
        cells = [(file, line) for file, line in frames if "ipykernel_" in file]
        if cells and any(file.endswith("interactiveshell.py") for file, _ in frames):
            return next(line for file, line in cells if file == cells[-1][0])
    return 0


def current_line() -> int:
    """Line of the running cell, also while a function of an earlier cell runs; 0 if none does."""
    frames = []
    frame = sys._getframe()
    while frame is not None:
        if "ipykernel_" in frame.f_code.co_filename:
            frames.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    # The outermost is the cell; the innermost of its lines is what it was doing.
    return next((line for file, line in frames if file == frames[-1][0]), 0)
