"""Code on pages keeps its text and its colours, without a mark around each bracket."""

import html
import re
from importlib.resources import files
from pathlib import Path

from markdown import Markdown

ROOT = Path(__file__).parent.parent
OPTIONS = {"pygments_lang_class": True, "stripnl": False}
SOURCE = '''
@decorated(arg=1)
class Tree(nn.Module):
    """A docstring: what
    it is."""

    def __init__(self, *x: Tensor, **rest) -> None:  # (B, T)
        raise RuntimeError(f"{x!r:>10} {{}} \\n" + r"\\d+" b"x") from None

\tasync def tab(self): return not True and x.is_contiguous() or 0x1F + 1e-3 + 2j
x[..., :3] @= lambda y: y if y <= "&<>" else print(`)
'''


def convert(source: str, language: str = "python") -> str:
    md = Markdown(
        extensions=["pymdownx.superfences", "blackbelt.site.code_extension"],
        extension_configs={
            "blackbelt.site.code_extension": OPTIONS,
            "pymdownx.superfences": {"preserve_tabs": True},
        },
    )
    return md.convert(f"````{language}\n{source}\n````")


def text(page: str) -> str:
    found = re.search(r"<code>(.*)</code>", page, re.S)
    assert found
    return html.unescape(re.sub(r"<[^>]*>", "", found[1]))


def spans(page: str) -> list[tuple[str, str]]:
    found = re.findall(r'<span class="([^"]*)">([^<]*)</span>', page)
    return [(kind, html.unescape(part)) for kind, part in found]


def test_text_of_code_is_kept() -> None:
    assert text(convert(SOURCE)) == SOURCE
    for file in (ROOT / "lessons").glob("*/*.py"):
        source = file.read_text(encoding="utf-8")
        assert text(convert(source)) == source, file


def test_colours_say_what_a_part_is() -> None:
    assert spans(convert("for x in range(2): return f'{x + 1} is \\n' # why")) == [
        ("k", "for"),
        ("k", "in"),
        ("nb", "range"),
        ("m", "2"),
        ("k", "return"),
        ("s", "f'{"),
        ("m", "1"),
        ("s", "} is "),
        ("se", "\\n"),
        ("s", "'"),
        ("c", "# why"),
    ]
    assert spans(convert('def f(x):\n    """Says."""')) == [
        ("k", "def"),
        ("nf", "f"),
        ("c", '"""Says."""'),
    ]
    assert spans(convert("import torch.nn as nn\n@once\nclass A(ValueError): 1")) == [
        ("k", "import"),
        ("nf", "torch.nn"),
        ("k", "as"),
        ("nf", "nn"),
        ("k", "@once"),
        ("k", "class"),
        ("nf", "A"),
        ("nf", "ValueError"),
        ("m", "1"),
    ]


def test_names_and_brackets_have_no_mark() -> None:
    page = convert("x = y(z[0], w)")
    assert re.findall(r"</?span[^>]*>", page.split("<code>")[1]) == ['<span class="m">', "</span>"]


def test_every_mark_has_a_colour() -> None:
    """A mark without one would be bytes for nothing, and neighbours could have been one."""
    (sheet,) = Path(str(files("material"))).glob("templates/assets/stylesheets/main.*.min.css")
    coloured = set(re.findall(r"\.highlight \.(\w+)", sheet.read_text(encoding="utf-8")))
    for file in (ROOT / "lessons").glob("*/*.py"):
        page = convert(file.read_text(encoding="utf-8"))
        assert {kind for kind, _ in spans(page)} <= coloured
        assert re.findall(r'<span class="(\w+)">[^<]*</span><span class="\1">', page) == []


def test_other_languages_and_unknown_ones() -> None:
    assert ("c", "# here") in spans(convert("ls -l # here", "bash"))
    assert spans(convert("plain < text", "no-such-language")) == []
    assert text(convert("plain < text", "no-such-language")) == "plain < text\n"
