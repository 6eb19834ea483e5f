"""What a reader does on the site: predictions, quizzes, exercises, and progress that stays."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe import violations
from built_site import LANGUAGES, OTHER, Visit, localized
from playwright.sync_api import Locator, Page, expect
from tiny import REPOSITORY

from blackbelt.strings import for_language
from blackbelt.strings_learning import Learning

pytest_plugins = ["learning_site"]

Open = Callable[..., Visit]
PREDICT = "lessons/1_first/10_predict/"
QUIZ = "lessons/1_first/11_quiz/"
EXERCISES = "lessons/1_first/08_exercise/"
KEY = "pytorch-black-belt:progress:1"

in_both_languages = pytest.mark.parametrize("language", LANGUAGES)


def words(language: str) -> Learning:
    return for_language(language).learning


def question(page: Page, name: str = "file-of-a-view") -> Locator:
    return page.locator(f'[data-question="{name}"]')


def commit(asked: Locator, language: str = "pl") -> None:
    asked.get_by_role("button", name=words(language).commit).click()


def result(asked: Locator) -> Locator:
    return asked.get_by_role("status")


def stored(page: Page) -> dict[str, Any]:
    text = page.evaluate(f"localStorage.getItem({KEY!r})")
    return dict(json.loads(text)["lessons"]) if text else {}


def states(asked: Locator) -> list[str]:
    """Right or wrong, as each option says it in words."""
    return [
        " ".join(text.split()) for text in asked.locator(".bb-answer__verdict").all_inner_texts()
    ]


# Predictions


@in_both_languages
def test_the_truth_shows_only_after_the_reader_commits(reader: Open, language: str) -> None:
    window, said = reader(), words(language)
    page = window.open(localized(PREDICT, language))
    asked = question(page)
    expect(asked.get_by_role("radio")).to_have_count(3)
    expect(asked.locator(".bb-answer").first).to_be_hidden()
    expect(asked.locator("details")).to_have_count(0)
    asked.get_by_role("radio").nth(0).check()
    expect(asked.locator(".bb-answer").first).to_be_hidden()
    commit(asked, language)
    for answer in asked.locator(".bb-answer").all():
        expect(answer).to_be_visible()
    wrong, right = said.wrong, said.right
    assert states(asked) == [
        f"{wrong.format(letter='A')} {said.mine}",
        right.format(letter="B"),
        wrong.format(letter="C"),
    ]
    expect(result(asked)).to_have_text(said.miss.format(truth="B"))
    expect(result(asked)).to_be_focused()
    expect(asked.get_by_role("button", name=said.commit)).to_be_hidden()
    window.assert_clean()


def test_committing_to_nothing_says_so_and_shows_nothing(reader: Open) -> None:
    page = reader().open(PREDICT)
    asked = question(page)
    commit(asked)
    expect(result(asked)).to_have_text(words("pl").nothing)
    expect(asked.get_by_role("radio").first).to_be_focused()
    expect(asked.locator(".bb-answer").first).to_be_hidden()
    assert stored(page) == {}


def test_an_answer_survives_a_reload_and_the_language_switch(reader: Open) -> None:
    window = reader()
    page = window.open(PREDICT)
    question(page).get_by_role("radio").nth(1).check()
    commit(question(page))
    expect(result(question(page))).to_have_text(words("pl").hit)
    page.reload()
    expect(result(question(page))).to_have_text(words("pl").hit)
    expect(result(question(page))).not_to_be_focused()
    page.get_by_role("button", name=re.compile("język", re.I)).hover()
    page.get_by_role("link", name="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(result(question(page))).to_have_text(words("en").hit)
    expect(question(page).get_by_role("radio").nth(1)).to_be_checked()


def test_trying_again_forgets_the_answer(reader: Open) -> None:
    page = reader().open(PREDICT)
    asked = question(page)
    asked.get_by_role("radio").nth(0).check()
    commit(asked)
    asked.get_by_role("button", name=words("pl").again).click()
    expect(asked.get_by_role("radio").first).to_be_focused()
    expect(asked.get_by_role("radio", checked=True)).to_have_count(0)
    expect(asked.locator(".bb-answer").first).to_be_hidden()
    assert stored(page)["10"]["questions"] == {}
    page.reload()
    expect(asked.get_by_role("button", name=words("pl").commit)).to_be_visible()


def test_an_answer_to_options_that_are_gone_is_no_answer(reader: Open) -> None:
    page = reader().open(PREDICT)
    asked = question(page)
    asked.get_by_role("radio").nth(0).check()
    commit(asked)
    page.evaluate(f"localStorage[{KEY!r}] = localStorage[{KEY!r}].replace('[\"A\"]', '[\"D\"]')")
    page.reload()
    expect(asked.get_by_role("button", name=words("pl").commit)).to_be_visible()


def test_a_prediction_with_the_keyboard_alone(reader: Open) -> None:
    page = reader().open(PREDICT)
    asked = question(page)
    asked.get_by_role("radio").first.focus()
    page.keyboard.press("ArrowDown")
    expect(asked.get_by_role("radio").nth(1)).to_be_checked()
    page.keyboard.press("Enter")
    expect(result(asked)).to_be_focused()
    page.keyboard.press("Tab")
    again = asked.get_by_role("button", name=words("pl").again)
    expect(again).to_be_focused()
    page.keyboard.press("Space")
    expect(asked.get_by_role("radio").first).to_be_focused()


def test_a_question_has_a_name_and_its_result_is_announced(reader: Open) -> None:
    page = reader().open(PREDICT)
    group = page.get_by_role("group", name=re.compile("^Przewidź Zapisujesz na dysk view"))
    expect(group).to_be_visible()
    expect(group.get_by_role("radio", name=re.compile("Około 10.B"))).to_be_visible()
    expect(group.get_by_role("status")).to_be_attached()


@in_both_languages
def test_questions_read_without_scripts(reader: Open, language: str) -> None:
    said = words(language)
    page = reader(java_script_enabled=False).open(localized(PREDICT, language))
    asked = question(page)
    expect(asked.locator("ol > li")).to_have_count(3)
    expect(asked.locator(".bb-answer").first).to_be_hidden()
    asked.get_by_text(said.answer).click()
    assert states(asked) == [
        said.wrong.format(letter="A"),
        said.right.format(letter="B"),
        said.wrong.format(letter="C"),
    ]
    expect(asked.locator(".bb-answer").nth(2)).to_be_visible()
    page = reader(java_script_enabled=False).open(localized(QUIZ, language))
    shown = question(page, "steps").locator("ol > li").all_inner_texts()
    assert sorted(shown) == ["backward", "forward", "step"]
    assert shown != ["forward", "backward", "step"]
    # Nothing to press that would do nothing.
    for name in (said.commit, said.done, said.lesson_finished):
        expect(page.get_by_role("button", name=name)).to_have_count(0)


def test_reasons_are_printed(reader: Open) -> None:
    page = reader().open(PREDICT)
    page.emulate_media(media="print")
    for answer in question(page).locator(".bb-answer").all():
        expect(answer).to_be_visible()
    expect(page.get_by_role("button", name=words("pl").commit)).to_be_hidden()


# For everyone

SCREENS = pytest.mark.parametrize(
    ("language", "scheme", "width"), [("pl", "light", 1280), ("en", "dark", 360)]
)


@SCREENS
def test_axe_finds_nothing(reader: Open, language: str, scheme: str, width: int) -> None:
    window, said = reader(width=width, color_scheme=scheme), words(language)
    page = window.open(localized(QUIZ, language))
    assert violations(page) == []
    answer_quiz(page, well=False, language=language)
    assert violations(page) == []
    window.open(localized(PREDICT, language))
    question(page).get_by_role("radio").nth(1).check()
    commit(question(page), language)
    window.open(localized(EXERCISES, language))
    page.get_by_role("button", name=said.done).first.click()
    page.get_by_role("button", name=said.lesson_finished).click()
    assert violations(page) == []
    window.open(localized("", language))
    assert violations(page) == []
    panel(page).get_by_role("button", name=said.clear).click()
    assert violations(page) == []


@pytest.mark.parametrize("address", [PREDICT, QUIZ, EXERCISES, ""])
def test_nothing_sticks_out_of_a_telephone(reader: Open, address: str) -> None:
    page = reader(width=360).open(address)
    for asked in page.locator(".bb-question").all():
        if asked.get_by_role("textbox").count():
            asked.get_by_role("textbox").fill("12")
        elif asked.locator("input").count():
            asked.locator("input").first.check()
        commit(asked)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


# Quizzes


def answer_quiz(page: Page, *, well: bool, language: str = "pl") -> None:
    one, many, typed, order = (
        question(page, name) for name in ("which", "which-ones", "how-many", "steps")
    )
    one.get_by_role("radio").nth(1 if well else 0).check()
    many.get_by_role("checkbox").nth(0).check()
    if well:
        many.get_by_role("checkbox").nth(2).check()
    typed.get_by_role("textbox").fill(" 12345 " if well else "12")
    if well:
        put_in_order(order, ["forward", "backward", "step"], language)
    for asked in (one, many, typed, order):
        commit(asked, language)


def put_in_order(asked: Locator, wanted: list[str], language: str) -> None:
    for place, text in enumerate(wanted):
        row = asked.get_by_role("listitem").filter(has_text=text)
        button = row.get_by_role("button", name=f"{words(language).move_up}: {text}")
        while asked.locator(".bb-option__text").all_inner_texts().index(text) > place:
            button.click()
            expect(button).to_be_focused()


def quiz_score(page: Page) -> Locator:
    return page.locator(".bb-quiz__score").get_by_role("status")


@in_both_languages
def test_a_quiz_is_scored_and_keeps_the_best(reader: Open, language: str) -> None:
    window, said = reader(), words(language)
    page = window.open(localized(QUIZ, language))
    assert [q.get_attribute("data-question") for q in page.locator(".bb-question").all()] == [
        "which",
        "which-ones",
        "how-many",
        "steps",
    ]
    expect(quiz_score(page)).to_have_text(said.score_open.format(answered=0, of=4))
    answer_quiz(page, well=True, language=language)
    expect(quiz_score(page)).to_have_text(said.score_done.format(right=4, of=4, best=4))
    page.reload()
    expect(quiz_score(page)).to_have_text(said.score_done.format(right=4, of=4, best=4))
    page.get_by_role("button", name=said.again).click()
    expect(quiz_score(page)).to_have_text(said.score_open.format(answered=0, of=4))
    answer_quiz(page, well=False, language=language)
    expect(quiz_score(page)).to_have_text(said.score_done.format(right=0, of=4, best=4))
    assert stored(page)["11"]["quizzes"]["exam"]["best"] == 4
    window.assert_clean()


def test_several_right_options_are_all_wanted(reader: Open) -> None:
    page = reader().open(QUIZ)
    asked = question(page, "which-ones")
    for box in asked.get_by_role("checkbox").all():
        box.check()
    commit(asked)
    expect(result(asked)).to_have_text(words("pl").miss.format(truth="A, C"))


@pytest.mark.parametrize(
    ("language", "typed", "right"),
    [
        ("pl", "12345", True),
        ("pl", "12 345", True),
        ("pl", "12,345", False),
        ("en", "12,345", True),
        ("en", "12345.", False),
        ("pl", "123450", False),
    ],
)
def test_typed_numbers(reader: Open, language: str, typed: str, right: bool) -> None:
    page = reader().open(localized(QUIZ, language))
    asked = question(page, "how-many")
    asked.get_by_role("textbox").fill(typed)
    commit(asked, language)
    expect(result(asked)).to_have_attribute("data-kind", "right" if right else "wrong")
    # Judged once: in the other language the same letters may be another number.
    page.goto(page.url.replace(localized(QUIZ, language), localized(QUIZ, OTHER[language])))
    expect(result(asked)).to_have_attribute("data-kind", "right" if right else "wrong")


def test_steps_are_moved_with_the_keyboard_and_announced(reader: Open) -> None:
    page = reader().open(QUIZ)
    asked = question(page, "steps")
    before = asked.locator(".bb-option__text").all_inner_texts()
    asked.get_by_role("button", name=f"{words('pl').move_down}: {before[0]}").focus()
    page.keyboard.press("Enter")
    after = asked.locator(".bb-option__text").all_inner_texts()
    assert after == [before[1], before[0], before[2]]
    expect(result(asked)).to_have_text(words("pl").moved.format(text=before[0], place=2))


# Exercises and lessons


@in_both_languages
def test_exercises_and_lessons_are_marked_done(reader: Open, language: str) -> None:
    window, said = reader(), words(language)
    page = window.open(localized(EXERCISES, language))
    done = page.get_by_role("button", name=said.done)
    expect(done).to_have_count(2)
    expect(done.first).to_have_accessible_description(re.compile(r"a \* b"))
    done.first.click()
    finished = page.get_by_role("button", name=said.lesson_finished)
    finished.focus()
    page.keyboard.press("Space")
    link = page.locator(".md-nav--primary").get_by_role("link", name=re.compile("^08"))
    expect(link.get_by_role("img", name=said.finished)).to_be_visible()
    page.reload()
    expect(done.first).to_have_attribute("aria-pressed", "true")
    expect(done.nth(1)).to_have_attribute("aria-pressed", "false")
    expect(finished).to_have_attribute("aria-pressed", "true")
    finished.click()
    expect(link.get_by_role("img")).to_have_count(0)
    assert "finished" not in stored(page)["08"]
    window.assert_clean()


def test_an_exercise_has_all_its_parts(reader: Open) -> None:
    said = for_language("pl")
    page = reader(permissions=["clipboard-read", "clipboard-write"]).open(EXERCISES)
    card = page.locator('[data-exercise="product"]')
    expect(card.locator(".exercise__meta")).to_have_text(re.compile("Biały pas.*5.min"))
    summaries = card.locator("summary").all_inner_texts()
    hints = [said.hint.format(number=number) for number in (1, 2)]
    assert summaries == [said.check, *hints, said.wrong_answers, said.solution]
    card.locator("> .nb-input").hover()
    card.locator("> .nb-input .md-code__button, > .nb-input .md-clipboard").first.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip().startswith("def product(a: int, b: int) -> int:\n    return 0")


# Progress


def finish_some(page: Page) -> None:
    page.goto(page.url.split("lessons/")[0] + EXERCISES)
    page.get_by_role("button", name=words("pl").done).first.click()
    page.get_by_role("button", name=words("pl").lesson_finished).click()
    page.goto(page.url.replace(EXERCISES, PREDICT))
    question(page).get_by_role("radio").nth(1).check()
    commit(question(page))


def panel(page: Page) -> Locator:
    return page.locator(".bb-progress")


def counts(page: Page) -> list[str]:
    return [text.strip() for text in page.locator(".bb-progress dd").all_inner_texts()]


def save(page: Page, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=words("pl").save_file).click()
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file


def load(page: Page, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=words("pl").load_file).click()
    chooser.value.set_files(file)


def clear(page: Page) -> None:
    panel(page).get_by_role("button", name=words("pl").clear).click()
    dialog = page.get_by_role("dialog", name=words("pl").clear_title)
    dialog.get_by_role("button", name=words("pl").clear).click()


@in_both_languages
def test_the_home_page_shows_what_is_done(reader: Open, language: str) -> None:
    window = reader()
    page = window.open(EXERCISES)
    finish_some(page)
    window.open(localized("", language))
    of = words(language).of
    wanted = [of.format(number=1, total=total) for total in (3, 2, 1)]
    expect(panel(page)).to_be_visible()
    assert counts(page) == wanted
    belts = page.locator(".bb-module").first.locator(".bb-module__belts")
    expect(belts).to_have_text(re.compile(rf"^\s*{for_language(language).belts['white']}\s*$"))
    ticks = page.locator(".bb-module").get_by_role("img", name=words(language).finished)
    expect(ticks).to_have_count(1)
    window.assert_clean()


def test_a_belt_needs_every_exercise(reader: Open) -> None:
    window = reader()
    page = window.open(EXERCISES)
    page.get_by_role("button", name=words("pl").done).nth(1).click()
    window.open("")
    belts = page.locator(".bb-module__belts")
    expect(belts).to_have_count(1)
    assert belts.inner_text().strip() == "Czarny pas"
    window.open(EXERCISES)
    page.get_by_role("button", name=words("pl").done).nth(1).click()
    window.open("")
    expect(belts).to_have_count(0)


def test_progress_goes_to_a_file_and_comes_back(reader: Open, tmp_path: Path) -> None:
    window = reader()
    page = window.open(EXERCISES)
    finish_some(page)
    window.open("")
    before, shown = stored(page), counts(page)
    file = save(page, tmp_path)
    clear(page)
    expect(panel(page).get_by_role("status")).to_have_text(words("pl").cleared)
    assert stored(page) == {}
    expect(page.get_by_role("button", name=words("pl").save_file)).to_be_disabled()
    load(page, file)
    dialog = page.get_by_role("dialog", name=words("pl").load_title)
    expect(dialog).to_contain_text(
        words("pl").load_text.format(lessons=1, exercises=1, questions=1)
    )
    dialog.get_by_role("button", name=words("pl").replace).click()
    expect(panel(page).get_by_role("status")).to_have_text(words("pl").loaded)
    assert stored(page) == before
    assert counts(page) == shown
    assert page.evaluate("policyViolations") == []


def test_merging_keeps_both(reader: Open, tmp_path: Path) -> None:
    first = reader()
    finish_some(first.open(EXERCISES))
    file = save(first.open(""), tmp_path)
    second = reader()
    page = second.open(EXERCISES)
    page.get_by_role("button", name=words("pl").done).nth(1).click()
    second.open("")
    load(page, file)
    page.get_by_role("dialog").get_by_role("button", name=words("pl").merge).click()
    assert set(stored(page)["08"]["exercises"]) == {"product", "shortest"}
    assert stored(page)["10"]["questions"]["file-of-a-view"]["right"] is True


def test_clearing_asks_first(reader: Open) -> None:
    window = reader()
    page = window.open(EXERCISES)
    finish_some(page)
    window.open("")
    before = stored(page)
    panel(page).get_by_role("button", name=words("pl").clear).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert stored(page) == before
    panel(page).get_by_role("button", name=words("pl").clear).click()
    page.get_by_role("dialog").get_by_role("button", name=words("pl").cancel).click()
    assert stored(page) == before


GOOD = {"format": "pytorch-black-belt progress", "version": 1, "lessons": {}}
DATE = "2026-11-21T10:00:00.000Z"
FOREIGN = {
    "not JSON": "{",
    "nothing": "",
    "another file": '{"a": 1}',
    "a list": "[]",
    "a later version": json.dumps(GOOD | {"version": 2}),
    "lessons in a list": json.dumps(GOOD | {"lessons": [1]}),
    "a lesson with a strange number": json.dumps(GOOD | {"lessons": {"__proto__": {}}}),
    "a lesson that is text": json.dumps(GOOD | {"lessons": {"01": "x"}}),
    "an exercise without a date": json.dumps(GOOD | {"lessons": {"01": {"exercises": {"a": 1}}}}),
    "markup for an id": json.dumps(GOOD | {"lessons": {"01": {"exercises": {"<b>": DATE}}}}),
    "an answer that is null": json.dumps(GOOD | {"lessons": {"01": {"questions": {"a": None}}}}),
    "half of a file": json.dumps(GOOD)[:40],
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_damaged_or_foreign_file_changes_nothing(name: str, reader: Open, tmp_path: Path) -> None:
    window = reader()
    page = window.open(EXERCISES)
    page.get_by_role("button", name=words("pl").done).first.click()
    window.open("")
    before = stored(page)
    file = tmp_path / "progress.json"
    file.write_text(FOREIGN[name], encoding="utf-8")
    load(page, file)
    expect(panel(page).get_by_role("status")).to_have_text(words("pl").damaged)
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert stored(page) == before
    window.assert_clean()


def test_what_is_stored_and_damaged_is_put_aside(reader: Open) -> None:
    window = reader()
    page = window.open("")
    page.evaluate(f"localStorage[{KEY!r}] = 'broken'")
    window.open(EXERCISES)
    page.get_by_role("button", name=words("pl").done).first.click()
    assert set(stored(page)) == {"08"}
    assert page.evaluate(f"localStorage[{KEY + ':damaged'!r}]") == "broken"


@in_both_languages
def test_without_storage_everything_works_and_says_that_nothing_is_kept(
    reader: Open, language: str
) -> None:
    window, said = reader(), words(language)
    window.page.add_init_script(
        "Object.defineProperty(window, 'localStorage', "
        "{ get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    page = window.open(localized(EXERCISES, language))
    done = page.get_by_role("button", name=said.done).first
    done.click()
    expect(done).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".bb-finish")).to_contain_text(said.not_kept)
    window.open(localized(PREDICT, language))
    question(page).get_by_role("radio").nth(1).check()
    commit(question(page), language)
    expect(result(question(page))).to_have_text(said.hit)
    window.open(localized("", language))
    expect(panel(page)).to_contain_text(said.not_kept)


def test_another_window_of_the_site_follows(reader: Open) -> None:
    window = reader()
    page = window.open(EXERCISES)
    other = page.context.new_page()
    other.goto(window.site + EXERCISES)
    other.get_by_role("button", name=words("pl").done).first.click()
    expect(page.get_by_role("button", name=words("pl").done).first).to_have_attribute(
        "aria-pressed", "true"
    )
    page.get_by_role("button", name=words("pl").done).nth(1).click()
    assert set(stored(other)["08"]["exercises"]) == {"product", "shortest"}


def test_the_golden_lessons_hold_every_kind_of_question() -> None:
    text = (REPOSITORY / "tests/golden/11_quiz.py").read_text(encoding="utf-8")
    assert set(re.findall(r'kind="(\w+)"', text)) == {"many", "type", "order"}
