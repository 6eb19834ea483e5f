"""How the page's language writes numbers and breaks lines; code is left alone."""

import re
from collections.abc import Iterator
from functools import lru_cache

from blackbelt.prose_facts import VALUE, parser
from blackbelt.results import Value

NBSP, NARROW_NBSP, MINUS = "\u00a0", "\u202f", "\u2212"

# Code spans, formulas, addresses in angle brackets, tags, and the address part of a link.
_VERBATIM = re.compile(
    r"(?<!`)(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)"
    r"|\$\$.*?\$\$|(?<![\w\\$])\$(?!\s)[^$\n]+?(?<!\s)\$(?!\w)"
    r"|<[a-z/][^>]*>|\]\([^)\n]*\)",
    re.S,
)
_BLOCKS = ("fence", "code_block", "math_block")
# A one-letter word does not stay at the end of a line.
_LONELY = re.compile(r"(?<![\w’'\ue201])([aiouwzAIOUWZ]) (?=[^\s|])")
_LONELY_END = re.compile(r"(?<![\w’'])[aiouwzAIOUWZ]$")
# A line that only continues its paragraph.
_PLAIN = re.compile(r"[^>$\s]")
# What stands for a verbatim piece while the text around it is set.
_MASK = re.compile(r"\ue200(\d+)\ue201")
# A number does not part from its unit.
_UNIT = re.compile(r"(?<=\d) (?=(?:k|M|G|Ki|Mi|Gi)?B\b|(?:n|µ|m)?s\b|%|px\b|GFLOP|FLOP)")
_NUMBER = re.compile(
    r"^(?P<sign>[-+]?)(?P<whole>\d[\d,_]*)(?:\.(?P<rest>\d+))?(?:e(?P<exp>[-+]?\d+))?(?P<tail>%?)$"
)
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_ACTIVE = re.compile(r"([\\`*_\[\]<>|$])")


@lru_cache(maxsize=4096)  # after a save, all cells but one are as they were
def pieces(text: str) -> tuple[tuple[bool, str], ...]:
    """Split prose into (is verbatim, text). Blocks of code and formulas are pieces of their own."""
    return tuple(_pieces(text))


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    lines = text.split("\n")
    blocks = [t.map for t in parser().parse(text) if t.type in _BLOCKS and t.map]
    start = 0
    for first, end in [*sorted(blocks), [len(lines), len(lines)]]:
        between = "\n".join(lines[start:first])
        if start < first < len(lines):
            between += "\n"
        yield from _inline_pieces(between)
        if first < len(lines):
            block = "\n".join(lines[first:end])
            yield True, block + ("\n" if end < len(lines) else "")
        start = end


def _inline_pieces(text: str) -> Iterator[tuple[bool, str]]:
    position = 0
    for match in _VERBATIM.finditer(text):
        if match.start() > position:
            yield False, text[position : match.start()]
        yield True, match[0]
        position = match.end()
    if position < len(text):
        yield False, text[position:]


@lru_cache(maxsize=4096)  # after a save, all cells but one are as they were
def set_type(text: str, language: str) -> str:
    """Put in the no-break spaces that the language wants, outside of code and formulas."""
    if language == "pl":
        text = _join_lonely(text)
    kept: list[str] = []
    masked = ""
    for verbatim, part in pieces(text):
        if verbatim:
            masked += f"\ue200{len(kept)}\ue201"
            kept.append(part)
        else:
            masked += part
    masked = _UNIT.sub(NBSP, masked)
    if language == "pl":
        # Twice, because two such words may follow each other: "a w pamięci".
        masked = _LONELY.sub(rf"\1{NBSP}", _LONELY.sub(rf"\1{NBSP}", masked))
    return _MASK.sub(lambda mask: kept[int(mask[1])], masked)


def _join_lonely(text: str) -> str:
    """Where a line of a paragraph ends with a one-letter word, take the next one up to it."""
    lines = text.split("\n")
    inside = {
        number
        for token in parser().parse(text)
        if token.type == "paragraph_open" and token.map
        for number in range(token.map[0], token.map[1] - 1)
    }
    for number in sorted(inside, reverse=True):
        following = lines[number + 1].lstrip()
        in_code = lines[number].count("`") % 2
        if _LONELY_END.search(lines[number]) and not in_code and _PLAIN.match(following):
            lines[number] += f" {following}"
            del lines[number + 1]
    return "\n".join(lines)


def fill(text: str, values: dict[str, Value], language: str) -> str:
    """Put values of the run in place of `{{ name }}`; in code spans as Python prints them.

    Raises:
        KeyError: a name without a value.
        ValueError: a format specification that does not fit the value.
    """

    def value(match: re.Match[str], *, in_code: bool) -> str:
        found, spec = values[match["name"]], match["spec"] or ""
        return format(found, spec) if in_code else write_value(found, spec, language)

    filled = []
    for verbatim, part in pieces(text):
        if verbatim and _is_code_block(part):
            filled.append(part)
        else:
            code = verbatim and part.startswith("`")
            filled.append(VALUE.sub(lambda match, code=code: value(match, in_code=code), part))  # type: ignore[misc]
    return "".join(filled)


def _is_code_block(part: str) -> bool:
    return part.lstrip().startswith(("```", "~~~")) or part.startswith("    ")


def write_value(value: Value, spec: str, language: str) -> str:
    """Write a value as prose of this language does.

    Args:
        value: what a cell assigned.
        spec: Python's format specification, or nothing.
        language: `pl` writes a decimal comma and spaces between thousands.
    """
    if isinstance(value, str):
        return _ACTIVE.sub(r"\\\1", format(value, spec))
    if isinstance(value, bool):
        return str(value)
    text = format(value, spec or ("d" if isinstance(value, int) else ".4g"))
    return write_number(text, language)


def write_number(text: str, language: str) -> str:
    """Translate a number as Python formats it; any other text stays as it is."""
    found = _NUMBER.match(text)
    if not found:
        return text
    whole = found["whole"].replace(",", "").replace("_", "")
    separator, point = (NARROW_NBSP, ",") if language == "pl" else (",", ".")
    if len(whole) > 4:
        whole = f"{int(whole):,}".replace(",", separator)
    sign = MINUS if found["sign"] == "-" else found["sign"]
    number = sign + whole + (point + found["rest"] if found["rest"] else "")
    if found["exp"]:
        number += f"{NBSP}·{NBSP}10{str(int(found['exp'])).translate(_SUPERSCRIPT)}"
    return number + found["tail"]
