"""The course with the hand-written pages and one lesson, in a temporary folder, built as it is."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from built_site import ROOT

# It takes the place of the real first lesson, which the hand-written pages link to.
LESSON = "lessons/1_tensors/01_storage_vs_view.py"


def write_course(root: Path, source: str) -> None:
    shutil.copytree(ROOT / "docs", root / "docs", ignore=shutil.ignore_patterns("lessons"))
    keep_only_prose = shutil.ignore_patterns("*.py", "__pycache__")
    shutil.copytree(ROOT / "lessons", root / "lessons", ignore=keep_only_prose)
    shutil.copytree(ROOT / "snippets", root / "snippets")
    for name in ("mkdocs.yml", "pyproject.toml"):
        shutil.copyfile(ROOT / name, root / name)
    (root / LESSON).write_text(source, encoding="utf-8")


def mkdocs(
    course: Path, site: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=course,
        env={**os.environ, "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
