"""Colours of a figure on a light and on a dark page, as a style sheet inside of its SVG.

Material sets `color-scheme` with its toggle, and an SVG in <img> resolves this query against the
element that embeds it, so one file follows the toggle. Matplotlib writes colours into style
attributes and leaves black out.
"""

import re
from collections.abc import Iterator

# Grounds of the page, and its text on the dark one.
LIGHT_PAGE, DARK_PAGE, _DARK_TEXT = "#ffffff", "#1e2129", "#e2e4e9"
# What WCAG asks of text.
_READABLE = 4.5
# Channels of a grey differ by no more than this.
_GREY = 24
# Greys outside of this luminance are ink or paper: text on a coloured cell, not on the page.
_INK, _PAPER = 0.05, 0.7

_COLOUR = re.compile(r"(fill|stroke): ?(#[0-9a-f]{6})")


def style(svg: str) -> str:
    """The style sheet for the colours that this figure has."""
    found = sorted(set(_COLOUR.findall(svg)))
    dark = [f"svg{{fill:{_DARK_TEXT}}}", *_strokes(found), *_fills(found)]
    dark += _texts(found, DARK_PAGE)
    rules = {"light": "".join(_texts(found, LIGHT_PAGE)), "dark": "".join(dark)}
    parts = (f"@media (prefers-color-scheme:{k}){{{v}}}" for k, v in rules.items() if v)
    return f"<style>{''.join(parts)}</style>"


def luminance(colour: str) -> float:
    """Relative luminance, from 0 to 1."""
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(c * weight for c, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, from 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _strokes(found: list[tuple[str, str]]) -> Iterator[str]:
    """Grey lines, such as axes and grids, stand out from the dark page as they do from white."""
    for kind, colour in found:
        if kind == "stroke" and _is_grey(colour):
            wanted = contrast(colour, LIGHT_PAGE) * (luminance(DARK_PAGE) + 0.05) - 0.05
            other = min(_grey(wanted), _DARK_TEXT, key=luminance)
            other = max(other, DARK_PAGE, key=luminance)
            yield f"[style*='stroke: {colour}']{{stroke:{other}!important}}"


def _fills(found: list[tuple[str, str]]) -> Iterator[str]:
    """White areas are holes in what is below them. Text may be white on a colour."""
    if ("fill", "#ffffff") in found:
        yield f"[style*='fill: #ffffff']{{fill:{DARK_PAGE}!important}}"
        yield "g[id^=text_] [style*='fill: #ffffff']{fill:#fff!important}"


def _texts(found: list[tuple[str, str]], page: str) -> Iterator[str]:
    """Coloured text has to be read, so it needs more contrast than a line of that colour."""
    for kind, colour in found:
        if kind != "fill" or contrast(colour, page) >= _READABLE:
            continue
        if _is_grey(colour) and not _INK < luminance(colour) < _PAPER:
            continue
        shade = _readable(colour, page)
        yield f"g[id^=text_] [style*='fill: {colour}']{{fill:{shade}!important}}"


def _is_grey(colour: str) -> bool:
    channels = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return max(channels) - min(channels) <= _GREY


def _grey(wanted: float) -> str:
    """The grey of this luminance."""
    linear = min(max(wanted, 0.0), 1.0)
    level = linear * 12.92 if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return "#" + f"{round(level * 255):02x}" * 3


def _readable(colour: str, page: str) -> str:
    """The colour with so much black or white that it can be read on the page."""
    end = 255 if luminance(page) < 0.5 else 0
    channels = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    for step in range(1, 21):
        mixed = (round(channel + (end - channel) * step / 20) for channel in channels)
        shade = "#" + "".join(f"{channel:02x}" for channel in mixed)
        if contrast(shade, page) >= _READABLE:
            return shade
    return shade
