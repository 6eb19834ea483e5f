"""Figures of a run as files of the site: vector where small, one picture for light and dark."""

import base64
import hashlib
import io
import re
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

from blackbelt.results import Output

# Above this many bytes the vector is slower to load and to draw than a picture.
LARGEST_SVG = 60_000
_DPI = 144
_ROOT = re.compile(r"<svg\b[^>]*>")
_HEIGHT, _WIDTH = re.compile(r'\bheight="([\d.]+)pt"'), re.compile(r'\bwidth="([\d.]+)pt"')

# Material sets `color-scheme` with its toggle, and an SVG in <img> resolves this query against
# the element that embeds it, so one file follows the toggle. Matplotlib writes colours into
# style attributes and leaves black out, hence the selectors: coloured text keeps its colour.
_DARK = (
    "<style>@media (prefers-color-scheme:dark){"
    "g[id^=text_]>g:not([style*='fill:']){fill:#e2e4e9}"
    "[style*='fill: #ffffff']{fill:#1e2129!important}"
    "g[id^=text_] [style*='fill: #ffffff']{fill:#fff!important}"
    "[style*='stroke: #000000']{stroke:#e2e4e9!important}"
    "[style*='stroke: #ffffff']{stroke:#1e2129!important}"
    "}</style>"
)


@dataclass(frozen=True)
class Picture:
    """A file of the site. `width` and `height` are CSS pixels, so that nothing jumps on load."""

    name: str
    data: bytes
    width: int
    height: int


@lru_cache(maxsize=512)  # `serve` renders again on each save, and encoding takes 0.1 s
def picture(output: Output) -> Picture:
    """The file for a figure; its name is the hash of its content."""
    svg = output.svg.encode()
    if svg and len(svg) <= LARGEST_SVG:
        root = _ROOT.search(output.svg)
        assert root, "matplotlib writes an svg element"
        width, height = (_points(pattern, root[0]) for pattern in (_WIDTH, _HEIGHT))
        data = (output.svg[: root.end()] + _DARK + output.svg[root.end() :]).encode()
        return Picture(f"{_hash(data)}.svg", data, width, height)
    width, height = png_size(output.png)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(output.png))) as image:
        # Slower methods took up to 20 s a picture and saved nothing on plots.
        image.convert("RGB").save(buffer, "WEBP", lossless=True, method=2)
    return Picture(f"{_hash(buffer.getvalue())}.webp", buffer.getvalue(), width, height)


def png_size(png: str) -> tuple[int, int]:
    """Width and height in CSS pixels of a base64 PNG that was drawn at 144 dpi."""
    header = base64.b64decode(png[:44])
    width, height = (int.from_bytes(header[i : i + 4], "big") for i in (16, 20))
    return round(width * 96 / _DPI), round(height * 96 / _DPI)


def _points(pattern: re.Pattern[str], root: str) -> int:
    found = pattern.search(root)
    assert found, "matplotlib gives sizes in points"
    return round(float(found[1]) * 4 / 3)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
