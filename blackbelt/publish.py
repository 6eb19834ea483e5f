"""Step 7: write what the site is built from to `docs/lessons/`. No other module writes there."""

import shutil
from pathlib import Path

from blackbelt.config import Project
from blackbelt.lesson import LANGUAGES
from blackbelt.prepare import Prepared

FOLDER = "lessons"
_EMPTY = b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n'


def publish(project: Project, prepared: Prepared) -> Path:
    """Write notebooks, sources, pictures and module pages; remove what is left of earlier builds.

    Files whose content did not change are not touched, so that a watching server sees only
    what is new.

    Returns:
        The folder.
    """
    folder = project.docs / FOLDER
    wanted: set[Path] = set()

    def write(path: Path, data: bytes) -> None:
        wanted.add(path)
        if path.is_file() and path.read_bytes() == data:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    for rendered in prepared.lessons:
        lesson = rendered.lesson
        home = folder / lesson.module
        for language in LANGUAGES:
            notebook = rendered.notebooks[language].encode()
            write(home / f"{lesson.name}.{language}.ipynb", notebook)
            for picture in rendered.pages[language].pictures:
                write(folder / "img" / picture.name, picture.data)
    for path in prepared.broken:
        # While the site is served, a page stands for the lesson and shows its problems.
        for language in LANGUAGES:
            write((project.docs / path).with_suffix(f".{language}.ipynb"), _EMPTY)
    for module in prepared.course.modules:
        for language in LANGUAGES:
            source = project.lessons / module.folder / f"index.{language}.md"
            if source.is_file():
                write(folder / module.folder / source.name, source.read_bytes())
    _remove_others(folder, wanted)
    return folder


def _remove_others(folder: Path, wanted: set[Path]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path not in wanted:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)
