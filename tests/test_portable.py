"""Python-Markdown must read the rewritten prose as CommonMark reads the original."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import markdown
import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.tasklists import tasklists_plugin

from blackbelt.portable import display_math, to_python_markdown

CASES: dict[str, str] = tomllib.loads(
    Path(__file__).with_name("markdown_cases.toml").read_text(encoding="utf-8")
)

# Cases that still differ, with the reason why that is harmless. One that agrees again fails.
_LOOSE = "Python-Markdown has no tight list around this block: the items become paragraphs"
DIFFERENCES = {
    "loose list inside a tight one": _LOOSE,
    "quotation in a tight item": _LOOSE,
    "display math in a tight item": _LOOSE,
    "table without a body": "Python-Markdown adds an empty row",
}

EXTENSIONS = ["admonition", "attr_list", "md_in_html", "tables", "sane_lists", "toc"]
EXTENSIONS += ["pymdownx.saneheaders", "pymdownx.tilde", "pymdownx.tasklist", "pymdownx.quotes"]
EXTENSIONS += ["pymdownx.arithmatex", "pymdownx.details", "pymdownx.highlight"]
EXTENSIONS += ["pymdownx.inlinehilite", "pymdownx.superfences"]
OPTIONS: dict[str, dict[str, object]] = {
    "pymdownx.tilde": {"subscript": False},
    "pymdownx.arithmatex": {"generic": True},
    # Without the next two, tabs and outer blank lines of code would be lost.
    "pymdownx.highlight": {"pygments_lang_class": True, "stripnl": False},
    "pymdownx.superfences": {"preserve_tabs": True},
    "pymdownx.quotes": {"callouts": True},
}
TITLES = {"note": "Uwaga", "tip": "Wskazówka", "info": "Ważne", "warning": "Ostrzeżenie"}
TITLES |= {"danger": "Pułapka"}
STYLED = {"important": "info", "caution": "danger"}
VOID = {"br", "hr", "img", "input"}
INLINE = {"a", "br", "code", "del", "em", "img", "input", "kbd", "math", "strong", "sub", "sup"}


@dataclass
class Node:
    """An element, reduced to what a reader can tell apart."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list["Node | str"] = field(default_factory=list)

    def text(self) -> str:
        """All the text inside, in order."""
        return "".join(c if isinstance(c, str) else c.text() for c in self.children)

    def classes(self) -> list[str]:
        """The classes, which decide what kind of block a `div` is."""
        return self.attributes.get("class", "").split()

    def outline(self, depth: int = 0) -> Iterator[str]:
        """Lines that show the tree, for a readable difference."""
        shown = "".join(f" {key}={value!r}" for key, value in sorted(self.attributes.items()))
        yield "  " * depth + self.tag + shown
        for child in self.children:
            if isinstance(child, str):
                yield "  " * (depth + 1) + repr(child)
            else:
                yield from child.outline(depth + 1)


class TreeBuilder(HTMLParser):
    """Build nodes from HTML; comments disappear."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Node("root")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Add an element, and enter it unless it has no content."""
        node = Node(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Add an element written as `<br />`."""
        self.open[-1].children.append(Node(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """Leave the element, and whatever is still open inside it."""
        names = [node.tag for node in self.open]
        if tag in names[1:]:
            del self.open[len(names) - 1 - names[::-1].index(tag) :]

    def handle_data(self, data: str) -> None:
        """Add text."""
        self.open[-1].children.append(data)


def tree(html: str, *, git_hub: bool = False) -> Node:
    """The normal form of a page, in which both must agree; GitHub's alerts become ours."""
    builder = TreeBuilder()
    builder.feed(html)
    builder.close()
    return normal(builder.root, git_hub=git_hub)


def normal(node: Node, *, git_hub: bool) -> Node:
    """Reduce an element to its meaning: the two renderers spell the same thing differently."""
    if special := code_or_math(node):
        return special
    marker = take_marker(node) if git_hub and node.tag == "blockquote" else ""
    children = [c if isinstance(c, str) else normal(c, git_hub=git_hub) for c in node.children]
    tag = {"s": "del"}.get(node.tag, node.tag)
    result = Node(tag, kept_attributes(node), tidy(children, tag))
    if "admonition" in node.classes() and isinstance(title := result.children[0], Node):
        kind = next(name for name in node.classes() if name != "admonition")
        return Node("alert", {"kind": kind, "title": title.text()}, result.children[1:])
    if marker:
        return Node("alert", {"kind": marker, "title": TITLES[marker]}, result.children)
    return result


def code_or_math(node: Node) -> Node | None:
    """Code and formulas: their text exactly, without colours and delimiters."""
    classes = node.classes()
    code = [c for c in node.children if isinstance(c, Node) and c.tag == "code"]
    inner = [c for c in node.children if isinstance(c, Node) and c.tag == "pre"]
    if node.tag == "pre" and code:
        return Node("pre", {"language": language(code[0].classes())}, [code[0].text()])
    if "highlight" in classes and inner:
        return Node("pre", {"language": language(classes)}, [inner[0].text()])
    if node.tag == "code":
        return Node("code", {}, [node.text()])
    if "arithmatex" in classes or "math" in classes:
        tex = re.sub(r"\s", "", node.text()).replace("\\vert", "|")
        display = node.tag == "div" and "inline" not in classes
        tex = re.sub(r"^\\[(\[](.*)\\[)\]]$", r"\1", tex) if "arithmatex" in classes else tex
        if node.tag == "div" and "inline" in classes:
            tex = "\\displaystyle" + tex
        return Node("display" if display else "math", {}, [tex])
    return None


def language(classes: list[str]) -> str:
    """The language of a fence; no language and plain text are the same."""
    names = [name.removeprefix("language-") for name in classes if name.startswith("language-")]
    return "" if not names or names[0] == "text" else names[0]


def kept_attributes(node: Node) -> dict[str, str]:
    """The attributes that mean something to a reader."""
    kept = {k: v for k, v in node.attributes.items() if k in ("title", "alt", "start", "type")}
    for name in ("href", "src"):
        if name in node.attributes:
            kept[name] = unquote(node.attributes[name])
    for name in ("checked", "open"):
        if name in node.attributes:
            kept[name] = ""
    if align := re.search(r"text-align: *(\w+)", node.attributes.get("style", "")):
        kept["align"] = align[1]
    return kept


def tidy(children: list[Node | str], tag: str) -> list[Node | str]:
    """Collapse white space as a browser does."""
    merged: list[Node | str] = []
    for child in children:
        if isinstance(child, str) and merged and isinstance(merged[-1], str):
            merged[-1] += child
        else:
            merged.append(child)
    result: list[Node | str] = []
    for index, child in enumerate(merged):
        if isinstance(child, str):
            text = re.sub(r"[ \t\n]+", " ", child)
            if edge(merged[index - 1] if index else None, tag):
                text = text.lstrip(" ")
            if edge(merged[index + 1] if index + 1 < len(merged) else None, tag):
                text = text.rstrip(" ")
            result += [text] if text else []
        else:
            result.append(child)
    return result


def edge(neighbour: Node | str | None, parent: str) -> bool:
    """Whether white space next to this neighbour is invisible."""
    if isinstance(neighbour, Node):
        return neighbour.tag not in INLINE or neighbour.tag == "br"
    return neighbour is None and parent not in INLINE


def take_marker(quote: Node) -> str:
    """Take the `[!NOTE]` off one of GitHub's alerts; the kind it has on the site, else ""."""
    first = next((child for child in quote.children if isinstance(child, Node)), quote)
    start = first.children[0] if first.children else quote
    pattern = r"\[!(note|tip|important|warning|caution)\][ \t]*(?:\n|$)"
    if not isinstance(start, str) or not (match := re.match(pattern, start, re.IGNORECASE)):
        return ""
    first.children[0] = start[match.end() :]
    if first.children == [""]:
        quote.children.remove(first)
    return STYLED.get(match[1].lower(), match[1].lower())


def common_mark(text: str) -> Node:
    """The tree that CommonMark gives the prose as the author wrote it."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    dollarmath_plugin(parser, allow_labels=False, allow_space=False, double_inline=True)
    parser.block.ruler.at("math_block", display_math, {"alt": ["paragraph", "blockquote", "table"]})
    tasklists_plugin(parser)
    # The address after a heading is the caller's addition, and no part of the prose.
    prose = re.sub(r"^(#+ .*) \{ #[\w-]+ \}$", r"\1", text, flags=re.MULTILINE)
    return tree(parser.render(prose), git_hub=True)


def site_html(text: str, language: str = "pl") -> str:
    """Rewrite the prose and render it as the site does."""
    portable = to_python_markdown(text, language=language)
    return markdown.markdown(portable, extensions=EXTENSIONS, extension_configs=OPTIONS)


def found(node: Node, tag: str) -> Iterator[Node]:
    """All elements with this tag."""
    for child in node.children:
        if isinstance(child, Node):
            if child.tag == tag:
                yield child
            yield from found(child, tag)


@pytest.mark.parametrize("name", CASES)
def test_same_structure(name: str) -> None:
    """Both renderers agree on every case that has no written reason to differ."""
    expected = list(common_mark(CASES[name]).outline())
    got = list(tree(site_html(CASES[name])).outline())
    if name in DIFFERENCES:
        assert got != expected, f"{name!r} agrees now: remove it from DIFFERENCES"
    else:
        assert got == expected, to_python_markdown(CASES[name], language="pl")


def test_differences_are_few() -> None:
    """Exemptions name real cases, and do not become a habit."""
    assert set(DIFFERENCES) <= set(CASES)
    assert len(DIFFERENCES) <= 4
    assert len(CASES) == 92


CODE = (
    "x = 1",
    "\tindented\twith tabs\n\n\n   \nafter  trailing  ",
    "\nblank lines around\n\n",
    "`ticks`, ```\n```python\n````\n~~~",
    "</details>\n<summary>\n<!-- -->\n<div markdown='1'>\n&amp; &lt;",
    "# heading\n- item\n> quote\n>>> prompt\n| a | b |\n|---|---|\n=====\n$$\nx\n$$",
    "*a* _b_ ~~c~~ $x$ \\* [a](b) {{ value }} { .python } {: #id }\n[ref]: x",
    "[TOC]\n!!! note\n??? x\n--8<-- 'a'\n*[abbr]: x",
    "zażółć 🥋 \u00a0 #!python :::python",
)
PLACES = {
    "page": "",
    "quotation": "> ",
    "list": "- a\n\n  ",
    "nested list": "1. a\n   - b\n\n     ",
    "alert in a list": "- a\n\n  > [!NOTE]\n  > ",
    "list in a quotation": "> - a\n>\n>   ",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("code", CODE)
def test_fences_are_untouched(code: str, place: str) -> None:
    """Not a byte of code changes, wherever the fence is."""
    opening = PLACES[place]
    prefix = re.sub(r"[^> ]", " ", opening.rpartition("\n")[2])
    text = opening + f"\n{prefix}".join(["`````text", *code.split("\n"), "`````"])
    assert [node.text() for node in found(tree(site_html(text)), "pre")] == [code + "\n"]


@pytest.mark.parametrize("code", CODE)
def test_folded_fences_are_untouched(code: str) -> None:
    """The same inside a foldable section."""
    section = "<details>\n<summary>s</summary>\n\n`````text\n{}\n`````\n\n</details>"
    root = tree(site_html(section.format(code)))
    assert [node.text() for node in found(root, "pre")] == [code + "\n"]


@pytest.mark.parametrize(
    "code", [line for code in CODE for line in code.split("\n") if line.strip()]
)
def test_code_spans_are_untouched(code: str) -> None:
    """Not a byte of a code span changes, in text, in a heading, or in a list."""
    span = f"`````` {code} ``````"
    root = tree(site_html(f"{span} text {span}\n\n# {span}\n\n- {span}\n- b"))
    assert [node.text() for node in found(root, "code")] == [code] * 4


@pytest.mark.parametrize(
    ("language", "titles"),
    [
        ("pl", ["Uwaga", "Wskazówka", "Ważne", "Ostrzeżenie", "Pułapka"]),
        ("en", ["Note", "Tip", "Important", "Warning", "Pitfall"]),
    ],
)
def test_alert_titles(language: str, titles: list[str]) -> None:
    """Alerts are titled in the page's language, with a kind that the theme styles."""
    alerts = list(found(tree(site_html(CASES["every kind of alert"], language)), "alert"))
    assert [node.attributes["title"] for node in alerts] == titles
    kinds = [node.attributes["kind"] for node in alerts]
    assert kinds == ["note", "tip", "info", "warning", "danger"]


def test_unknown_language() -> None:
    """A language without titles is an error, not an English page."""
    with pytest.raises(KeyError):
        to_python_markdown("> [!NOTE]\n> x", language="de")


def test_heading_addresses() -> None:
    """The address at the end of a heading is kept, whatever the heading holds."""
    html = site_html(CASES["headings with code, emphasis and an address"])
    assert re.findall(r'<h\d id="([^"]*)"', html) == [
        "view-and-strides",
        "c-and-f",
        "the-__init__-method",
        "abc",
    ]


def test_fence_title() -> None:
    """A title is shown, and lines are highlighted."""
    html = site_html(CASES["fence with a title"])
    assert '<span class="filename">train.py</span>' in html
    assert html.count('class="hll"') == 2


@pytest.mark.parametrize(
    "text",
    [
        "Zwykły tekst z `kodem`, **mocny**, *słaby*, [link](../2_autograd/08_x.py#a-b) i $x_1$.",
        "![Magazyn](img/a.svg)",
        "Dwie linie\ntekstu (w nawiasach) – 2,5 MB; x[0], snake_case: tak!",
    ],
)
def test_plain_prose_is_verbatim(text: str) -> None:
    """What both read alike stays as the author wrote it."""
    assert to_python_markdown(text, language="pl") == text + "\n"
