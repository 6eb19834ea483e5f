"""Runs lessons beside the server, and tells it when one is done."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from rich.console import Console

from blackbelt import leftovers
from blackbelt.course import Course
from blackbelt.lesson import Lesson
from blackbelt.problems import Problem
from blackbelt.progress import Progress
from blackbelt.results import Run
from blackbelt.store import Outcome, obtain

_log = logging.getLogger("mkdocs.plugins.blackbelt")


@dataclass(frozen=True)
class _Job:
    """One version of a lesson. Saving it once more, even unchanged, asks for another run."""

    lesson: Lesson
    course: Course
    saved: int

    def same(self, other: "_Job | None") -> bool:
        return other is not None and (
            (self.saved, self.lesson.source, self.course.snippets)
            == (other.saved, other.lesson.source, other.course.snippets)
        )


class Background:
    """A thread for each core takes lessons out of a queue."""

    def __init__(self, done: Callable[[], None]) -> None:
        """Prepare threads that call `done`, without arguments, after each run."""
        self._done = done
        self._changed = threading.Condition()
        self._stopping = False
        self._queue: dict[str, _Job] = {}
        self._running: dict[str, _Job] = {}
        self._outcomes: dict[str, tuple[_Job, Outcome]] = {}
        # Plain lines: bars of several threads and the server's messages would overwrite each other.
        self._console = Console(stderr=True, highlight=False, force_terminal=False)
        self._threads = [
            threading.Thread(target=self._work, name=f"lessons-{number}", daemon=True)
            for number in range(os.cpu_count() or 1)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def want(self, course: Course, lessons: Sequence[Lesson]) -> dict[str, Outcome]:
        """Queue these lessons and no others; returns those that were run as they are now.

        A run that was started for an earlier version goes on: its result is kept in the cache.
        """
        with self._changed:
            waiting: dict[str, _Job] = {}
            saved_now: dict[str, _Job] = {}
            outcomes: dict[str, Outcome] = {}
            for lesson in lessons:
                job = _Job(lesson, course, _saved(course, lesson))
                done = self._outcomes.get(lesson.path)
                if done and job.same(done[0]):
                    outcomes[lesson.path] = done[1]
                elif job.same(self._queue.get(lesson.path)):
                    waiting[lesson.path] = job
                elif not job.same(self._running.get(lesson.path)):
                    saved_now[lesson.path] = job
            # Somebody is looking at what was just saved; the rest of the course can wait.
            self._queue = saved_now | waiting
            self._changed.notify_all()
        return outcomes

    def stop(self) -> None:
        """End every run at once, and the threads with them."""
        with self._changed:
            self._stopping = True
            self._queue.clear()
            self._changed.notify_all()
        self._console.quiet = True
        until = monotonic() + 10
        while any(thread.is_alive() for thread in self._threads) and monotonic() < until:
            # A run ends as soon as its kernel is gone; one that was starting is met next time.
            leftovers.end(os.getpid())
            for thread in self._threads:
                if thread.is_alive():
                    thread.join(0.05)

    def _work(self) -> None:
        while job := self._next():
            outcome = self._run(job)
            with self._changed:
                # Saved again meanwhile, the lesson may be running as it is now on another thread.
                if self._running.get(job.lesson.path) is job:
                    del self._running[job.lesson.path]
                self._outcomes[job.lesson.path] = (job, outcome)
                if self._stopping:
                    return
            self._done()

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._queue)
            if self._stopping:
                return None
            path = next(iter(self._queue))
            job = self._running[path] = self._queue.pop(path)
            return job

    def _run(self, job: _Job) -> Outcome:
        lesson = job.lesson
        try:
            runs, problems = obtain(job.course, [lesson], Progress(console=self._console))
        except Exception as error:
            # Nobody waits for this thread: what it does not say here, nobody learns.
            if not self._stopping:
                _log.exception("%s could not be run", lesson.path)
            command = f"uv run blackbelt run {lesson.number}"
            return (Problem(lesson.path, 1, f"the engine failed: {error!r}", command),)
        found: Run | None = runs.get(lesson.path)
        return found or problems


def _saved(course: Course, lesson: Lesson) -> int:
    try:
        return (course.project.root / lesson.path).stat().st_mtime_ns
    except OSError:
        return 0  # removed since it was read
