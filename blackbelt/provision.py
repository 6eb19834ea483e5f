"""Asks the warm process for kernels: jupyter_client's provisioner interface."""

import asyncio
import atexit
import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

from blackbelt import leftovers

NAME = "blackbelt"
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
# Of the path of a socket, with its end: 108 bytes on Linux, 104 on macOS (sys/un.h).
_LONGEST_SOCKET = 103


class Warm:
    """A running warm process. It serves any number of builds, threads and event loops.

    Attributes:
        preloaded: whether kernels are forked from it; otherwise it starts ordinary ones.
        folder: where all that belongs to its kernels lies; it goes when the process ends.
    """

    def __init__(self, *, preloaded: bool) -> None:
        self.preloaded = preloaded
        # The process removes it, too, in case this one is killed.
        self._folder = tempfile.TemporaryDirectory(
            prefix="blackbelt-", dir=_parent(), ignore_cleanup_errors=True
        )
        self.folder = Path(self._folder.name)
        self.socket = str(self.folder / "socket")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.socket)
        listener.listen(1024)
        self.log = self.folder / "log"
        mode = "preload" if preloaded else "plain"
        with listener, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "blackbelt.warm", str(listener.fileno()), mode],
                # Nobody else holds the other end: it closes when this process ends, killed or not.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
                # A module that asks for CUDA while it is imported must not initialise it.
                env=environment() | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
                cwd=self.folder,
                # Ctrl-C reaches this process only, which then closes in good order.
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def last_words(self) -> str:
        """The last line that it wrote before it failed."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return lines[-1] if lines else "it was killed"
        return "it was killed"

    def close(self) -> None:
        """Let it end, together with all its kernels."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            leftovers.end(self._process.pid)
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def _parent() -> str:
    """The system's folder of temporary files, or /tmp where sockets in it had too long a name."""
    folder = tempfile.gettempdir()
    longest = Path(folder, "blackbelt-xxxxxxxx", "kxxxxxxxx", "kernel-ipc-5")
    return folder if len(os.fsencode(longest)) <= _LONGEST_SOCKET else "/tmp"


_lock = threading.Lock()
_running: list[Warm] = []


def has_fork() -> bool:
    """Whether this system can run a warm process at all."""
    return hasattr(os, "fork")


def is_fork_safe() -> bool:
    """On macOS, frameworks that were imported before a fork may crash after it.

    With BLACKBELT_PLAIN_KERNELS in the environment nothing is forked, to see whether that matters.
    """
    return sys.platform == "linux" and "BLACKBELT_PLAIN_KERNELS" not in os.environ


def warm_process(*, preloaded: bool) -> Warm:
    """The warm process of this process, started now if it does not run."""
    with _lock:
        for warm in [w for w in _running if w.preloaded == preloaded]:
            if warm.is_alive:
                return warm
            _running.remove(warm)
            warm.close()
        if not _running:
            atexit.register(close_all)
        _running.append(Warm(preloaded=preloaded))
        return _running[-1]


def close_all() -> None:
    """End the warm processes of this process, and everything below them."""
    with _lock:
        while _running:
            _running.pop().close()


def environment() -> dict[str, str]:
    """What every kernel finds in its environment, and what importing torch needs to find."""
    variables = dict(os.environ)
    # ipykernel captures no output of C libraries where it finds pytest's variable.
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONSTARTUP", "PYTHONEXECUTABLE")
    for name in (*unwanted, "PYTEST_CURRENT_TEST"):
        variables.pop(name, None)
    engine = str(Path(__file__).resolve().parent.parent)
    paths = [engine, *filter(None, [variables.get("PYTHONPATH")])]
    cache = Path.home() / ".cache" / "matplotlib"
    return variables | _bytecode() | {
        # Kernels run side by side on all cores; more threads would get in each other's way.
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(paths),
        # A plain notebook has colours in tracebacks only; so have we.
        "NO_COLOR": "1",
        # torch's profiler writes to stderr without it where there is no GPU.
        "KINETO_LOG_LEVEL": "99",
        # Read when matplotlib is imported, which is before the kernel could set it. The folder
        # keeps the list of fonts, and no settings of the user.
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": variables.get("MPLCONFIGDIR", str(cache)),
    }  # fmt: skip


def _bytecode() -> dict[str, str]:
    """Where compiled modules go if they cannot lie beside torch; without them it takes 6-9 s."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return {}
    compiled = Path(importlib.util.cache_from_source(torch.origin)).parent
    if compiled.is_dir() or os.access(compiled.parent, os.W_OK):
        return {}
    return {"PYTHONPYCACHEPREFIX": str(Path.home() / ".cache" / "pytorch-black-belt" / "bytecode")}


class WarmProvisioner(KernelProvisionerBase):
    """One kernel of the warm process. The connection to its keeper is its life line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self.exited = asyncio.Event()
        self.status: int | None = None
        self.pid: int | None = None
        self.keeper: int | None = None

    @property
    def has_process(self) -> bool:
        return self._stream is not None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        manager: Any = self.parent
        manager.write_connection_file()
        self.connection_info = manager.get_connection_info()
        command = manager.format_kernel_cmd(extra_arguments=kwargs.pop("extra_arguments", []))
        return await super().pre_launch(cmd=command, **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        manager: Any = self.parent
        warm: Warm = manager.warm
        folder = Path(manager.connection_file).parent
        request = {
            "cmd": cmd,
            "cwd": str(kwargs["cwd"]),
            "env": kwargs["env"],
            "log": str(folder / "kernel.log"),
        }
        try:
            self._stream = await asyncio.open_unix_connection(warm.socket)
            self._stream[1].write(json.dumps(request).encode() + b"\n")
            self._listening = asyncio.create_task(self._listen(self._stream[0]))
            if not warm.preloaded:
                return self.connection_info
            await asyncio.wait_for(self._ready.wait(), _START_SECONDS)
        except (OSError, TimeoutError) as error:
            raise RuntimeError(f"no kernel from the warm process: {error}") from error
        if self.pid is None:
            raise ColdError(warm.last_words())
        return self.connection_info

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            with contextlib.suppress(OSError):
                while line := await reader.readline():
                    message = json.loads(line)
                    self.pid = message.get("pid", self.pid)
                    self.keeper = message.get("keeper", self.keeper)
                    if "ready" in message:
                        self._ready.set()
                    if "status" in message:
                        self.status = message["status"]
                        self._ready.set()
                        self.exited.set()
        finally:
            # The keeper is gone: whatever happened, there is no kernel any more.
            self.status = -signal.SIGKILL if self.status is None else self.status
            self._ready.set()
            self.exited.set()

    async def poll(self) -> int | None:
        return self.status

    async def wait(self) -> int | None:
        await self.exited.wait()
        return self.status

    async def send_signal(self, signum: int) -> None:
        if self.pid is not None and self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    async def kill(self, restart: bool = False) -> None:
        """Tell the keeper to end the kernel and everything below it, and wait until it has."""
        if self._stream is None or self._listening is None:
            return
        _, writer = self._stream
        with contextlib.suppress(OSError):
            writer.write_eof()
        done, _ = await asyncio.wait([self._listening], timeout=_STOP_SECONDS)
        if not done:
            self._listening.cancel()
            for pid in filter(None, (self.keeper, self.pid)):
                leftovers.end(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        writer.close()
        self._stream = None

    async def terminate(self, restart: bool = False) -> None:
        await self.kill(restart)

    async def cleanup(self, restart: bool = False) -> None:
        await self.kill(restart)


class ColdError(Exception):
    """The warm process ended before it could fork a kernel; the text says why."""


class Specs(KernelSpecManager):
    """The one kernel that lessons run in, whatever is installed on the machine."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The specification of every name."""
        factory = KernelProvisionerFactory.instance()
        group = KernelProvisionerFactory.GROUP_NAME
        value = f"{__name__}:{WarmProvisioner.__name__}"
        factory.provisioners[NAME] = EntryPoint(name=NAME, value=value, group=group)
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
            metadata={"kernel_provisioner": {"provisioner_name": NAME}} if has_fork() else {},
        )
