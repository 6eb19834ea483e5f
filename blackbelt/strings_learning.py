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

    # The same as forms; names in braces are filled in by the page's script
    commit: str
    again: str
    nothing: str
    hit: str
    miss: str
    mine: str
    in_place: str
    out_of_place: str
    move_up: str
    move_down: str
    moved: str
    score_open: str
    score_done: str

    # Progress
    done: str
    lesson_finished: str
    finished: str
    kept: str
    not_kept: str
    see_progress: str
    progress: str
    finished_lessons: str
    done_exercises: str
    right_answers: str
    of: str
    belts_earned: str
    save_file: str
    load_file: str
    clear: str
    cancel: str
    saved: str
    loaded: str
    cleared: str
    damaged: str
    clear_title: str
    clear_text: str
    load_title: str
    load_text: str
    merge: str
    replace: str


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
    commit="Zatwierdź odpowiedź",
    again="Spróbuj jeszcze raz",
    nothing="Najpierw odpowiedz.",
    hit="Dobra odpowiedź.",
    miss="To nie to. Dobra odpowiedź: {truth}",
    mine="twoja odpowiedź",
    in_place="na swoim miejscu",
    out_of_place="nie na swoim miejscu",
    move_up="Wyżej",
    move_down="Niżej",
    moved="{text}: miejsce {place}",
    score_open="Odpowiedzi: {answered} z {of}",
    score_done="Wynik: {right} z {of}. Najlepszy dotąd: {best} z {of}.",
    done="Zrobione",
    lesson_finished="Lekcja ukończona",
    finished="ukończona",
    kept="Twój postęp zapamiętuje tylko ta przeglądarka.",
    not_kept="Ta przeglądarka nie pozwala stronie niczego zapisać: postęp zniknie, gdy "
    "opuścisz tę stronę.",
    see_progress="Zobacz cały",
    progress="Twój postęp",
    finished_lessons="Ukończone lekcje",
    done_exercises="Zrobione ćwiczenia",
    right_answers="Trafione przewidywania",
    of="{number} z {total}",
    belts_earned="Zdobyte pasy",
    save_file="Zapisz do pliku",
    load_file="Wczytaj z pliku",
    clear="Wyczyść",
    cancel="Anuluj",
    saved="Postęp jest w pliku {name}.",
    loaded="Postęp wczytany.",
    cleared="Postęp wyczyszczony.",
    damaged="To nie jest plik z postępem tego kursu albo jest uszkodzony. Nic się nie zmieniło.",
    clear_title="Wyczyścić postęp?",
    clear_text="Zniknie wszystko, co zapamiętała o kursie ta przeglądarka. Najpierw możesz "
    "zapisać postęp do pliku.",
    load_title="Wczytać postęp?",
    load_text="W pliku: ukończone lekcje: {lessons}, ćwiczenia: {exercises}, odpowiedzi: "
    "{questions}.",
    merge="Dołącz do mojego",
    replace="Zastąp mój",
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
    commit="Commit my answer",
    again="Try again",
    nothing="Answer first.",
    hit="That is right.",
    miss="Not this. The right answer: {truth}",
    mine="your answer",
    in_place="in its place",
    out_of_place="out of its place",
    move_up="Move up",
    move_down="Move down",
    moved="{text}: place {place}",
    score_open="Answered: {answered} of {of}",
    score_done="Score: {right} of {of}. Best so far: {best} of {of}.",
    done="Done",
    lesson_finished="Lesson finished",
    finished="finished",
    kept="Your progress is kept in this browser only.",
    not_kept="This browser lets the site store nothing: your progress is forgotten when "
    "you leave this page.",
    see_progress="See all of it",
    progress="Your progress",
    finished_lessons="Finished lessons",
    done_exercises="Exercises done",
    right_answers="Correct predictions",
    of="{number} of {total}",
    belts_earned="Belts earned",
    save_file="Save to a file",
    load_file="Load from a file",
    clear="Clear",
    cancel="Cancel",
    saved="Your progress is in the file {name}.",
    loaded="Progress loaded.",
    cleared="Progress cleared.",
    damaged="This is not a file with progress of this course, or it is damaged. Nothing "
    "has changed.",
    clear_title="Clear your progress?",
    clear_text="Everything that this browser remembers of the course will be gone. You can "
    "save your progress to a file first.",
    load_title="Load this progress?",
    load_text="In the file: finished lessons: {lessons}, exercises: {exercises}, answers: "
    "{questions}.",
    merge="Merge with mine",
    replace="Replace mine",
)
