"""The roadmap says what lessons need and what they are about; mistakes name their line."""

import pytest
from tiny import REPOSITORY, Done, TinyCourse

from blackbelt.config import load_project
from blackbelt.course import load_course
from blackbelt.prerequisites import check_needs, draw_map
from blackbelt.problems import Problem

HEAD = 'tags = [{ id = "memory", pl = "pamięć", en = "memory" }]\n'
MODULE = """
[[module]]
folder = "{folder}"
title = {{ pl = "Moduł", en = "Module" }}
summary = {{ pl = "O czym.", en = "On what." }}
lessons = [
{lessons}
]
"""


def lesson(number: str, fields: str = "") -> str:
    name = f'number = "{number}", slug = "lesson_{number}"'
    return f'    {{ {name}, pl = "Lekcja", en = "Lesson"{", " * bool(fields)}{fields} }},'


def write(course: TinyCourse, *lessons: str, head: str = HEAD, second: str = "") -> Done:
    """Write a roadmap whose first lesson stands in line 8, and check the course."""
    text = head + MODULE.format(folder="1_first", lessons="\n".join(lessons))
    if second:
        text += MODULE.format(folder="0_second", lessons=second)
    (course.root / "lessons" / "roadmap.toml").write_text(text, encoding="utf-8")
    return course.command("check")


@pytest.mark.parametrize(
    ("lessons", "line", "what"),
    [
        (
            [lesson("01", 'tags = ["memory"], needs = ["99"]')],
            8,
            "lesson 01 needs `99`, which is not in the roadmap",
        ),
        (
            [lesson("01", 'tags = ["memory"]'), lesson("02", 'needs = ["03"]'), lesson("03")],
            9,
            "lesson 02 needs `03`, which comes later in the course; remove the need or change the "
            "order",
        ),
        (
            [
                lesson("01", 'tags = ["memory"], needs = ["03"]'),
                lesson("02", 'needs = ["01"]'),
                lesson("03", 'needs = ["02"]'),
            ],
            8,
            "lessons need each other in a circle: 01 → 03 → 02 → 01; remove one of these needs",
        ),
        (
            [lesson("01", 'tags = ["memory"], needs = ["01"]')],
            8,
            "lessons need each other in a circle: 01 → 01; remove one of these needs",
        ),
        (
            [lesson("01", 'tags = ["memory"]'), lesson("02", 'needs = ["01", "01"]')],
            9,
            "lesson 02 needs `01` twice",
        ),
        (
            [
                lesson("01", 'tags = ["memory"]'),
                lesson("02", 'needs = ["01"]'),
                lesson("03", 'needs = ["01", "02"]'),
            ],
            10,
            "lesson 03 needs `01`, which `02` needs already; remove it here",
        ),
        (
            [lesson("01", 'tags = ["memory", "speed"]')],
            8,
            "tag `speed` of lesson 01 is not in `tags`: memory",
        ),
        (
            [lesson("01", 'tags = ["memory", "memory"]')],
            8,
            "lesson 01 has the tag `memory` twice",
        ),
        ([lesson("01")], 1, "no lesson has the tag `memory`; remove it from the list"),
    ],
)
def test_mistake_has_its_line(course: TinyCourse, lessons: list[str], line: int, what: str) -> None:
    done = write(course, *lessons)
    assert done.code
    found = set(done.problems)
    # `01` needed twice is a mistake of each mention; the report says it once.
    assert found == {Problem("lessons/roadmap.toml", line, what)}


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (HEAD.replace('"memory", pl', '"Memory!", pl'), "tag `Memory!`: an id is lower-case"),
        (HEAD.replace("]\n", ", " + HEAD.partition("[")[2]), "tag `memory` is listed twice"),
    ],
)
def test_list_of_tags_is_checked(course: TinyCourse, head: str, what: str) -> None:
    name = "Memory!" if "Memory!" in head else "memory"
    done = write(course, lesson("01", f'tags = ["{name}"]'), head=head)
    assert [(p.line, p.what[: len(what)]) for p in done.problems] == [(1, what)]


def test_reading_order_is_that_of_the_modules_numbers(course: TinyCourse) -> None:
    early = lesson("00", 'tags = ["memory"]')
    assert write(course, lesson("01", 'needs = ["00"]'), second=early).code == 0
    late = lesson("00", 'tags = ["memory"], needs = ["01"]')
    assert "comes later" in write(course, lesson("01"), second=late).err


@pytest.mark.parametrize("fields", ['needs = "01"', "needs = [1]", 'tags = "memory"', "tags = [1]"])
def test_needs_and_tags_are_lists_of_texts(course: TinyCourse, fields: str) -> None:
    done = write(course, lesson("01", fields))
    assert [problem.path for problem in done.problems] == ["lessons/roadmap.toml"]
    assert "is not a list of texts" in done.err


def test_map_stands_right_of_what_it_needs() -> None:
    needs = {"00": (), "01": (), "02": ("01",), "03": ("02",), "04": ("01", "00")}
    drawn = draw_map(("01", "02", "03", "04"), needs)
    places = [place for column in drawn.columns for place in column]
    assert {p.number: p.column for p in places} == {"01": 0, "02": 1, "03": 2, "04": 1}
    assert {p.number: p.elsewhere for p in places if p.elsewhere} == {"04": ("00",)}
    assert drawn.edges == (("01", "02"), ("02", "03"), ("01", "04"))
    assert len({(place.column, place.row) for place in places}) == len(places)


def test_maps_of_the_course_hold_every_lesson_and_point_forwards() -> None:
    roadmap = load_course(load_project(REPOSITORY)).roadmap
    needs = {planned.number: planned.needs for planned in roadmap.reading_order}
    for module in roadmap.modules:
        drawn = draw_map(tuple(planned.number for planned in module.lessons), needs)
        column = {p.number: p.column for places in drawn.columns for p in places}
        assert sorted(column) == sorted(planned.number for planned in module.lessons)
        assert all(column[before] < column[after] for before, after in drawn.edges)


def test_map_of_lessons_that_need_nothing_has_one_column() -> None:
    drawn = draw_map(("01", "02"), {"01": (), "02": ()})
    assert [len(column) for column in drawn.columns] == [2]
    assert drawn.edges == ()


def test_long_circle_is_found() -> None:
    numbers = [f"{n:02}" for n in range(60)]
    needs = {n: (numbers[i - 1],) for i, n in enumerate(numbers)}
    found = list(check_needs(needs))
    assert [number for number, _ in found] == ["00"]
    assert found[0][1].count("→") == 60


def test_every_lesson_of_the_course_has_one_to_three_tags() -> None:
    roadmap = load_course(load_project(REPOSITORY)).roadmap
    assert len(roadmap.reading_order) >= 68
    assert [p.number for p in roadmap.reading_order if not 1 <= len(p.tags) <= 3] == []


def test_every_later_lesson_of_a_module_hangs_together_with_the_course() -> None:
    """Only the first lessons of the course need nothing."""
    roadmap = load_course(load_project(REPOSITORY)).roadmap
    assert [p.number for p in roadmap.reading_order if not p.needs] == ["00", "01"]
