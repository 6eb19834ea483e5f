"""Spelling: slips are found where they stand, and what is meant is left alone."""

import sys

import pytest
from tiny import REPOSITORY, TITLE, Case, Done, TinyCourse, cases, command, compare

from blackbelt.lesson import LANGUAGES

LESSON = "lessons/1_first/01_tensor.py"

# What the page shows as code, a formula, an address or a value is not a word of a language.
SLIPS = cases(
    """
=== slips of prose
@title
# %% [markdown] lang="pl"
# Tensor zajmuje bajty w pamięci,
# a jego wdok zajmuje tylko opis.
► no Polish dictionary has `wdok`
#
# Litery moga stracić znaki.
► no Polish dictionary has `moga`

# %% [markdown] lang="en"
# A tensor takes bytes, and
# its veiw takes only a description.
► no English dictionary has `veiw`
#
# Letters can't loose... they can, like Gdańsk.
► no English dictionary has `Gdańsk`

=== word of another century
@title
# %% [markdown] lang="pl"
# Tensor sie zmienia.
► no Polish dictionary has `sie`

# %% [markdown] lang="en"
# The tensor changes.

=== family name in lower case
@title
# %% [markdown] lang="pl"
# Liczba krokow jest stała.
► no Polish dictionary has `krokow`

# %% [markdown] lang="en"
# The number of steps is constant.

=== code, formulas, values, addresses and names with digits
@title
# %%
size = 3  # x.vieww(6) and rezult[0], --flagg, a_veiw

# %% [markdown] lang="pl"
# Metoda `vieww` zwraca {{ size }}, $xyzzy$, <https://example.org/wdok>, bf16 i float32x.
#
# ```python
# wdok = 1
# ```

# %% [markdown] lang="en"
# The method `vieww` returns {{ size }}, $xyzzy$, <https://example.org/veiw>, bf16 and float32x.
#
# ```python
# veiw = 1
# ```

=== terms of the other language
@title
# %% [markdown] lang="pl"
# Krok (stride) to *offset*, a [Tensor views](https://example.org) to opis.
# Komunikat „The size of tensor” ma funkcja w pliku TensorShape.cpp.
#
# Sam stride bez nawiasu jest obcy.
► no Polish dictionary has `stride`
#
# Nawias (stryde) nie chroni słów, których nikt nie zna.
► no Polish dictionary has `stryde`

# %% [markdown] lang="en"
# A stride is an *offset*, and [Tensor views](https://example.org) a description.
# The message is in TensorShape.cpp.
#
# Just a stride.
#
# Nothing more.

=== what code says
@title
# %%
from snippets.bilingual import say

# a comment with a mistaek in it
► no English dictionary has `mistaek`
print(
    say(
        pl=f"ten sam magzyn {1}",
► no Polish dictionary has `magzyn`
        en="the same storrage",
► no English dictionary has `storrage`
    )
)

=== words to avoid in any form
@title
# %% [markdown] lang="pl"
# PyTorch posiada tensory.
► the course does not write `posiada`, but: mieć

# %% [markdown] lang="en"
# PyTorch has tensors in every color.
► the course does not write `color`, but: colour
""",
    {"title": TITLE},
)
POLISH = "# words\n\nposiadać -> mieć\n\nPyTorch\n"
ENGLISH = "colour\nPyTorch\n"


def spell(
    course: TinyCourse, *arguments: str, polish: str = POLISH, english: str = ENGLISH
) -> Done:
    for language, text in (("pl", polish), ("en", english)):
        (course.root / "lessons" / f"words.{language}.txt").write_text(text, encoding="utf-8")
    return course.command("spell", *arguments)


@pytest.mark.parametrize("name", SLIPS)
def test_slips(name: str, course: TinyCourse) -> None:
    case: Case = SLIPS[name]
    course.write(LESSON, case.source)
    done = spell(course)
    compare(done.of(LESSON), case)
    assert {problem.command for problem in done.of(LESSON)} <= {"uv run blackbelt spell"}


def test_a_listed_word_may_begin_a_sentence_and_own_something(course: TinyCourse) -> None:
    prose = (
        TITLE + '# %% [markdown] lang="pl"\n# Hook działa. Drugi hook też.\n\n'
        '# %% [markdown] lang="en"\n# Autograd works. Does autograd’s engine? Does PyTorch\'s?\n'
    )
    course.write(LESSON, prose)
    done = spell(course, polish="hook\n", english="autograd\nPyTorch\n")
    assert (done.err, done.code) == ("", 0)


def test_a_word_that_no_text_needs_any_more_is_reported(course: TinyCourse) -> None:
    course.write(LESSON, TITLE)
    done = spell(course, polish="# words\nhook\n", english="tensor\n")
    assert done.code == 1
    assert "lessons/words.pl.txt:2: `hook` is listed for nothing" in done.err
    # Hunspell knows it.
    assert "lessons/words.en.txt:1: `tensor` is listed for nothing" in done.err


def test_accept_writes_what_is_needed_and_keeps_the_rest_of_the_file(course: TinyCourse) -> None:
    prose = (
        '# %% [markdown] lang="pl"\n# Hook, hook i batch. On posiada hooki.\n\n'
        '# %% [markdown] lang="en"\n# Numpy, numpy\'s.\n'
    )
    course.write(LESSON, TITLE + prose)
    done = spell(course, "--accept", polish=POLISH + "zbędne\n", english="")
    lists = [
        (course.root / f"lessons/words.{code}.txt").read_text(encoding="utf-8")
        for code in ("pl", "en")
    ]
    assert lists == ["# words\n\nposiadać -> mieć\n\nbatch\nhook\nhooki\n", "numpy\n"]
    # A word to avoid is not accepted.
    assert "the course does not write `posiada`" in done.err
    assert done.code == 1


def test_lists_are_left_alone_while_a_lesson_cannot_be_read(course: TinyCourse) -> None:
    course.write(LESSON, TITLE)
    course.write("lessons/2_second/02_hook.py", "# %% [nonsense]\n")
    lists = {"polish": "hook\n", "english": "numpy\n"}
    done = spell(course, **lists)
    assert [problem.path for problem in done.problems] == ["lessons/2_second/02_hook.py"]
    assert "listed for nothing" not in done.err
    done = spell(course, "--accept", **lists)
    assert done.code == 1
    assert (course.root / "lessons/words.pl.txt").read_text(encoding="utf-8") == "hook\n"


def test_pages_titles_and_the_files_around_them(course: TinyCourse) -> None:
    root = course.root
    (root / "docs").mkdir()
    (root / "docs" / "page.pl.md").write_text(
        "---\ntitle: Strona z błdem\ntemplate: hoome.html\n---\n"
        "# Tytuł { #hoome }\n\nTekst z bęłdem.\n",
        encoding="utf-8",
    )
    (root / "docs" / "page.en.md").write_text("# Title\n\nA mistaek.\n", encoding="utf-8")
    (root / "README.pl.md").write_text("Po plosku.\n", encoding="utf-8")
    (root / "docs" / "glossary.toml").write_text(
        'definition_en = "A definiton."\n', encoding="utf-8"
    )
    roadmap = root / "lessons" / "roadmap.toml"
    roadmap.write_text(
        roadmap.read_text(encoding="utf-8").replace("O czym.", "O czmy."), encoding="utf-8"
    )
    done = spell(course, polish="", english="")
    found = {
        (line.split(": ")[0], line.split("`")[1])
        for line in done.err.splitlines()
        if "dictionary" in line
    }
    assert found == {
        ("docs/page.pl.md:2", "błdem"),
        ("docs/page.pl.md:7", "bęłdem"),
        ("docs/page.en.md:3", "mistaek"),
        ("README.pl.md:1", "plosku"),
        ("docs/glossary.toml:1", "definiton"),
        ("lessons/roadmap.toml:4", "czmy"),
    }


def test_without_dictionaries_it_says_how_to_get_them(
    course: TinyCourse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "morfeusz2", None)
    done = spell(course)
    assert done.code == 1
    assert done.err.rstrip().endswith("next: uv sync")


def test_the_course_is_spelt_right() -> None:
    done = command(("spell",), REPOSITORY)
    assert (done.err, done.code) == ("", 0)


def test_a_new_lesson_is_spelt_right(course: TinyCourse) -> None:
    course.plan("lessons/1_first/01_tensor.py")
    assert course.command("new", "1_first", "01_tensor").code == 0
    lists = [(REPOSITORY / f"lessons/words.{x}.txt").read_text(encoding="utf-8") for x in LANGUAGES]
    done = spell(course, polish=lists[0], english=lists[1])
    assert done.of(LESSON) == ()
    # It was looked at.
    file = course.root / LESSON
    file.write_text(file.read_text(encoding="utf-8").replace("Trzy ", "Tzry "), encoding="utf-8")
    [problem] = spell(course, polish=lists[0], english=lists[1]).of(LESSON)
    assert "`Tzry`" in problem.what
