"""A Python-Markdown extension: what `pymdownx.arithmatex` (generic) marks as math becomes HTML.

It is an extension and not a hook of MkDocs so that any program that reads Markdown can use it.
"""

import html
import re

from markdown import Markdown
from markdown.extensions import Extension
from markdown.postprocessors import Postprocessor

from blackbelt.tex import render_tex

_MATH = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\s*\\(?:\(|\[)(?P<tex>.*?)\\(?:\)|\])\s*</(?P=tag)>',
    re.S,
)


class _RenderMath(Postprocessor):
    def run(self, text: str) -> str:
        return _MATH.sub(_render, text)


def _render(found: re.Match[str]) -> str:
    display = found["tag"] == "div"
    rendered = render_tex(html.unescape(found["tex"]).strip(), display=display)
    return f'<div class="bb-math">{rendered}</div>' if display else rendered


class KatexExtension(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (the name is Python-Markdown's)
        # Priority 1: after raw HTML, which arithmatex stashes its result in, has been restored.
        md.postprocessors.register(_RenderMath(md), "katex", 1)


def makeExtension() -> KatexExtension:  # noqa: N802
    return KatexExtension()
