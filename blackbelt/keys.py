"""What a run depends on, as a hash. Prose is not part of it: editing prose executes nothing."""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import json
import sys
from functools import cache
from platform import machine

from blackbelt.inline import needed_snippets
from blackbelt.lesson import Cell, Lesson
from blackbelt.plan import plan

# Raised whenever what a run records, or how a kernel is set up, changes.
FORMAT = 3


def source_hash(lesson: Lesson, snippets: dict[str, str]) -> str:
    """Hash of what a lesson executes, in order, and of the snippets that it imports."""
    cells = [(step.cell.source, _outcomes(step.cell), step.phase) for step in plan(lesson)]
    helpers = {name: snippets[name] for name in needed_snippets(lesson, snippets)}
    if helpers:
        # Python executes the package before any of its modules.
        helpers["__init__"] = snippets.get("__init__", "")
    return _hash([cells, helpers])


def run_key(lesson: Lesson, snippets: dict[str, str]) -> str:
    """Hash of the lesson and of the environment that runs it here."""
    return _hash([FORMAT, source_hash(lesson, snippets), *environment(), device_class()])


def environment() -> tuple[str, str]:
    """Version of torch, and major and minor version of Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return importlib.metadata.version("torch"), version


@cache
def device_class() -> str:
    """`cuda`, `mps` or `cpu`, without the two seconds that importing torch would take."""
    if sys.platform == "darwin" and machine() == "arm64":
        return "mps"
    with contextlib.suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return "cuda" if count.value else "cpu"
    return "cpu"


def _outcomes(cell: Cell) -> list[str | list[str] | None]:
    """What a cell declares about its run; how a page shows it (`fold`) changes no result."""
    options = cell.options
    raises = str(options.raises) if options.raises else None
    return [raises, [str(w) for w in options.warns], options.role, options.says, options.lang]


def _hash(parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
