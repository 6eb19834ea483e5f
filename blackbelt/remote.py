"""What runs on a worker of a cluster: a lesson, in a project that exists only for its run.

A job and its answer are plain data. A lesson travels as text and is read and run by the worker's
own engine, which has to be the same as the sender's; `describe` is how both know.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from blackbelt.files import write_whole
from blackbelt.keys import environment
from blackbelt.serialize import run_to_data

_ANSWER = "answer.json"
_LOG = "log.txt"
_SHOWN_LINES = 12


def describe() -> dict[str, str]:
    """What has to be the same here and there, so that a result could come from either."""
    torch, python = environment()
    files = sorted(Path(__file__).parent.glob("*.py"))
    engine = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    return {"engine": engine, "torch": torch, "python": python}


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Run a lesson in a process of its own, which ends with this worker.

    Args:
        job: as `blackbelt.cluster` makes it.

    Returns:
        `run`, or `problems`, or `differs` if this worker is not like the sender.

    Raises:
        RuntimeError: the process ended without an answer; Dask tries again.
    """
    if (mine := describe()) != job["sender"]:
        return {"differs": mine}
    with tempfile.TemporaryDirectory(prefix="blackbelt-job-") as folder:
        root = Path(folder).resolve()
        _write_project(root, job)
        command = [sys.executable, "-m", "blackbelt.remote", job["path"]]
        with (
            (root / _LOG).open("wb") as log,
            # Nothing is written to the pipe: that it closes tells the process that we died.
            subprocess.Popen(
                command,
                cwd=root,
                env=_environment(root, job),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            ) as process,
        ):
            code = process.wait()
        try:
            answer: dict[str, Any] = json.loads((root / _ANSWER).read_bytes())
        except (OSError, ValueError):
            lines = (root / _LOG).read_text(encoding="utf-8", errors="replace").splitlines()
            text = "\n".join(f"    | {line}" for line in lines[-_SHOWN_LINES:])
            raise RuntimeError(f"its process ended with code {code}\n{text}") from None
        return answer


def _write_project(root: Path, job: dict[str, Any]) -> None:
    files = {"pyproject.toml": job["pyproject"], job["path"]: job["source"]}
    files |= {f"snippets/{name}.py": source for name, source in job["snippets"].items()}
    for path, text in files.items():
        write_whole(root / path, text.encode())


def _environment(root: Path, job: dict[str, Any]) -> dict[str, str]:
    # The sender's snippets come before any that are installed with the engine.
    engine = str(Path(__file__).parent.parent)
    paths = (str(root), engine, os.environ.get("PYTHONPATH"))
    sent: dict[str, str] = job["environment"]
    return os.environ | sent | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def main(path: str) -> None:
    """Run the lesson at `path` of the project in the working directory, and leave the answer."""
    from blackbelt.assemble import assemble
    from blackbelt.config import load_project
    from blackbelt.progress import Progress
    from blackbelt.read import read_cells, read_text
    from blackbelt.results import Run
    from blackbelt.run import run_lessons

    project = load_project()
    text = read_text(project.root / path, path)
    lesson = assemble(path, text, read_cells(text, path))
    outcome = run_lessons([lesson], project, Progress())[path]
    answer: dict[str, Any] = (
        {"run": run_to_data(outcome)}
        if isinstance(outcome, Run)
        else {"problems": [vars(problem) for problem in outcome]}
    )
    write_whole(project.root / _ANSWER, json.dumps(answer).encode())


def _end_with_worker(orphaned: threading.Event) -> None:
    # Blocks until the worker is gone. A closed standard input is read as that, too.
    with contextlib.suppress(OSError):
        os.read(0, 1)
    orphaned.set()
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    gone = threading.Event()
    threading.Thread(target=_end_with_worker, args=(gone,), daemon=True).start()
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        # The worker cannot tidy up any more.
        if gone.is_set():
            shutil.rmtree(Path.cwd(), ignore_errors=True)
        sys.exit(130)
