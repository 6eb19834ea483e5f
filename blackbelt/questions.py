"""A pair of prose becomes a question: its text, then one list of options with their reasons."""

import re
from dataclasses import dataclass

from markdown_it.tree import SyntaxTreeNode

from blackbelt.lesson import Cell, Choice, Prose, Question, Wording
from blackbelt.problems import Problem
from blackbelt.prose_facts import parser

_MARK = re.compile(r"^\[(?P<mark>[ xX])\](?:[ \n]+|$)")
_BULLET = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")
# How many options each kind has; two steps to put in order would give the answer away.
_COUNTS = {"one": (2, 5), "many": (2, 5), "type": (1, 8), "order": (3, 8)}
_GRAMMAR = "; the grammar of questions is in lessons/README.md"


class _QuestionError(ValueError):
    """A cell is not as the grammar wants it; `line` counts the lines of the cell from 0."""

    def __init__(self, line: int, what: str) -> None:
        self.line = line
        super().__init__(what)


@dataclass(frozen=True)
class _Item:
    """An option as it was read, and the line of the cell in which it begins."""

    choice: Choice
    line: int


def read_question(name: str, pair: Prose, path: str, problems: list[Problem]) -> Question | None:
    """Read a question.

    Args:
        name: its id.
        pair: the cells that hold it.
        path: the path that errors name.
        problems: where problems are added.

    Returns:
        The question, or nothing if it has problems.
    """
    kinds = [cell.options.kind or "one" for cell in (pair.pl, pair.en)]
    if kinds[0] != kinds[1]:
        what = f"the twins of question `{name}` differ in kind: {kinds[0]} and {kinds[1]}"
        problems.append(Problem(path, pair.en.line, what))
        return None
    wordings: list[Wording] = []
    for cell in (pair.pl, pair.en):
        try:
            wordings.append(_wording(cell, kinds[0]))
        except _QuestionError as error:
            problems.append(Problem(path, cell.first + error.line, f"question `{name}`: {error}"))
    if len(wordings) < 2:
        return None
    pl, en = wordings
    if difference := _difference(pl, en):
        what = f"the twins of question `{name}` differ in {difference}"
        problems.append(Problem(path, pair.en.line, what))
        return None
    return Question(name, kinds[0], pair, pl, en)


def _difference(pl: Wording, en: Wording) -> str:
    if len(pl.choices) != len(en.choices):
        return f"the number of options: {len(pl.choices)} and {len(en.choices)}"
    right = [
        ", ".join(str(n) for n, choice in enumerate(wording.choices, start=1) if choice.right)
        for wording in (pl, en)
    ]
    return "" if right[0] == right[1] else f"which option is right: {right[0]} and {right[1]}"


def _wording(cell: Cell, kind: str) -> Wording:
    environment: dict[str, object] = {}
    blocks = SyntaxTreeNode(parser().parse(cell.source, environment)).children
    if environment.get("references"):
        raise _QuestionError(0, "write addresses where the links are, as in `[text](https://…)`")
    for block in blocks:
        if block.type == "heading":
            what = "a heading; it stands in the prose before the question"
            raise _QuestionError(_line(block), what)
    answers = _list(blocks, kind)
    lines = cell.source.split("\n")
    text = "\n".join(lines[: _line(answers)]).strip()
    if not text:
        raise _QuestionError(0, f"the text of the question has to stand before its list{_GRAMMAR}")
    items = [_item(node, lines, kind) for node in answers.children]
    _count(_line(answers), items, kind)
    _repeated(items)
    return Wording(text, tuple(item.choice for item in items))


def _list(blocks: list[SyntaxTreeNode], kind: str) -> SyntaxTreeNode:
    """The list of options: the last block of the cell, and the only such list."""
    wanted = "ordered_list" if kind == "order" else "bullet_list"
    form = "an ordered list, `1. …`" if kind == "order" else "a task list, `- [ ] …`"
    found = [n for n, block in enumerate(blocks) if block.type == wanted and _looks(block, kind)]
    if not found:
        what = f'a question of kind="{kind}" ends with {form}; there is none{_GRAMMAR}'
        raise _QuestionError(0, what)
    if len(found) > 1:
        raise _QuestionError(_line(blocks[found[1]]), "a second list of options; there is one")
    if found[0] + 1 < len(blocks):
        what = "text after the list of options; a reason is indented below its option"
        raise _QuestionError(_line(blocks[found[0] + 1]), what)
    return blocks[found[0]]


def _looks(block: SyntaxTreeNode, kind: str) -> bool:
    return kind == "order" or any(_MARK.match(_first_text(item)) for item in block.children)


def _first_text(item: SyntaxTreeNode) -> str:
    first = item.children[0] if item.children else None
    return first.children[0].content if first and first.type == "paragraph" else ""


def _item(node: SyntaxTreeNode, lines: list[str], kind: str) -> _Item:
    start, end = node.map or (0, 0)
    text = _first_text(node)
    mark = _MARK.match(text)
    if kind == "order" and mark:
        raise _QuestionError(start, 'an option of kind="order" has no `[x]`: all of them are right')
    if kind != "order" and not mark:
        raise _QuestionError(start, f"an option begins with `[ ]` or `[x]`{_GRAMMAR}")
    text = text[mark.end() :] if mark else text
    if [block.type for block in SyntaxTreeNode(parser().parse(text)).children] != ["paragraph"]:
        what = f"the text of an option is a line of prose, not `{text}`{_GRAMMAR}"
        raise _QuestionError(start, what)
    below = (node.children[0].map or (0, start + 1))[1]
    bullet = _BULLET.match(lines[start])
    width = len(bullet[0]) if bullet else 0
    reason = "\n".join(_outdent(line, width) for line in lines[below:end]).strip("\n")
    if not reason.strip():
        what = f"the option `{text}` has no reason; write it as a paragraph of its own, indented"
        raise _QuestionError(start, what)
    return _Item(Choice(text, reason.rstrip(), not mark or mark["mark"] != " "), start)


def _outdent(line: str, width: int) -> str:
    return line[min(width, len(line) - len(line.lstrip())) :]


def _count(line: int, items: list[_Item], kind: str) -> None:
    low, high = _COUNTS[kind]
    if not low <= len(items) <= high:
        what = f'{len(items)} options; a question of kind="{kind}" has {low} to {high}'
        raise _QuestionError(line, what)
    right = [item for item in items if item.choice.right]
    if not right:
        raise _QuestionError(line, "no option is right; mark it with `[x]`")
    if kind == "one" and len(right) > 1:
        what = "a second right option; exactly one has `[x]`"
        raise _QuestionError(right[1].line, what)


def _repeated(items: list[_Item]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.choice.text in seen:
            raise _QuestionError(item.line, f"the option `{item.choice.text}` is there twice")
        seen.add(item.choice.text)


def _line(node: SyntaxTreeNode) -> int:
    return node.map[0] if node.map else 0
