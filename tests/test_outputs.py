"""What a program prints arrives on the page as it was, and cannot become anything else there."""

from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from time import process_time

import markdown
import pytest
from mkdocs.utils.yaml import yaml_load
from tiny import REPOSITORY, TITLE

from blackbelt.ansi import to_html
from blackbelt.assemble import assemble
from blackbelt.glossary import load_glossary
from blackbelt.languages import BODY, CLOSE, OPEN, keep
from blackbelt.lesson import Lesson
from blackbelt.plan import plan
from blackbelt.read import read_cells
from blackbelt.render import render_page
from blackbelt.results import Output, Run, StepRun
from blackbelt.scrub import scrub

PATH = "lessons/1_first/01_hostile.py"
SCRATCH, ROOT = Path("/tmp/blackbelt-x/scratch"), Path("/home/someone/course")
VOID = {"br", "hr", "img", "input", "meta", "link"}

# A cell, and an exercise: there, outputs stand inside of two more elements.
LESSON = (
    TITLE
    + """\
# %%
outputs()

# %% [markdown] lang="pl" exercise="one" role="prompt" belt="white" minutes=5
# ## Zadanie

# %% [markdown] lang="en" exercise="one" role="prompt" belt="white" minutes=5
# ## Task

# %% exercise="one" role="starter"
answer = 0

# %% exercise="one" role="check"
assert answer

# %% exercise="one" role="wrong" says="x"
answer = 1

# %% exercise="one" role="solution"
answer = 2

# %% [markdown] lang="pl"
# Po **ćwiczeniu** `x`.

# %% [markdown] lang="en"
# After the **exercise** `x`.
"""
)

# Texts that must arrive as they are.
INTACT = {
    "harmless": "x",
    "markup": "<b>bold</b> & <i>open",
    "script": "<script>alert(1)</script>",
    "end of the element": "</pre><script>alert(1)</script><pre>",
    "end of outer elements": "</pre></div></details></div>\n\n</div>\n\n# Heading",
    "element that asks for Markdown": '<div markdown="1">\n\n*a*\n\n</div>',
    "comment": "<!-- open\n\nand closed -->",
    "declarations": "<!DOCTYPE html> <![CDATA[ x ]]> <?php echo 1 ?>",
    "attribute": "\" onclick=\"alert(1)' x='",
    "entities": "&lt; &amp; &#65; &nbsp; &copy &",
    "fence": "```\ncode\n```",
    "fence with a language": "```python\nx = 1\n```\n\n````",
    "fence between lines": "a\n```\nb\n```\nc",
    "fence left open": "a\n```\nb",
    "other fence left open": "a\n~~~\nb",
    "other fence": "~~~\ncode\n~~~",
    "code span": "`x` ``y` ```",
    "alert": "> [!NOTE]\n> text",
    "admonition": '!!! note "title"\n    text\n\n??? x\n    y',
    "formulas": r"$x$ $$y$$ \(z\) \[w\]",
    "formula as the site marks it": r'<span class="arithmatex">\(x\)</span>',
    "attributes": "text {: .cls }\n{ #id .cls }\n# h { #h }",
    "template": "{{ jinja }} {% raw %} {# comment #} ${x}",
    "abbreviation": "*[abbr]: x\n\nabbr",
    "footnote": "[^1]\n\n[^1]: note",
    "reference": "[a]: https://x.y 'z'\n\n[a] [b](c) ![d](e)",
    "table": "| a | b |\n| - | - |\n| c | d |",
    "blocks": "# h\n\n- a\n\n1. b\n\n***\n\n===\n\nterm\n:   definition",
    "inline marks": "*a* _b_ ~~c~~ ==d== ^e^ H~2~O \\* \\` --8<--",
    "macros of extensions": "[TOC] :smile: [x] [[y]] #!python :::python",
    "addresses": "https://x.y <https://x.y> a@b.c <a@b.c>",
    "glossary": "tensor widok view stride",
    "placeholders": "klzzwxh:0001 wzxhzdk:0 hzzhzkh:0 amp",
    "tabs": "\ta\tb\n\t\tc",
    "long line": "x" * 2_000 + " " + "y" * 2_000,
    "blank lines": "a\n\n\n\nb\n\n    c\n \nd",
    "blank lines first": "\n\na",
    "leading spaces": "    a\n  b\n      c",
    "one marker of say": f"{OPEN} {BODY} pl",
    "closing marker of say": f"a {CLOSE} b",
    "line ends of Unicode": "a\u2028b\u2029c\u0085d",
    "other scripts": "zażółć 测试 🥋 e\u0301 \u00a0 \ufeff.",
}

# Texts that terminals treat in a way of their own, and what a reader should see.
TERMINAL = {
    "colours": ("\x1b[31mred\x1b[0m \x1b[1;38;5;4mblue\x1b[m plain", "red blue plain"),
    "colour to the end": ("\x1b[31m<b>", "<b>"),
    "colour with colons": ("a \x1b[38:5:1mred\x1b[0m b", "a red b"),
    "screen and title": ("\x1b[2J\x1b]0;title\x07a\x1b[1Ab\x1b[?25l\x1b(B", "ab"),
    "title without an end": ("a\x1b]0;title", "a"),
    "cut sequence": ("a\x1b[31\nb", "a\nb"),
    "escape alone": ("a\x1b", "a"),
    "escape at the end of a line": ("a\x1b\nb", "a\nb"),
    "progress": ("10%\r50%\r100%\ndone", "100%\ndone"),
    "line ends of Windows": ("a\r\nb\r\n", "a\nb"),
    "bell and null": ("a\x07\x00b\x08\x7f", "ab"),
    "markers of Python-Markdown": ("\x02klzzwxh:0\x03 \x02wzxhzdk:0\x03", "klzzwxh:0 wzxhzdk:0"),
    "both languages": (
        f"a {OPEN}pl{BODY}po polsku{OPEN}en{BODY}in English{CLOSE} b",
        "a po polsku b",
    ),
    "markup in both": (f"{OPEN}pl{BODY}</pre><b>{OPEN}en{BODY}x{CLOSE}", "</pre><b>"),
    "trailing spaces": ("a  \n  \n", "a"),
}
TEXTS = {name: (text, text) for name, text in INTACT.items()} | TERMINAL


@dataclass
class Element:
    """What a reader's browser makes of a page, as a flat list."""

    tag: str
    attributes: tuple[tuple[str, str | None], ...]
    parents: tuple[str, ...]
    text: str = ""


@dataclass
class Parser(HTMLParser):
    """Collects elements; colours inside of outputs do not count as elements."""

    elements: list[Element] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    colours: list[str] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)
    _spans: int = 0

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes = dict(attrs).get("class") or ""
        if tag == "span" and classes.startswith("ansi-"):
            self._spans += 1
            self.colours.append(classes)
            return
        parents = tuple(element.tag for element in self._open)
        self.elements.append(Element(tag, tuple(attrs), parents))
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag: str) -> None:
        if tag == "span" and self._spans:
            self._spans -= 1
        elif tag not in VOID:
            assert self._open and self._open[-1].tag == tag, f"</{tag}> closes {self._open[-1:]}"
            self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def outputs(self) -> list[str]:
        """Texts of outputs; browsers leave out a line end right after `<pre>`."""
        shown = [e for e in self.elements if "nb-text" in (dict(e.attributes).get("class") or "")]
        return [element.text.removeprefix("\n") for element in shown]

    def skeleton(self) -> list[tuple[object, ...]]:
        return [(e.tag, e.attributes, e.parents) for e in self.elements]


@cache
def extensions() -> tuple[list[str], dict[str, dict[str, object]]]:
    """The Markdown extensions of the site, and their options."""
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    names: list[str] = []
    options: dict[str, dict[str, object]] = {}
    for entry in yaml_load(text)["markdown_extensions"]:
        if isinstance(entry, dict):
            options.update(entry)
            names += entry
        else:
            names.append(entry)
    glossary: dict[str, object] = {"terms": load_glossary(REPOSITORY), "language": "pl"}
    return names, options | {"blackbelt.site.glossary_extension": glossary}


def parse(page: str) -> Parser:
    """Convert a page as the site does, and read the result as a browser does."""
    names, options = extensions()
    html = markdown.markdown(page, extensions=names, extension_configs=options)
    parser = Parser()
    parser.feed(html)
    parser.close()
    return parser


def lesson(source: str) -> Lesson:
    return assemble(PATH, source, read_cells(source, PATH))


def hostile_page(text: str) -> Parser:
    """A page whose every output is this text, as a run would have kept it."""
    text = scrub(text, SCRATCH, ROOT)
    whole = lesson(LESSON)
    everything = StepRun(
        (
            Output("text", text),
            Output("result", text),
            Output("error", f"ValueError: {text}"),
            Output("warning", f"UserWarning: {text}"),
        )
    )
    run = Run(tuple(everything for _ in plan(whole)))
    return parse(render_page(whole, run, "pl", "../img").markdown)


# The cell, the starter's check, the wrong answer's check, the solution, and its check.
PLACES = 5


@pytest.mark.parametrize("name", TEXTS)
def test_text_arrives(name: str) -> None:
    text, shown = TEXTS[name]
    errors = [f"ValueError: {shown}".rstrip(), f"UserWarning: {shown}".rstrip()]
    assert hostile_page(text).outputs() == [shown, shown, *errors] * PLACES


@pytest.mark.parametrize("name", TEXTS)
def test_text_stays_text(name: str) -> None:
    page = hostile_page(TEXTS[name][0])
    assert page.skeleton() == hostile_page("x").skeleton()
    assert not page.comments


@pytest.mark.parametrize("name", TERMINAL)
def test_no_control_characters_reach_the_page(name: str) -> None:
    page = hostile_page(TERMINAL[name][0])
    everything = "".join(page.outputs())
    assert not [c for c in everything if ord(c) < 32 and c not in "\n\t"]


def test_page_around_outputs_is_as_expected() -> None:
    """The tests above compare with a harmless page, so this one says what that page is."""
    page = hostile_page("x")
    tags = [element.tag for element in page.elements]
    assert tags.count("pre") == 4 * PLACES + len(lesson(LESSON).code)
    assert tags.count("details") == 3
    assert [e.text for e in page.elements if e.tag == "strong"] == ["ćwiczeniu"]
    outputs = [e for e in page.elements if ("tabindex", "0") in e.attributes and e.tag == "pre"]
    assert {element.parents for element in outputs} == {
        ("div",),
        ("div", "details", "div"),
    }


CODES = {
    "fence": 'text = """\n```\ncode\n```\n"""',
    "other fence": 'text = """\n~~~\n"""',
    "long fence": 'text = "````````"',
    "markup": "text = '</code></pre><script>alert(1)</script>'",
    "entities": "text = '&lt; &amp; &#65;'",
    "template": "text = f'{{ jinja }} {text}'",
    "attributes": "text = '{: .cls }'\n# { #id }",
    "line markers": "#!python\n:::python",
    "formula": "text = '$x$ \\\\(y\\\\)'",
    "tab": "text = 'a\tb'",
    "blank lines": "a = 1\n\n\n\nb = 2",
    "alert": 'text = """\n> [!NOTE]\n> x\n"""',
}


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("header", ["# %%", "# %% fold=true"])
def test_code_arrives(name: str, header: str) -> None:
    whole = lesson(f"{TITLE}{header}\n{CODES[name]}\n")
    page = parse(render_page(whole, Run((StepRun(),)), "pl", "../img").markdown)
    assert [e.text.removesuffix("\n") for e in page.elements if e.tag == "code"] == [CODES[name]]
    assert not [e for e in page.elements if e.tag in ("script", "blockquote", "math")]


class TestColours:
    @pytest.mark.parametrize(
        ("text", "html"),
        [
            ("plain", "plain"),
            ("", ""),
            ("a\tb", "a&#9;b"),
            ("<&>", "&lt;&amp;&gt;"),
            ("\x1b[31mred\x1b[0m", '<span class="ansi-fg1">red</span>'),
            ("\x1b[91mred\x1b[39m.", '<span class="ansi-fg9">red</span>.'),
            ("\x1b[1;32mok\x1b[m.", '<span class="ansi-b ansi-fg2">ok</span>.'),
            ("\x1b[1mb\x1b[3mi\x1b[22mj", '<span class="ansi-b">b</span>'
             '<span class="ansi-b ansi-i">i</span><span class="ansi-i">j</span>'),
            ("\x1b[4mu\x1b[24mn", '<span class="ansi-u">u</span>n'),
            ("\x1b[31ma\x1b[32mb", '<span class="ansi-fg1">a</span>'
             '<span class="ansi-fg2">b</span>'),
            ("\x1b[38;5;12mx", '<span class="ansi-fg12">x</span>'),
            ("\x1b[38;5;200mx", "x"),
            ("\x1b[38;2;1;2;3mx", "x"),
            ("\x1b[48;5;1mx", "x"),
            ("\x1b[38;5mx", "x"),
            ("\x1b[38mx", "x"),
            ("\x1b[41;31mx", '<span class="ansi-fg1">x</span>'),
            ("\x1b[31m\x1b[0m", ""),
            ("\x1b[31m<b>\x1b[0m", '<span class="ansi-fg1">&lt;b&gt;</span>'),
            ("\x1b[31ma\nb", '<span class="ansi-fg1">a\nb</span>'),
        ],
    )  # fmt: skip
    def test_to_html(self, text: str, html: str) -> None:
        assert to_html(text) == html

    def test_on_the_page(self) -> None:
        page = hostile_page("\x1b[31mred\x1b[0m")
        assert page.colours == ["ansi-fg1"] * 4 * PLACES


class TestScrub:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("", ""),
            ("nothing to do\n", "nothing to do\n"),
            ("<object at 0x7f3a1c2b4d50>", "<object at 0x…>"),
            ("0x7f and 0x10000", "0x7f and 0x10000"),
            ("0xdeadbeef0 and 0xDEADBEEF", "0x… and 0xDEADBEEF"),
            ("/tmp/blackbelt-x/scratch/data.pt", "data.pt"),
            ("in /tmp/blackbelt-x/scratch", "in ."),
            ("/home/someone/course/snippets/memory.py", "snippets/memory.py"),
            ("root /home/someone/course", "root ."),
            ("/tmp/ipykernel_71/1234567.py:3: hm", "cell.py:3: hm"),
            ('File "/tmp/ipykernel_71/12.py", line 1', 'File "cell.py", line 1'),
            ("/x/lib/python3.13/site-packages/torch/a.py", "…/torch/a.py"),
            ("(/usr/lib/python3/dist-packages/y.py)", "(…/y.py)"),
            ("File /usr/lib/python3.13/json/decoder.py", "File …/json/decoder.py"),
            ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
            ("a\x1b[2Kb\x1b[1;1Hc\x1b[?25hd", "abcd"),
            ("\x1b]8;;https://x.y\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1b7a\x1b8b\x1bMc", "abc"),
            ("\x1b(Ba\x1b)0b", "ab"),
            ("1\r2\r3\n", "3\n"),
            ("3\r\n", "3\n"),
            ("a\x00\x01\x02\x03\x08\x0b\x0c\x1fb\x7f", "ab"),
            ("a\tb\nc", "a\tb\nc"),
        ],
    )
    def test_scrub(self, text: str, shown: str) -> None:
        assert scrub(text, SCRATCH, ROOT) == shown

    @pytest.mark.parametrize(
        "text", ["x" * 10_000, "/" * 10_000, "a/lib/" * 2_000, "\x1b[" * 5_000]
    )
    def test_long_line_takes_no_time(self, text: str) -> None:
        """A program that floods its output must be told so, and not keep the build waiting."""
        began = process_time()
        scrub(text, SCRATCH, ROOT)
        assert process_time() - began < 0.5

    def test_twice_is_once(self) -> None:
        for text, _ in TEXTS.values():
            once = scrub(text, SCRATCH, ROOT)
            assert scrub(once, SCRATCH, ROOT) == once

    @pytest.mark.parametrize("name", INTACT)
    def test_harmless_for_everything_else(self, name: str) -> None:
        assert scrub(INTACT[name], SCRATCH, ROOT) == INTACT[name]


class TestLanguages:
    BOTH = f"{OPEN}pl{BODY}kot{OPEN}en{BODY}cat{CLOSE}"

    @pytest.mark.parametrize(
        ("text", "pl", "en"),
        [
            ("", "", ""),
            ("both", "both", "both"),
            (BOTH, "kot", "cat"),
            (f"1 {BOTH} 2 {BOTH} 3", "1 kot 2 kot 3", "1 cat 2 cat 3"),
            (f"{OPEN}pl{BODY}a\nb{OPEN}en{BODY}c\n\nd{CLOSE}", "a\nb", "c\n\nd"),
            (f"{OPEN}pl{BODY}{OPEN}en{BODY}x{CLOSE}", "", "x"),
            (f"{OPEN}en{BODY}x{CLOSE}", "", "x"),
            (f"{OPEN}pl", f"{OPEN}pl", f"{OPEN}pl"),
        ],
    )
    def test_keep(self, text: str, pl: str, en: str) -> None:
        assert keep(text, "pl") == pl
        assert keep(text, "en") == en

    def test_say_writes_what_keep_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from snippets.bilingual import say

        monkeypatch.setenv("BLACKBELT_LANGUAGES", "pl,en")
        both = say(pl="kot", en="cat")
        assert (keep(both, "pl"), keep(both, "en")) == ("kot", "cat")
        monkeypatch.setenv("BLACKBELT_LANGUAGES", "en")
        assert say(pl="kot", en="cat") == "cat"
        monkeypatch.delenv("BLACKBELT_LANGUAGES")
        assert say(pl="kot", en="cat") == "kot"
