"""A DataFrame becomes a table of the page, in which its values stay text."""

import json
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from test_outputs import INTACT, Element, Parser, parse
from tiny import TITLE, TinyCourse

from blackbelt.kernel_tables import TABLE, _bundle
from blackbelt.prepare import Prepared, Rendered, prepare
from blackbelt.progress import Progress
from blackbelt.results import Table, TableCell
from blackbelt.serialize import run_from_data, run_to_data, table_from_data
from blackbelt.strings import for_language
from blackbelt.tables import table_for_notebook, table_for_page

POLISH = for_language("pl")


def table_of(frame: pd.DataFrame) -> Table:
    """What the kernel tells of a frame, through JSON as it travels."""
    return table_from_data(json.loads(json.dumps(_bundle(frame)[TABLE])))


def page_of(table: Table) -> Parser:
    """The table inside of an output, as the site converts it."""
    body = table_for_page(table, POLISH)
    return parse(f'# x\n\n<div class="nb-output" markdown="1">\n\n{body}\n\n</div>\n\nafter')


def cells(page: Parser) -> list[Element]:
    return [element for element in page.elements if element.tag in ("th", "td")]


def described(page: Parser) -> list[tuple[str, str, str, bool]]:
    """Tag, scope, text, and whether it is set as a number."""
    found = []
    for cell in cells(page):
        given = dict(cell.attributes)
        is_number = given.get("class") == "nb-number"
        found.append((cell.tag, given.get("scope") or "", cell.text, is_number))
    return found


def test_headings_and_numbers() -> None:
    frame = pd.DataFrame({"name": ["view", "copy"], "bytes": [24, 1_000_000], "share": [0.5, None]})
    page = page_of(table_of(frame))
    assert described(page) == [
        ("td", "", "", True),
        ("th", "col", "name", False),
        ("th", "col", "bytes", True),
        ("th", "col", "share", True),
        ("th", "row", "0", True),
        ("td", "", "view", False),
        ("td", "", "24", True),
        ("td", "", "0.5", True),
        ("th", "row", "1", True),
        ("td", "", "copy", False),
        ("td", "", "1000000", True),
        ("td", "", "NaN", True),
    ]
    (caption,) = [element.text for element in page.elements if element.tag == "caption"]
    assert caption == "2\xa0wiersze × 3\xa0kolumny"


def test_table_can_be_named_and_scrolled() -> None:
    page = page_of(table_of(pd.DataFrame({"a": [1]})))
    (table,) = [element for element in page.elements if element.tag == "table"]
    (region,) = [e for e in page.elements if ("role", "region") in e.attributes]
    assert ("tabindex", "0") in region.attributes
    assert ("aria-label", "Tabela: 1\xa0wiersz × 1\xa0kolumna") in region.attributes
    assert table.parents[-2:] == ("div", "div")


def test_several_levels() -> None:
    frame = pd.DataFrame(
        np.arange(8).reshape(4, 2),
        index=pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["kind", None]),
        columns=pd.MultiIndex.from_product([["x"], ["u", "v"]]),
    )
    found = [entry[:3] for entry in described(page_of(table_of(frame)))]
    assert ("th", "colgroup", "x") in found
    assert ("th", "col", "kind") in found
    assert ("th", "rowgroup", "a") in found
    assert found[-3:] == [("th", "row", "2"), ("td", "", "6"), ("td", "", "7")]
    wide = {c.text: dict(c.attributes) for c in cells(page_of(table_of(frame)))}
    assert wide["x"]["colspan"] == "2"
    assert wide["a"]["rowspan"] == "2"


def test_row_after_a_tall_cell_is_aligned_as_its_column() -> None:
    """A cell that reaches down moves those of the next row to the right."""
    frame = pd.DataFrame(
        {"word": ["p", "q"], "n": [1, 2]},
        index=pd.MultiIndex.from_product([["a"], ["r", "s"]]),
    )
    found = described(page_of(table_of(frame)))
    assert found[-2:] == [("td", "", "q", False), ("td", "", "2", True)]


def test_pandas_leaves_out_the_middle_of_a_long_frame() -> None:
    frame = pd.DataFrame({"n": range(1000)})
    table = table_of(frame)
    assert len(table.body) == 11
    page = page_of(table)
    (caption,) = [element.text for element in page.elements if element.tag == "caption"]
    assert caption == "1000\xa0wierszy (widać 10) × 1\xa0kolumna"
    # The row of dots names no row.
    assert ("th", "row", "...") not in [entry[:3] for entry in described(page)]
    assert "<p>1000 rows × 1 columns</p>" in table_for_notebook(table)


@pytest.mark.parametrize("texts", [["1", "x"], ["", ""], ["1.2.3"], ["2026-11-20"], ["..."]])
def test_texts_are_no_numbers(texts: list[str]) -> None:
    assert not described(page_of(table_of(pd.DataFrame({"n": texts}))))[-1][3]


@pytest.mark.parametrize("text", ["-3", "1e-9", "5.0e-01", "1,234.5", "0.5", ".5", "inf", "12%"])
def test_numbers_are_numbers(text: str) -> None:
    head = ((TableCell("", is_head=True), TableCell("n", is_head=True)),)
    body = ((TableCell("0", is_head=True), TableCell(text)),)
    assert described(page_of(Table(head, body, (1, 1))))[-1] == ("td", "", text, True)


# Line ends and tabs are written as `\n` and `\t` by pandas, long texts are cut by it, and
# browsers draw spaces and line ends together in a cell.
HOSTILE = {
    name: text
    for name, text in INTACT.items()
    if "\n" not in text and "\t" not in text and len(text) < 50 and text == " ".join(text.split())
}


@pytest.mark.parametrize("name", HOSTILE)
def test_values_stay_text(name: str) -> None:
    text = HOSTILE[name]
    frame = pd.DataFrame({"a": [text], text: ["b"]}, index=pd.Index([text], name=text))
    page, harmless = page_of(table_of(frame)), pd.DataFrame({"a": ["x"], "y": ["b"]})
    harmless.index = pd.Index(["z"], name="w")
    # The label of the region is the same: both have one row.
    assert page.skeleton() == page_of(table_of(harmless)).skeleton()
    assert [c.text for c in cells(page) if c.text] == ["a", text, text, text, text, "b"]
    assert not page.comments
    notebook = Parser()
    notebook.feed(table_for_notebook(table_of(frame)))
    notebook.close()
    assert {e.tag for e in notebook.elements} == {"table", "thead", "tbody", "tr", "th", "td"}
    assert [c.text for c in cells(notebook) if c.text] == ["a", text, text, text, text, "b"]


LESSON = "lessons/1_first/01_tables.py"
SOURCE = (
    TITLE
    + '''\
# %%
import pandas as pd
from IPython.display import HTML, Audio, JSON, Latex, display

frame = pd.DataFrame({"n": [1, 2], "<b>": ["<script>alert(1)</script>", "**x** `y`"]})
frame

# %%
frame["n"]

# %%
display(frame)
print("below")


# %%
class Hostile:
    """Claims to be a table, and more."""

    def __repr__(self) -> str:
        return "Hostile()"

    def _repr_html_(self) -> str:
        return "<table><tbody><tr><td>a</td></tr></tbody></table><script>alert(1)</script>"

    def _repr_javascript_(self) -> str:
        return "alert(2)"

    def _repr_latex_(self) -> str:
        return "$x$"


Hostile()

# %%
display(HTML("<img src=x onerror=alert(3)>"), JSON({"a": 1}), Latex("$y$"))

# %%
display({"text/html": "<script>alert(4)</script>"}, raw=True)
display({"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "Slider()"},
        raw=True)
display({"application/vnd.blackbelt.other+json": {"x": 1}, "text/plain": "other"}, raw=True)

# %%
Audio(data=[0.0, 0.1], rate=8000)

# %%
pd.set_option("display.notebook_repr_html", False)
frame
'''
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    course = TinyCourse(tmp_path_factory.mktemp("tables"))
    course.write(LESSON, SOURCE)
    return prepare(course.project, (), Progress())


@pytest.fixture
def rendered(prepared: Prepared) -> Rendered:
    assert [str(problem) for problem in prepared.problems] == []
    return prepared.lessons[0]


def test_what_cells_put_out(rendered: Rendered) -> None:
    shown = [
        ("table" if output.table else output.text)
        for step in rendered.run.steps
        for output in step.outputs
    ]
    assert shown[0] == "table"
    assert shown[1].startswith("0    1\n1    2\nName: n")
    assert shown[2:5] == ["table", "below\n", "Hostile()"]
    # What is only HTML has no text: nothing is shown of it.
    assert shown[5:10] == [
        "<IPython.core.display.HTML object>",
        "<IPython.core.display.JSON object>",
        "<IPython.core.display.Latex object>",
        "Slider()",
        "other",
    ]
    assert shown[10] == "<IPython.lib.display.Audio object>"
    assert shown[11].splitlines()[0].split() == ["n", "<b>"]


def test_nothing_of_it_is_markup_of_the_page(rendered: Rendered) -> None:
    for page in rendered.pages.values():
        found = parse(page.markdown)
        assert [e for e in found.elements if e.tag == "table"]
        assert not [e for e in found.elements if e.tag in ("script", "img", "audio", "strong")]
        assert "onerror" not in {name for e in found.elements for name, _ in e.attributes}
        texts = [c.text for c in cells(found)]
        assert texts.count("<script>alert(1)</script>") == 2
        assert texts.count("**x** `y`") == 2


def test_notebook_has_what_pandas_shows(rendered: Rendered) -> None:
    notebook: Any = nbformat.reads(rendered.notebooks["pl"], as_version=4)
    nbformat.validate(notebook)
    (output,) = notebook.cells[2].outputs
    assert "&lt;script&gt;" in output.data["text/html"]
    assert "<script>" not in output.data["text/html"]
    assert output.data["text/plain"].splitlines()[0].split() == ["n", "<b>"]
    kinds = [set(o.data) for cell in notebook.cells for o in cell.get("outputs", ()) if "data" in o]
    assert set.union(*kinds) == {"text/plain", "text/html"}


def test_tables_and_calls_survive_the_cache(rendered: Rendered) -> None:
    data = json.loads(json.dumps(run_to_data(rendered.run)))
    assert run_from_data(data) == rendered.run
