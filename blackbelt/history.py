"""What changed in a lesson, from git: one look at the log for all lessons.

Without git, in an archive without its history, and for a lesson that is not committed yet there is
nothing to say. In a shallow clone the oldest commit seems to have written every file; it is left
out, so that what remains is true though not complete.
"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_START, _SEPARATOR = "\x1e", "\x1f"
_FORMAT = f"--format={_START}%H{_SEPARATOR}%at{_SEPARATOR}%s"
_SECONDS = 30


@dataclass(frozen=True)
class Change:
    """A commit that touched a lesson.

    Attributes:
        commit: its whole hash.
        at: when it was written, in seconds since 1970.
        subject: the first line of its message.
    """

    commit: str
    at: int
    subject: str

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    @property
    def date(self) -> str:
        """The day in UTC, as 2026-11-21."""
        return self.moment.date().isoformat()


@dataclass(frozen=True)
class History:
    """Changes of lessons.

    Attributes:
        changes: by path of a lesson, the newest first.
        complete: whether the first change of a lesson is known, too.
    """

    changes: dict[str, tuple[Change, ...]]
    complete: bool = True

    def of(self, path: str) -> tuple[Change, ...]:
        return self.changes.get(path, ())


_known: dict[tuple[Path, str], History] = {}


def read_history(root: Path) -> History:
    """The history of every lesson of the project at `root`; asks git again after a commit."""
    head = _git(root, "rev-parse", "HEAD").strip()
    if not head:
        return History({})
    if (root, head) not in _known:
        _known.clear()
        _known[root, head] = _read(root)
    return _known[root, head]


def _read(root: Path) -> History:
    boundary = _shallow(root)
    # `--relative` for a project that lies in a folder of its repository.
    command = ("log", _FORMAT, "--name-status", "-M", "--relative", "--", "lessons")
    changes: dict[str, list[Change]] = {}
    names: dict[str, str] = {}  # names of files now, by the names that they had
    for change, files in _commits(_git(root, *command)):
        for before, path in files:
            now = names.pop(path, path) if before != path else names.get(path, path)
            if before != path:
                names[before] = now
            if change.commit not in boundary:
                changes.setdefault(now, []).append(change)
    found = {path: tuple(theirs) for path, theirs in changes.items() if path.endswith(".py")}
    return History(found, complete=not boundary)


def _commits(log: str) -> Iterator[tuple[Change, list[tuple[str, str]]]]:
    """Each commit with its files: the name before and the name after."""
    for record in log.split(_START)[1:]:
        header, *lines = record.strip("\n").split("\n")
        commit, at, subject = header.split(_SEPARATOR, 2)
        files = []
        for line in filter(None, lines):
            status, *paths = line.split("\t")
            if status[0] != "D":  # a copy (C) begins a history of its own
                files.append((paths[0] if status[0] == "R" else paths[-1], paths[-1]))
        yield Change(commit, int(at), subject), files


def _shallow(root: Path) -> frozenset[str]:
    """Commits whose parents a shallow clone does not have."""
    name = _git(root, "rev-parse", "--git-path", "shallow").strip()
    try:
        return frozenset((root / name).read_text().split()) if name else frozenset()
    except OSError:
        return frozenset()


def _git(root: Path, *arguments: str) -> str:
    """What git says, or nothing if there is no git, no repository, or it will not tell."""
    command = ["git", "-c", "core.quotePath=false", "-c", "log.showSignature=false", *arguments]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
