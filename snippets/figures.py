"""One look for every figure of the course, and one figure for each language."""

import base64
import io
import re
from collections.abc import Container, Mapping

import numpy as np
from cycler import cycler
from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.collections import Collection, QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, ScalarFormatter

from snippets.bilingual import languages

# Told apart by readers with any kind of colour blindness, and each with a contrast of
# at least 3:1 on the white and on the dark page: found by a search among the colours
# that one would call by these names, and held by a test.
BLUE, ORANGE, GREEN, RED = "#3594f8", "#c77000", "#20825f", "#bb4635"
PURPLE, TEAL, OLIVE, GRAY = "#9a52a2", "#629396", "#93975a", "#6a6c76"
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, TEAL, OLIVE, GRAY)
# For areas under dark text; as lines they would be too light for a white page.
SKY, YELLOW = "#56b4e9", "#c9a800"
# Cells of memory by their values: light enough for numbers in ink, dark enough to stand
# out from a white page.
RAMP = LinearSegmentedColormap.from_list("cells", [SKY, "#6fc3a0", YELLOW, ORANGE])
INK = "#14181d"

plt.rcParams.update(
    {
        "figure.figsize": (7.2, 3.0),
        "figure.dpi": 96,
        "figure.constrained_layout.use": True,
        "axes.prop_cycle": cycler(color=PALETTE),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.grid": False,
        "grid.color": "#d0d2d6",
        "image.cmap": "viridis",
        "font.size": 10,
        "legend.frameon": False,
        "lines.linewidth": 2.0,
        # Text becomes outlines: the figure is the same on a machine without our font.
        "svg.fonttype": "path",
        # Element ids are derived from this instead of a random number, so that two runs
        # of one lesson write the same bytes.
        "svg.hashsalt": "blackbelt",
    }
)

# A vector with more characters than this is drawn slowly, and its parts are too many to
# tell apart: those become a picture within it, the densest first. Text and axes stay.
_LONGEST_VECTOR = 60_000
_MANY_PARTS = (400, 40, 0)

_PICTURE = re.compile(r'base64,[^"]*')
_WORD = re.compile(r"[^\W\d_]{2,}")
_DECIMAL = re.compile(r"(?<=\d)\.(?=\d)")


class _CommaFormatter(ScalarFormatter):
    """Numbers on an axis with the decimal comma that Polish writes."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return _DECIMAL.sub(",", super().__call__(x, pos))


def _axes_of(fig: Figure) -> list[Axis]:
    return [axis for ax in fig.axes for axis in (ax.xaxis, ax.yaxis)]


def _freeze_words(axis: Axis) -> None:
    """Turn tick labels that are words into fixed ones, which can be translated."""
    locations = [float(location) for location in axis.get_majorticklocs()]
    labels = [label.get_text() for label in axis.get_ticklabels()]
    if any(_WORD.search(label) for label in labels):
        axis.set_major_locator(FixedLocator(locations))
        axis.set_major_formatter(FixedFormatter(labels))


def _texts_of(fig: Figure) -> list[Text]:
    """Visible texts except tick labels, which belong to their axis' formatter."""
    ticks: set[int] = set()
    for axis in _axes_of(fig):
        ticks.update(id(text) for text in axis.findobj(Text) if text is not axis.label)
    found = [text for text in fig.findobj(Text) if isinstance(text, Text)]
    return [t for t in found if id(t) not in ticks and t.get_visible() and t.get_text()]


def _fixed(axis: Axis) -> FixedFormatter | None:
    formatter = axis.get_major_formatter()
    return formatter if isinstance(formatter, FixedFormatter) else None


def _translator(
    fig: Figure, pl: Mapping[str, str], same: Container[str]
) -> dict[str, str]:
    """Map every text of the figure to Polish, or say which texts have none."""
    labels = {text.get_text() for text in _texts_of(fig)}
    for axis in _axes_of(fig):
        if (fixed := _fixed(axis)) is not None:
            labels.update(str(label) for label in fixed.seq)
    missing = [t for t in labels if _WORD.search(t) and t not in pl and t not in same]
    stale = [t for t in pl if t not in labels]
    if missing or stale:
        raise ValueError(
            f"show_figure: texts without Polish: {sorted(missing)}; "
            f"Polish for texts that the figure does not have: {sorted(stale)}. "
            "Add them to pl={...}, or to same=(...) if both pages show them alike."
        )
    return {t: t if t in same else pl.get(t, _DECIMAL.sub(",", t)) for t in labels}


def _to_polish(fig: Figure, polish: Mapping[str, str]) -> None:
    for text in _texts_of(fig):
        text.set_text(polish[text.get_text()])
    for axis in _axes_of(fig):
        if (fixed := _fixed(axis)) is not None:
            fixed.seq = [polish[str(label)] for label in fixed.seq]
        elif type(axis.get_major_formatter()) is ScalarFormatter:
            axis.set_major_formatter(_CommaFormatter())


def _parts(artist: Artist) -> int:
    """How many points or cells an artist draws; nothing for texts and axes."""
    if isinstance(artist, Line2D):
        return np.size(artist.get_xdata())
    if isinstance(artist, QuadMesh):
        cells = artist.get_array()
        return 0 if cells is None else np.size(cells)
    if isinstance(artist, Collection):
        corners = sum(int(np.shape(path.vertices)[0]) for path in artist.get_paths())
        return max(corners, int(np.shape(artist.get_offsets())[0]))
    return int(isinstance(artist, Patch) and not isinstance(artist, Spine))


def _vector(fig: Figure) -> str:
    """The figure as a vector, in which what has too many parts is a picture."""
    vector = _image(fig, "svg").decode()
    for most in _MANY_PARTS:
        if len(_PICTURE.sub("", vector)) <= _LONGEST_VECTOR:
            break
        for ax in fig.axes:
            for artist in ax.get_children():
                if artist is not ax.patch and _parts(artist) > most:
                    artist.set_rasterized(True)
        vector = _image(fig, "svg").decode()
    return vector


def _image(fig: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    fig.savefig(buffer, format=kind, dpi=144, bbox_inches="tight", metadata=metadata)
    return buffer.getvalue()


def _emit(fig: Figure, language: str, alt: str) -> None:
    bundle = {
        "image/svg+xml": _vector(fig),
        "image/png": base64.b64encode(_image(fig, "png")).decode(),
        "text/plain": alt,
    }
    metadata = {"blackbelt": {"lang": language, "alt": alt}}
    display(bundle, metadata=metadata, raw=True)


def show_figure(
    fig: Figure,
    *,
    alt_pl: str,
    alt_en: str,
    pl: Mapping[str, str] | None = None,
    same: Container[str] = (),
) -> None:
    """Show a figure that was drawn with English texts, once for each language.

    Args:
        fig: the finished figure; it is closed afterwards.
        alt_pl: what a reader who cannot see it should know, in Polish.
        alt_en: the same in English.
        pl: Polish for every text of the figure that contains a word.
        same: texts that both pages show alike, such as names of functions.

    Raises:
        ValueError: a text has no Polish, `pl` names a text that is not there, or an
            alternative text is empty.
    """
    empty = [
        k for k, v in {"alt_pl": alt_pl, "alt_en": alt_en}.items() if not v.strip()
    ]
    if empty:
        raise ValueError(f"show_figure: empty alternative text: {', '.join(empty)}")
    fig.canvas.draw()
    for axis in _axes_of(fig):
        _freeze_words(axis)
    polish = _translator(fig, pl or {}, same)
    # English first, because the translation changes the figure; Polish pages come
    # first in the list of languages, but each page shows only its own.
    if "en" in languages():
        _emit(fig, "en", alt_en)
    if "pl" in languages():
        _to_polish(fig, polish)
        _emit(fig, "pl", alt_pl)
    plt.close(fig)
