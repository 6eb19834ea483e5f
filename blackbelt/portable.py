"""Portable Markdown, written again so that Python-Markdown reads it the way CommonMark does.

Authors see their prose in VS Code, Jupyter and Colab, which read CommonMark; the site reads
Python-Markdown, where a list right after a paragraph is not a list. The prose is parsed as
CommonMark, and every block is written in the one spelling that both agree on.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.dollarmath.index import math_block_dollar

# What Material styles, and what the reader sees, for each of GitHub's alerts. Material has no
# style of its own for "important" and "caution": they would look like a note.
_ALERTS: Final = {
    "NOTE": ("NOTE", {"pl": "Uwaga", "en": "Note"}),
    "TIP": ("TIP", {"pl": "Wskazówka", "en": "Tip"}),
    "IMPORTANT": ("info", {"pl": "Ważne", "en": "Important"}),
    "WARNING": ("WARNING", {"pl": "Ostrzeżenie", "en": "Warning"}),
    "CAUTION": ("danger", {"pl": "Pułapka", "en": "Pitfall"}),
}
_ALERT: Final = re.compile(rf"\[!({'|'.join(_ALERTS)})\][ \t]*(?:\n|$)", re.IGNORECASE)

# Tags of foldable sections; a summary is part of the opening one.
_FOLD: Final = re.compile(r"(<details[^>]*>\s*<summary>.*?</summary>|</details>)", re.DOTALL)

# Characters of plain text that Python-Markdown or one of its extensions would act on. An
# underscore inside a word, a lone tilde and most brackets are safe, and stay as written.
_ACTIVE: Final = re.compile(
    r"[*`${<|]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|(?<=~)~|\](?=[(\[:]|\Z)|&(?=#?\w+;)|\\(?=begin\{)"
)
# The same for the start of a line of a paragraph, where a block could start.
_LINE_START: Final = re.compile(r"^(?:[#+>|=?-]|~(?=~~)|:(?=-)|!(?=!!)|\[(?=!\w|TOC\])|(\d+)\.(?=\s|$))", re.M)
# Characters that a backslash protects in Python-Markdown; others are written as an entity.
_PROTECTED: Final = frozenset("\\`*_{}])>#+-.!|~$")
_SLUG: Final = re.compile(r" *\{ *#[\w-]+ *\}$")
_FENCE_OPTION: Final = re.compile(r"(title|hl_lines|linenums)=(?:\"([^\"]*)\"|'([^']*)')")


_RULES: Final = {"": "---", "left": ":--", "center": ":-:", "right": "--:"}


_DISPLAY_MATH: Final = math_block_dollar(allow_labels=False)


def display_math(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Rule for `$$` that can also be asked, silently, whether a paragraph ends here.

    Args:
        state: what is being parsed.
        start: line on which the formula could begin.
        end: line after the last one.
        silent: only answer, and leave the state as it was.

    Source: https://markdown-it-py.readthedocs.io/en/latest/architecture.html#rules
    """
    line, count = state.line, len(state.tokens)
    found = _DISPLAY_MATH(state, start, end, silent)
    if silent:
        state.line = line
        del state.tokens[count:]
    return found


class _Parser(MarkdownIt):
    """CommonMark with tables, strikethrough and dollar math, that leaves addresses alone."""

    def __init__(self) -> None:
        super().__init__("commonmark")
        self.enable(["table", "strikethrough"])
        # Without the joining, an escaped character stays a token of its own.
        self.disable("text_join")
        dollarmath_plugin(self, allow_labels=False, allow_space=False, double_inline=True)
        # "$$" ends a paragraph, as on GitHub; the plugin alone would ask for a blank line.
        options = {"alt": ["paragraph", "reference", "blockquote", "table"]}
        self.block.ruler.at("math_block", display_math, options)

    def normalizeLink(self, url: str) -> str:
        """Return the address as the author wrote it: the site rewrites and checks it."""
        return url


_PARSER: Final = _Parser()


class _Block(NamedTuple):
    """One block of output; a tight one can follow a line of text without a blank line."""

    text: str
    kind: str = ""
    tight: bool = False


def to_python_markdown(text: str, *, language: str) -> str:
    """Return the prose in the spelling that Python-Markdown reads as CommonMark would.

    Values must already stand in the text: every `{` is protected from `attr_list`, except in the
    `{ #slug }` that ends a heading. HTML other than `<details>` is left as it is, unprotected.

    Args:
        text: portable Markdown: CommonMark, tables, `$math$`, `<details>` and GitHub's alerts.
        language: code of the page's language, `pl` or `en`, for the titles of alerts.

    Raises:
        KeyError: there are no titles of alerts in this language.

    Source: https://spec.commonmark.org/0.31.2/
    """
    return _join(_blocks(_PARSER.parse(text), language)) + "\n"


def _join(blocks: Sequence[_Block]) -> str:
    return "\n\n".join(block.text for block in blocks)


def _indent(text: str, prefix: str = "    ") -> str:
    """Put the prefix before every line, without trailing spaces on empty ones."""
    return "\n".join((prefix + line) if line else prefix.rstrip() for line in text.split("\n"))


def _end(tokens: Sequence[Token], start: int) -> int:
    """Index of the token that closes the one at `start`."""
    depth = 0
    for index in range(start, len(tokens)):
        depth += tokens[index].nesting
        if depth == 0:
            return index
    raise AssertionError(f"{tokens[start].type} is never closed")


def _blocks(tokens: Sequence[Token], language: str) -> list[_Block]:
    """Write sibling blocks; a foldable section takes the blocks up to its closing tag."""
    levels: list[list[_Block]] = [[]]
    headers: list[str] = []

    def close() -> None:
        content = _indent(_join(levels.pop()))
        levels[-1].append(_Block(f"{headers.pop()}\n\n{content}"))

    index = 0
    previous = ""
    while index < len(tokens):
        token, end = tokens[index], _end(tokens, index)
        if token.type == previous and previous.endswith("list_open"):
            levels[-1].append(_Block("<!-- -->"))  # or the two lists would become one
        for part in _FOLD.split(token.content) if token.type == "html_block" else [None]:
            if part is None:
                levels[-1].append(_block(token, tokens[index + 1 : end], language))
            elif part.startswith("<details"):
                headers.append(_fold(part))
                levels.append([])
            elif part == "</details>" and headers:
                close()
            elif part.strip():
                levels[-1].append(_Block(_raw(part)))
        previous = token.type
        index = end + 1
    while headers:  # never closed: it reaches to the end, as in a browser
        close()
    return levels[0]


def _fold(header: str) -> str:
    """Write `<details><summary>` as the block of pymdownx that works at any depth."""
    attributes, _, summary = header.partition(">")
    mark = "???+" if re.search(r"\bopen\b", attributes) else "???"
    title = summary.partition("<summary>")[2].removesuffix("</summary>")
    return f'{mark} "{_raw(" ".join(title.split()))}"'


def _raw(html: str) -> str:
    """Protect the text between tags and entities: CommonMark reads no Markdown there."""
    parts = re.split(r"(<!--.*?-->|</?[a-zA-Z][^>]*>|&#?\w+;)", html.strip(), flags=re.DOTALL)
    parts[::2] = [_plain(part) for part in parts[::2]]
    return _at_line_start("".join(parts))


def _block(token: Token, inner: Sequence[Token], language: str) -> _Block:
    """Write one block, given the tokens inside it."""
    match token.type:
        case "paragraph_open":
            return _Block(_at_line_start(_inline(inner[0].children or [])), "paragraph", True)
        case "heading_open":
            return _Block(_heading(token, inner[0]))
        case "bullet_list_open" | "ordered_list_open":
            return _list(token, inner, language)
        case "blockquote_open":
            return _Block(_quote(inner, language))
        case "table_open":
            return _Block(_table(inner))
        case "fence" | "code_block":
            return _Block(_fence(token), "fence", True)
        case "math_block":
            lines = [line for line in _math(token.content).split("\n") if line.strip()]
            return _Block("\n".join(["$$", *lines, "$$"]))
        case "hr":
            return _Block("***")
        case _:
            return _Block(token.content.rstrip("\n"))


def _heading(token: Token, inline: Token) -> str:
    """Write a heading on one line, keeping the `{ #slug }` that the caller added."""
    children = list(inline.children or [])
    slug = ""
    if children and children[-1].type == "text" and (match := _SLUG.search(children[-1].content)):
        slug = " " + match[0].strip()
        children[-1].content = children[-1].content[: match.start()]
    title = re.sub(r" *\n", " ", _inline(children).replace("  \n", "<br>"))
    title = re.sub(r"(?<!\\)#(?=#*$)", r"\\#", title)
    return f"{token.markup if token.markup[0] == '#' else '#' * int(token.tag[1])} {title}{slug}"


def _list(token: Token, inner: Sequence[Token], language: str) -> _Block:
    """Write a list with four-column indents, without blank lines if CommonMark has it tight."""
    items: list[list[_Block]] = []
    tight = True
    index = 0
    while index < len(inner):
        end = _end(inner, index)
        content = inner[index + 1 : end]
        items.append(_blocks(content, language))
        level = inner[index].level + 1
        tight &= all(t.hidden for t in content if t.type == "paragraph_open" and t.level == level)
        tight &= all(block.tight for block in items[-1])
        tight &= not any(block.kind == "list" for block in items[-1][:-1])
        index = end + 1
    first = int(token.attrs.get("start", 1)) if token.type == "ordered_list_open" else None
    gap = "\n" if tight else "\n\n"
    lines = [
        _item("* " if first is None else f"{first + position}. ", blocks, gap)
        for position, blocks in enumerate(items)
    ]
    return _Block(gap.join(lines), "list", tight)


def _item(marker: str, blocks: Sequence[_Block], gap: str) -> str:
    """Write one item; only text can stand beside the marker, other blocks go below it."""
    if not blocks:
        return marker + "<!-- -->"
    content = _indent(gap.join(block.text for block in blocks))
    return marker + (content.lstrip() if blocks[0].kind == "paragraph" else gap + content)


def _quote(inner: Sequence[Token], language: str) -> str:
    """Write a quotation, or an alert with its title in the language of the page."""
    title = ""
    rest = list(inner)
    if len(inner) > 1 and inner[0].type == "paragraph_open":
        first = inner[1]
        if match := _ALERT.match(first.content):
            kind, titles = _ALERTS[match[1].upper()]
            title = f"[!{kind}] {titles[language]}"
            children = first.children or []
            breaks = [i for i, t in enumerate(children) if t.type in ("softbreak", "hardbreak")]
            first.children = children[breaks[0] + 1 :] if breaks else []
            rest = list(inner) if breaks else list(inner[3:])
    content = _join(_blocks(rest, language))
    return _indent("\n\n".join(part for part in (title, content) if part), "> ")


def _table(inner: Sequence[Token]) -> str:
    """Write a table with a pipe at both ends of each row."""
    rows: list[list[str]] = []
    rule: list[str] = []
    for index, token in enumerate(inner):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(_inline(token.children or [], cell=True))
            if len(rows) == 1:
                style = str(inner[index - 1].attrs.get("style", ""))
                rule.append(_RULES[style.rpartition(":")[2]])
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def _fence(token: Token) -> str:
    """Write code between backticks; of the info string, keep what the site understands."""
    language, _, rest = token.info.strip().partition(" ")
    language = language if re.fullmatch(r"[\w#.+-]+", language) else ""
    options = [f'{key}="{a or b}"' for key, a, b in _FENCE_OPTION.findall(rest)]
    info = f" {{ .{language or 'text'} {' '.join(options)} }}" if options else language
    longest = max((len(run) for run in re.findall("`+", token.content)), default=0)
    ticks = "`" * max(3, longest + 1)
    # Of blank lines at the end Python-Markdown loses one, so one more is written.
    lines = token.content.removesuffix("\n") + "\n" * token.content.endswith("\n\n")
    return f"{ticks}{info}\n{lines}\n{ticks}"


def _plain(text: str) -> str:
    """Protect the characters of plain text that Python-Markdown would act on."""
    return _ACTIVE.sub(lambda match: _protect(match[0]), text)


def _protect(character: str) -> str:
    return f"\\{character}" if character in _PROTECTED else f"&#{ord(character)};"


def _at_line_start(text: str) -> str:
    """Protect what would start a block where CommonMark has only the next line of a paragraph."""
    return _LINE_START.sub(lambda m: f"{m[1]}\\." if m[1] else _protect(m[0]), text)


def _math(content: str) -> str:
    # TeX ignores the space; without it "<p" would be the start of a tag.
    return re.sub(r"<(?=[a-zA-Z/!?])", "< ", content)


def _inline_math(token: Token, *, cell: bool) -> str:
    """Write math within text on one line, and without the pipes that would split a cell."""
    tex = _math(" ".join(token.content.split()))
    if cell:
        tex = re.sub(r"\\?\|(?=([a-zA-Z])?)", _pipe, tex)
    return f"${tex}$" if token.type == "math_inline" else f"$\\displaystyle {tex}$"


def _pipe(match: re.Match[str]) -> str:
    return ("\\Vert" if len(match[0]) == 2 else "\\vert") + (" " if match[1] else "")


def _code(content: str) -> str:
    """Write a code span; as HTML where Python-Markdown would alter its content."""
    if re.search(r"^\s|\s$|<[a-zA-Z/!?]|^(?:#!|:::)", content) or not content:
        protected = re.sub(r"[^\w]", lambda match: f"&#{ord(match[0])};", content)
        return f"<code>{protected}</code>"
    runs = {len(run) for run in re.findall("`+", content)}
    ticks = "`" * next(n for n in range(1, len(runs) + 2) if n not in runs)
    pad = " " if content[0] == "`" or content[-1] == "`" else ""
    return ticks + pad + content + pad + ticks


def _target(token: Token, key: str) -> str:
    """Write the part of a link or an image that is in parentheses."""
    address = re.sub(r"[\\`$]", lambda match: f"\\{match[0]}", str(token.attrs[key]))
    address = address.replace("<", "%3C").replace(">", "%3E")
    if not address or re.search(r"[\s()]", address):
        address = f"<{address}>"
    if not (title := str(token.attrs.get("title", ""))):
        return f"({address})"
    title = _plain(" ".join(title.split())).replace('"', "&quot;")
    return f'({address} "{title}")'


def _alt(tokens: Sequence[Token]) -> str:
    """Write an image's alternative text, which has no markup in either dialect."""
    parts = [_alt(t.children or []) if t.type == "image" else t.content or " " for t in tokens]
    text = "".join(part for part, t in zip(parts, tokens, strict=True) if t.nesting == 0)
    return re.sub(r"(?<!\\)[\[\]]", lambda match: f"\\{match[0]}", _plain(text))


def _inline(tokens: Sequence[Token], *, cell: bool = False) -> str:
    """Write the text of a block, changing only what Python-Markdown would read differently."""
    parts: list[str] = []
    links: list[Token] = []
    emphasis: list[str] = []
    visible = [token for token in tokens if token.type != "text" or token.content]
    for index, token in enumerate(visible):
        match token.type:
            case "text":
                parts.append(_plain(token.content))
            case "text_special" if token.info == "escape":
                special = token.content
                parts.append(_protect(special) if len(special) == 1 else _plain(special))
            case "text_special":
                parts.append(token.markup)
            case "softbreak":
                parts.append("\n")
            case "hardbreak":
                parts.append("  \n")
            case "code_inline":
                parts.append(_code(token.content))
            case "math_inline" | "math_inline_double":
                parts.append(_inline_math(token, cell=cell))
            case "em_open":
                # Of "***", Python-Markdown would make strong around em.
                double = visible[index + 1].type == "strong_open"
                parts.append("<em>" if double else token.markup)
                emphasis.append("</em>" if double else token.markup)
            case "em_close":
                parts.append(emphasis.pop())
            case "image":
                parts.append(f"![{_alt(token.children or [])}]{_target(token, 'src')}")
            case "link_open":
                links.append(token)
                parts.append("[")
            case "link_close":
                parts.append("]" + _target(links.pop(), "href"))
            case _:
                parts.append(token.markup or token.content)
    return "".join(parts)
