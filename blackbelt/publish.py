"""Step 7: write what the site is built from to `docs/lessons/`. No other module writes there.

Two builds may work on one checkout, of other lessons perhaps: each file appears whole, and what
another build may still need is not removed.
"""

import shutil
from collections.abc import Mapping
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from io import BufferedWriter
from pathlib import Path

from blackbelt.config import Project
from blackbelt.files import write_whole
from blackbelt.lesson import LANGUAGES
from blackbelt.prepare import Prepared

FOLDER = "lessons"
_EMPTY = b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n'

# Held until the process ends, by each build that reads `docs/lessons/`.
_users: dict[Path, BufferedWriter] = {}


def publish(project: Project, prepared: Prepared, others: Mapping[str, bytes]) -> frozenset[str]:
    """Write notebooks, pictures, module pages and others; remove what is left of earlier builds.

    Files whose content did not change are not touched, so that a watching server sees only
    what is new.

    Args:
        project: where the course lies.
        prepared: the lessons.
        others: other files, by their names below `docs/lessons/`.

    Returns:
        The files of this build, relative to `docs/`. While another build runs there may be more.
    """
    user = _use(project)
    folder = project.docs / FOLDER
    wanted: set[Path] = set()

    def write(path: Path, data: bytes) -> None:
        wanted.add(path)
        if not path.is_file() or path.read_bytes() != data:
            write_whole(path, data)

    for rendered in prepared.lessons:
        lesson = rendered.lesson
        home = folder / lesson.module
        for language in LANGUAGES:
            notebook = rendered.notebooks[language].encode()
            write(home / f"{lesson.name}.{language}.ipynb", notebook)
            for picture in rendered.pages[language].pictures:
                write(folder / "img" / picture.name, picture.data)
    for stand_in in prepared.stand_ins:
        # While the site is served, a page stands for the lesson and says why it is missing.
        for language in LANGUAGES:
            write((project.docs / stand_in.path).with_suffix(f".{language}.ipynb"), _EMPTY)
    for module in prepared.course.modules:
        for language in LANGUAGES:
            source = project.lessons / module.folder / f"index.{language}.md"
            if source.is_file():
                write(folder / module.folder / source.name, source.read_bytes())
    for name, data in others.items():
        write(folder / name, data)
    _tidy(user, folder, wanted)
    return frozenset(path.relative_to(project.docs).as_posix() for path in wanted)


def _use(project: Project) -> BufferedWriter:
    """Mark this process as one that needs the folder."""
    if project.root not in _users:
        project.cache.mkdir(exist_ok=True)
        _users[project.root] = (project.cache / "publish.lock").open("ab")
    # Waits while another build removes files, which takes milliseconds.
    flock(_users[project.root], LOCK_SH)
    return _users[project.root]


def _tidy(user: BufferedWriter, folder: Path, wanted: set[Path]) -> None:
    """Remove what is not wanted, unless another build may want it."""
    try:
        flock(user, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        pass
    else:
        _remove_others(folder, wanted)
    flock(user, LOCK_SH)


def _remove_others(folder: Path, wanted: set[Path]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path not in wanted:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)
