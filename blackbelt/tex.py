"""TeX becomes HTML at build time: readers download no math program, broken TeX stops the build."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py_mini_racer import MiniRacer

_KATEX = Path(__file__).parent / "vendor_data" / "katex.min.js"

# `strict: "error"` refuses what LaTeX would not take, such as Polish letters outside \text.
# Errors come back as values: an exception would carry the source of KaTeX in its message.
_RENDER = r"""
function render(tex, displayMode) {
  try {
    return katex.renderToString(tex, { displayMode, strict: "error", throwOnError: true });
  } catch (error) {
    if (!(error instanceof katex.ParseError)) throw error;
    return "!" + error.rawMessage;
  }
}
"""


class TexError(ValueError):
    """TeX that KaTeX does not understand. The message names the reason and the TeX."""

    def __init__(self, reason: str, tex: str) -> None:
        super().__init__(f"{reason}, in ${tex}$")
        self.reason = reason
        self.tex = tex


@cache
def render_tex(tex: str, *, display: bool) -> str:
    """Render TeX to HTML for the eye and MathML for screen readers.

    Args:
        tex: the formula, without dollars.
        display: on a line of its own instead of in a sentence.

    Raises:
        TexError: KaTeX does not understand it.
    """
    html = _engine().call("render", tex, display)
    assert isinstance(html, str)
    if html.startswith("!"):
        raise TexError(html[1:], tex)
    return html


@cache
def _engine() -> "MiniRacer":
    # Imported here: the engine takes 0.2 s to start, and most pages have no math.
    from py_mini_racer import MiniRacer

    engine = MiniRacer()
    engine.eval(_KATEX.read_text(encoding="utf-8"))
    engine.eval(_RENDER)
    return engine
