"""What to know before a lesson: the rules of `needs`, and where lessons stand on the map."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Needs = Mapping[str, tuple[str, ...]]


def check_needs(needs: Needs) -> Iterator[tuple[str, str]]:
    """Find mistakes in what lessons need.

    Args:
        needs: for each lesson, in reading order, the lessons to know beforehand.

    Yields:
        The number of a lesson, and what is wrong with its needs.
    """
    order = {number: position for position, number in enumerate(needs)}
    for number, wanted in needs.items():
        for one in wanted:
            if one not in order:
                yield number, f"lesson {number} needs `{one}`, which is not in the roadmap"
            elif wanted.count(one) > 1:
                yield number, f"lesson {number} needs `{one}` twice"
            elif order[one] >= order[number]:
                yield number, _backwards(number, one, needs)
            elif by := next((o for o in wanted if o != one and one in _all_before(o, needs)), None):
                what = f"lesson {number} needs `{one}`, which `{by}` needs already; remove it here"
                yield number, what


def _backwards(number: str, wanted: str, needs: Needs) -> str:
    if circle := _path(wanted, number, needs):
        way = " → ".join((number, *circle))
        return f"lessons need each other in a circle: {way}; remove one of these needs"
    return (
        f"lesson {number} needs `{wanted}`, which comes later in the course; "
        "remove the need or change the order"
    )


def _path(start: str, end: str, needs: Needs) -> tuple[str, ...]:
    """Lessons on a way from `start` to what it needs until `end`, or nothing."""
    waiting: list[tuple[str, ...]] = [(start,)]
    seen = {start}
    while waiting:
        way = waiting.pop(0)
        if way[-1] == end:
            return way
        for following in needs.get(way[-1], ()):
            if following not in seen:
                seen.add(following)
                waiting.append((*way, following))
    return ()


def _all_before(number: str, needs: Needs) -> set[str]:
    """Everything that a lesson needs, directly or not."""
    found: set[str] = set()
    waiting = list(needs.get(number, ()))
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += needs.get(one, ())
    return found


@dataclass(frozen=True)
class Place:
    """A lesson on a map: the column says how much of the map stands before it.

    Attributes:
        number: of the lesson.
        column: counted from 0.
        row: counted from 0.
        elsewhere: what it needs that is not on the map.
    """

    number: str
    column: int
    row: int
    elsewhere: tuple[str, ...]


@dataclass(frozen=True)
class Map:
    """Lessons in columns, each right of all that it needs.

    Attributes:
        columns: lessons by columns and rows.
        edges: pairs of a needed lesson and one that needs it.
    """

    columns: tuple[tuple[Place, ...], ...]
    edges: tuple[tuple[str, str], ...]


def draw_map(members: tuple[str, ...], needs: Needs) -> Map:
    """Place the lessons of a module, which are given in reading order."""
    inner = {n: tuple(one for one in needs[n] if one in members) for n in members}
    edges = tuple((one, number) for number in members for one in inner[number])
    depth: dict[str, int] = {}
    for number in members:  # what it needs has its place already
        depth[number] = max((depth[one] + 1 for one in inner[number]), default=0)
    rows: dict[str, int] = {}
    columns = []
    for column in range(max(depth.values(), default=-1) + 1):
        standing = [number for number in members if depth[number] == column]
        standing.sort(key=lambda number: _height([rows[one] for one in inner[number]]))
        rows |= {number: row for row, number in enumerate(standing)}
        columns.append(
            tuple(
                Place(n, column, rows[n], tuple(one for one in needs[n] if one not in members))
                for n in standing
            )
        )
    return Map(tuple(columns), edges)


def _height(rows: list[int]) -> float:
    """Beside what it needs, so that few arrows cross; in reading order where that is equal."""
    return sum(rows) / len(rows) if rows else 0.0
