"""Printed text as inert HTML: everything escaped, colours of a terminal as classes."""

import html
import re

_COLOUR = re.compile(r"\x1b\[([0-9;]*)m")
# What Markdown's block parser would act on even inside <pre>: fences and tabs.
_MARKDOWN = str.maketrans({"`": "&#96;", "~": "&#126;", "\t": "&#9;"})
_BLANK = re.compile(r"^ +$", re.M)
_STYLES = {1: "ansi-b", 3: "ansi-i", 4: "ansi-u"}
_BASIC, _BRIGHT = range(30, 38), range(90, 98)


def to_html(text: str) -> str:
    """Escape a text and turn its colour sequences (`ESC [ 31 m`) into `<span class="ansi-fg1">`.

    256-colour sequences use the sixteen named colours and ignore the others: pages are read
    in light and in dark, where only named colours have two values.
    """
    result: list[str] = []
    active: dict[str, str] = {}
    position = 0
    for match in _COLOUR.finditer(text):
        result.append(_span(text[position : match.start()], active))
        _apply(match[1], active)
        position = match.end()
    result.append(_span(text[position:], active))
    return "".join(result)


def inert(markup: str) -> str:
    """HTML of a text, without what Markdown would act on."""
    markup = markup.translate(_MARKDOWN)
    # A line of nothing but spaces would be emptied.
    return _BLANK.sub(lambda spaces: "&#32;" * len(spaces[0]), markup)


def _span(text: str, active: dict[str, str]) -> str:
    if not text:
        return ""
    escaped = inert(html.escape(text, quote=False))
    classes = " ".join(active.values())
    return f'<span class="{classes}">{escaped}</span>' if classes else escaped


def _apply(codes: str, active: dict[str, str]) -> None:
    numbers = [int(code or 0) for code in codes.split(";")]
    while numbers:
        code = numbers.pop(0)
        if code == 0:
            active.clear()
        elif code in _STYLES:
            active[str(code)] = _STYLES[code]
        elif code in (38, 48):
            kind = numbers.pop(0) if numbers else 0
            extended = [numbers.pop(0) for _ in range(min(1 if kind == 5 else 3, len(numbers)))]
            if code == 38 and kind == 5 and extended and extended[0] < 16:
                active["colour"] = f"ansi-fg{extended[0]}"
        elif code in _BASIC or code in _BRIGHT:
            offset = code - 30 if code in _BASIC else code - 90 + 8
            active["colour"] = f"ansi-fg{offset}"
        elif code == 39:
            active.pop("colour", None)
        elif code in (22, 23, 24):
            active.pop({22: "1", 23: "3", 24: "4"}[code], None)
