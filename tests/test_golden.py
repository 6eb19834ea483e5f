"""Each rule of the format as a pair: a small lesson, and the pages and notebooks made of it.

`golden/NAME.py` is the lesson; `NAME.pl.md`, `NAME.en.md`, `NAME.pl.ipynb` and `NAME.en.ipynb`
are what it has to become. They are the specification: after a deliberate change, run
`BLACKBELT_UPDATE_GOLDEN=1 uv run pytest tests/test_golden.py`, and read the difference.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from tiny import TITLE, TinyCourse

from blackbelt.inline import without_snippet_imports
from blackbelt.prepare import Prepared, prepare
from blackbelt.progress import Progress
from blackbelt.write_prose import prose_for_notebook, prose_for_page

FOLDER = Path(__file__).with_name("golden")
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
ENDINGS = ("pl.md", "en.md", "pl.ipynb", "en.ipynb")
UPDATE = bool(os.environ.get("BLACKBELT_UPDATE_GOLDEN"))

# A helper of the tiny course that itself needs a helper.
SHAPES = '''\
"""Helpers of a golden lesson."""

import math

from snippets.bilingual import say


def area(*sides: int) -> int:
    """Return the product of the sides."""
    return math.prod(sides)


def describe(*sides: int) -> str:
    return say(pl=f"pole {area(*sides)}", en=f"area {area(*sides)}")
'''


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TinyCourse, Prepared]]:
    """A course of all golden lessons, after one run."""
    course = TinyCourse(tmp_path_factory.mktemp("golden"))
    (course.root / "snippets" / "shapes.py").write_text(SHAPES, encoding="utf-8")
    for name in NAMES:
        source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        course.write(f"lessons/1_first/{name}.py", source)
    course.write("lessons/2_second/90_good.py", TITLE)
    with pytest.MonkeyPatch.context() as patch:
        # Kernels take the helpers from the tiny course, as they take ours from the repository.
        patch.setenv("PYTHONPATH", str(course.root))
        yield course, prepare(course.project, (), Progress())


def _without_pictures(text: str) -> str:
    """Replace what depends on the version of matplotlib."""
    text = re.sub(r"/[0-9a-f]{12}\.(svg|webp)\b", r"/PICTURE.\1", text)
    text = re.sub(r'\b(width|height)="\d+"', r'\1="N"', text)
    text = re.sub(r'"image/png": "[A-Za-z0-9+/=]{200,}"', '"image/png": "PNG"', text)
    return re.sub(r'"(width|height)": \d+', r'"\1": 0', text)


def _without_helpers(notebook: str, root: Path) -> str:
    """Leave out helpers of the repository that a notebook holds, if it holds them exactly."""
    for name in ("bilingual", "figures"):
        source = (root / "snippets" / f"{name}.py").read_text(encoding="utf-8")
        copied = json.dumps(without_snippet_imports(source), ensure_ascii=False)[1:-1]
        notebook = notebook.replace(copied, f"... snippets/{name}.py ...")
    return notebook


def _made(course: TinyCourse, prepared: Prepared, name: str, ending: str) -> str:
    rendered = next(r for r in prepared.lessons if r.lesson.name == name)
    language, _, kind = ending.partition(".")
    if kind == "md":
        return _without_pictures(rendered.pages[language].markdown)
    return _without_pictures(_without_helpers(rendered.notebooks[language], course.root))


def test_golden_lessons_have_no_problems(prepared: tuple[TinyCourse, Prepared]) -> None:
    assert [str(problem) for problem in prepared[1].problems] == []


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str, ending: str, prepared: tuple[TinyCourse, Prepared]) -> None:
    made = _made(*prepared, name, ending)
    file = FOLDER / f"{name}.{ending}"
    if UPDATE:
        file.write_text(made, encoding="utf-8")
    assert made == file.read_text(encoding="utf-8")


def test_every_golden_file_belongs_to_a_lesson() -> None:
    wanted = {f"{name}.{ending}" for name in NAMES for ending in ("py", *ENDINGS)}
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_valid(name: str, prepared: tuple[TinyCourse, Prepared]) -> None:
    rendered = next(r for r in prepared[1].lessons if r.lesson.name == name)
    for text in rendered.notebooks.values():
        nbformat.validate(json.loads(text))
        assert text.endswith("\n}\n")


def test_a_page_and_its_files_are_the_same_in_a_second_build(
    prepared: tuple[TinyCourse, Prepared],
) -> None:
    course, first = prepared
    second = prepare(course.project, (), Progress())
    assert [r.pages for r in second.lessons] == [r.pages for r in first.lessons]
    assert [r.notebooks for r in second.lessons] == [r.notebooks for r in first.lessons]


def test_figures_are_files(prepared: tuple[TinyCourse, Prepared]) -> None:
    rendered = next(r for r in prepared[1].lessons if r.lesson.name == "07_figure")
    for language, page in rendered.pages.items():
        (picture,) = page.pictures
        assert f"../img/{picture.name})" in page.markdown, language
        assert picture.data.startswith(b"<?xml")
        assert f'width="{picture.width}" height="{picture.height}"' in page.markdown
        # About 3 by 2 inches at 96 CSS pixels an inch, fitted to what is drawn.
        assert 270 < picture.width < 310
        assert 180 < picture.height < 210
    names = {page.pictures[0].name for page in rendered.pages.values()}
    assert len(names) == 2, "each language has its own figure"


@pytest.mark.parametrize(
    "link",
    [
        "[a](../2_second/90_good.py)",
        "[a](../2_second/90_good.py#title)",
        "[**a**](../2_second/90_good.py)",
        "[a\nb](../2_second/90_good.py)",
        '[a](../2_second/90_good.py "title")',
        "[a](<../2_second/90_good.py>)",
        "[a]( ../2_second/90_good.py )",
        "[a][b]\n\n[b]: ../2_second/90_good.py",
    ],
)
def test_no_link_to_a_source_reaches_a_reader(link: str, course: TinyCourse) -> None:
    """Every spelling of a link becomes the link of a page, or is reported."""
    path = "lessons/1_first/01_links.py"
    course.write("lessons/2_second/90_good.py", TITLE)
    cells = [TITLE]
    for language in ("pl", "en"):
        lines = "\n".join(f"# {line}".rstrip() for line in link.split("\n"))
        cells.append(f'# %% [markdown] lang="{language}"\n{lines}\n\n')
    course.write(path, "".join(cells))
    if course.command("check").of(path):
        return
    lesson = course.load().by_path[path]
    for pair in lesson.prose:
        for language in ("pl", "en"):
            page = prose_for_page(pair, language, {})
            notebook = prose_for_notebook(pair, language, {}, lesson, course.project.site_url)
            assert ".py" not in page
            assert ".py" not in notebook
