"""Cards: the picture of a page that other sites show beside a link to it, 1200 × 630 pixels."""

import contextlib
import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

import PIL
from PIL import Image, ImageDraw, ImageFont

from blackbelt.config import Project
from blackbelt.files import write_whole
from blackbelt.vendor import POLISH

WIDTH, HEIGHT = 1200, 630
_INK, _PAPER, _EMBER = "#16181d", "#ffffff", "#ff7a52"
_MUTED, _CELL, _LINE = "#a3a9b6", "#22252c", "#3a3f4b"
_MARGIN = 72
# The largest size in which the title has at most three lines is taken.
_TITLE_SIZES = (76, 68, 60, 52, 46)
_TITLE_LINES = 3
# A few shades of four colours; the file is a third of what it would be with all.
_COLOURS = 48
_LONELY = re.compile(r"(?<!\S)(\w) ")


@dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes:
        above: in small letters above the title: where the page belongs.
        title: of the page.
        below: in small letters at the bottom.
    """

    above: str
    title: str
    below: str


def card(project: Project, wanted: Card) -> bytes:
    """A card as PNG; drawing one takes 0.05 s, so it is kept in `.cache/cards/`."""
    parts = (_recipe(project.docs), *astuple(wanted))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    file = project.cache / "cards" / f"{key}.png"
    with contextlib.suppress(OSError):
        data = file.read_bytes()
        if data.endswith(b"IEND\xaeB`\x82"):
            return data
    data = _draw(wanted, _Fonts(project.docs))
    # A full disk or a read-only checkout must not keep anybody from building.
    with contextlib.suppress(OSError):
        write_whole(file, data)
    return data


@cache
def _recipe(docs: Path) -> str:
    """Hash of all that a card is drawn with."""
    sources = (Path(__file__), *_files(docs))
    parts = [PIL.__version__.encode(), *(source.read_bytes() for source in sources)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _files(docs: Path) -> tuple[Path, Path]:
    """The site's own fonts: one has the Polish letters that the other lacks."""
    folder = docs / "assets" / "fonts"
    return folder / "roboto-latin.woff2", folder / "roboto-polish.woff2"


class _Fonts:
    """Writes with two files as with one font."""

    def __init__(self, docs: Path) -> None:
        self._latin, self._polish = _files(docs)

    def write(
        self, draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, look: "_Look"
    ) -> None:
        x, baseline = at
        for part, font in self._parts(text, look):
            draw.text((x, baseline), part, font=font, fill=look.colour, anchor="ls")
            x += font.getlength(part)

    def width(self, text: str, look: "_Look") -> float:
        return sum(font.getlength(part) for part, font in self._parts(text, look))

    def _parts(self, text: str, look: "_Look") -> Iterable[tuple[str, ImageFont.FreeTypeFont]]:
        start = 0
        for end in range(1, len(text) + 1):
            if end == len(text) or (text[end] in POLISH) != (text[start] in POLISH):
                file = self._polish if text[start] in POLISH else self._latin
                yield text[start:end], _font(file, look.size, look.weight)
                start = end


@dataclass(frozen=True)
class _Look:
    size: int
    weight: int
    colour: str


@cache
def _font(file: Path, size: int, weight: int) -> ImageFont.FreeTypeFont:
    # Basic layout: the other one depends on a library of the system.
    font = ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)
    font.set_variation_by_axes([weight])
    return font


def _draw(wanted: Card, fonts: _Fonts) -> bytes:
    image = Image.new("RGB", (WIDTH, HEIGHT), _INK)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, WIDTH, 10), fill=_EMBER)
    fonts.write(draw, (_MARGIN, 118), wanted.above, _Look(30, 500, _EMBER))
    look, lines = _fit(wanted.title, fonts)
    for number, line in enumerate(lines):
        fonts.write(draw, (_MARGIN, 210 + number * look.size * 1.2), line, look)
    _strip(draw)
    fonts.write(draw, (_MARGIN, HEIGHT - 52), wanted.below, _Look(30, 500, _PAPER))
    stream = io.BytesIO()
    image.quantize(_COLOURS, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _strip(draw: ImageDraw.ImageDraw) -> None:
    """Twelve elements of storage and the column that a view takes of them: offset 1, stride 4."""
    side, gap = 78, 10
    for index in range(12):
        x = _MARGIN + index * (side + gap)
        taken = index % 4 == 1
        fill, outline = (_EMBER, _EMBER) if taken else (_CELL, _LINE)
        draw.rounded_rectangle((x, 440, x + side, 440 + side), 10, fill, outline, 2)


def _fit(title: str, fonts: _Fonts) -> tuple[_Look, list[str]]:
    for size in _TITLE_SIZES:
        look = _Look(size, 700, _PAPER)
        lines = _wrap(title, fonts, look)
        if len(lines) <= _TITLE_LINES:
            return look, lines
    last = lines[_TITLE_LINES - 1].rpartition(" ")[0] + " …"
    return look, [*lines[: _TITLE_LINES - 1], last]


def _wrap(text: str, fonts: _Fonts, look: _Look) -> list[str]:
    lines: list[str] = []
    # As in Polish prose, no line ends with a word of one letter.
    for word in _LONELY.sub("\\1\u00a0", text).split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and fonts.width(longer, look) <= WIDTH - 2 * _MARGIN:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
