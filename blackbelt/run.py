"""Step 5: execute lessons, each once, in a kernel of its own. No other module executes code."""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from blackbelt.config import Project
from blackbelt.durations import longest_first, remember
from blackbelt.executed import Ending, StoppedError
from blackbelt.lesson import Lesson
from blackbelt.plan import Step, plan
from blackbelt.problems import Problem
from blackbelt.progress import Progress
from blackbelt.provision import ColdError, Warm, has_fork, is_fork_safe, warm_process
from blackbelt.results import Provenance, Run, StepRun, Value
from blackbelt.session import Session
from blackbelt.verdict import judge, judge_end, judge_notes, not_started, stopped

Finished = Callable[[Lesson, Run | tuple[Problem, ...]], None]


def run_lessons(
    lessons: Sequence[Lesson],
    project: Project,
    progress: Progress,
    finished: Finished | None = None,
) -> dict[str, Run | tuple[Problem, ...]]:
    """Run lessons, as many at a time as there are cores, the longest first.

    Args:
        lessons: what to run.
        project: limits and folders.
        progress: is told what runs.
        finished: is given each result at once, so that it is kept whatever happens next.

    Returns:
        For the path of each lesson its results, or the problems that ended it.
    """
    work = _run_all(lessons, project, progress, finished)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    # The caller's thread has a loop of its own (Jupyter, Playwright); ours runs beside it.
    with ThreadPoolExecutor(1) as beside:
        return beside.submit(asyncio.run, work).result()


async def _run_all(
    lessons: Sequence[Lesson], project: Project, progress: Progress, finished: Finished | None
) -> dict[str, Run | tuple[Problem, ...]]:
    places = asyncio.Semaphore(_cores())
    kernels = _Kernels(progress)
    seconds: dict[str, float] = {}

    async def one(lesson: Lesson) -> Run | tuple[Problem, ...]:
        async with places:
            progress.started(lesson.name, len(plan(lesson)))
            began = perf_counter()
            result = await _run(lesson, project, progress, kernels)
            took = perf_counter() - began
            seconds[lesson.path] = result.seconds if isinstance(result, Run) else took
            # What is said to be done is kept already.
            if finished:
                finished(lesson, result)
            progress.finished(lesson.name, took, failed=not isinstance(result, Run))
            return result

    queue = longest_first(lessons, project)
    try:
        results = await asyncio.gather(*(one(lesson) for lesson in queue))
    finally:
        remember(project, seconds)
    found = {lesson.path: result for lesson, result in zip(queue, results, strict=True)}
    return {lesson.path: found[lesson.path] for lesson in lessons}


def _cores() -> int:
    # A container may use fewer than the machine has.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    return allowed or os.cpu_count() or 1


class _Kernels:
    """Where the kernels of a build come from: forked if possible, else started one by one."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._fork = is_fork_safe()

    def warm(self) -> Warm | None:
        """The process to ask; None where there is no fork (Windows)."""
        return warm_process(preloaded=self._fork) if has_fork() else None

    def fall_back(self, why: str) -> None:
        """Start ordinary kernels from now on, and say so once."""
        if self._fork:
            self._progress.note(f"kernels are started one by one, which is slower: {why}")
        self._fork = False


async def _run(
    lesson: Lesson, project: Project, progress: Progress, kernels: _Kernels
) -> Run | tuple[Problem, ...]:
    try:
        try:
            return await _in_a_kernel(lesson, project, progress, kernels)
        except ColdError as error:
            kernels.fall_back(str(error))
            return await _in_a_kernel(lesson, project, progress, kernels)
    except OSError as error:
        # The disk of the temporary folder is full, for instance.
        return (not_started(lesson, str(error)),)


async def _in_a_kernel(
    lesson: Lesson, project: Project, progress: Progress, kernels: _Kernels
) -> Run | tuple[Problem, ...]:
    warm = kernels.warm()
    # Short names: there is a limit of about 100 characters for the path of a socket.
    parent, prefix = (warm.folder, "k") if warm else (None, "blackbelt-")
    temporary = tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
    with temporary as name:
        session = Session(project, warm, Path(name).resolve())
        try:
            await session.start()
            return await _run_steps(lesson, plan(lesson), session, progress)
        except RuntimeError as error:
            return (not_started(lesson, f"{error} {session.last_words()}".strip()),)
        finally:
            await session.stop()


async def _run_steps(
    lesson: Lesson, steps: tuple[Step, ...], session: Session, progress: Progress
) -> Run | tuple[Problem, ...]:
    project = session.project
    runs: list[StepRun] = []
    values: dict[str, Value] = {}
    # Where threads (by the number of their note) and processes (by pid) were started.
    threads: dict[int, tuple[Step, int]] = {}
    processes: dict[int, tuple[Step, int]] = {}
    for index, step in enumerate(steps):
        progress.step(lesson.name, index + 1, step.cell.line)
        try:
            done = await session.execute(step.cell.source)
        except StoppedError as error:
            return (stopped(lesson, step, error, project, lesson_is_over=session.is_over),)
        problems = judge(lesson, step, done.run, project.output_characters)
        problems += judge_notes(lesson, step, done.notes, session.scrub)
        if problems:
            return problems
        runs.append(done.run)
        values.update(done.values)
        threads |= {n.id: (step, n.line) for n in done.notes if n.kind == "thread"}
        if spawned := [note.line for note in done.notes if note.kind == "process"]:
            for pid in session.children() - processes.keys():
                processes[pid] = (step, spawned[-1])
    try:
        end = await session.finish()
    except StoppedError as error:
        return (stopped(lesson, steps[-1], error, project, lesson_is_over=session.is_over),)
    if problems := judge_end(lesson, steps, end, threads, processes):
        return problems
    return Run(tuple(runs), values, _provenance(end, project), session.start_memory)


def _provenance(end: Ending, project: Project) -> Provenance:
    return Provenance(**end.provenance, date=_today(), commit=commit(project.root))


def _today() -> str:
    """The day of the run, or of SOURCE_DATE_EPOCH, so that a rebuild can be byte-identical."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.date().isoformat()


def commit(root: Path) -> str:
    """Short hash of the commit, or nothing outside a git repository."""
    command = ["git", "rev-parse", "--short=10", "HEAD"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip()
