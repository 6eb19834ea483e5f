"""How the page's language writes numbers and breaks lines; code is left alone."""

import re
from collections.abc import Iterator

from blackbelt.prose_facts import VALUE
from blackbelt.results import Value

NBSP, NARROW_NBSP, MINUS = "\u00a0", "\u202f", "\u2212"

# Fenced blocks, code spans, formulas, tags, and the address part of a link.
_VERBATIM = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)|\Z)"
    r"|(?<!`)(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)"
    r"|\$\$.*?\$\$|(?<![\w\\$])\$(?!\s)[^$\n]+?(?<!\s)\$(?!\w)"
    r"|</?[a-z][^>]*>|\]\([^)\s]*\)",
    re.S | re.M,
)
# A one-letter word does not stay at the end of a line.
_LONELY = re.compile(r"(?<![\w’'])([aiouwzAIOUWZ])[ \n](?=[^\s\-*+>#|])")
# A number does not part from its unit.
_UNIT = re.compile(r"(?<=\d) (?=(?:k|M|G|Ki|Mi|Gi)?B\b|(?:n|µ|m)?s\b|%|px\b|GFLOP|FLOP)")
_NUMBER = re.compile(
    r"^(?P<sign>[-+]?)(?P<whole>\d[\d,_]*)(?:\.(?P<rest>\d+))?(?:e(?P<exp>[-+]?\d+))?(?P<tail>%?)$"
)
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_ACTIVE = re.compile(r"([\\`*_\[\]<>|$])")


def pieces(text: str) -> Iterator[tuple[bool, str]]:
    """Split prose into (is verbatim, text)."""
    position = 0
    for match in _VERBATIM.finditer(text):
        if match.start() > position:
            yield False, text[position : match.start()]
        yield True, match[0]
        position = match.end()
    if position < len(text):
        yield False, text[position:]


def set_type(text: str, language: str) -> str:
    """Put in the no-break spaces that the language wants, outside of code and formulas."""
    return "".join(part if verbatim else _space(part, language) for verbatim, part in pieces(text))


def _space(text: str, language: str) -> str:
    text = _UNIT.sub(NBSP, text)
    if language == "pl":
        # Twice, because two such words may follow each other: "a w pamięci".
        text = _LONELY.sub(rf"\1{NBSP}", _LONELY.sub(rf"\1{NBSP}", text))
    return text


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
        if verbatim and part.lstrip().startswith(("```", "~~~")):
            filled.append(part)
        else:
            code = verbatim and part.startswith("`")
            filled.append(VALUE.sub(lambda match, code=code: value(match, in_code=code), part))  # type: ignore[misc]
    return "".join(filled)


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
