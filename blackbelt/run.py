"""Step 5: execute lessons, each once, in a kernel of its own. No other module executes code."""

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from blackbelt.config import Project
from blackbelt.kernel import REPORT
from blackbelt.lesson import LANGUAGES, Lesson
from blackbelt.plan import Step, plan
from blackbelt.problems import Problem
from blackbelt.progress import Progress
from blackbelt.results import Output, Provenance, Run, StepRun, Value
from blackbelt.scrub import scrub
from blackbelt.verdict import judge

_INSTALL = "import blackbelt.kernel as _blackbelt; _blackbelt.install(); del _blackbelt"
_DEVICE = "import blackbelt.kernel as _blackbelt; _blackbelt.report_device()"


def run_lessons(
    lessons: Sequence[Lesson], project: Project, progress: Progress
) -> dict[str, Run | tuple[Problem, ...]]:
    """Run lessons, as many at a time as there are cores.

    Returns:
        For the path of each lesson its results, or the problems that ended it.
    """
    work = _run_all(lessons, project, progress)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    # The caller's thread has a loop of its own (Jupyter, Playwright); ours runs beside it.
    with ThreadPoolExecutor(1) as beside:
        return beside.submit(asyncio.run, work).result()


async def _run_all(
    lessons: Sequence[Lesson], project: Project, progress: Progress
) -> dict[str, Run | tuple[Problem, ...]]:
    places = asyncio.Semaphore(os.cpu_count() or 1)

    async def one(lesson: Lesson) -> Run | tuple[Problem, ...]:
        async with places:
            return await _run(lesson, project, progress)

    results = await asyncio.gather(*(one(lesson) for lesson in lessons))
    return {lesson.path: result for lesson, result in zip(lessons, results, strict=True)}


async def _run(lesson: Lesson, project: Project, progress: Progress) -> Run | tuple[Problem, ...]:
    steps = plan(lesson)
    progress.started(lesson.name, len(steps))
    began = perf_counter()
    with tempfile.TemporaryDirectory(prefix="blackbelt-") as folder:
        scratch = Path(folder, "scratch").resolve()
        scratch.mkdir()
        session = _Session(project, scratch, Path(folder).resolve())
        try:
            await session.start()
            result = await _run_steps(lesson, steps, session, progress)
        except (DeadKernelError, CellTimeoutError, RuntimeError) as error:
            result = (Problem(lesson.path, 1, f"the kernel died: {error}", _again(lesson)),)
        finally:
            await session.stop()
    progress.finished(lesson.name, perf_counter() - began, failed=not isinstance(result, Run))
    return result


async def _run_steps(
    lesson: Lesson, steps: tuple[Step, ...], session: "_Session", progress: Progress
) -> Run | tuple[Problem, ...]:
    runs: list[StepRun] = []
    values: dict[str, Value] = {}
    for index, step in enumerate(steps):
        progress.step(lesson.name, index + 1, step.cell.line)
        try:
            run, found = await session.execute(step.cell.source)
        except CellTimeoutError:
            limit = session.project.cell_seconds
            what = f"the cell ran longer than {limit} s (cell_seconds in pyproject.toml)"
            return (Problem(lesson.path, step.cell.line, what, _again(lesson)),)
        except DeadKernelError:
            what = "the kernel died in this cell (out of memory, os._exit, or a crash)"
            return (Problem(lesson.path, step.cell.line, what, _again(lesson)),)
        if problems := judge(lesson, step, run, session.project.output_characters):
            return problems
        runs.append(run)
        values.update(found)
    return Run(tuple(runs), values, await session.provenance())


def _again(lesson: Lesson) -> str:
    return f"uv run blackbelt run {lesson.number}"


class _Session:
    """A kernel, its working directory, and the cells executed in it."""

    def __init__(self, project: Project, scratch: Path, private: Path) -> None:
        self.project = project
        self._scratch = scratch
        self._private = private
        self._cells = 0
        self._notebook = nbformat.v4.new_notebook()
        self._manager = AsyncKernelManager(kernel_name="python3", transport="ipc")
        self._manager.connection_file = str(private / "kernel.json")
        self._client = NotebookClient(
            self._notebook,
            km=self._manager,
            timeout=project.cell_seconds,
            allow_errors=True,
            resources={"metadata": {"path": str(scratch)}},
        )

    async def start(self) -> None:
        environment = os.environ | {
            "BLACKBELT_LANGUAGES": ",".join(LANGUAGES),
            # Kernels run side by side on all cores; more threads would get in each other's way.
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            # A plain notebook has colours in tracebacks only; so have we.
            "NO_COLOR": "1",
            # torch's profiler writes to stderr without it where there is no GPU.
            "KINETO_LOG_LEVEL": "99",
        }
        await self._client.async_start_new_kernel(env=environment, cwd=str(self._scratch))
        await self._client.async_start_new_kernel_client()
        await self.execute(_INSTALL)

    async def stop(self) -> None:
        """End the kernel and every process that it left in its group."""
        provisioner: Any = self._manager.provisioner
        pid: int | None = getattr(provisioner, "pid", None)
        if self._client.kc is not None:
            self._client.kc.stop_channels()
        with contextlib.suppress(Exception):
            await self._manager.shutdown_kernel(now=True)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    async def execute(self, source: str) -> tuple[StepRun, dict[str, Value]]:
        """Execute a cell and translate what it put out."""
        cell = nbformat.v4.new_code_cell(source)
        self._notebook.cells.append(cell)
        began = perf_counter()
        await self._client.async_execute_cell(cell, self._cells)
        seconds = perf_counter() - began
        self._cells += 1
        report: dict[str, Any] = {"values": {}, "line": 0}
        for raw in cell.outputs:
            report.update(raw.get("data", {}).get(REPORT, {}))
        outputs = [self._output(raw, report["line"]) for raw in cell.outputs]
        return StepRun(tuple(o for o in _joined(outputs) if o), seconds), report["values"]

    def _output(self, raw: Any, line: int) -> Output | None:
        if raw.output_type == "stream":
            return Output("text" if raw.name == "stdout" else "stderr", self._scrub(raw.text))
        if raw.output_type == "error":
            return Output("error", self._scrub(f"{raw.ename}: {raw.evalue}"), line=line)
        if REPORT in raw.data:
            return None
        ours = raw.metadata.get("blackbelt", {})
        text = raw.data.get("text/plain", "")
        if "warning" in ours:
            return Output("warning", self._scrub(text))
        if "image/svg+xml" in raw.data or "image/png" in raw.data:
            svg, png = raw.data.get("image/svg+xml", ""), raw.data.get("image/png", "")
            return Output("figure", ours.get("alt", ""), ours.get("lang"), svg, png.strip())
        return Output("result", self._scrub(text))

    def _scrub(self, text: str) -> str:
        return scrub(text, self._scratch, self.project.root)

    async def provenance(self) -> Provenance:
        cell = nbformat.v4.new_code_cell(_DEVICE)
        self._notebook.cells.append(cell)
        await self._client.async_execute_cell(cell, self._cells)
        self._cells += 1
        report: dict[str, str] = {}
        for raw in cell.outputs:
            report.update(raw.get("data", {}).get(REPORT, {}))
        report.pop("line", None)
        report.pop("values", None)
        return Provenance(**report, date=_today(), commit=_commit(self.project.root))


def _joined(outputs: list[Output | None]) -> list[Output]:
    """Printed text that arrived in pieces becomes one output."""
    joined: list[Output] = []
    for output in outputs:
        if output is None:
            continue
        if joined and output.kind in ("text", "stderr") and joined[-1].kind == output.kind:
            joined[-1] = Output(output.kind, joined[-1].text + output.text)
        else:
            joined.append(output)
    return joined


def _today() -> str:
    """The day of the run, or of SOURCE_DATE_EPOCH, so that a rebuild can be byte-identical."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.date().isoformat()


def _commit(root: Path) -> str:
    """Short hash of the commit, or nothing outside a git repository."""
    command = ["git", "rev-parse", "--short=10", "HEAD"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip()
