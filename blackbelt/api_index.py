"""Which lessons explain a name of PyTorch, and which use it: gathered from all lessons."""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from blackbelt.api_uses import Use, api_uses
from blackbelt.config import Project
from blackbelt.files import write_whole
from blackbelt.lesson import Lesson

# Packages that lessons import for other reasons than to explain them.
_TOOLS = ("numpy", "matplotlib", "IPython", "pandas", "seaborn")
_RULES = (
    "api_uses.py",
    "code_names.py",
    "code_facts.py",
    "prose_facts.py",
    "sections.py",
    "torch_names.py",
)
_read: dict[str, tuple[Use, ...]] = {}


@dataclass(frozen=True)
class Mention:
    """A lesson that has a name, and the section that says most about it."""

    lesson: Lesson
    use: Use


@dataclass(frozen=True)
class Name:
    """A name of a library.

    Attributes:
        name: such as `torch.Tensor.view`, which is its address on the page, too.
        explained: lessons about it, the one that says most first.
        used: other lessons that have it, in the order of the course.
    """

    name: str
    explained: tuple[Mention, ...]
    used: tuple[Mention, ...]

    @property
    def last(self) -> str:
        """The part under which people look for it."""
        return self.name.rpartition(".")[2]


def api_index(project: Project, lessons: Iterable[Lesson]) -> tuple[Name, ...]:
    """Every name that lessons have, in alphabetical order of their last parts."""
    mentions: dict[str, list[Mention]] = {}
    for lesson in lessons:
        for use in _uses(project, lesson):
            mentions.setdefault(use.name, []).append(Mention(lesson, use))
    names = [_name(name, found) for name, found in mentions.items()]
    return tuple(sorted(names, key=lambda n: (n.last.strip("_").lower(), n.last, n.name)))


def _name(name: str, mentions: list[Mention]) -> Name:
    explained = [mention for mention in mentions if mention.use.explains]
    explained.sort(key=lambda mention: -mention.use.weight)
    used = (mention for mention in mentions if not mention.use.explains)
    return Name(name, tuple(explained), tuple(used))


def _uses(project: Project, lesson: Lesson) -> tuple[Use, ...]:
    """What a lesson has; parsing it takes a tenth of a second, so that is done once."""
    packages = tuple(name for name in project.imports if name not in _TOOLS)
    parts = [_rules(), *packages, "", lesson.path, lesson.source]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    if key not in _read:
        _read[key] = _kept(project.cache / "api" / f"{key}.json", lesson, packages)
    return _read[key]


def _kept(file: Path, lesson: Lesson, packages: tuple[str, ...]) -> tuple[Use, ...]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return tuple(Use(**use) for use in json.loads(file.read_bytes()))
    uses = api_uses(lesson, packages)
    # A full disk or a read-only checkout must not keep anybody from building.
    with contextlib.suppress(OSError):
        write_whole(file, json.dumps([asdict(use) for use in uses]).encode())
    return uses


@cache
def _rules() -> str:
    """The source of what reads lessons: other rules find other names."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in _RULES)).hexdigest()
