"""What the site says in its own voice, outside the lessons, in Polish and in English."""

from collections.abc import Mapping
from dataclasses import dataclass

from blackbelt import strings_learning, strings_wayfinding
from blackbelt.strings_learning import Learning
from blackbelt.strings_wayfinding import Wayfinding

# A no-break space, written visibly: both languages keep a number and its unit together.
NBSP = "\u00a0"


@dataclass(frozen=True)
class OutputStrings:
    """Around outputs and cells. Fields ending in `_forms` are as in `Strings`."""

    # Name of the link from a cell to its place in the lesson's file
    source_line: str
    source_lines: str
    # Tracebacks
    traceback: str
    calls_forms: tuple[str, str, str]
    calls_repeat: str
    cause: str
    # Tables
    table: str
    rows_forms: tuple[str, str, str]
    columns_forms: tuple[str, str, str]
    table_shows: str
    # The enlarged figure
    figure: str
    close: str


_POLISH_OUTPUTS = OutputStrings(
    source_line="Wiersz {first} pliku .py na GitHubie",
    source_lines="Wiersze {first}–{last} pliku .py na GitHubie",
    traceback="Droga wyjątku",
    calls_forms=("wywołanie", "wywołania", "wywołań"),
    calls_repeat="to samo wywołanie powtarza się",
    cause="Wcześniejszy wyjątek",
    table="Tabela",
    rows_forms=("wiersz", "wiersze", "wierszy"),
    columns_forms=("kolumna", "kolumny", "kolumn"),
    table_shows="widać {shown}",
    figure="Powiększony rysunek",
    close="Zamknij",
)

_ENGLISH_OUTPUTS = OutputStrings(
    source_line="Line {first} of the .py on GitHub",
    source_lines="Lines {first}–{last} of the .py on GitHub",
    traceback="Path of the exception",
    calls_forms=("call", "calls", "calls"),
    calls_repeat="the same call repeats",
    cause="Earlier exception",
    table="Table",
    rows_forms=("row", "rows", "rows"),
    columns_forms=("column", "columns", "columns"),
    table_shows="{shown} shown",
    figure="Enlarged figure",
    close="Close",
)


@dataclass(frozen=True)
class Strings:
    """The texts of one language. Fields ending in `_forms` hold singular, few and many."""

    language: str
    site_name: str
    site_description: str

    # Navigation
    home: str
    course: str
    how_to_use: str
    glossary: str
    about: str
    lesson: str
    broken: str
    running: str

    # Header of a lesson
    lesson_of: str
    reading_time: str
    exercises_forms: tuple[str, str, str]
    download_notebook: str
    open_in_colab: str
    open_in_vscode: str
    download_source: str
    edit_lesson: str
    lesson_actions: str

    # Provenance of a run
    run_summary: str
    run_commit: str
    run_recorded: str
    run_recorded_how: str

    # Home page and roadmap
    roadmap: str
    module: str
    start_course: str
    planned: str
    written: str

    # Cells
    output: str
    show_code: str
    measured: str
    expected_exception: str
    expected_warning: str
    check_says: str
    outputs: OutputStrings

    # Exercises
    belts: Mapping[str, str]
    minutes: str
    check: str
    hint: str
    wrong_answers: str
    solution: str

    # Questions, and what a reader has done
    learning: Learning

    # Parts that only notebooks have
    solutions: str
    setup: str
    helpers: str

    # Titles of alerts, by the name GitHub gives them
    alerts: Mapping[str, str]

    # Finding the way
    way: Wayfinding

    # Around the page
    permalink: str
    offline: str
    dark_mode: str
    light_mode: str
    system_mode: str

    # Search: {query} is what was asked, {pages} a number with its noun
    search: str
    search_clear: str
    search_hint: str
    search_loading: str
    search_found: str
    search_best: str
    search_some: str
    search_none: str
    search_failed: str
    search_forms: tuple[str, str, str]

    def count(self, number: int, forms: tuple[str, str, str]) -> str:
        """`5 ćwiczeń`: the number with the form of the noun that its language wants."""
        return f"{number}{NBSP}{forms[self._form(number)]}"

    def _form(self, number: int) -> int:
        if number == 1:
            return 0
        few = number % 10 in (2, 3, 4) and number % 100 not in (12, 13, 14)
        return 1 if few else 2


POLISH = Strings(
    language="pl",
    site_name="PyTorch Black Belt",
    site_description="Kurs wnętrza PyTorcha dla tych, którzy umieją wytrenować model "
    "i chcą wiedzieć, "
    "dlaczego silnik działa właśnie tak.",
    home="Start",
    course="Kurs",
    how_to_use="Jak korzystać",
    glossary="Słownik",
    about="O kursie",
    lesson="Lekcja",
    broken="Tej lekcji nie da się teraz pokazać. Popraw i zapisz plik, a strona się odświeży.",
    running="Kod tej lekcji jest właśnie wykonywany. Strona pojawi się sama, gdy będą wyniki.",
    lesson_of="Lekcja {position} z {total}",
    reading_time="{minutes}" + NBSP + "min",
    exercises_forms=("ćwiczenie", "ćwiczenia", "ćwiczeń"),
    download_notebook="Pobierz notatnik",
    open_in_colab="Otwórz w Colab",
    open_in_vscode="Otwórz w VS Code",
    download_source="Pobierz .py",
    edit_lesson="Popraw lekcję",
    lesson_actions="Lekcja poza tą stroną",
    run_summary="Wyniki na tej stronie obliczono {date}: {device}, PyTorch"
    + NBSP
    + "{torch}, Python"
    + NBSP
    + "{python}",
    run_commit="commit",
    run_recorded="Nagranie.",
    run_recorded_how="Ta strona powstała na komputerze bez GPU i pokazuje wyniki zapisane wcześniej"
    " na komputerze z GPU: sterownik" + NBSP + "{driver}, CUDA" + NBSP + "{cuda}.",
    roadmap="Plan kursu",
    module="Moduł {number}",
    start_course="Zacznij od pierwszej lekcji",
    planned="w przygotowaniu",
    written="gotowe: {written} z {total}",
    output="Wynik",
    show_code="Pokaż kod",
    measured="Pomiar: u ciebie liczby będą inne",
    expected_exception="Oczekiwany wyjątek",
    expected_warning="Oczekiwane ostrzeżenie",
    check_says="Co odpowiada sprawdzenie",
    outputs=_POLISH_OUTPUTS,
    belts={"white": "Biały pas", "brown": "Brązowy pas", "black": "Czarny pas"},
    minutes="{minutes}" + NBSP + "min",
    check="Sprawdzenie",
    hint="Wskazówka {number}",
    wrong_answers="Klasyczne błędy",
    solution="Rozwiązanie",
    learning=strings_learning.POLISH,
    solutions="Rozwiązania",
    setup="Przygotowanie",
    helpers="Funkcje pomocnicze",
    alerts={
        "note": "Uwaga",
        "tip": "Wskazówka",
        "important": "Ważne",
        "warning": "Ostrzeżenie",
        "caution": "Pułapka",
    },
    way=strings_wayfinding.POLISH,
    permalink="Odnośnik do tej sekcji",
    offline="To kopia do czytania bez sieci. Nie ma w niej wyszukiwarki: działa tylko na stronie"
    " {site}.",
    dark_mode="Tryb ciemny",
    light_mode="Tryb jasny",
    system_mode="Tryb systemowy",
    search="Szukaj",
    search_clear="Wyczyść",
    search_hint="Wpisz słowo lub nazwę z API albo wklej cały komunikat błędu.",
    search_loading="Szukam…",
    search_found="Znaleziono {pages}",
    search_best="Znaleziono {pages}, tu {shown} najlepszych",
    search_some="Żadna strona nie zawiera wszystkich słów; te zawierają najwięcej",
    search_none="Brak wyników dla „{query}”",
    search_failed="Nie udało się wczytać wyszukiwarki. "
    "Sprawdź połączenie i wpisz zapytanie ponownie.",
    search_forms=("stronę", "strony", "stron"),
)

ENGLISH = Strings(
    language="en",
    site_name="PyTorch Black Belt",
    site_description="A course on PyTorch's internals for those who can train a model "
    "and want to know "
    "why the engine behaves as it does.",
    home="Home",
    course="Course",
    how_to_use="How to use",
    glossary="Glossary",
    about="About",
    lesson="Lesson",
    broken="This lesson cannot be shown right now. Mend and save the file, and the page reloads.",
    running="The code of this lesson is running. The page appears by itself with the results.",
    lesson_of="Lesson {position} of {total}",
    reading_time="{minutes}" + NBSP + "min",
    exercises_forms=("exercise", "exercises", "exercises"),
    download_notebook="Download notebook",
    open_in_colab="Open in Colab",
    open_in_vscode="Open in VS Code",
    download_source="Download .py",
    edit_lesson="Edit this lesson",
    lesson_actions="This lesson elsewhere",
    run_summary="The results on this page were computed on {date}: {device}, PyTorch"
    + NBSP
    + "{torch}, Python"
    + NBSP
    + "{python}",
    run_commit="commit",
    run_recorded="A recording.",
    run_recorded_how="This page was built on a machine without a GPU and shows results that were"
    " saved earlier on a machine with one: driver" + NBSP + "{driver}, CUDA" + NBSP + "{cuda}.",
    roadmap="Roadmap",
    module="Module {number}",
    start_course="Start with the first lesson",
    planned="planned",
    written="{written} of {total} ready",
    output="Output",
    show_code="Show the code",
    measured="A measurement: your numbers will differ",
    expected_exception="Expected exception",
    expected_warning="Expected warning",
    check_says="What the check answers",
    outputs=_ENGLISH_OUTPUTS,
    belts={"white": "White belt", "brown": "Brown belt", "black": "Black belt"},
    minutes="{minutes}" + NBSP + "min",
    check="Check",
    hint="Hint {number}",
    wrong_answers="Classic mistakes",
    solution="Solution",
    learning=strings_learning.ENGLISH,
    solutions="Solutions",
    setup="Setup",
    helpers="Helpers",
    alerts={
        "note": "Note",
        "tip": "Tip",
        "important": "Important",
        "warning": "Warning",
        "caution": "Pitfall",
    },
    way=strings_wayfinding.ENGLISH,
    permalink="Link to this section",
    offline="This is a copy for reading offline. It has no search, which works only at {site}.",
    dark_mode="Dark mode",
    light_mode="Light mode",
    system_mode="System mode",
    search="Search",
    search_clear="Clear",
    search_hint="Type a word or a name from the API, or paste a whole error message.",
    search_loading="Searching…",
    search_found="{pages} found",
    search_best="{pages} found, the best {shown} shown",
    search_some="No page has all the words; these have most of them",
    search_none="No results for “{query}”",
    search_failed="The search could not be loaded. Check the connection and type the query again.",
    search_forms=("page", "pages", "pages"),
)

_BY_LANGUAGE = {"pl": POLISH, "en": ENGLISH}


def for_language(code: str) -> Strings:
    """The texts of the language with this code, `pl` or `en`."""
    return _BY_LANGUAGE[code]
