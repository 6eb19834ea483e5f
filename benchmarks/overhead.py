"""What a lesson costs beyond its own cells, against plain nbclient on the same cells.

    uv run python benchmarks/overhead.py [--lessons 8]

Both execute the same tiny lessons one after another, so that no core is shared: nbclient starts
a new kernel for each, which imports torch and matplotlib; the engine forks its kernels. A
lesson's own time is what its cells take once everything is imported, as the engine measures it.
The goal is an overhead of at most 0.5 s; the exit code is 1 if the median is above it.
"""

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import nbformat
from nbclient import NotebookClient

from blackbelt.assemble import assemble
from blackbelt.config import Project
from blackbelt.lesson import Lesson
from blackbelt.progress import Progress
from blackbelt.provision import close_all
from blackbelt.read import read_cells
from blackbelt.results import Run
from blackbelt.run import run_lessons

GOAL = 0.5
LESSON = """\
# %% [markdown] lang="pl"
# # Tytuł
#
# Opis.

# %% [markdown] lang="en"
# # Title
#
# Description.

# %%
import torch
from matplotlib import pyplot as plt
from torch import nn

# %%
x = torch.ones(8, 8, requires_grad=True)
(x @ x).sum().backward()
print(x.grad.sum().item())

# %%
layer = nn.Linear(8, 8)
optimizer = torch.optim.SGD(layer.parameters())
layer(x).sum().backward()
optimizer.step()

# %%
fig, ax = plt.subplots()
plt.close(fig)
"""


def lessons(count: int) -> list[Lesson]:
    """The same lesson under several names."""
    paths = [f"lessons/1_first/{number:02}_tiny.py" for number in range(1, count + 1)]
    return [assemble(path, LESSON, read_cells(LESSON, path)) for path in paths]


def by_engine(project: Project, given: list[Lesson]) -> tuple[list[float], list[float], float]:
    """Seconds of each lesson, seconds of its cells, and seconds until the warm process is there."""
    walls, cells = [], []
    quiet = Progress()
    began = perf_counter()
    for lesson in given:
        started = perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            run = run_lessons([lesson], project, quiet)[lesson.path]
        if not isinstance(run, Run):
            sys.exit("\n".join(map(str, run)))
        if lesson is given[0]:
            # Its time is the start of the warm process, which a build has once.
            warm = perf_counter() - began
            continue
        walls.append(perf_counter() - started)
        cells.append(run.seconds)
    return walls, cells, warm


def by_nbclient(given: list[Lesson]) -> list[float]:
    """Seconds of each lesson with nbclient alone."""
    walls = []
    for lesson in given:
        cells = [nbformat.v4.new_code_cell(cell.source) for cell in lesson.code]
        started = perf_counter()
        notebook = nbformat.v4.new_notebook(cells=cells)
        # Without its warning that this kernel is not encrypted.
        quiet = ["--log-level=ERROR"]
        NotebookClient(notebook, kernel_name="python3", extra_arguments=quiet).execute()
        walls.append(perf_counter() - started)
    return walls


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lessons", type=int, default=8, help="how many (default 8)")
    count = parser.parse_args().lessons
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        project = Project(Path(name), "https://github.com/a/b", ("torch",), 60, 300, 20000)
        walls, cells, warm = by_engine(project, lessons(count + 1))
        close_all()
        plain = by_nbclient(lessons(count))
    own = statistics.median(cells)
    overhead = statistics.median(w - c for w, c in zip(walls, cells, strict=True))
    plain_overhead = statistics.median(plain) - own
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {count} lessons each, medians")
    print(f"cells alone          {own:6.2f} s")
    print(f"overhead, engine     {overhead:6.2f} s a lesson (goal: at most {GOAL} s)")
    print(f"overhead, nbclient   {plain_overhead:6.2f} s a lesson")
    print(f"ratio                {plain_overhead / overhead:6.1f}")
    print(f"warm process         {warm:6.2f} s, once a build, first lesson included")
    return 0 if overhead <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
