"""A kernel with a folder of its own, and the cells that are executed in it."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import nbformat
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from blackbelt import leftovers, watch
from blackbelt.config import Project
from blackbelt.drive import Driver, KernelClient, Manager
from blackbelt.executed import Ending, Executed, Note, StoppedError
from blackbelt.kernel import REPORT
from blackbelt.lesson import LANGUAGES
from blackbelt.provision import Specs, Warm, WarmProvisioner, environment
from blackbelt.results import Output, StepRun
from blackbelt.scrub import scrub
from blackbelt.translate import translate

_INSTALL = "import blackbelt.kernel as _blackbelt; _blackbelt.install(); del _blackbelt"
_END = "import blackbelt.kernel as _blackbelt; _blackbelt.report_end()"
# Text of a whole cell, in units of what one output may hold, that nobody waits for any more.
_FLOOD = 10
# Seconds in which a busy kernel on a busy machine says in which line it is.
_ANSWER = 10.0
# Seconds for child processes that are about to end when the last cell has ended.
_GRACE = 1.0
# Where libraries put files unless these say otherwise: then it is HOME and TMPDIR, both ours.
_PLACES = (
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
    *("TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "TRITON_CACHE_DIR"),
    *("HF_HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"),
)
_QUIET = logging.getLogger("blackbelt.session")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class Session:
    """One lesson's kernel.

    Args:
        project: limits and root.
        warm: where the kernel comes from; without it (Windows) it is started as usual.
        folder: a new folder of its own.
    """

    def __init__(self, project: Project, warm: Warm | None, folder: Path) -> None:
        self.project = project
        self.start_memory = 0
        self._folder = folder
        self._scratch = folder / "scratch"
        self._marker = uuid.uuid4().hex
        self._read = 0
        self._executed: list[str] = []
        self._deadline: float | None = None
        self._notebook = nbformat.v4.new_notebook()
        self._manager = Manager(
            kernel_spec_manager=Specs(),
            transport="ipc",
            connection_file=str(folder / "kernel.json"),
            client_class=f"{KernelClient.__module__}.{KernelClient.__name__}",
            log=_QUIET,
        )
        self._manager.warm = warm
        self._driver = Driver(
            self._notebook,
            km=self._manager,
            timeout_func=lambda _: self._seconds_left(),
            allow_errors=True,
            log=_QUIET,
        )
        self._driver.most_characters = _FLOOD * project.output_characters

    async def start(self) -> None:
        """Start the kernel.

        Raises:
            RuntimeError: it did not start.
            ColdError: the warm process cannot fork it.
        """
        for name in ("scratch", "home", "tmp"):
            (self._folder / name).mkdir()
        await self._driver.async_start_new_kernel(env=self._environment(), cwd=str(self._scratch))
        await self._driver.async_start_new_kernel_client()
        report = await self._ask(_INSTALL)
        self.start_memory = report.get("memory", 0)
        self._deadline = time.monotonic() + self.project.lesson_seconds

    def _environment(self) -> dict[str, str]:
        variables = environment()
        for name in _PLACES:
            variables.pop(name, None)
        paths = (str(self.project.root), variables["PYTHONPATH"])
        return variables | {
            # Lessons import the snippets that lie beside them, whatever is installed.
            "PYTHONPATH": os.pathsep.join(paths),
            "BLACKBELT_LANGUAGES": ",".join(LANGUAGES),
            "HOME": str(self._folder / "home"),
            "TMPDIR": str(self._folder / "tmp"),
            watch.FOLDER: str(self._folder),
            leftovers.MARKER: self._marker,
        }

    async def stop(self) -> None:
        """End the kernel and everything that it started."""
        if self._driver.kc is not None:
            self._driver.kc.stop_channels()
        provisioner = self._manager.provisioner
        if isinstance(provisioner, WarmProvisioner):
            await provisioner.kill()
        elif provisioner is not None:
            if (pid := getattr(provisioner, "pid", None)) is not None:
                leftovers.end(pid, self._marker)
            await provisioner.kill()
        with contextlib.suppress(Exception):
            await self._manager.cleanup_resources()

    async def execute(self, source: str) -> Executed:
        """Execute a cell and translate what it put out.

        Raises:
            StoppedError: it had to be stopped, or the kernel is dead.
        """
        began = time.perf_counter()
        cell = nbformat.v4.new_code_cell(source)
        self._executed.append(source)
        try:
            report = await self._run(cell)
        except CellTimeoutError:
            raise self._stopped("time", await self._where(), cell) from None
        except DeadKernelError:
            if self._driver.is_flooded:
                raise self._stopped("flood", await self._where(), cell) from None
            if await self._manager.is_alive():
                # nbclient takes Ctrl-C for the death of the kernel.
                raise asyncio.CancelledError from None
            raise self._stopped("death", self._dumped_line(), cell) from None
        seconds = time.perf_counter() - began
        outputs = self._outputs(cell, report)
        run = StepRun(outputs, seconds, report.get("memory", 0))
        return Executed(run, report.get("values", {}), self._new_notes())

    async def finish(self) -> Ending:
        """See what the lesson leaves behind, and on what it ran."""
        report = await self._ask(_END)
        threads = {int(thread["id"]): str(thread["name"]) for thread in report.get("threads", [])}
        processes = leftovers.command_lines(self._below(), _GRACE)
        return Ending(report.get("provenance", {}), threads, processes)

    def children(self) -> set[int]:
        """Processes that the lesson has started and that are alive."""
        return {process.pid for process in self._below()}

    def _below(self) -> list[Any]:
        provisioner: Any = self._manager.provisioner
        root = getattr(provisioner, "keeper", None) or provisioner.pid
        return [process for process in leftovers.below(root) if process.pid != provisioner.pid]

    async def _ask(self, source: str) -> dict[str, Any]:
        return await self._run(nbformat.v4.new_code_cell(source))

    async def _run(self, cell: Any) -> dict[str, Any]:
        self._notebook.cells.append(cell)
        self._driver.characters = 0
        await self._driver.async_execute_cell(cell, len(self._notebook.cells) - 1)
        report: dict[str, Any] = {}
        for raw in cell.outputs:
            report.update(raw.get("data", {}).get(REPORT, {}))
        return report

    def _seconds_left(self) -> float:
        limit = float(self.project.cell_seconds)
        if self._deadline is not None:
            limit = min(limit, self._deadline - time.monotonic())
        # nbclient takes 0 for no limit at all.
        return max(limit, 0.001)

    @property
    def is_over(self) -> bool:
        """Whether all the time of the lesson is spent."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _stopped(self, reason: str, line: int, cell: Any) -> StoppedError:
        status = getattr(self._manager.provisioner, "status", None)
        return StoppedError(reason, line, self._outputs(cell, {}), status or 0)

    async def _where(self) -> int:
        """Ask a kernel that does not answer for the line that it is in."""
        provisioner: Any = self._manager.provisioner
        if hasattr(signal, "SIGUSR1"):
            deadline = time.monotonic() + _ANSWER
            while time.monotonic() < deadline:
                # Asked again: faulthandler may see a thread between two of its frames.
                await provisioner.send_signal(signal.SIGUSR1)
                await asyncio.sleep(0.1)
                if line := self._dumped_line():
                    return line
        return 0

    def _dumped_line(self) -> int:
        with contextlib.suppress(OSError):
            file = self._folder / watch.CRASH
            return watch.line_in_dump(file.read_text(encoding="utf-8", errors="replace"))
        return 0

    def _new_notes(self) -> tuple[Note, ...]:
        with contextlib.suppress(OSError):
            lines = (self._folder / watch.NOTES).read_bytes().splitlines()
            new, self._read = lines[self._read :], len(lines)
            return tuple(Note(**json.loads(line)) for line in new)
        return ()

    def last_words(self) -> str:
        """The last line that a kernel wrote that did not start."""
        with contextlib.suppress(OSError):
            text = (self._folder / "kernel.log").read_text(encoding="utf-8", errors="replace")
            return self.scrub(text.strip().rpartition("\n")[2])
        return ""

    def scrub(self, text: str) -> str:
        """A text without what differs from run to run."""
        text = scrub(text, self._scratch, self.project.root)
        for name, shown in (("tmp", "/tmp"), ("home", "~")):
            text = text.replace(str(self._folder / name), shown)
        return text

    def _outputs(self, cell: Any, report: dict[str, Any]) -> tuple[Output, ...]:
        return translate(cell.outputs, report, self._executed, self.scrub)
