"""Math: rendered at build time, understood by screen readers, and never silently wrong."""

import subprocess
import sys

import pytest
from markdown import Markdown

from blackbelt.tex import TexError, render_tex


def markdown() -> Markdown:
    return Markdown(
        extensions=["tables", "pymdownx.arithmatex", "blackbelt.site.katex_extension"],
        extension_configs={"pymdownx.arithmatex": {"generic": True}},
    )


def test_formula_has_html_and_mathml() -> None:
    html = render_tex(r"\frac{a}{b}", display=False)
    assert html.startswith('<span class="katex">')
    assert "<mfrac>" in html and 'class="katex-html" aria-hidden="true"' in html


def test_display_is_a_block() -> None:
    assert render_tex("x", display=True).startswith('<span class="katex-display">')


@pytest.mark.parametrize(
    ("tex", "reason"),
    [
        (r"\nope{x}", r"Undefined control sequence: \nope"),
        (r"\frac{a}{", "Unexpected end of input"),
        ("pamięć", 'Unicode text character "ę" used in math mode'),
    ],
)
def test_broken_tex_names_reason_and_source(tex: str, reason: str) -> None:
    with pytest.raises(TexError) as error:
        render_tex(tex, display=False)
    assert reason in str(error.value)
    assert f"${tex}$" in str(error.value)


def test_formula_that_looks_like_an_error() -> None:
    assert "katex" in render_tex("!x", display=False)


def test_markdown_renders_inline_and_display() -> None:
    html = markdown().convert("Krok $s_k$ i $a < b$.\n\n$$\n\\sum_k s_k i_k\n$$\n")
    assert "arithmatex" not in html
    assert html.count('<span class="katex">') == 3
    assert html.count("katex-display") == 1
    assert "<mo>&lt;</mo>" in html


def test_markdown_leaves_dollars_in_code_alone() -> None:
    html = markdown().convert("`$HOME` i `$x$`\n\n    $$ y $$\n")
    assert "katex" not in html


def test_markdown_reports_broken_tex() -> None:
    with pytest.raises(TexError, match="nope"):
        markdown().convert(r"$\nope$")


def test_engine_does_not_start_without_math() -> None:
    program = (
        "import sys; from markdown import Markdown;"
        "Markdown(extensions=['blackbelt.site.katex_extension']).convert('bez wzorów');"
        "assert 'py_mini_racer' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
