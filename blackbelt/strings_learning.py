"""What the site says around questions, exercises and a reader's progress."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Learning:
    """The texts of one language."""

    # Questions, as they read without JavaScript and in notebooks
    predict: str
    quiz: str
    question: str
    many: str
    order: str
    type: str
    answer: str
    right: str
    wrong: str
    accepted: str
    refused: str
    place: str


POLISH = Learning(
    predict="Przewidź",
    quiz="Sprawdzian",
    question="Pytanie {number} z {total}",
    many="Może być kilka dobrych odpowiedzi.",
    order="Ułóż we właściwej kolejności.",
    type="Wpisz odpowiedź.",
    answer="Odpowiedź z uzasadnieniem",
    right="{letter}: dobrze",
    wrong="{letter}: źle",
    accepted="Dobra odpowiedź",
    refused="Zła odpowiedź",
    place="Miejsce {number}: {letter}",
)

ENGLISH = Learning(
    predict="Predict",
    quiz="Quiz",
    question="Question {number} of {total}",
    many="Several answers may be right.",
    order="Put these in the right order.",
    type="Type the answer.",
    answer="The answer, with reasons",
    right="{letter}: right",
    wrong="{letter}: wrong",
    accepted="Right answer",
    refused="Wrong answer",
    place="Place {number}: {letter}",
)
