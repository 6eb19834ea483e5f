"""Step 6, for outputs: what a cell put out becomes Markdown of the page."""

import re
from dataclasses import dataclass, field

from blackbelt.ansi import to_html
from blackbelt.figures import Picture, picture
from blackbelt.languages import keep
from blackbelt.lesson import Cell
from blackbelt.plan import Step
from blackbelt.results import Output, StepRun
from blackbelt.strings import Strings
from blackbelt.tables import table_for_page
from blackbelt.tracebacks import calls_for_page

_TYPE = re.compile(r"[\w.]+(?=: |$)")


@dataclass
class Outputs:
    """Outputs of one page.

    Attributes:
        steps: steps of the run.
        words: the language of the page.
        images: address of the folder of images, relative to the page's file.
        name: name of the lesson's file.
        source: address of that file in the repository; empty if nothing is to link there.
        pictures: files that the outputs show, by name.
    """

    steps: tuple[Step, ...]
    words: Strings
    images: str
    name: str
    source: str
    pictures: dict[str, Picture] = field(default_factory=dict)

    def group(self, cell: Cell, result: StepRun) -> str:
        """Everything that one execution of a cell put out for this language."""
        shown = [o for o in result.outputs if o.language in (None, self.words.language)]
        if not shown:
            return ""
        in_check = cell.options.role == "check"
        parts = [part for output in shown for part in self._output(output, in_check)]
        if cell.options.measured:
            parts.insert(0, _label(self.words.measured, "measured"))
        body = "\n\n".join(parts)
        return (
            f'<div class="nb-output" role="group" aria-label="{self.words.output}" markdown="1">'
            f"\n\n{body}\n\n</div>"
        )

    def _output(self, output: Output, in_check: bool) -> list[str]:
        if output.kind == "figure":
            return [self._figure(output)]
        if output.table:
            return [table_for_page(output.table, self.words)]
        text = keep(output.text, self.words.language)
        if output.kind == "error":
            return self._error(output, text, in_check)
        if output.kind == "warning":
            label = _label(self.words.expected_warning, "warning")
            return [label, _pre(_typed(text), "nb-stderr")]
        return [_pre(to_html(text.rstrip()), "", first=text)]

    def _error(self, output: Output, text: str, in_check: bool) -> list[str]:
        if in_check:
            # Its message says it all, and the check stands above.
            return [_label(self.words.check_says, "error"), _pre(_typed(text), "nb-error")]
        calls = calls_for_page(output, self.steps, self.name, self.source, self.words)
        causes = [
            part
            for cause in reversed(output.causes)
            for part in (
                _label(self.words.outputs.cause, "error"),
                _pre(_typed(keep(cause, self.words.language)), "nb-error"),
            )
        ]
        label = _label(self.words.expected_exception, "error")
        return [*causes, label, *([calls] if calls else []), _pre(_typed(text), "nb-error")]

    def _figure(self, output: Output) -> str:
        file = picture(output)
        self.pictures[file.name] = file
        alt = re.sub(r"([\[\]\\])", r"\\\1", " ".join(output.text.split()))
        size = f'width="{file.width}" height="{file.height}" loading="lazy"'
        size += "" if file.follows else " .nb-paper"
        address = f"{self.images}/{file.name}"
        # Without scripts the link shows the figure alone, as large as the window.
        return f"[![{alt}]({address}){{ {size} }}]({address}){{ .nb-zoom }}"


def _pre(markup: str, extra: str, first: str = "") -> str:
    classes = f"nb-text {extra}".strip()
    # Browsers drop a line break right after the tag.
    start = "\n" if first.startswith("\n") else ""
    # Focusable, so that the keyboard can scroll a long line.
    return f'<pre class="{classes}" tabindex="0">{start}{markup}</pre>'


def _typed(text: str) -> str:
    """Type and message of an exception or warning."""
    found = _TYPE.match(text)
    if not found:
        return to_html(text.rstrip())
    kind, rest = found[0], text[found.end() :]
    return f'<b class="nb-type">{kind}</b>{to_html(rest.rstrip())}'


def _label(text: str, kind: str) -> str:
    return f'<p class="nb-label nb-label--{kind}">{text}</p>'
