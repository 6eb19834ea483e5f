"""The map of a module as a picture: boxes, and arrows between them; sizes are in pixels."""

from typing import Any

from blackbelt.prepare import Prepared
from blackbelt.prerequisites import draw_map
from blackbelt.roadmap import Module
from blackbelt.site.lesson_links import links

_WIDTH, _HEIGHT, _BETWEEN_COLUMNS, _BETWEEN_ROWS = 172, 54, 44, 12
# Of a title: letters in a line, and lines in a box.
_LETTERS, _LINES = 21, 3


def has_map(module: Module) -> bool:
    return any(planned.needs for planned in module.lessons)


def picture(module: Module, prepared: Prepared, language: str) -> dict[str, Any] | None:
    """The map for `partials/lesson-map.html`."""
    if not has_map(module):
        return None
    needs = {planned.number: planned.needs for planned in prepared.course.roadmap.reading_order}
    drawn = draw_map(tuple(planned.number for planned in module.lessons), needs)
    rows = max(len(column) for column in drawn.columns)
    height = rows * (_HEIGHT + _BETWEEN_ROWS)
    boxes: dict[str, dict[str, Any]] = {}
    for place in (place for column in drawn.columns for place in column):
        [link] = links(prepared, [place.number], language)
        step = height / len(drawn.columns[place.column])
        boxes[place.number] = {
            "x": 1 + place.column * (_WIDTH + _BETWEEN_COLUMNS),
            "y": round(step * (place.row + 0.5) - _HEIGHT / 2, 1),
            "lines": _lines(link["title"], _LINES - bool(place.elsewhere)),
            "elsewhere": ", ".join(place.elsewhere),
            **link,
        }
    return {
        "width": len(drawn.columns) * (_WIDTH + _BETWEEN_COLUMNS) - _BETWEEN_COLUMNS + 2,
        "height": height,
        "box": {"width": _WIDTH, "height": _HEIGHT},
        "boxes": list(boxes.values()),
        "arrows": [_arrow(boxes[before], boxes[after]) for before, after in drawn.edges],
    }


def _arrow(before: dict[str, Any], after: dict[str, Any]) -> str:
    """A curve from the right side of one box to the left side of another."""
    x1, y1 = before["x"] + _WIDTH, before["y"] + _HEIGHT / 2
    x2, y2 = after["x"] - 3, after["y"] + _HEIGHT / 2
    # Past the columns between, behind their boxes.
    near = x2 + 3 - _BETWEEN_COLUMNS
    bend = near + _BETWEEN_COLUMNS / 2
    return f"M{x1} {y1:g}H{near}C{bend:g} {y1:g} {bend:g} {y2:g} {x2} {y2:g}"


def _lines(title: str, most: int) -> list[str]:
    """The beginning of a title, up to its colon, in lines that fit into a box."""
    lines: list[str] = []
    for word in title.partition(": ")[0].split():
        if lines and len(lines[-1]) + 1 + len(word) <= _LETTERS:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [*lines[: most - 1], f"{lines[most - 1]} …"] if len(lines) > most else lines
