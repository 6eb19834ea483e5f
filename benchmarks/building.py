"""Builds of sites for the benchmarks."""

import os
import resource
import subprocess
import sys
from pathlib import Path

from many_lessons import REPOSITORY


def run(*command: str, folder: Path) -> float:
    """Run a command; returns its CPU seconds and those of its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "SOURCE_DATE_EPOCH": "1800000000"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def build(folder: Path, course: Path = REPOSITORY) -> float:
    return run("blackbelt.cli", "build", "--site-dir", str(folder), folder=course)
