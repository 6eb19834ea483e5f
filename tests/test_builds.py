"""Built sites: the same bytes from the same runs, and builds that work side by side."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from fcntl import LOCK_SH, flock
from pathlib import Path

import pytest
from tiny import REPOSITORY, TITLE, TinyCourse

from blackbelt.keys import device_class
from blackbelt.progress import Progress
from blackbelt.recordings import record
from blackbelt.results import Provenance
from blackbelt.store import obtain

ONE = "lessons/1_first/01_one.py"
TWO = "lessons/2_second/02_two.py"
FIGURE = """\
# %%
from matplotlib import pyplot as plt

from snippets.figures import show_figure

fig, ax = plt.subplots()
ax.plot([1, 3, 2])
show_figure(fig, alt_pl="Linia.", alt_en="A line.")
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> TinyCourse:
    """A course of two lessons that have run, with the pages of this repository around them."""
    course = TinyCourse(tmp_path_factory.mktemp("builds"))
    ours = REPOSITORY / "docs"
    shutil.copytree(ours, course.root / "docs", ignore=lambda _, names: {"lessons"} & {*names})
    shutil.copyfile(REPOSITORY / "mkdocs.yml", course.root / "mkdocs.yml")
    for page in course.root.glob("docs/index.*.md"):
        text = page.read_text(encoding="utf-8")
        first = "lessons/1_tensors/01_storage_vs_view.ipynb"
        page.write_text(text.replace(first, "lessons/1_first/01_one.ipynb"), encoding="utf-8")
    course.write(ONE, TITLE + FIGURE)
    course.write(TWO, TITLE + '# %%\nprint("two")\n')
    done = course.command("run")
    assert done.code == 0, done.err
    return course


def copy_of(original: TinyCourse, root: Path) -> TinyCourse:
    shutil.copytree(original.root, root, dirs_exist_ok=True)
    copy = TinyCourse.__new__(TinyCourse)
    copy.__dict__ |= original.__dict__ | {"root": root}
    return copy


def tree(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_same_runs_give_the_same_bytes(
    original: TinyCourse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    sites = []
    for name in ("a", "another-checkout"):
        course = copy_of(original, tmp_path / name)
        done = course.command("build")
        assert done.code == 0, done.err
        assert "0 run, 2 unchanged" in done.err
        sites.append(tree(course.root / "site"))
    one, other = sites
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    assert len([name for name in one if name.endswith(".ipynb")]) == 4


def test_builds_of_other_lessons_work_side_by_side(original: TinyCourse, tmp_path: Path) -> None:
    course = copy_of(original, tmp_path)
    shutil.rmtree(course.root / ".cache")
    blackbelt = [sys.executable, "-m", "blackbelt.cli", "build"]
    only = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", "only"]
    processes = [
        subprocess.Popen(
            command, cwd=course.root, env=os.environ | more, stderr=subprocess.PIPE, text=True
        )
        for command, more in (
            (blackbelt, {}),
            (only, {"BLACKBELT_ONLY": "02"}),
            (blackbelt, {}),
        )
    ]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0, 0], ends
    pages = ["lessons/1_first/01_one", "lessons/2_second/02_two"]
    site, preview = tree(course.root / "site"), tree(course.root / "only")
    for page in pages:
        assert f"{page}/index.html" in site
        assert f"en/{page}/index.html" in site
    assert [f"{page}/index.html" in preview for page in pages] == [False, True]
    # Nothing half-written is left, and the next build alone gives what they gave.
    assert not list(course.root.glob("docs/**/*.tmp"))
    assert course.command("build").code == 0
    assert tree(course.root / "site").keys() == site.keys()


def test_a_build_keeps_what_another_one_needs(
    original: TinyCourse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = copy_of(original, tmp_path)
    assert course.command("build").code == 0
    notebooks = course.root / "docs" / "lessons" / "1_first"
    monkeypatch.setenv("BLACKBELT_ONLY", "02")
    with (course.root / ".cache" / "publish.lock").open("ab") as other:
        flock(other, LOCK_SH)  # as a build that is at work does
        assert course.command("build", "--site-dir", "only").code == 0
        assert len(list(notebooks.glob("01_one.*.ipynb"))) == 2
        assert "lessons/1_first/01_one/index.html" not in tree(course.root / "only")
        assert "lessons/2_second/02_two/index.html" in tree(course.root / "only")
    assert course.command("build", "--site-dir", "only").code == 0
    assert not list(notebooks.glob("*.ipynb"))


@pytest.mark.skipif(device_class() == "cuda", reason="a machine with CUDA shows its own results")
def test_the_page_of_a_recording_says_so(original: TinyCourse, tmp_path: Path) -> None:
    course = copy_of(original, tmp_path)
    loaded = course.load()
    lesson = loaded.by_path[ONE]
    runs, _ = obtain(loaded, [lesson], Progress())
    where = Provenance(
        "NVIDIA H200", "2.11.0+cu128", "3.12.3", "12.8", "570.86.15", "2026-11-20", "0123456789"
    )
    assert record(loaded, lesson, replace(runs[ONE], provenance=where)) == ()
    assert course.command("build").code == 0
    for prefix, label in (("", "Nagranie."), ("en/", "A recording.")):
        page = (course.root / f"site/{prefix}{ONE.removesuffix('.py')}/index.html").read_text(
            "utf-8"
        )
        assert f"<strong>{label}</strong>" in page
        for part in ("2026-11-20", "NVIDIA H200", "2.11.0+cu128", "570.86.15", "12.8."):
            assert part in page
        other = (course.root / f"site/{prefix}{TWO.removesuffix('.py')}/index.html").read_text(
            "utf-8"
        )
        assert label not in other
    assert len(list(course.root.glob("site/lessons/img/*.svg"))) == 2
    (notebook,) = course.root.glob("site/en/lessons/1_first/01_one/*.ipynb")
    assert "image/svg+xml" in notebook.read_text(encoding="utf-8")
