"""Which names of libraries a lesson explains or uses, and in which of its sections."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from blackbelt.code_names import Names, bindings, names
from blackbelt.lesson import Cell, Exercise, Lesson
from blackbelt.prose_facts import facts
from blackbelt.sections import pairs
from blackbelt.torch_names import CONTEXT, FUNCTION, members, owner

# How much a mention says about what a lesson is for. A single mention explains nothing; together
# with a use in code it does.
_HEADING, _LINK, _SPAN, _CODE = 5, 3, 1, 1
_EXPLAINED = 2
# A section that says a name many times is not more about it than one that says it three times.
_MOST_SPANS = 3

# What prose writes whether or not the lesson imports it under this name.
_ALIASES = {
    "nn": "torch.nn",
    "F": "torch.nn.functional",
    "optim": "torch.optim",
    "dist": "torch.distributed",
    "Tensor": "torch.Tensor",
    "Module": "torch.nn.Module",
}
_NAME = re.compile(r"^(?P<name>\.?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(.*\))?$", re.S)
_DOCUMENTATION = re.compile(
    r"^https://(?:docs\.)?pytorch\.org/docs/[^#]*?(?:/generated/([\w.]+)\.html)?(?:#([\w.]+))?$"
)


@dataclass(frozen=True)
class Use:
    """A name that a lesson has.

    Attributes:
        name: such as `torch.Tensor.view`.
        section: address of the heading above the place that says most about it.
        weight: how much the lesson says about it.
        explains: whether prose says more than a passing word about it.
    """

    name: str
    section: str
    weight: int
    explains: bool


@dataclass
class _Section:
    """What stands below one heading."""

    address: str
    code: list[Names] = field(default_factory=list)
    spans: Counter[str] = field(default_factory=Counter)
    titles: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)


def api_uses(lesson: Lesson, packages: tuple[str, ...]) -> tuple[Use, ...]:
    """Every name of these packages in a lesson, by name."""
    bound = bindings(cell.source for cell in lesson.code)
    sections = _sections(lesson, bound)
    resolver = _Resolver(bound, sections)
    scores: dict[str, dict[str, Counter[str]]] = {}
    for section in sections:
        for name, kind, weight in _weighed(section, resolver):
            if name.partition(".")[0] in packages and "." in name:
                scores.setdefault(name, {}).setdefault(section.address, Counter())[kind] += weight
    uses = (_use(name, found) for name, found in sorted(scores.items()))
    # What begins with an underscore is nobody's API unless the lesson speaks of it.
    return tuple(use for use in uses if use.explains or "._" not in use.name)


def _use(name: str, found: dict[str, Counter[str]]) -> Use:
    prose = sum(count for kinds in found.values() for kind, count in kinds.items() if kind)
    weight = prose + any("" in kinds for kinds in found.values())
    # A link to the documentation stands at the end of a lesson, where little is said.
    best = max(found, key=lambda address: sum(found[address].values()) - found[address]["link"])
    return Use(name, best, weight, bool(prose) and weight >= _EXPLAINED)


def _weighed(section: _Section, resolver: "_Resolver") -> Iterator[tuple[str, str, int]]:
    """Names of a section, how they are mentioned (nothing for code), and how much that says."""
    for span, count in section.spans.items():
        for name in resolver.of_span(span):
            yield name, "span", _SPAN * min(count, _MOST_SPANS)
    for span in sorted(section.titles):
        for name in resolver.of_span(span):
            yield name, "title", _HEADING
    for name in sorted(section.links):
        yield name, "link", _LINK
    for name in sorted(resolver.of_code(section.code)):
        yield name, "", _CODE


def _sections(lesson: Lesson, bound: dict[str, str]) -> list[_Section]:
    sections = [_Section("")]
    for block in lesson.blocks:
        if isinstance(block, Cell):
            sections[-1].code.append(names(block.source, bound))
        for pair in pairs(block):
            _read(pair.en.source, sections)
        if isinstance(block, Exercise):
            cells = (block.starter, block.check, *block.wrong, block.solution)
            sections[-1].code += [names(cell.source, bound) for cell in cells]
    return sections


def _read(prose: str, sections: list[_Section]) -> None:
    """Divide prose among its sections. Twins have the same spans, so English is enough."""
    found = facts(prose)
    starts = {heading.line: heading for heading in found.headings}
    events = [(line, 0, "", heading.slug) for line, heading in starts.items()]
    events += [(span.line, 1, "span", span.text) for span in found.spans]
    events += [(link.line, 1, "link", link.text) for link in found.links]
    for line, _, kind, text in sorted(events, key=lambda event: event[:2]):
        if not kind:
            sections.append(_Section(text))
        elif kind == "link":
            sections[-1].links.update(_documented(text))
        elif line in starts:
            sections[-1].titles.add(text)
        else:
            sections[-1].spans[text] += 1


def _documented(address: str) -> Iterator[str]:
    """`torch.Tensor.view` of an address in PyTorch's documentation."""
    if found := _DOCUMENTATION.match(address):
        yield from (name for name in found.groups() if name and "." in name)


class _Resolver:
    """Finds whole names for what prose and code of one lesson write."""

    def __init__(self, bound: dict[str, str], sections: list[_Section]) -> None:
        self._bound = _ALIASES | bound
        code = [found for section in sections for found in section.code]
        self._attributes = frozenset[str]().union(*(one.attributes for one in code))
        self._defined = frozenset[str]().union(*(one.defined for one in code))
        self._dotted = frozenset[str]().union(*(one.dotted for one in code))
        self._last: dict[str, set[str]] = {}
        for whole in self._dotted:
            self._last.setdefault(whole.rpartition(".")[2], set()).add(whole)
        spans = {span for section in sections for span in (*section.spans, *section.titles)}
        self._meant = {span: self._resolve(span) for span in sorted(spans)}
        # An attribute in code may be anything; prose says which are methods of the library.
        self._confirmed = {
            name.rpartition(".")[2]: name
            for names in self._meant.values()
            for name in names
            if name.rpartition(".")[0] in members()
        }

    def of_span(self, span: str) -> tuple[str, ...]:
        """Names that a code span means; a method counts where code uses it, too."""
        return self._meant[span]

    def of_code(self, code: list[Names]) -> set[str]:
        """Names that code uses; of attributes those that prose has confirmed."""
        found = {whole for one in code for whole in one.dotted}
        attributes = {name for one in code for name in one.attributes}
        return found | {self._confirmed[name] for name in attributes & self._confirmed.keys()}

    def _resolve(self, span: str) -> tuple[str, ...]:
        match = _NAME.match(span.strip())
        if not match:
            return ()
        root, _, rest = match["name"].partition(".")
        if root in self._bound and (rest or root in _ALIASES or "." in self._bound[root]):
            return (".".join(filter(None, (self._bound[root], rest))),)
        if rest:
            return self._member(rest.rpartition(".")[2], root) or (match["name"],)
        found = self._last.get(root, set())
        return tuple(sorted({*found, *(self._own(root) or self._member(root, ""))}))

    def _own(self, name: str) -> tuple[str, ...]:
        """What the lesson defines itself is the library's only as a part of its contract."""
        if name not in self._defined:
            return ()
        if FUNCTION in self._dotted:
            for contract in (FUNCTION, CONTEXT):
                if name in members().get(contract, ()):
                    return (f"{contract}.{name}",)
        return (name,)

    def _member(self, name: str, variable: str) -> tuple[str, ...]:
        of = owner(name, variable) if name in self._attributes else ""
        return (f"{of}.{name}",) if of else ()
