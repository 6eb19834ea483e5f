"""Cards are pictures of the right size, the same each time, in which no letter is missing."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tiny import REPOSITORY

from blackbelt import cards
from blackbelt.cards import HEIGHT, WIDTH, Card, card
from blackbelt.config import Project, load_project
from blackbelt.course import load_course
from blackbelt.lesson import LANGUAGES
from blackbelt.strings import for_language
from blackbelt.vendor import LATIN, POLISH

CARD = Card("Lekcja 01 · Tensory", "Magazyn danych kontra widok", "PyTorch Black Belt")
# A social network takes no more than a few MB; readers of a feed on a phone thank for less.
LARGEST = 40_000


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The real fonts, and a cache of its own."""
    (tmp_path / "docs").symlink_to(REPOSITORY / "docs")
    return replace(load_project(REPOSITORY), root=tmp_path)


def picture(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_size_and_weight(project: Project) -> None:
    data = card(project, CARD)
    image = picture(data)
    assert (image.size, image.format) == ((WIDTH, HEIGHT), "PNG")
    assert len(data) < LARGEST


def test_same_card_is_the_same_file(project: Project, tmp_path: Path) -> None:
    first = card(project, CARD)
    for file in (tmp_path / ".cache" / "cards").iterdir():
        file.unlink()
    assert card(project, CARD) == first
    assert card(project, replace(CARD, title="Another")) != first


def test_kept_card_is_not_drawn_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    first = card(project, CARD)
    monkeypatch.delattr(cards, "_draw")
    assert card(project, CARD) == first


@pytest.mark.parametrize("damage", [b"", b"\x89PNG half of it"])
def test_damaged_file_is_drawn_again(project: Project, tmp_path: Path, damage: bytes) -> None:
    first = card(project, CARD)
    [file] = (tmp_path / ".cache" / "cards").iterdir()
    file.write_bytes(damage)
    assert card(project, CARD) == first


def ink(project: Project, title: str) -> int:
    """Columns of the title's first line that are not all background."""
    image = picture(card(project, Card("", title, ""))).convert("RGB").crop((0, 130, WIDTH, 230))
    ground = image.getpixel((0, 0))
    pixels = image.load()
    assert pixels is not None
    return sum(any(pixels[x, y] != ground for y in range(image.height)) for x in range(image.width))


def test_polish_letters_are_drawn(project: Project) -> None:
    """Between two letters of the main font, each takes about as much as its plain sister."""
    for polish, plain in zip("ąęłńśźż", "aelnszz", strict=True):
        assert abs(ink(project, f"M{polish}M") - ink(project, f"M{plain}M")) < 12


def test_title_stays_within_the_card(project: Project) -> None:
    for title in ("W" * 60, "word " * 80, "słowo w " * 40, "x", ""):
        image = picture(card(project, replace(CARD, title=title))).convert("RGB")
        # Three lines at the most: the row above the strip is free.
        row = {image.getpixel((x, 436)) for x in range(WIDTH)}
        assert len(row) == 1, title


def test_fonts_have_every_letter_of_the_course() -> None:
    """A letter that the vendored fonts lack would be an empty box on the card."""
    ranges = [part.removeprefix("U+").split("-") for part in LATIN.split(",")]
    known = {
        chr(n) for part in ranges for n in range(int(part[0], 16), int(part[-1], 16) + 1)
    } | set(POLISH)
    course = load_course(load_project(REPOSITORY))
    for language in LANGUAGES:
        strings = for_language(language)
        texts = [strings.site_name, strings.way.motto, strings.module, strings.lesson, "·…"]
        texts += [module.titles[language] for module in course.modules]
        texts += [lesson.titles[language] for lesson in course.roadmap.reading_order]
        texts += [lesson.title(language) for lesson in course.lessons]
        assert {letter for text in texts for letter in text} - known == set()
