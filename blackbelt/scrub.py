"""Outputs without what differs between two runs of the same program: paths and addresses."""

import re
from pathlib import Path

# Terminal escapes other than colours (`ESC [ ... m`), which the page can show.
_ESCAPE = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-ln-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^\[\]]|\x1b\[[^m\n]*$"
)
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")
_CELL_FILE = re.compile(r"[^\s\"'(<]*/ipykernel_\d+/\d+\.py")
_PACKAGES = re.compile(r"[^\s\"'(<]*/(?:site|dist)-packages/")
_STDLIB = re.compile(r"[^\s\"'(<]*/lib/python3\.\d+/")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")


def scrub(text: str, scratch: Path, root: Path) -> str:
    """Replace paths and memory addresses, and drop terminal escapes other than colours.

    Args:
        text: an output.
        scratch: working directory of the run.
        root: the project's root.
    """
    text = _ESCAPE.sub("", text)
    text = _last_of_line(text)
    text = _CELL_FILE.sub("cell.py", text)
    text = text.replace(f"{scratch}/", "").replace(str(scratch), ".")
    text = _PACKAGES.sub("…/", text)
    text = _STDLIB.sub("…/", text)
    text = text.replace(f"{root}/", "").replace(str(root), ".")
    text = _ADDRESS.sub("0x…", text)
    return _CONTROL.sub("", text)


def _last_of_line(text: str) -> str:
    """What a terminal shows where a program rewrites a line, as progress bars do."""
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))
