"""Runs all lessons in the environment of a trial: `python -m blackbelt.trial RESULTS`.

`blackbelt upgrade` starts it in a copy of the course whose packages are newer. Deprecations and
changes to come are shown wherever they arise, and what a lesson does not declare is an error.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from blackbelt.config import load_project
from blackbelt.course import load_course
from blackbelt.progress import Progress
from blackbelt.serialize import run_to_data
from blackbelt.store import obtain

_SHOWN = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")


def main() -> None:
    """Run everything, and write what came of it to the file that is the argument."""
    # For the kernels, not for this process: libraries that only build the site may be old.
    os.environ["PYTHONWARNINGS"] = ",".join(f"default::{name}" for name in _SHOWN)
    progress = Progress()
    course = load_course(load_project())
    # What lessons say was checked before the trial, and does not depend on releases.
    runs, problems = obtain(course, course.lessons, progress, fresh=True)
    progress.summary()
    found = {
        "runs": {path: run_to_data(run) for path, run in runs.items()},
        "problems": [asdict(problem) for problem in (*course.problems, *problems)],
    }
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
