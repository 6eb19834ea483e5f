"""The way of an exception, as a reader needs it: the lesson's own lines, the rest folded."""

import html
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers.python import PythonLexer

from blackbelt.ansi import inert, to_html
from blackbelt.plan import Step
from blackbelt.results import Call, Output
from blackbelt.strings import Strings

# Lines of the cell before and after the one that matters.
_AROUND = 1
_BOLD, _RED, _GREEN, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"


def calls_for_page(
    output: Output, steps: Sequence[Step], name: str, source: str, words: Strings
) -> str:
    """HTML without blank lines; nothing if the exception brings no calls.

    Args:
        output: the exception.
        steps: the steps of the run.
        name: name of the lesson's file.
        source: address of the file in the repository.
        words: the language.
    """
    if not output.calls:
        return ""

    def own(call: Call) -> str:
        return _own(call, steps[call.step], name, source)

    parts = []
    for is_own, calls in groupby(output.calls, lambda call: call.step >= 0):
        if is_own:
            parts += [_repeats(call, words) + own(call) for call in calls]
        else:
            parts.append(_folded(tuple(calls), words))
    label = f'role="group" aria-label="{words.outputs.traceback}"'
    return f'<div class="nb-trace" {label}>{"".join(parts)}</div>'


def traceback_for_notebook(output: Output, steps: Sequence[Step], text: str) -> list[str]:
    """Lines as Jupyter shows them, with the colours of a terminal.

    Args:
        output: the exception.
        steps: the steps of the run.
        text: its type and message, in the language of the notebook.
    """
    lines = []
    for call in output.calls:
        if call.after_others:
            lines.append("    ...")
        inside = f" in {_GREEN}{_function(call)}{_PLAIN}" if call.name else ""
        if call.step >= 0:
            code = steps[call.step].cell.source.split("\n")[call.line - 1].strip()
            lines += [f"Cell{inside}", f"{_BOLD}----> {code}{_PLAIN}"]
        else:
            lines += [f"File {call.file}:{call.line}{inside}", f"      {call.code}"]
    kind, colon, message = text.partition(":")
    return [*lines, f"{_RED}{kind}{_PLAIN}{colon}{message}"]


def _own(call: Call, step: Step, name: str, source: str) -> str:
    """A line of the lesson between its neighbours, with the numbers of the lesson's file."""
    cell = step.cell
    coloured = _coloured(cell.source)
    shift = cell.first - 1
    first = max(1, call.line - _AROUND)
    last = min(len(coloured), call.line + _AROUND)
    width = len(str(last + shift))
    lines = []
    for number in range(first, last + 1):
        is_it = number == call.line
        if not is_it and not cell.source.split("\n")[number - 1].strip():
            continue
        text = f"{'→' if is_it else ' '} {number + shift:>{width}}  {coloured[number - 1]}"
        lines.append(f'<span class="nb-here">{text}</span>' if is_it else text)
    where = f"{name}:{call.line + shift}"
    if source:
        where = f'<a href="{source}#L{call.line + shift}">{where}</a>'
    inside = f" · <code>{_escaped(_function(call))}()</code>" if call.name else ""
    body = "\n".join(lines)
    return (
        f'<p class="nb-place">{where}{inside}</p>'
        f'<pre class="nb-lines highlight" tabindex="0">{body}</pre>'
    )


@lru_cache(maxsize=256)
def _coloured(source: str) -> tuple[str, ...]:
    """The lines of a cell in the colours of code."""
    lexer = PythonLexer(stripnl=False, ensurenl=False)
    markup: str = highlight(source, lexer, HtmlFormatter(nowrap=True))
    return tuple(inert(markup).removesuffix("\n").split("\n"))


def _folded(calls: tuple[Call, ...], words: Strings) -> str:
    places = ", ".join(dict.fromkeys(_package(call.file) for call in calls))
    count = words.count(len(calls), words.outputs.calls_forms)
    lines = []
    for call in calls:
        if call.after_others:
            lines.append(f"… {words.outputs.calls_repeat}")
        inside = f" · {_function(call)}()" if call.name else ""
        lines += [f"{call.file}:{call.line}{inside}", *([f"    {call.code}"] if call.code else [])]
    body = to_html("\n".join(lines))
    return (
        f'<details class="nb-calls"><summary>{count}: {_escaped(places)}</summary>'
        f'<pre class="nb-lines" tabindex="0">{body}</pre></details>'
    )


def _repeats(call: Call, words: Strings) -> str:
    return f'<p class="nb-place">… {words.outputs.calls_repeat}</p>' if call.after_others else ""


def _package(file: str) -> str:
    """`torch` of `torch/nn/modules/module.py`, `importlib` of `<frozen importlib._bootstrap>`."""
    top = file.removeprefix("<frozen ").strip("<>").split("/")[0]
    return top.split(".")[0] or file


def _function(call: Call) -> str:
    return call.name.rpartition("<locals>.")[2]


def _escaped(text: str) -> str:
    return inert(html.escape(text))
