"""Two cold runs put out the same, except where a cell says that it measures."""

import re

import pytest
from tiny import TITLE, Done, TinyCourse

NOW = "import time\n\nnow = time.perf_counter_ns()\n"
QUOTED = TITLE.replace("# Opis.", "# Opis {{ now }}.").replace(
    "# Description.", "# Description {{ now }}."
)
# Each lesson, and the line and text of the problem that it must have; None if it has none.
LESSONS: dict[str, tuple[str, tuple[int, str] | None]] = {
    "01_equal": (
        TITLE + '# %%\nprint({"b", "a", "c"}, object())\n\n# %%\n1 + 1\n',
        None,
    ),
    "02_measured": (
        TITLE + f"# %% measured=true\n{NOW}print(now)\n\n# %%\nprint('same')\n",
        None,
    ),
    "03_printed": (
        TITLE + f"# %%\nprint('same')\n\n# %%\n{NOW}print('head')\nprint(now)\n",
        (14, "+"),
    ),
    "04_quoted": (QUOTED + f"# %%\n{NOW}", (11, "[value] now = ")),
    "05_not_quoted": (TITLE + f"# %%\n{NOW}", None),
    "06_measured_value": (QUOTED + f"# %% measured=true\n{NOW}", None),
    "07_error": (
        TITLE + f'# %% raises="ValueError: at"\n{NOW}raise ValueError(f"at {{now}}")\n',
        (11, "ValueError: at "),
    ),
    "08_warning": (
        TITLE
        + '# %% warns="UserWarning: at"\nimport warnings\n'
        + f'{NOW}warnings.warn(f"at {{now}}")\n',
        (11, "UserWarning: at "),
    ),
    "09_figure": (
        TITLE
        + f"""\
# %%
{NOW}
from matplotlib import pyplot as plt

from snippets.figures import show_figure

fig, ax = plt.subplots()
ax.plot([1, now % 1000, 2])
show_figure(fig, alt_pl="Linia.", alt_en="A line.")
""",
        (11, "-[figure en] vector "),
    ),
    "10_fails": (TITLE + "# %%\n1 / 0\n", (12, "ZeroDivisionError")),
}  # fmt: skip


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyCourse, Done]:
    course = TinyCourse(tmp_path_factory.mktemp("twice"))
    for name, (source, _) in LESSONS.items():
        course.write(f"lessons/1_first/{name}.py", source)
    return course, course.command("run", "--twice")


@pytest.mark.parametrize("name", LESSONS)
def test_only_measurements_may_differ(compared: tuple[TinyCourse, Done], name: str) -> None:
    path = f"lessons/1_first/{name}.py"
    _, done = compared
    expected = LESSONS[name][1]
    if expected is None:
        assert done.of(path) == (), done.err
        assert f"{path}: two equal runs" in done.out
        return
    (problem,) = done.of(path)
    assert problem.line == expected[0]
    assert expected[1] in problem.what
    assert f"{path}: two equal runs" not in done.out


def test_a_difference_is_shown_as_one(compared: tuple[TinyCourse, Done]) -> None:
    course, done = compared
    assert done.code == 1
    path = "lessons/1_first/03_printed.py"
    (problem,) = done.of(path)
    assert problem.what.startswith("two runs of this cell differ; give it a seed")
    assert problem.command == "uv run blackbelt run --twice 03"
    lines = [line.strip() for line in problem.what.splitlines()[1:]]
    assert lines[:2] == [f"--- {path}:14 (first run)", f"+++ {path}:14 (second run)"]
    assert lines[3] == "head"
    assert re.fullmatch(r"-\d+", lines[4])
    assert re.fullmatch(r"\+\d+", lines[5])
    measured = "lessons/1_first/02_measured.py"
    assert f"{measured}: two equal runs but for the measurements of {measured}:11" in done.out
    # Both runs are cold, and neither is kept.
    assert not list((course.root / ".cache").glob("runs/*.json"))
