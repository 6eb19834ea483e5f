"""Results from a GPU are shown where there is none, only while they are of this code."""

import base64
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from tiny import TITLE, Done, TinyCourse

from blackbelt.figures import compact
from blackbelt.keys import device_class
from blackbelt.progress import Progress
from blackbelt.recordings import LARGEST, record, recorded_run
from blackbelt.results import Output, Provenance, Run
from blackbelt.store import known, obtain

pytestmark = pytest.mark.skipif(
    device_class() == "cuda", reason="a machine with CUDA shows its own results"
)

LESSON = "lessons/1_first/01_gpu.py"
OTHER = "lessons/1_first/02_other.py"
FILE = "recordings/01_gpu.json"
GPU = Provenance(
    device="NVIDIA H200",
    torch="2.11.0+cu128",
    python="3.12.3",
    cuda="12.8",
    driver="570.86.15",
    date="2026-11-20",
    commit="0123456789",
)
SOURCE = TITLE.replace(
    "# Opis.", "# Opis: {{ size }}."
).replace("# Description.", "# Description: {{ size }}.") + """\
# %%
import warnings

import numpy as np
from matplotlib import pyplot as plt

from snippets.bilingual import say
from snippets.figures import show_figure

size = 8_000_000_000

# %%
print(say(pl="zmierzono", en="measured"), size)

# %% raises="ValueError: out of memory"
raise ValueError("out of memory, it is said")

# %% warns="UserWarning: slow"
warnings.warn("slow kernel")

# %%
fig, ax = plt.subplots()
ax.plot([1, 2, 3])
ax.set_title("Time")
show_figure(fig, alt_pl="Linia.", alt_en="A line.", pl={"Time": "Czas"})

# %%
fig, ax = plt.subplots()
for row in np.random.default_rng(1).random((8, 500)):
    ax.plot(row)
show_figure(fig, alt_pl="Linie.", alt_en="Lines.")

# %%
fig, ax = plt.subplots()
ax.text(0, 0, "\\n".join(["0123456789" * 8] * 30), fontsize=4)
show_figure(fig, alt_pl="Liczby.", alt_en="Numbers.")
"""  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> TinyCourse:
    """A lesson that ran here, and its recording, which says that it ran on a GPU."""
    course = TinyCourse(tmp_path_factory.mktemp("recordings"))
    course.write(LESSON, SOURCE)
    course.write(OTHER, TITLE + '# %%\nprint("on any device")\n')
    loaded = course.load()
    runs, problems = obtain(loaded, loaded.lessons, Progress())
    assert not problems
    assert record(loaded, loaded.by_path[LESSON], replace(runs[LESSON], provenance=GPU)) == ()
    return course


@pytest.fixture
def course(original: TinyCourse, tmp_path: Path) -> TinyCourse:
    """A copy of it without what ran here."""
    shutil.copytree(original.root, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / ".cache")
    copy = TinyCourse.__new__(TinyCourse)
    copy.__dict__ |= original.__dict__ | {"root": tmp_path}
    return copy


def run_of(course: TinyCourse, path: str = LESSON) -> Run:
    loaded = course.load()
    return known(loaded, [loaded.by_path[path]], Progress())[path]


def outputs(run: Run, *kinds: str) -> list[Output]:
    return [output for step in run.steps for output in step.outputs if output.kind in kinds]


def ran(done: Done) -> bool:
    return "run   01_gpu" in done.err


def edit(course: TinyCourse, path: str, old: str, new: str) -> None:
    file = course.root / path
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def notes(course: TinyCourse, *lessons: str) -> list[str]:
    """What `check` says of recordings; it is never a reason to fail."""
    done = course.command("check", *lessons)
    assert done.code == 0, done.err
    return [line for line in done.out.splitlines() if line.startswith("note: ")]


def test_a_recording_is_shown_instead_of_running(course: TinyCourse, original: TinyCourse) -> None:
    done = course.command("run")
    assert (done.code, ran(done)) == (0, False), done.err
    assert "lessons: 1 run, 0 unchanged, 1 from recordings" in done.err
    assert notes(course) == []
    shown = run_of(course)
    assert shown.provenance == replace(GPU, recorded=True)
    assert shown.values["size"] == 8_000_000_000


def test_a_recording_holds_what_the_run_put_out(course: TinyCourse, original: TinyCourse) -> None:
    shown = run_of(course)
    (original.root / FILE).rename(original.root / "off.json")
    try:
        real = run_of(original)
    finally:
        (original.root / "off.json").rename(original.root / FILE)
    kinds = ("text", "error", "warning")
    assert outputs(shown, *kinds) == outputs(real, *kinds)
    assert len(outputs(shown, *kinds)) == 3
    assert (shown.values, [s.seconds for s in shown.steps]) == (
        real.values,
        [s.seconds for s in real.steps],
    )
    small, large = outputs(shown, "figure")[:4], outputs(shown, "figure")[4:]
    was_small, was_large = outputs(real, "figure")[:4], outputs(real, "figure")[4:]
    # A figure that its page shows as a vector is kept as one; else only as a picture.
    assert [(o.text, o.language, o.svg) for o in small] == [
        (o.text, o.language, compact(o.svg)) for o in was_small
    ]
    assert ["data:image/webp" in output.svg for output in small] == [False, False, True, True]
    assert len(large) == 2
    for picture, was in zip(large, was_large, strict=True):
        assert (picture.text, picture.language, picture.svg) == (was.text, was.language, "")
        one, other = image(picture.png), image(was.png)
        assert one.size == other.size
        # Some get a palette: nobody sees a difference.
        assert max(ImageChops.difference(one, other).convert("L").tobytes()) < 64
    assert (course.root / FILE).stat().st_size < 200_000


def image(png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")


def test_prose_keeps_a_recording_and_code_makes_it_stale(course: TinyCourse) -> None:
    edit(course, LESSON, "Opis: ", "Inny opis: ")
    assert not ran(course.command("run", "01"))
    edit(course, LESSON, "measured", "counted")
    done = course.command("run", "01")
    assert (done.code, ran(done)) == (0, True), done.err
    assert run_of(course).provenance.device == "CPU"
    assert not run_of(course).provenance.recorded
    lines = notes(course)
    assert len(lines) == 1
    assert lines[0].startswith(f"note: {FILE}: stale, so it is not shown: the code of {LESSON}")
    assert "(2026-11-20, NVIDIA H200, torch 2.11.0+cu128)" in lines[0]
    assert "    next: uv run blackbelt run --record 01" in course.command("check").out
    assert notes(course, "02") == []
    edit(course, LESSON, "counted", "measured")
    assert run_of(course).provenance.recorded


def test_a_changed_snippet_makes_a_recording_stale(course: TinyCourse) -> None:
    edit(course, "snippets/bilingual.py", "import os", "import os  # for one variable")
    assert "stale" in notes(course)[0]
    assert recorded_run(course.load(), course.load().by_path[LESSON]) is None


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _number(file: Path) -> None:
    """A number that looks better."""
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("8000000000", "9000000000"), encoding="utf-8")


def _device(file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace("H200", "H100"), encoding="utf-8")


def _merged(file: Path) -> None:
    file.write_text("<<<<<<< HEAD\n" + file.read_text(encoding="utf-8"), encoding="utf-8")


def _later(file: Path) -> None:
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(data | {"format": 99}), encoding="utf-8")


def _renamed(file: Path) -> None:
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(data | {"lesson": OTHER}), encoding="utf-8")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_truncate, "damaged, so it is never shown: not valid JSON"),
    "changed number": (_number, "damaged, so it is never shown: its content has been changed"),
    "changed device": (_device, "damaged, so it is never shown: its content has been changed"),
    "merge conflict": (_merged, "damaged, so it is never shown: not valid JSON"),
    "later format": (_later, "damaged, so it is never shown: format 99, where 1 is read"),
    "another file": (lambda file: file.write_text("{}"), "not a recording"),
    "of another lesson": (_renamed, f"this is the recording of {OTHER}, so it is never shown"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_recording_that_cannot_be_trusted_is_never_shown(course: TinyCourse, name: str) -> None:
    damage, why = DAMAGE[name]
    damage(course.root / FILE)
    assert recorded_run(course.load(), course.load().by_path[LESSON]) is None
    (line,) = notes(course)
    assert line.startswith(f"note: {FILE}: ")
    assert why in line


def test_a_recording_of_no_lesson_is_listed(course: TinyCourse) -> None:
    shutil.copyfile(course.root / FILE, course.root / "recordings" / "55_gone.json")
    assert notes(course) == [
        "note: recordings/55_gone.json: no lesson has this name, so it is never shown"
    ]


def test_recording_is_refused_where_there_is_no_gpu(course: TinyCourse) -> None:
    before = (course.root / FILE).read_bytes()
    done = course.command("run", "--record", "01")
    assert done.code == 1
    assert "--record stores what a GPU gives, and this machine has none" in done.err
    assert "    next: uv run blackbelt run 01" in done.err
    assert not ran(done)
    assert (course.root / FILE).read_bytes() == before


def test_a_torch_without_cuda_records_nothing(course: TinyCourse) -> None:
    loaded = course.load()
    run = replace(run_of(course), provenance=Provenance("CPU", "2.15.0+cpu", "3.11.9"))
    (problem,) = record(loaded, loaded.by_path[LESSON], run)
    assert "not recorded: it ran on CPU with torch 2.15.0+cpu" in problem.what
    assert problem.command == "uv run blackbelt run --record 01"


def test_a_recording_that_is_too_large_names_its_largest_outputs(course: TinyCourse) -> None:
    loaded = course.load()
    lesson = loaded.by_path[LESSON]
    run = replace(run_of(course), provenance=GPU)
    flood = replace(run.steps[1], outputs=(Output("text", "x" * LARGEST),))
    before = (course.root / FILE).read_bytes()
    long = replace(run, steps=(run.steps[0], flood, *run.steps[2:]))
    (problem,) = record(loaded, lesson, long)
    assert "KB; at most 300 are kept" in problem.what
    line = SOURCE[: SOURCE.index("print(say(")].count("\n")
    assert f"The largest outputs: 300 KB (text) of {LESSON}:{line}, " in problem.what
    assert "(figure)" in problem.what
    assert (course.root / FILE).read_bytes() == before


# What a machine has where lessons are only run and recorded.
BARE = """
import sys
from importlib.abc import MetaPathFinder

ABSENT = {
    "mkdocs", "material", "mkdocs_jupyter", "mkdocs_static_i18n", "jupytext", "py_mini_racer",
    "markdown_it", "mdit_py_plugins", "markdown", "pymdownx", "rich", "distributed", "jinja2",
}

class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())

from dataclasses import replace

from blackbelt import cli
from blackbelt.config import load_project
from blackbelt.course import load_course
from blackbelt.progress import Progress
from blackbelt.recordings import record
from blackbelt.store import known

assert cli.main(["run", "--record", "01"]) == 1  # no GPU here
assert cli.main(["run", "--fresh", "02"]) == 0
course = load_course(load_project())
lesson = course.by_path["lessons/1_first/02_other.py"]
run = known(course, [lesson], Progress())[lesson.path]
assert record(course, lesson, run)
where = replace(run.provenance, device="GPU", cuda="12.8")
assert record(course, lesson, replace(run, provenance=where)) == ()
figures = course.by_path["lessons/1_first/01_gpu.py"]
run = known(course, [figures], Progress())[figures.path]
assert record(course, figures, run) == ()
"""


def test_recording_needs_nothing_of_mkdocs(course: TinyCourse) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BARE],
        cwd=course.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "lessons are not checked: markdown_it is not installed here" in done.stderr
    assert "done  02_other" in done.stderr
    assert (course.root / "recordings" / "02_other.json").is_file()
