"""The part of the engine that lives inside a lesson's kernel.

It reports what the outputs alone do not tell: warnings as such, values of variables, the line
that raised, and the device. It must stay importable with nothing but IPython installed.
"""

import ast
import math
import platform
import sys
import threading
import warnings
from typing import Any, TextIO

from IPython import get_ipython
from IPython.display import display

REPORT = "application/vnd.blackbelt.report+json"
_LONGEST_TEXT = 300


def install() -> None:
    """Hook into the running kernel."""
    shell = get_ipython()
    shell.events.register("post_run_cell", _report_cell)
    warnings.showwarning = _show_warning


def report_device() -> None:
    """Say on what the lesson ran; called last, so that it initialises nothing early."""
    torch = sys.modules.get("torch")
    device = "CPU"
    if torch is not None and torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    elif torch is not None and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator().type.upper()
    version = torch.__version__ if torch is not None else ""
    _publish({"device": device, "torch": version, "python": platform.python_version()})


def _publish(report: dict[str, Any]) -> None:
    display({REPORT: report}, raw=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = str(message)
    # Publishing from another thread would land in whatever cell runs then.
    if threading.current_thread() is threading.main_thread():
        bundle = {"text/plain": f"{category.__name__}: {text}"}
        warning = {"type": category.__name__, "text": text}
        display(bundle, metadata={"blackbelt": {"warning": warning}}, raw=True)
    else:
        sys.stderr.write(f"{category.__name__}: {text}\n")


def _report_cell(result: Any) -> None:
    shell = get_ipython()
    error = result.error_in_exec or result.error_before_exec
    if error is not None:
        _publish({"line": _line_of(error)})
        return
    values = {}
    for name in _assigned(result.info.raw_cell):
        value = _plain(shell.user_ns.get(name))
        if value is not None:
            values[name] = value
    if values:
        _publish({"values": values})


def _line_of(error: BaseException) -> int:
    """Line of this cell that raised, even where a function of an earlier cell did it."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        # ipykernel gives each cell a file name of its own in such a folder.
        if "ipykernel_" in file:
            frames.append((file, trace.tb_lineno))
        trace = trace.tb_next
    return [line for file, line in frames if file == frames[0][0]][-1] if frames else 0


def _assigned(source: str) -> list[str]:
    from blackbelt.code_facts import assigned

    return list(assigned(ast.parse(source)))


def _plain(value: Any) -> bool | int | float | str | None:
    """The value as JSON knows it, or None where prose could not quote it."""
    if isinstance(value, bool | int | float):
        # JSON has no infinity, and neither has a sentence.
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT else None
    if callable(getattr(value, "item", None)):
        # A tensor on `meta` or with many elements has no item.
        try:
            item = value.item()
        except Exception:
            return None
        return _plain(item) if isinstance(item, bool | int | float) else None
    return None
