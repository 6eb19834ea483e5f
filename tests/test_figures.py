"""Figures: colours that everybody tells apart, one file for light and dark, and no silent ones."""

import base64
import io
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image
from tiny import TITLE, TinyCourse

from blackbelt.figure_colours import DARK_PAGE, LIGHT_PAGE, contrast, style
from blackbelt.figures import LARGEST_SVG, compact, is_vector, picture
from blackbelt.results import Output
from snippets import figures

NAMES = ("BLUE", "ORANGE", "GREEN", "RED", "PURPLE", "TEAL", "OLIVE", "GRAY")
# What colours become for eyes that lack one kind of cones, in linear light: the matrices of
# Machado, Oliveira and Fernandes (2009) for a complete lack.
EYES = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
# Differences by CIEDE2000; 2.3 is what an observer just notices side by side.
LEAST = {"normal": 15.0, "deuteranopia": 10.0, "protanopia": 10.0, "tritanopia": 9.0}


def lab(colour: str, eye: str) -> np.ndarray:
    """CIELAB of a colour as this eye sees it."""
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(EYES[eye] @ linear, 0, 1)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = to_xyz @ seen / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def hue(a: float, b: float) -> float:
    return float(np.degrees(np.arctan2(b, a)) % 360)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """CIEDE2000."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25**7))
    a1, a2 = a1 * g, a2 * g
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = hue(a1, b1), hue(a2, b2)
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    middle = (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    cosines = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    t = 1 + sum(w * np.cos(np.radians(k * middle + shift)) for w, k, shift in cosines)
    bend = 30 * np.exp(-(((middle - 275) / 25) ** 2))
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25**7)) * np.sin(np.radians(2 * bend))
    s_l = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    d_l = (l2 - l1) / s_l
    d_c = (c2 - c1) / (1 + 0.045 * chroma)
    d_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * t)
    return float(np.sqrt(d_l**2 + d_c**2 + d_h**2 + rotation * d_c * d_h))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        # Of the pairs that Sharma, Wu and Dalal (2005) published to test implementations.
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_differences_are_those_that_were_published(
    one: tuple[float, ...], other: tuple[float, ...], expected: float
) -> None:
    assert difference(np.array(one), np.array(other)) == pytest.approx(expected, abs=1e-4)


def test_palette_has_these_colours() -> None:
    assert tuple(getattr(figures, name) for name in NAMES) == figures.PALETTE
    assert len(set(figures.PALETTE)) == len(NAMES)
    cycle = [entry["color"] for entry in plt.rcParams["axes.prop_cycle"]]
    assert cycle == list(figures.PALETTE)


@pytest.mark.parametrize("page", [LIGHT_PAGE, DARK_PAGE])
@pytest.mark.parametrize("name", NAMES)
def test_palette_stands_out_from_the_page(name: str, page: str) -> None:
    """WCAG 2.2, 1.4.11: parts of a graphic have a contrast of 3:1."""
    assert contrast(getattr(figures, name), page) >= 3.0


@pytest.mark.parametrize("eye", EYES)
def test_palette_is_told_apart(eye: str) -> None:
    seen = {name: lab(getattr(figures, name), eye) for name in NAMES}
    close = {
        (one, other): round(apart, 1)
        for one, other in itertools.combinations(NAMES, 2)
        if (apart := difference(seen[one], seen[other])) < LEAST[eye]
    }
    assert close == {}


def test_palettes_that_fail_would_be_noticed() -> None:
    red, green = lab("#d62728", "deuteranopia"), lab("#7f7f00", "deuteranopia")
    assert difference(red, green) < LEAST["deuteranopia"]
    assert contrast("#56b4e9", LIGHT_PAGE) < 3.0


@pytest.mark.parametrize("name", ["SKY", "YELLOW", "ORANGE"])
def test_dark_text_can_be_read_on_areas(name: str) -> None:
    assert contrast("#14181d", getattr(figures, name)) >= 4.5


def test_grounds_are_those_of_the_theme() -> None:
    """Material's slate is hsla(232, 15%, 14%)."""
    assert DARK_PAGE == "#1e2129"


# One file for light and dark


def rule(sheet: str, selector: str) -> str:
    found = re.search(re.escape(selector) + r"\{[a-z-]+:(#[0-9a-f]+)(?:!important)?\}", sheet)
    return found[1] if found else ""


def light(sheet: str) -> str:
    """What holds on a light page, and not on a dark one."""
    assert not sheet.removeprefix("<style>").partition("@media")[0]
    return sheet.partition("@media (prefers-color-scheme:light)")[2].partition("@media")[0]


def dark(sheet: str) -> str:
    return sheet.partition("@media (prefers-color-scheme:dark)")[2]


def test_black_lines_become_light() -> None:
    sheet = dark(style("stroke: #000000"))
    assert contrast(rule(sheet, "[style*='stroke: #000000']"), DARK_PAGE) > 12


@pytest.mark.parametrize("grey", ["#404040", "#6a6c76", "#b0b0b0", "#d0d2d6", "#ffffff"])
def test_grey_lines_stand_out_as_much_as_before(grey: str) -> None:
    shade = rule(dark(style(f"stroke: {grey}")), f"[style*='stroke: {grey}']")
    assert contrast(shade, DARK_PAGE) == pytest.approx(contrast(grey, LIGHT_PAGE), rel=0.05)


@pytest.mark.parametrize("colour", figures.PALETTE)
def test_coloured_text_can_be_read(colour: str) -> None:
    selector = f"g[id^=text_] [style*='fill: {colour}']"
    sheet = style(f"fill: {colour}")
    assert contrast(rule(light(sheet), selector) or colour, LIGHT_PAGE) >= 4.5
    assert contrast(rule(dark(sheet), selector) or colour, DARK_PAGE) >= 4.5


@pytest.mark.parametrize("colour", ["#14181d", "#000000", "#262626"])
def test_dark_text_on_a_coloured_cell_stays_dark(colour: str) -> None:
    assert f"fill: {colour}" not in style(f"fill: {colour}")


def test_coloured_lines_stay() -> None:
    assert style("stroke: #3594f8") == style("")


@pytest.fixture(autouse=True)
def clean_figures() -> Iterator[None]:
    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Output]]:
    """Show a figure as a lesson does, and keep what arrives, by language."""
    monkeypatch.setenv("BLACKBELT_LANGUAGES", "pl,en")

    def show(fig: Figure, **options: Any) -> dict[str, Output]:
        found: dict[str, Output] = {}

        def display(bundle: dict[str, str], metadata: dict[str, Any], raw: bool) -> None:
            ours = metadata["blackbelt"]
            svg, png = bundle["image/svg+xml"], bundle["image/png"]
            found[ours["lang"]] = Output("figure", ours["alt"], ours["lang"], svg, png)

        monkeypatch.setattr(figures, "display", display)
        figures.show_figure(fig, **{"alt_pl": "Opis.", "alt_en": "Description."} | options)
        return found

    return show


def dense() -> Figure:
    rng = np.random.default_rng(0)
    fig, (left, right) = plt.subplots(1, 2)
    left.scatter(rng.normal(size=5000), rng.normal(size=5000), s=3)
    left.set_title("points")
    right.pcolormesh(rng.normal(size=(80, 80)))
    return fig


def test_dense_figure_stays_a_vector_with_pictures(shown: Callable[..., Any]) -> None:
    found = shown(dense(), pl={"points": "punkty"})
    for language, output in found.items():
        assert is_vector(output.svg), language
        assert output.svg.count("data:image/png") == 2
        made = picture(output)
        assert made.follows
        assert made.name.endswith(".svg")
        assert b"data:image/webp" in made.data
        assert b"data:image/png" not in made.data
        assert len(made.data) < 130_000
        # Text and axes are still lines.
        assert b'id="text_' in made.data
        assert b'id="xtick_1"' in made.data


def test_many_bars_and_many_lines_stay_a_vector(shown: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    fig, (left, right) = plt.subplots(1, 2)
    left.hist(rng.normal(size=5000), bins=800)
    for row in rng.random((30, 300)):
        right.plot(row)
    (output, _) = shown(fig).values()
    assert is_vector(output.svg)
    assert len(re.sub('base64,[^"]*', "", output.svg)) < 60_000
    assert 'id="text_' in output.svg


def test_pictures_within_a_vector_lose_nothing(shown: Callable[..., Any]) -> None:
    fig, ax = plt.subplots()
    ax.imshow(np.arange(12).reshape(3, 4))
    svg = shown(fig)["en"].svg
    for before, after in zip(embedded(svg), embedded(compact(svg)), strict=True):
        assert np.array_equal(before, after)


def embedded(svg: str) -> list[np.ndarray]:
    """The pictures within a vector; of what is not seen at all, the colour does not matter."""
    found = []
    for data in re.findall(r"data:image/\w+;base64,\s*([^\"]+)", svg):
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))
        pixels[pixels[..., 3] == 0] = 0
        found.append(pixels)
    assert found
    return found


def test_few_lines_stay_lines(shown: Callable[..., Any]) -> None:
    fig, ax = plt.subplots()
    ax.plot(np.sin(np.linspace(0, 9, 300)))
    assert "data:image" not in shown(fig)["en"].svg


def test_figure_that_cannot_follow_says_so() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "white").save(buffer, "PNG")
    png = base64.b64encode(buffer.getvalue()).decode()
    svg = "<svg>" + "x" * LARGEST_SVG + "</svg>"
    made = picture(Output("figure", "Opis.", "pl", svg, png))
    assert made.name.endswith(".webp")
    assert not made.follows
    assert (made.width, made.height) == (20, 13)


# seaborn


def test_seaborn_follows_without_being_asked() -> None:
    sns = pytest.importorskip("seaborn")
    before = dict(mpl.rcParams)
    ax = plt.figure().subplots()
    sns.scatterplot(x=[1, 2, 3], y=[1, 2, 3], hue=["a", "b", "c"], ax=ax)
    (points,) = ax.collections
    colours = {mpl.colors.to_hex(row) for row in np.asarray(points.get_facecolor())}
    wanted = set(figures.PALETTE[:3])
    assert colours == wanted
    assert not ax.spines["top"].get_visible()
    assert dict(mpl.rcParams) == before


# Figures that some readers would miss are errors with their lines.

FAULTS = {
    "show": ("plt.plot([1, 2])\nplt.show()\n", 2, "one language only"),
    "display": ("from IPython.display import display\n\ndisplay(fig)\n", 3, "one language only"),
    "function": (
        "def show() -> None:\n    plt.plot([1])\n    plt.show()\n\n\nshow()\n",
        3,
        "one language only",
    ),
    # The cell is over when these are shown: the error is that of the cell.
    "left open": ("plt.plot([1, 2])\n", 0, "one language only"),
    "last expression": ("plt.close('all')\nfig\n", 0, "one language only"),
    "picture": (
        "import io\n\nfrom IPython.display import Image\n\nbuffer = io.BytesIO()\n"
        "fig.savefig(buffer, format='png')\nImage(buffer.getvalue())\n",
        0,
        "one language only",
    ),
    "no Polish": (
        "ax.set_title('Bytes')\nshow_figure(fig, alt_pl='Opis.', alt_en='Text.')\n",
        2,
        "texts without Polish: ['Bytes']",
    ),
    "empty text": (
        "nothing = ' '\nshow_figure(fig, alt_pl=nothing, alt_en='Text.')\n",
        2,
        "empty alternative text: alt_pl",
    ),
    "no text": (
        "show_figure(fig, alt_pl='Opis.')  # type: ignore[call-arg]\n",
        1,
        "figure without alternative text: show_figure needs alt_en",
    ),
}
BEFORE = """\
# %%
from matplotlib import pyplot as plt

from snippets.figures import show_figure

fig, ax = plt.subplots()
plt.close("all")

# %%
"""


def test_figures_that_some_readers_would_miss(course: TinyCourse) -> None:
    wanted = {}
    for number, (code, line, what) in enumerate(FAULTS.values(), start=1):
        path = f"lessons/1_first/{number:02}_figure_{number}.py"
        course.write(path, TITLE + BEFORE + code)
        header = (TITLE + BEFORE).count("\n")
        wanted[path] = (header + line, what)
    done = course.command("run")
    for path, (line, what) in wanted.items():
        problems = done.of(path)
        assert [problem.line for problem in problems] == [line], (path, problems)
        assert what in problems[0].what
        assert problems[0].command
