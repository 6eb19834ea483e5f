"""Portable Markdown, written again so that Python-Markdown reads it the way CommonMark does.

Authors see their prose in VS Code, Jupyter and Colab, which read CommonMark; the site reads
Python-Markdown, where a list right after a paragraph is not a list. The prose is parsed as
CommonMark, and every block is written in the one spelling that both agree on.
"""

import re
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.tree import SyntaxTreeNode
from mdit_py_plugins.dollarmath.index import dollarmath_plugin, math_block_dollar

from blackbelt.strings import for_language

_ALERTS: Final = ("NOTE", "TIP", "IMPORTANT", "WARNING", "CAUTION")
# Material has no style for these two of GitHub's alerts: they would look like a note.
_STYLES: Final = {"IMPORTANT": "info", "CAUTION": "danger"}
_ALERT: Final = re.compile(rf"\[!({'|'.join(_ALERTS)})\][ \t]*(?:\n|$)", re.IGNORECASE)
# Tags of foldable sections; a summary is part of the opening one.
_FOLD: Final = re.compile(r"(<details[^>]*>\s*<summary>.*?</summary>|</details>)", re.DOTALL)
_TAG: Final = re.compile(r"(<!--.*?-->|</?[a-zA-Z][^>]*>|&#?\w+;)", re.DOTALL)
_SLUG: Final = re.compile(r"(?: +#+)?( +\{ #[\w-]+ \}) *$")
_FENCE_OPTION: Final = re.compile(r"(title|hl_lines|linenums)=(?:\"([^\"]*)\"|'([^']*)')")
_RULES: Final = {"": "---", "left": ":--", "center": ":-:", "right": "--:"}

# What TeX would not mind being "< p": without the space it would be the start of a tag.
_TAG_LIKE: Final = re.compile(r"<(?=[a-zA-Z/!?])")
# Characters of plain text that Python-Markdown or one of its extensions would act on. An
# underscore inside a word, a lone tilde and square brackets are safe, and stay as written.
_ACTIVE: Final = re.compile(
    r"[*`${<|]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|(?<=~)~|(?<=\])[(:]|&(?=#?\w+;)"
)
# The same for the start of a line of a paragraph, where a block could start.
_START: Final = re.compile(r"(?m)^(?:[#+>|=?:-]|~(?=~~)|!(?=!!)|\[(?=!\w|TOC])|(\d+)\.(?=\s|$))")
# Characters that a backslash protects in Python-Markdown; others are written as an entity.
_PROTECTED: Final = frozenset("\\`*_{}])>#+-.!|~$")
# Code that Python-Markdown would strip, highlight, or search for the end of a section.
_ALTERED_CODE: Final = re.compile(r"^$|^\s|\s$|\t|<[a-zA-Z/!?]|^(?:#!|:::)")


def display_math(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Rule of markdown-it for `$$` that, when silent, only tells whether a formula is here."""
    line, count = state.line, len(state.tokens)
    found = math_block_dollar(allow_labels=False)(state, start, end, silent)
    if silent:
        state.line = line
        del state.tokens[count:]
    return found


def _take_slugs(state: StateCore) -> None:
    """Keep the `{ #slug }` that ends a heading out of its text, where `_` can be emphasis."""
    for heading, inline in pairwise(state.tokens):
        if heading.type == "heading_open" and (slug := _SLUG.search(inline.content)):
            inline.content = inline.content[: slug.start()]
            inline.meta["slug"] = slug[1].replace("_", r"\_")


_PARSER: Final = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_PARSER.disable("text_join")  # without the joining, an escaped character stays a token of its own
_PARSER.use(dollarmath_plugin, allow_labels=False, allow_space=False, double_inline=True)
# "$$" ends a paragraph, as on GitHub; the plugin alone would ask for a blank line.
_PARSER.block.ruler.at("math_block", display_math, {"alt": ["paragraph", "blockquote", "table"]})
_PARSER.core.ruler.after("block", "slugs", _take_slugs)
# Addresses stay as the author wrote them: the site checks and rewrites them.
_PARSER.normalizeLink = lambda url: url  # type: ignore[method-assign]


class _Block(NamedTuple):
    """One block of output; kinds that can follow a line of text directly have a name."""

    text: str
    kind: Literal["", "text", "code", "list"] = ""


@lru_cache(maxsize=4096)  # after a save, all cells but one are as they were
def to_python_markdown(text: str, *, language: str) -> str:
    """Return the prose in the spelling that Python-Markdown reads as CommonMark would.

    Values must already stand in the text: every `{` is protected from `attr_list`, except in the
    `{ #slug }` that ends a heading. HTML other than `<details>` is left as it is.

    Args:
        text: portable Markdown: CommonMark, tables, `$math$`, `<details>` and GitHub's alerts.
        language: code of the page's language, `pl` or `en`, for the titles of alerts.

    Raises:
        KeyError: an alert has no title in this language.

    Source: https://spec.commonmark.org/0.31.2/
    """
    tree = SyntaxTreeNode(_PARSER.parse(text))
    return _join(_blocks(tree.children, language)) + "\n"


def _join(blocks: list[_Block], gap: str = "\n\n") -> str:
    return gap.join(block.text for block in blocks)


def _indent(text: str, prefix: str = "    ") -> str:
    """Put the prefix before every line, without trailing spaces on empty ones."""
    return "\n".join((prefix + line) if line else prefix.rstrip() for line in text.split("\n"))


def _blocks(nodes: list[SyntaxTreeNode], language: str) -> list[_Block]:
    """Write sibling blocks; a foldable section takes the blocks up to its closing tag."""
    levels: list[list[_Block]] = [[]]
    headers: list[str] = []
    previous = ""
    for node in nodes:
        if node.type == previous and previous.endswith("list"):
            levels[-1].append(_Block("<!-- -->"))  # or the two lists would become one
        html = node.type == "html_block"
        for part in _FOLD.split(node.content) if html else [node.content]:
            if not html or part == node.content:
                levels[-1].append(_block(node, language))
            elif part.startswith("<details"):
                headers.append(_fold(part))
                levels.append([])
            elif part == "</details>" and headers:
                content = _indent(_join(levels.pop()))
                levels[-1].append(_Block(f"{headers.pop()}\n\n{content}"))
            elif part.strip():
                levels[-1].append(_Block(_raw(part)))
        previous = node.type
    while headers:  # never closed: it reaches to the end, as in a browser
        content = _indent(_join(levels.pop()))
        levels[-1].append(_Block(f"{headers.pop()}\n\n{content}"))
    return levels[0]


def _fold(header: str) -> str:
    """Write `<details><summary>` as the block of pymdownx that works at any depth."""
    attributes, _, title = header.removesuffix("</summary>").partition(">")
    mark = "???+" if re.search(r"\bopen\b", attributes) else "???"
    return f'{mark} "{_raw(" ".join(title.partition(">")[2].split()))}"'


def _raw(html: str) -> str:
    """Protect the text between tags and entities: CommonMark reads no Markdown there."""
    parts = _TAG.split(html.strip())
    parts[::2] = ["&#92;".join(map(_plain, part.split("\\"))) for part in parts[::2]]
    return _at_line_start("".join(parts))


def _block(node: SyntaxTreeNode, language: str) -> _Block:
    """Write one block."""
    match node.type:
        case "paragraph":
            block = _Block(_at_line_start(_inline(node.children[0])), "text")
        case "heading":
            title = _inline(node.children[0]).replace("  \n", "<br>").replace("\n", " ")
            title = re.sub(r"(?<!\\)#(?=#*$)", r"\\#", title)
            slug = node.children[0].meta.get("slug", "")
            block = _Block(f"{'#' * int(node.tag[1])} {title}{slug}")
        case "bullet_list" | "ordered_list":
            block = _list(node, language)
        case "blockquote":
            block = _Block(_quote(node.children, language))
        case "table":
            block = _Block(_table(node))
        case "fence" | "code_block":
            block = _Block(_fence(node), "code")
        case "math_block":
            lines = [line for line in _TAG_LIKE.sub("< ", node.content).split("\n") if line.strip()]
            block = _Block("\n".join(["$$", *lines, "$$"]))
        case _:  # HTML, or a thematic break
            block = _Block(node.content.rstrip("\n") or "***")
    return block


def _list(node: SyntaxTreeNode, language: str) -> _Block:
    """Write a list with four-column indents, without blank lines if CommonMark has it tight."""
    items = [_blocks(item.children, language) for item in node.children]
    tight = all(p.hidden for item in node.children for p in item.children if p.type == "paragraph")
    for blocks in items:
        tight &= all(b.kind for b in blocks) and all(b.kind != "list" for b in blocks[:-1])
    gap = "\n" if tight else "\n\n"
    lines: list[str] = []
    for number, blocks in enumerate(items, int(node.attrs.get("start", 1))):
        marker = "* " if node.type == "bullet_list" else f"{number}. "
        content = _indent(_join(blocks, gap)) or "<!-- -->"
        # Only text can stand beside the marker; other blocks go below it.
        below = blocks and blocks[0].kind != "text"
        lines.append(marker + (gap + content if below else content.lstrip()))
    return _Block(gap.join(lines), "list" if tight else "")


def _quote(nodes: list[SyntaxTreeNode], language: str) -> str:
    """Write a quotation, or an alert with its title in the language of the page."""
    blocks = _blocks(nodes, language)
    source = nodes[0].children[0].content if nodes and nodes[0].type == "paragraph" else ""
    if alert := _ALERT.match(source):
        kind = _STYLES.get(alert[1].upper(), alert[1].upper())
        title = for_language(language).alerts[alert[1].lower()]
        rest = blocks[0].text.partition("\n")[2]
        blocks[:1] = [_Block(f"[!{kind}] {title}"), *([_Block(rest)] if rest else [])]
    return _indent(_join(blocks), "> ")


def _table(node: SyntaxTreeNode) -> str:
    """Write a table with a pipe at both ends of each row."""
    rows = [row.children for part in node.children for row in part.children]
    styles = [str(cell.attrs.get("style", "")).rpartition(":")[2] for cell in rows[0]]
    # TeX has a name for the pipe, which would split the cell.
    lines = [[_inline(cell.children[0], pipe=r"\vert ") for cell in row] for row in rows]
    lines.insert(1, [_RULES[style] for style in styles])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _fence(node: SyntaxTreeNode) -> str:
    """Write code between backticks; of the info string, keep what the site understands."""
    language = (re.findall(r"^\s*([\w#.+-]+)(?=\s|$)", node.info) or [""])[0]
    options = [f'{key}="{a or b}"' for key, a, b in _FENCE_OPTION.findall(node.info)]
    info = f" {{ .{language or 'text'} {' '.join(options)} }}" if options else language
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", node.content)), default=0))
    # Of blank lines at the end Python-Markdown loses one, so one more is written.
    lines = node.content.removesuffix("\n") + "\n" * node.content.endswith("\n\n")
    return f"{ticks}{info}\n{lines}\n{ticks}"


def _protect(character: str) -> str:
    return f"\\{character}" if character in _PROTECTED else f"&#{ord(character)};"


def _plain(text: str) -> str:
    """Protect the characters of plain text that Python-Markdown would act on."""
    return _ACTIVE.sub(lambda match: _protect(match[0]), text)


def _at_line_start(text: str) -> str:
    """Protect what would start a block where CommonMark has only the next line of a paragraph."""
    return _START.sub(lambda m: f"{m[1]}\\." if m[1] else _protect(m[0]), text)


def _code(content: str) -> str:
    """Write a code span; as HTML where Python-Markdown would alter its content."""
    if _ALTERED_CODE.search(content):
        return "<code>" + re.sub(r"\W", lambda match: f"&#{ord(match[0])};", content) + "</code>"
    runs = {len(run) for run in re.findall("`+", content)}
    ticks = "`" * next(n for n in range(1, len(runs) + 2) if n not in runs)
    pad = " " if content.startswith("`") or content.endswith("`") else ""
    return f"{ticks}{pad}{content}{pad}{ticks}"


def _target(node: SyntaxTreeNode, key: str) -> str:
    """Write the part of a link or an image that is in parentheses."""
    address = re.sub(r"[\\`$]", r"\\\g<0>", str(node.attrs[key]))
    address = address.replace("<", "%3C").replace(">", "%3E").replace("|", "%7C")
    if not address or re.search(r"[\s()]", address):
        address = f"<{address}>"
    title = _plain(" ".join(str(node.attrs.get("title", "")).split())).replace('"', "&quot;")
    return f'({address} "{title}")' if title else f"({address})"


def _text(node: SyntaxTreeNode) -> str:
    """The text of an image's description, which has no markup in either dialect."""
    return "".join(_text(n) if n.children else n.content or " " for n in node.children)


def _inline(node: SyntaxTreeNode, *, pipe: str = "|") -> str:
    """Write the text of a block, changing only what Python-Markdown would read differently."""
    parts: list[str] = []
    for child in node.children:
        match child.type:
            case "text":
                part = _plain(re.sub(r"\s*\t\s*", " ", child.content))
            case "text_special" if child.info == "escape" and len(child.content) == 1:
                part = _protect(child.content)
            case "softbreak" | "hardbreak":
                part = "\n" if child.type == "softbreak" else "  \n"
            case "code_inline":
                part = _code(child.content)
            case "math_inline" | "math_inline_double":
                style = "\\displaystyle " if child.markup == "$$" else ""
                tex = style + _TAG_LIKE.sub("< ", " ".join(child.content.split()))
                part = f"${tex.replace('|', pipe).rstrip()}$"
            case "image":
                alt = re.sub(r"(?<!\\)[\[\]]", r"\\\g<0>", _plain(_text(child)))
                part = f"![{alt}]{_target(child, 'src')}"
            case "link":
                part = f"[{_inline(child, pipe=pipe)}]{_target(child, 'href')}"
            case "em" if _inline(child).startswith(child.markup):
                # Python-Markdown would read "***" as strong around emphasis.
                part = f"<em>{_inline(child, pipe=pipe)}</em>"
            case "em" | "strong" | "s":
                part = child.markup + _inline(child, pipe=pipe) + child.markup
            case _:
                part = child.markup or child.content
        parts.append(part)
    return "".join(parts)
