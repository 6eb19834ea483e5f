"""Sends lessons to a Dask cluster; what comes back is what kernels of this machine would give."""

import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from secrets import token_hex
from time import perf_counter
from typing import TYPE_CHECKING, Any

from blackbelt.config import Project
from blackbelt.lesson import Lesson
from blackbelt.plan import plan
from blackbelt.problems import CommandError, Problem
from blackbelt.progress import Progress
from blackbelt.remote import describe, run_job
from blackbelt.serialize import run_from_data
from blackbelt.store import Finished, Outcome, Runner

if TYPE_CHECKING:
    from distributed import Client, Future

# A scheduler answers at once or not at all; workers of a cluster that grows need their start.
_CONNECT_SECONDS = 10
_WORKER_SECONDS = 30
# For what a worker's machine does to a lesson, such as a full disk. When a worker dies, the
# scheduler itself counts, with `distributed.scheduler.allowed-failures`.
_RETRIES = 2
_POLL_SECONDS = 1
_GPU = re.compile(r"\bcuda\b|\baccelerator\b")
# What a run reads of the environment and what has to be the same there.
_SENT = ("SOURCE_DATE_EPOCH",)


def cluster_runner(address: str) -> Runner:
    """What runs lessons on the workers of the scheduler at `address`.

    Raises:
        CommandError: Dask is not installed.
    """
    try:
        import distributed
    except ModuleNotFoundError:
        what = "--scheduler needs Dask, which is not installed here"
        raise CommandError(what, "uv sync --extra cluster") from None
    # It tells about every worker that comes and goes; what matters is told below.
    for name in [
        name for name in logging.root.manager.loggerDict if name.startswith("distributed")
    ]:
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def run(
        lessons: Sequence[Lesson],
        project: Project,
        progress: Progress,
        finished: Finished | None = None,
    ) -> dict[str, Outcome]:
        try:
            client = distributed.Client(address, timeout=_CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            what = f"no Dask scheduler answers at {address}: {error}"
            raise CommandError(what, "uv run dask scheduler") from None
        with client:
            _check_workers(client, address)
            cluster = _Cluster(client, project, progress, finished)
            return cluster.run(lessons, address)

    return run


def needs_gpu(lesson: Lesson) -> bool:
    """Whether the code speaks of a GPU, so that a worker that has one is preferred."""
    return any(_GPU.search(cell.source) for cell in lesson.code)


def _check_workers(client: "Client", address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError:
        what = f"the scheduler at {address} has no workers"
        raise CommandError(what, f"uv run dask worker {address}") from None
    here = describe()
    for worker, there in client.run(describe, on_error="return").items():
        if there != here:
            raise CommandError(_difference(worker, here, there), "git rev-parse HEAD")


def _difference(worker: str, here: dict[str, str], there: object) -> str:
    if not isinstance(there, dict):
        return f"the worker {worker} has no engine: {there!r}. Install this commit of the course"
    differing = [name for name in here if here[name] != there.get(name)]
    parts = [f"{name} {there.get(name)} where {here[name]} is wanted" for name in differing]
    return f"the worker {worker} has {', '.join(parts)}. Install this commit of the course there"


@dataclass
class _Sent:
    """A lesson on the cluster."""

    lesson: Lesson
    on_gpu: bool
    worker: str = ""
    began: float = field(default_factory=perf_counter)


class _Cluster:
    def __init__(
        self, client: "Client", project: Project, progress: Progress, finished: Finished | None
    ) -> None:
        self._client = client
        self._project = project
        self._progress = progress
        self._finished = finished
        self._here = describe()
        self._sent: dict[Future[Any], _Sent] = {}
        self._lost = "its scheduler does not answer any more"
        self._seen = perf_counter()
        self._gpu_seen = perf_counter()

    def run(self, lessons: Sequence[Lesson], address: str) -> dict[str, Outcome]:
        from distributed import wait

        workers = self._workers()
        count = f"{len(workers)} worker{'s' if len(workers) != 1 else ''}"
        self._progress.note(f"sent  {len(lessons)} to {count} of {address}")
        with_gpu = any(_has_gpu(worker) for worker in workers.values())
        for lesson in lessons:
            self._submit(lesson, with_gpu and needs_gpu(lesson))
        results: dict[str, Outcome] = {}
        while self._sent:
            try:
                wait(list(self._sent), timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED")
            except TimeoutError:
                self._watch()
            except CancelledError:
                # The scheduler is gone, or `_watch` has given up; those lessons are done, too.
                pass
            for future in [future for future in self._sent if future.done()]:
                sent = self._sent.pop(future)
                results[sent.lesson.path] = self._receive(future, sent)
        return results

    def _submit(self, lesson: Lesson, on_gpu: bool) -> None:
        job = {
            "sender": self._here,
            "path": lesson.path,
            "source": lesson.source,
            "snippets": _snippets(self._project),
            "pyproject": (self._project.root / "pyproject.toml").read_text(encoding="utf-8"),
            "environment": {name: os.environ[name] for name in _SENT if name in os.environ},
        }
        future = self._client.submit(
            run_job,
            job,
            key=f"{lesson.name}-{token_hex(6)}",
            retries=_RETRIES,
            resources={"GPU": 1} if on_gpu else None,
        )
        self._sent[future] = _Sent(lesson, on_gpu)

    def _workers(self) -> dict[str, Any]:
        return dict(self._client.scheduler_info(n_workers=-1)["workers"])

    def _watch(self) -> None:
        """Tell what runs where, and end the wait for workers that do not come back."""
        try:
            workers = self._workers()
        except OSError:
            # The connection is lost; Dask ends what waits for it.
            return
        now = perf_counter()
        by_key = {future.key: sent for future, sent in self._sent.items()}
        for worker, keys in self._client.processing().items():
            for sent in (by_key[key] for key in keys if key in by_key):
                self._place(sent, worker, workers)
        if workers:
            self._seen = now
        if any(_has_gpu(worker) for worker in workers.values()):
            self._gpu_seen = now
        if now - self._seen > _WORKER_SECONDS:
            self._lost = f"no worker has come back for {_WORKER_SECONDS} s"
            self._client.cancel(list(self._sent))
        elif now - self._gpu_seen > _WORKER_SECONDS:
            self._leave_gpu()

    def _place(self, sent: _Sent, worker: str, workers: dict[str, Any]) -> None:
        name = sent.lesson.name
        if not sent.worker:
            sent.began = perf_counter()
            self._progress.started(name, len(plan(sent.lesson)))
        elif sent.worker not in workers:
            self._progress.note(f"moved {name}  to {worker}: {sent.worker} is gone")
        sent.worker = worker

    def _leave_gpu(self) -> None:
        """Workers with a GPU are preferred, not required."""
        for future, sent in list(self._sent.items()):
            if sent.on_gpu:
                del self._sent[future]
                self._client.cancel([future])
                self._submit(sent.lesson, on_gpu=False)

    def _receive(self, future: "Future[Any]", sent: _Sent) -> Outcome:
        outcome = self._outcome(future, sent.lesson)
        if not sent.worker:
            self._progress.started(sent.lesson.name, len(plan(sent.lesson)))
        seconds = perf_counter() - sent.began
        self._progress.finished(sent.lesson.name, seconds, failed=isinstance(outcome, tuple))
        if self._finished:
            self._finished(sent.lesson, outcome)
        return outcome

    def _outcome(self, future: "Future[Any]", lesson: Lesson) -> Outcome:
        from distributed import KilledWorker

        if future.status != "finished":
            error = future.exception(timeout=_CONNECT_SECONDS) if future.status == "error" else None
            what = f"it could not be run on the cluster: {error}"
            if isinstance(error, KilledWorker):
                what = f"{error.allowed_failures + 1} workers died while they ran it, out of memory"
                what += f" perhaps; the last was {error.last_worker.address}"
            elif error is None:
                what = f"the cluster is gone: {self._lost}"
            return (Problem(lesson.path, 1, what, f"uv run blackbelt run {lesson.number}"),)
        answer = future.result()
        if "differs" in answer:
            what = _difference("that ran it", self._here, answer["differs"])
            return (Problem(lesson.path, 1, what, "git rev-parse HEAD"),)
        if "problems" in answer:
            return tuple(Problem(**problem) for problem in answer["problems"])
        from blackbelt.run import commit

        run = run_from_data(answer["run"])
        # There, the lesson lies in no repository.
        where = replace(run.provenance, commit=commit(self._project.root))
        return replace(run, provenance=where)


def _has_gpu(worker: dict[str, Any]) -> bool:
    return bool(worker["resources"].get("GPU"))


def _snippets(project: Project) -> dict[str, str]:
    files = sorted(project.snippets.glob("*.py"))
    return {file.stem: file.read_text(encoding="utf-8") for file in files}
