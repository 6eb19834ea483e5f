"""Questions as Markdown that reads without JavaScript: options, then a fold with the truth.

The page's script (`docs/assets/js/learn.js`) makes a form of the same elements.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from blackbelt.lesson import Choice, Question, Quiz
from blackbelt.strings_learning import Learning

# Writes a part of a cell as the page or the notebook wants it: values, links, typography.
Write = Callable[[str], str]


@dataclass(frozen=True)
class _Shown:
    """An option as the reader meets it; `place` counts from 0 in the author's order."""

    letter: str
    place: int
    choice: Choice


def question_for_page(
    question: Question, language: str, words: Learning, label: str, write: Write
) -> str:
    """Write a question for Python-Markdown.

    Args:
        question: the question.
        language: `pl` or `en`.
        words: the texts of that language.
        label: what stands above it.
        write: what makes Markdown for the page of a part of a cell.
    """
    wording, shown = question.of(language), _shown(question, language)
    parts = [f'<p class="bb-question__label">{label}</p>', write(wording.text)]
    if help_text := _help(question, words):
        parts.append(f'<p class="bb-question__help">{help_text}</p>')
    if question.kind != "type":
        options = write("\n".join(_item("1. ", one.choice.text) for one in shown))
        parts.append(_division("bb-question__options", options))
    answers = "\n\n".join(_answer(question, one, words, write) for one in _in_order(shown))
    parts.append(
        '<details class="bb-question__answers" markdown="1">\n'
        f"<summary>{words.answer}</summary>\n\n{answers}\n\n</details>"
    )
    attributes = f'data-question="{question.id}" data-kind="{question.kind}"'
    return _division("bb-question", "\n\n".join(parts), attributes)


def quiz_for_page(quiz: Quiz, language: str, words: Learning, write: Write) -> str:
    """Write a quiz for Python-Markdown."""
    total = len(quiz.questions)
    attributes = f'data-quiz="{quiz.id}" role="group" aria-label="{words.quiz}"'
    questions = [
        question_for_page(
            question, language, words, words.question.format(number=number, total=total), write
        )
        for number, question in enumerate(quiz.questions, start=1)
    ]
    return _division("bb-quiz", "\n\n".join(questions), attributes)


def question_for_notebook(
    question: Question, language: str, words: Learning, label: str, write: Write
) -> str:
    """Write a question for a notebook: options with letters, and a fold."""
    wording, shown = question.of(language), _shown(question, language)
    parts = [f"*{label}*", write(wording.text)]
    if help_text := _help(question, words):
        parts.append(f"*{help_text}*")
    if question.kind != "type":
        parts.append(
            "\n".join(_item("- ", f"**{one.letter}.** {write(one.choice.text)}") for one in shown)
        )
    answers = []
    for one in _in_order(shown):
        text = f": {write(one.choice.text)}" if question.kind == "type" else ""
        answers += [f"**{_verdict(question, one, words)}**{text}", write(one.choice.reason)]
    body = "\n\n".join(answers)
    parts.append(f"<details>\n<summary>{words.answer}</summary>\n\n{body}\n\n</details>")
    return "\n\n".join(parts)


def _shown(question: Question, language: str) -> tuple[_Shown, ...]:
    """The options in the order in which the reader meets them, the same in both languages."""
    choices = question.of(language).choices
    places = list(range(len(choices)))
    if question.kind == "order":
        places = _shuffled(question.id, len(choices))
    return tuple(_Shown("ABCDEFGH"[n], place, choices[place]) for n, place in enumerate(places))


def _shuffled(name: str, count: int) -> list[int]:
    """An order that depends on the name alone, and is never the right one."""
    right = list(range(count))
    places = sorted(right, key=lambda n: hashlib.sha256(f"{name} {n}".encode()).digest())
    return [*places[1:], places[0]] if places == right else places


def _in_order(shown: tuple[_Shown, ...]) -> list[_Shown]:
    return sorted(shown, key=lambda one: one.place)


def _help(question: Question, words: Learning) -> str:
    return {"many": words.many, "order": words.order, "type": words.type}.get(question.kind, "")


def _verdict(question: Question, shown: _Shown, words: Learning) -> str:
    if question.kind == "order":
        return words.place.format(number=shown.place + 1, letter=shown.letter)
    if question.kind == "type":
        return words.accepted if shown.choice.right else words.refused
    form = words.right if shown.choice.right else words.wrong
    return form.format(letter=shown.letter)


def _answer(question: Question, shown: _Shown, words: Learning, write: Write) -> str:
    """What the fold says of an option."""
    parts = [f'<p class="bb-answer__verdict">{_verdict(question, shown, words)}</p>']
    if question.kind == "type":
        parts.append(_division("bb-answer__text", write(shown.choice.text)))
    parts.append(write(shown.choice.reason))
    kind = "right" if shown.choice.right else "wrong"
    letter = f'data-option="{shown.letter}"'
    return _division(f"bb-answer bb-answer--{kind}", "\n\n".join(parts), letter)


def _item(bullet: str, text: str) -> str:
    return bullet + text.strip().replace("\n", "\n" + " " * len(bullet))


def _division(name: str, body: str, attributes: str = "") -> str:
    opening = f'<div class="{name}"{" " if attributes else ""}{attributes} markdown="1">'
    return f"{opening}\n\n{body.strip()}\n\n</div>"
