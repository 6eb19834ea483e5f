"""Outputs without what differs between two runs of the same program: paths and addresses."""

import re
from pathlib import Path

# Terminal escapes: control sequences, operating system commands, character sets, and what is
# left of one that was cut. Only colours (`ESC [ 31 m`) stay; the page shows them.
_ESCAPE = re.compile(
    r"\x1b\[[0-9;:?<=>]*[ -/]*[@-~]?"
    r"|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]?"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")
_CELL_FILE = re.compile(r"(?<![^\s\"'(<])[^\s\"'(<]*/ipykernel_\d+/\d+\.py")
_PACKAGES = re.compile(r"(?<![^\s\"'(<])[^\s\"'(<]*/(?:site|dist)-packages/")
_STDLIB = re.compile(r"(?<![^\s\"'(<])[^\s\"'(<]*/lib/python3\.\d+/")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")


def scrub(text: str, scratch: Path, root: Path) -> str:
    """Replace paths and memory addresses, and drop terminal escapes other than colours.

    Args:
        text: an output.
        scratch: working directory of the run.
        root: the project's root.
    """
    text = _ESCAPE.sub(lambda found: found[0] if _COLOUR.fullmatch(found[0]) else "", text)
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
