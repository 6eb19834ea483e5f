"""The part of the engine that lives inside a lesson's kernel.

It reports what the outputs alone do not tell: warnings as such, values of variables, the line
that raised, memory, and the device. It must stay importable with nothing but IPython installed.
"""

import ast
import contextlib
import ctypes
import math
import platform
import sys
import threading
import warnings
from typing import Any, TextIO

from IPython import get_ipython
from IPython.display import display

from blackbelt import kernel_tables, watch
from blackbelt.kernel_tracebacks import calls_of, causes_of, line_of

REPORT = "application/vnd.blackbelt.report+json"
_LONGEST_TEXT = 300
# Seconds for threads that are about to end when the last cell has ended.
_GRACE = 0.5


def install() -> None:
    """Hook into the running kernel."""
    shell = get_ipython()
    shell.events.register("post_run_cell", _report_cell)
    warnings.showwarning = _show_warning
    kernel_tables.install(shell)
    shell.display_pub.register_hook(_with_line)
    # Tracebacks are told by `_report_cell`; IPython's take half a minute for a deep recursion.
    shell.InteractiveTB.set_mode("Minimal")
    # What was printed just before a kernel dies should get out in time.
    vars(sys.stdout)["flush_interval"] = 0.02
    watch.start()
    _publish({"memory": watch.peak_memory()})


def report_end() -> None:
    """Say what is left of the lesson, and on what it ran; called last: it may initialise CUDA."""
    threads = watch.threads_left(_GRACE)
    torch = sys.modules.get("torch")
    device, cuda, driver = "CPU", "", ""
    if torch is not None and torch.cuda.is_available():
        device = torch.cuda.get_device_name()
        cuda, driver = torch.version.cuda or "", _nvidia_driver()
    elif torch is not None and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator().type.upper()
    version = torch.__version__ if torch is not None else ""
    python = platform.python_version()
    names = {"device": device, "torch": version, "python": python, "cuda": cuda, "driver": driver}
    _publish({"provenance": names, "threads": threads})


def _nvidia_driver() -> str:
    """Version of NVIDIA's driver, which torch does not tell."""
    text = ctypes.create_string_buffer(81)
    with contextlib.suppress(OSError):
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2() == 0:
            library.nvmlSystemGetDriverVersion(text, len(text))
    return text.value.decode()


def _publish(report: dict[str, Any]) -> None:
    display({REPORT: report}, raw=True)


def _with_line(message: dict[str, Any]) -> dict[str, Any]:
    """Note on what is shown which line of the cell shows it."""
    metadata = message["content"].get("metadata")
    if metadata is not None and (line := watch.current_line()):
        metadata["blackbelt"] = metadata.get("blackbelt", {}) | {"line": line}
    return message


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
    memory = watch.peak_memory()
    if error is not None:
        told = {"line": line_of(error), "calls": calls_of(error), "causes": causes_of(error)}
        _publish(told | {"memory": memory})
        return
    values = {}
    for name in _assigned(result.info.raw_cell):
        value = _plain(shell.user_ns.get(name))
        if value is not None:
            values[name] = value
    _publish({"values": values, "memory": memory})


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
