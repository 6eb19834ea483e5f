"""Figures of a run as files of the site: vector where small, one picture for light and dark."""

import base64
import hashlib
import io
import re
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

from blackbelt.figure_colours import style
from blackbelt.results import Output

# Above this many bytes of lines and texts a vector is slower to draw than a picture. Cells of a
# heatmap and clouds of points do not count: show_figure makes pictures within the vector of them.
LARGEST_SVG = 120_000
# A larger picture is a photo: it loses what the eye does not see.
_LARGEST_LOSSLESS = 60_000
_PHOTO_QUALITY = 90
_DPI = 144
_ROOT = re.compile(r"<svg\b[^>]*>")
_HEIGHT, _WIDTH = re.compile(r'\bheight="([\d.]+)pt"'), re.compile(r'\bwidth="([\d.]+)pt"')
_EMBEDDED = re.compile(r'"data:image/(\w+);base64,\s*([A-Za-z0-9+/=\s]+)"')


@dataclass(frozen=True)
class Picture:
    """A file of the site. `width` and `height` are CSS pixels, so that nothing jumps on load.

    Attributes:
        follows: it has no ground of its own, and is light or dark as its page is.
    """

    name: str
    data: bytes
    width: int
    height: int
    follows: bool = True


@lru_cache(maxsize=512)  # `serve` renders again on each save, and encoding takes 0.1 s
def picture(output: Output) -> Picture:
    """The file for a figure; its name is the hash of its content."""
    if is_vector(output.svg):
        svg = compact(output.svg)
        root = _ROOT.search(svg)
        assert root, "matplotlib writes an svg element"
        width, height = (_points(pattern, root[0]) for pattern in (_WIDTH, _HEIGHT))
        # Whole pixels, as on the page: with the last tenth of one, the text below would move.
        opening = _WIDTH.sub(f'width="{width}"', _HEIGHT.sub(f'height="{height}"', root[0]))
        data = (svg[: root.start()] + opening + style(svg) + svg[root.end() :]).encode()
        return Picture(f"{_hash(data)}.svg", data, width, height)
    width, height = png_size(output.png)
    with Image.open(io.BytesIO(base64.b64decode(output.png))) as image:
        data = _webp(image.convert("RGB"), lossless=True)
    return Picture(f"{_hash(data)}.webp", data, width, height, follows=False)


def is_vector(svg: str) -> bool:
    """Whether a figure is shown as the vector that it is."""
    return bool(svg) and len(_EMBEDDED.sub("", svg).encode()) <= LARGEST_SVG


@lru_cache(maxsize=512)
def compact(svg: str) -> str:
    """The vector with its pictures as WebP, which has a third of the bytes."""

    def smaller(found: re.Match[str]) -> str:
        if found[1] != "png":
            return found[0]
        with Image.open(io.BytesIO(base64.b64decode(found[2]))) as image:
            rgba = image.convert("RGBA")
        data = _webp(rgba, lossless=True)
        if len(data) > _LARGEST_LOSSLESS:
            data = _webp(rgba, lossless=False)
        return f'"data:image/webp;base64,{base64.b64encode(data).decode()}"'

    return _EMBEDDED.sub(smaller, svg)


def png_size(png: str) -> tuple[int, int]:
    """Width and height in CSS pixels of a base64 PNG that was drawn at 144 dpi."""
    header = base64.b64decode(png[:44])
    width, height = (int.from_bytes(header[i : i + 4], "big") for i in (16, 20))
    return round(width * 96 / _DPI), round(height * 96 / _DPI)


def _webp(image: Image.Image, *, lossless: bool) -> bytes:
    buffer = io.BytesIO()
    # Slower methods took up to 20 s a picture and saved nothing on plots.
    method, quality = (2, 80) if lossless else (4, _PHOTO_QUALITY)
    image.save(buffer, "WEBP", lossless=lossless, method=method, quality=quality)
    return buffer.getvalue()


def _points(pattern: re.Pattern[str], root: str) -> int:
    found = pattern.search(root)
    assert found, "matplotlib gives sizes in points"
    return round(float(found[1]) * 4 / 3)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
