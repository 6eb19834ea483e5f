"""Files that appear whole or not at all, however a build ends."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from time import time

_TEMPORARY = ".tmp"
_DAY = 24 * 3600.0


def write_whole(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file so that nobody ever sees a part of it.

    Args:
        path: the file; its folder is made where it is missing.
        data: its content.
        durable: let the data reach the disk first, so that a power cut leaves no empty file.

    Raises:
        OSError: the disk is full, or must not be written to; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because only a rename within a file system is one step; two builds
    # never share the name. MkDocs and git leave files with a leading dot alone.
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed builds left half-written; younger files may belong to a running one."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        try:
            if time() - path.stat().st_mtime > _DAY:
                path.unlink()
        except OSError:
            # Another build was faster, or the disk is read-only.
            continue


@contextmanager
def alone(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Keep other builds out of a block; the lock ends with the process, however it ends.

    Args:
        path: the file that stands for the lock; it stays where it is.
        waiting: called once if another build is in the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        try:
            flock(stream, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            waiting()
            flock(stream, LOCK_EX)
        yield
