"""What to know before a lesson: the rules of `needs`, and where lessons stand on the map."""

from collections.abc import Iterable, Iterator, Mapping
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
    """A lesson on a map: the column says how much stands before it."""

    number: str
    column: int
    row: int
    inside: bool


@dataclass(frozen=True)
class Map:
    """Lessons in columns, each right of all that it needs.

    Attributes:
        places: by columns, then by rows.
        edges: pairs of a needed lesson and one that needs it.
        columns: how many.
        rows: of the longest column.
    """

    places: tuple[Place, ...]
    edges: tuple[tuple[str, str], ...]
    columns: int
    rows: int


def draw_map(members: tuple[str, ...], needs: Needs) -> Map:
    """Place the lessons of a module, and the lessons of others that they need directly."""
    outside = sorted({one for m in members for one in needs[m]} - set(members))
    edges = tuple((one, member) for member in members for one in needs[member])
    columns: dict[str, int] = dict.fromkeys(outside, 0)
    first = 1 if outside else 0
    for member in members:  # in reading order, so that what it needs has its place
        columns[member] = max((columns[one] + 1 for one in needs[member]), default=first)
        columns[member] = max(columns[member], first)
    rows = _rows(columns, edges)
    places = sorted(
        (Place(n, columns[n], rows[n], n in members) for n in columns),
        key=lambda place: (place.column, place.row),
    )
    used = max(columns.values(), default=-1) + 1
    return Map(tuple(places), edges, used, max(rows.values(), default=-1) + 1)


def _rows(columns: Mapping[str, int], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Rows that follow what stands in the column before, so that few edges cross."""
    rows: dict[str, int] = {}
    pairs = list(edges)
    order = {number: position for position, number in enumerate(columns)}
    for column in range(max(columns.values(), default=-1) + 1):
        members = [number for number in columns if columns[number] == column]
        if column == 0:  # beside the first lesson that needs it
            wanted = {n: [order[b] for a, b in pairs if a == n] for n in members}
        else:
            wanted = {n: [rows[a] for a, b in pairs if b == n and a in rows] for n in members}

        def middle(number: str, near: Mapping[str, list[int]] = wanted) -> float:
            mine = near[number]
            return sum(mine) / len(mine) if mine else len(order)

        for row, number in enumerate(sorted(members, key=lambda n: (middle(n), order[n]))):
            rows[number] = row
    return rows
