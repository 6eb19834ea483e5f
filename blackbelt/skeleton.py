# ruff: noqa: E501 (texts of the skeleton)
"""`blackbelt new`: a lesson that is valid and runs, with the eight beats to fill in."""

from pathlib import Path

from blackbelt.course import Course
from blackbelt.problems import CourseError, Problem
from blackbelt.roadmap import ROADMAP, Planned

_PAIR = """\
# %% [markdown] lang="pl"{options}
# {pl}

# %% [markdown] lang="en"{options}
# {en}
"""

_PREDICTION = """\
# %% [markdown] lang="pl" predict="elements"
# Ile elementów ma ten tensor?
#
# - [x] Sześć
#
#   Tyle wynosi iloczyn wymiarów: {{ elements }}.
#
# - [ ] Dwa
#
#   To liczba wierszy.

# %% [markdown] lang="en" predict="elements"
# How many elements does this tensor have?
#
# - [x] Six
#
#   That is the product of its dimensions: {{ elements }}.
#
# - [ ] Two
#
#   That is the number of rows.
"""

# Heading and first sentence of each beat, Polish and English; beats are explained in lessons/README.md.
_BEATS = (
    ("Pułapka: nazwij awarię", "Pięć wierszy, które działają i liczą źle. Jedno pytanie w jednym zdaniu.",
     "The trap: name the failure", "Five lines that run and compute the wrong thing. One question in one sentence.",
     "import torch\n\nfrom snippets.bilingual import say\n\nelements = torch.zeros(2, 3).numel()\nassert elements == 6"),
    ("Przewidywanie: zanim uruchomisz", "Kilka wierszy kodu, a o nich pytanie, na które każda odpowiedź brzmi rozsądnie.",
     "The prediction: before you run", "A few lines of code, and a question about them to which each answer is plausible.", ""),
    ("Obraz: co widać w pamięci", "Rysunek powstaje z żywych obiektów lekcji. Tensor ma {{ elements }} elementów.",
     "The picture: what memory looks like", "The figure is drawn from live objects. The tensor has {{ elements }} elements.", ""),
    ("Mechanizm: nazwij części", "Za każdym zdaniem stoi komórka, a obok wskazówka, gdzie to leży w źródłach PyTorcha.",
     "The mechanism: name the parts", "A cell stands behind each sentence, and a pointer into PyTorch's source beside it.", ""),
    ("Odbudowa: najmniejsza imitacja", "Do sześćdziesięciu wierszy, zgodnych z PyTorchem na losowych danych.",
     "The rebuild: the smallest imitation", "Up to sixty lines that agree with PyTorch on random data.", ""),
    ("Pomiar: przewidź stosunek", "Model kosztu, przewidziany stosunek, zmierzony stosunek.",
     "The measurement: predict the ratio", "Cost model, predicted ratio, measured ratio.", ""),
    ("Co się psuje i jak to zauważysz", "Komunikaty, ciche awarie i kontrola do wklejenia.",
     "What breaks and how you would notice", "Messages, silent failures, and a guard to paste.", ""),
)  # fmt: skip

_BELTS = (
    ("white", "Biały pas", "White belt", 5),
    ("brown", "Brązowy pas", "Brown belt", 15),
    ("black", "Czarny pas", "Black belt", 30),
)

_EXERCISE = """\
# %% [markdown] lang="pl" exercise="{belt}" role="prompt" belt="{belt}" minutes={minutes}
# ### {pl}
#
# Napisz funkcję `answer_{belt}`, która zwraca liczbę elementów tensora.

# %% [markdown] lang="en" exercise="{belt}" role="prompt" belt="{belt}" minutes={minutes}
# ### {en}
#
# Write a function `answer_{belt}` that returns the number of elements of a tensor.


# %% exercise="{belt}" role="starter"
def answer_{belt}(x: torch.Tensor) -> int:
    return 0  # your code


# %% exercise="{belt}" role="check"
got_{belt} = answer_{belt}(torch.zeros(2, 3))
assert got_{belt} == 6, say(
    pl=f"sześć elementów, a nie {{got_{belt}}}", en=f"six elements, not {{got_{belt}}}"
)

# %% [markdown] lang="pl" exercise="{belt}" role="hint"
# Tensor zna liczbę swoich elementów.

# %% [markdown] lang="en" exercise="{belt}" role="hint"
# A tensor knows the number of its elements.


# %% exercise="{belt}" role="wrong" says="not 2"
def answer_{belt}(x: torch.Tensor) -> int:
    return len(x)


# %% exercise="{belt}" role="solution"
def answer_{belt}(x: torch.Tensor) -> int:
    return x.numel()

"""


def write_skeleton(course: Course, module: str, name: str) -> Path:
    """Write the file of a planned lesson.

    Args:
        course: for the roadmap and the lessons that exist.
        module: folder of the module.
        name: number and slug.

    Returns:
        The new file.

    Raises:
        CourseError: not in the roadmap, or the file exists already.
    """
    name = name.removesuffix(".py")
    planned = _planned(course, module, name)
    path = course.project.lessons / module / f"{name}.py"
    shown = path.relative_to(course.project.root).as_posix()
    if path.exists():
        command = f"uv run blackbelt serve {planned.number}"
        raise CourseError(
            [Problem(shown, 1, "the lesson exists already; nothing was written", command)]
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(skeleton(planned), encoding="utf-8")
    return path


def _planned(course: Course, module: str, name: str) -> Planned:
    command = f"uv run blackbelt new {module} {name}"
    for found in course.modules:
        if found.folder == module:
            for planned in found.lessons:
                if planned.name == name:
                    return planned
            names = ", ".join(planned.name for planned in found.lessons)
            what = f"`{name}` is not planned in {module}; planned: {names}. Add it to the roadmap first"
            raise CourseError([Problem(ROADMAP, 1, what, command)])
    folders = ", ".join(found.folder for found in course.modules)
    raise CourseError([Problem(ROADMAP, 1, f"no module `{module}`; there are: {folders}", command)])


def skeleton(planned: Planned) -> str:
    """Text of a new lesson."""
    pl, en = planned.titles["pl"], planned.titles["en"]
    parts = [
        _PAIR.format(
            options="",
            pl=f"# {pl}\n#\n# Jedno zdanie o tym, co ta lekcja wyjaśnia.",
            en=f"# {en}\n#\n# One sentence on what this lesson explains.",
        )
    ]
    for number, (title_pl, text_pl, title_en, text_en, code) in enumerate(_BEATS):
        parts.append(
            _PAIR.format(
                options="", pl=f"## {title_pl}\n#\n# {text_pl}", en=f"## {title_en}\n#\n# {text_en}"
            )
        )
        if code:
            parts.append(f"# %%\n{code}\n")
        if number == 1:  # the beat that ends with a question
            parts.append(_PREDICTION)
    parts.append(
        _PAIR.format(
            options="",
            pl="## Pasy: sprawdź się\n#\n# Trzy ćwiczenia.",
            en="## Belts: test yourself\n#\n# Three exercises.",
        )
    )
    parts += [
        _EXERCISE.format(belt=belt, pl=pl, en=en, minutes=minutes)
        for belt, pl, en, minutes in _BELTS
    ]
    return "\n".join(parts).rstrip() + "\n"
