"""An exception on a page: type and message, the lesson's own lines, everything else folded."""

import re
from typing import Any

import nbformat
import pytest
from test_outputs import Parser, parse
from tiny import TITLE, TinyCourse

from blackbelt.kernel_tracebacks import calls_of, causes_of, line_of
from blackbelt.lesson import Lesson
from blackbelt.plan import plan
from blackbelt.prepare import Prepared, Rendered, prepare
from blackbelt.progress import Progress
from blackbelt.results import Call, Output, StepRun
from blackbelt.run import run_lessons
from blackbelt.strings import for_language
from blackbelt.tracebacks import calls_for_page

LESSON = "lessons/1_first/01_calls.py"
SOURCE = (
    TITLE
    + '''\
# %%
import json

import torch

layer = torch.nn.Sequential(torch.nn.Linear(3, 4))


def forward(x: torch.Tensor) -> torch.Tensor:
    """Apply the layer."""
    y = layer(x)
    return y * 2


class Model:
    def call(self, n: int) -> int:
        return self.call(n + 1)


def even(n: int) -> int:
    return odd(n + 1)


def odd(n: int) -> int:
    return even(n + 1)


# %% raises="RuntimeError: mat1 and mat2 shapes cannot be multiplied"
# A comment of this cell.
forward(torch.zeros(2, 5))

# %% raises="RecursionError"
Model().call(0)

# %% raises="RecursionError"
even(0)

# %% raises="ValueError: no such thing"
try:
    {}["key"]
except KeyError as error:
    raise ValueError("no such thing") from error

# %% raises="JSONDecodeError"
json.loads("{")

# %% raises="ValueError: marked"
text = """
</pre><script>alert(1)</script> `x` ~~~ {: .cls } {{ x }}
"""; raise ValueError("marked")  # </span> <b>
'''
)
RAISING = SOURCE.split("\n")


def line_in_file(text: str) -> int:
    return next(number for number, line in enumerate(RAISING, 1) if text in line)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> TinyCourse:
    tiny = TinyCourse(tmp_path_factory.mktemp("calls"))
    tiny.write(LESSON, SOURCE)
    return tiny


@pytest.fixture(scope="module")
def prepared(course: TinyCourse) -> Prepared:
    return prepare(course.project, (), Progress())


@pytest.fixture
def rendered(prepared: Prepared) -> Rendered:
    assert [str(problem) for problem in prepared.problems] == []
    return prepared.lessons[0]


def errors(rendered: Rendered) -> list[Output]:
    return [o for step in rendered.run.steps for o in step.outputs if o.kind == "error"]


def traces(page: Parser) -> list[str]:
    found = [e for e in page.elements if ("class", "nb-trace") in e.attributes]
    return [element.text for element in found]


def test_own_lines_have_the_numbers_of_the_file(rendered: Rendered) -> None:
    trace = traces(parse(rendered.pages["en"].markdown))[0]
    call, inside = line_in_file("forward(torch.zeros"), line_in_file("y = layer(x)")
    assert trace.index(f"01_calls.py:{call}") < trace.index(f"01_calls.py:{inside}")
    assert f"→ {call}  forward(torch.zeros(2, 5))" in trace
    # Its neighbours stand around it, without the mark.
    assert f"→ {inside}      y = layer(x)\n  {inside + 1}      return y * 2" in trace
    assert f'  {inside - 1}      """Apply the layer."""\n→' in trace
    assert "forward()" in trace


def test_lines_link_to_the_repository(rendered: Rendered) -> None:
    page = parse(rendered.pages["en"].markdown)
    source = f"https://github.com/someone/tiny/blob/main/{LESSON}"
    line = line_in_file("y = layer(x)")
    links = [dict(e.attributes).get("href") for e in page.elements if e.tag == "a"]
    assert f"{source}#L{line}" in links


def test_calls_of_libraries_are_folded(rendered: Rendered) -> None:
    page = parse(rendered.pages["pl"].markdown)
    folded = [e for e in page.elements if ("class", "nb-calls") in e.attributes]
    assert re.match(r"\s*\d+\xa0wywołań: torch\n", folded[0].text)
    assert "torch/nn/modules/linear.py:" in folded[0].text
    assert "return F.linear(" in folded[0].text
    assert all(e.tag == "details" for e in folded)
    assert not any("open" in dict(e.attributes) for e in folded)
    assert "json/decoder.py:" in folded[1].text


def test_message_stands_outside_of_the_folds(rendered: Rendered) -> None:
    page = parse(rendered.pages["en"].markdown)
    said = [e for e in page.elements if ("class", "nb-text nb-error") in e.attributes]
    assert said[0].text.startswith("RuntimeError: ")
    assert not any("details" in element.parents for element in said)


def test_no_path_of_this_machine_is_shown(rendered: Rendered) -> None:
    pages = [page.markdown for page in rendered.pages.values()]
    for text in (*pages, *rendered.notebooks.values()):
        assert re.findall(r"/(?:tmp|home|root|usr|opt|work|Users)/\S*", text) == []
        assert "site-packages" not in text


@pytest.mark.parametrize(("position", "functions"), [(1, {"Model.call"}), (2, {"even", "odd"})])
def test_repeated_calls_are_told_once(
    rendered: Rendered, position: int, functions: set[str]
) -> None:
    calls = errors(rendered)[position].calls
    assert {call.name for call in calls} == {"", *functions}
    assert len(calls) <= 1 + 3 * len(functions)
    assert any(call.after_others for call in calls)
    for language, said in (("pl", "to samo wywołanie"), ("en", "the same call repeats")):
        assert said in traces(parse(rendered.pages[language].markdown))[position]


def test_earlier_exception_is_told(rendered: Rendered) -> None:
    error = errors(rendered)[3]
    assert error.causes == ("KeyError: 'key'",)
    page = rendered.pages["pl"].markdown
    assert page.index("Wcześniejszy wyjątek") < page.index('<b class="nb-type">KeyError</b>')
    assert page.index("KeyError</b>") < page.index("ValueError</b>: no such thing")


def test_code_of_the_cell_stays_text(rendered: Rendered) -> None:
    page = parse(rendered.pages["en"].markdown)
    assert not [e for e in page.elements if e.tag in ("script", "strong", "del")]
    assert 'raise ValueError("marked")  # </span> <b>' in traces(page)[5]


def test_notebook_shows_a_traceback(rendered: Rendered) -> None:
    notebook: Any = nbformat.reads(rendered.notebooks["en"], as_version=4)
    nbformat.validate(notebook)
    found = [o for c in notebook.cells for o in c.get("outputs", ()) if o.output_type == "error"]
    lines = [re.sub(r"\x1b\[\d+m", "", line) for line in found[0].traceback]
    assert lines[:4] == [
        "Cell",
        "----> forward(torch.zeros(2, 5))",
        "Cell in forward",
        "----> y = layer(x)",
    ]
    assert lines[4].startswith("File torch/nn/")
    assert lines[-1] == f"RuntimeError: {found[0].evalue}"


def test_two_runs_tell_the_same(course: TinyCourse, rendered: Rendered) -> None:
    lesson = course.load().by_path[LESSON]
    again = run_lessons([lesson], course.project, Progress())[LESSON]
    assert not isinstance(again, tuple)
    assert [step.outputs for step in again.steps] == [step.outputs for step in rendered.run.steps]


def test_a_check_says_only_its_message() -> None:
    """The check of an exercise stands above: where it failed is no news."""
    from test_outputs import LESSON as EXERCISE
    from test_outputs import lesson as read

    from blackbelt.render import render_page
    from blackbelt.results import Run

    whole: Lesson = read(EXERCISE)
    steps = plan(whole)
    output = Output("error", "AssertionError: wrong", calls=(Call(1, step=2),))
    run = Run(tuple(StepRun((output,)) for _ in steps))
    page = parse(render_page(whole, run, "en", "../img").markdown)
    # The first cell, and the cell of the solution: neither is a check.
    assert len(traces(page)) == 2


def test_nothing_is_told_of_an_exception_without_calls() -> None:
    output = Output("error", "ValueError: x")
    assert calls_for_page(output, (), "01_x.py", "", for_language("en")) == ""


def raise_here(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_exception_outside_of_cells_has_no_calls() -> None:
    error = raise_here(ValueError("x"))
    assert (calls_of(error), causes_of(error), line_of(error)) == ([], [], 0)


def test_causes_end() -> None:
    first, second = ValueError("1"), KeyError("2")
    first.__cause__, second.__cause__ = second, first
    assert causes_of(first) == ["KeyError: '2'"]

    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    third = ValueError("3")
    third.__context__ = BrokenError()
    assert causes_of(third) == ["BrokenError"]
    third.__suppress_context__ = True
    assert causes_of(third) == []
