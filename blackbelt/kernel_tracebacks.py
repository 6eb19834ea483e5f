"""Inside the kernel: which calls an exception went through.

It must stay importable with nothing but IPython installed.
"""

import linecache
import traceback
from collections import Counter
from typing import Any

# ipykernel gives each cell a file name of its own in such a folder.
CELL = "ipykernel_"
# Calls that repeat, as in a recursion without an end: the first ones and the last say it all.
_FIRST = 2
_CAUSES = 3


def line_of(error: BaseException) -> int:
    """Line of this cell that raised, even where a function of an earlier cell did it."""
    calls = [(call.filename, call.lineno or 0) for call in _calls(error)]
    return [line for file, line in calls if file == calls[0][0]][-1] if calls else 0


def calls_of(error: BaseException) -> list[dict[str, Any]]:
    """The calls from the cell down to where it was raised.

    Returns:
        For each the fields of `blackbelt.results.Call`; calls of cells have the cell's whole
        text as `source`, because only the engine knows which cell that is.
    """
    calls = _calls(error)
    last = {_place(call): index for index, call in enumerate(calls)}
    seen: Counter[tuple[str, int | None, str]] = Counter()
    found: list[dict[str, Any]] = []
    left_out = False
    for index, call in enumerate(calls):
        place = _place(call)
        seen[place] += 1
        if seen[place] > _FIRST and index != last[place]:
            left_out = True
            continue
        found.append(_described(call) | {"after_others": left_out})
        left_out = False
    return found


def causes_of(error: BaseException) -> list[str]:
    """Exceptions that led to this one, the nearest first, as `Type: message`."""
    causes: list[str] = []
    met = {id(error)}
    while len(causes) < _CAUSES:
        hidden = error.__suppress_context__
        before = error.__cause__ or (None if hidden else error.__context__)
        if before is None or id(before) in met:
            break
        met.add(id(before))
        causes.append(_told(before))
        error = before
    return causes


def _calls(error: BaseException) -> list[traceback.FrameSummary]:
    """Without IPython's own, which stand above the cell."""
    calls = [
        traceback.FrameSummary(
            frame.f_code.co_filename, line, frame.f_code.co_qualname, lookup_line=False
        )
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    first = next((index for index, call in enumerate(calls) if CELL in call.filename), len(calls))
    return calls[first:]


def _place(call: traceback.FrameSummary) -> tuple[str, int | None, str]:
    return call.filename, call.lineno, call.name


def _described(call: traceback.FrameSummary) -> dict[str, Any]:
    is_top = call.name.startswith(("<module>", "<cell line"))
    told = {"line": call.lineno or 0, "name": "" if is_top else call.name}
    if CELL in call.filename:
        return told | {"source": "".join(linecache.getlines(call.filename))}
    return told | {"file": call.filename, "code": (call.line or "").strip()}


def _told(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}".removesuffix(": ")
