"""Each mistake of an author gets one message that says what, where, and what to do next.

The lessons below are written as `tiny.cases` describes: `► text` stands under the line that has
to be reported, and says a part of the message. A lesson must have these problems and no others.
"""

import json
import re
from pathlib import Path

import pytest
from tiny import TITLE, Case, Done, TinyCourse, cases, command, compare

from blackbelt.prepare import prepare
from blackbelt.problems import Problem
from blackbelt.progress import Progress

CHECK = "uv run blackbelt check"
GOOD = "lessons/2_second/90_good.py"
GOOD_LESSON = TITLE + '# %%\nprint("sound")\n'
BROKEN = "lessons/1_first/01_broken.py"

# What `@name` stands for: the opening of a lesson, and the cells of a sound exercise.
CELLS = {
    "title": TITLE,
    "prompt": """\
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=5
# ### Szóstka

# %% [markdown] lang="en" exercise="six" role="prompt" belt="white" minutes=5
# ### Six
""",
    "starter": '# %% exercise="six" role="starter"\nanswer = 0  # your code\n',
    "check": """\
# %% exercise="six" role="check"
assert answer == 6, f"six is wanted, not {answer}"
""",
    "hint": """\
# %% [markdown] lang="pl" exercise="six" role="hint"
# Policz.

# %% [markdown] lang="en" exercise="six" role="hint"
# Count.
""",
    "wrong": '# %% exercise="six" role="wrong" says="not 5"\nanswer = 5\n',
    "solution": '# %% exercise="six" role="solution"\nanswer = 6\n',
}

READING = cases(
    """
=== text before the first cell

import os
► text before the first `# %%` cell
@title

=== a comment and no cells
# x
► text before the first `# %%` cell

=== word in a header
@title
# %% fold
► expected key=value, found `fold`
x = 1

=== raw cell
@title
# %% [raw]
► unknown kind of cell `[raw]`; only `[markdown]` and code are used
# text

=== value without quotes
@title
# %% raises=ValueError
► the value of `raises` is not JSON; texts stand in double quotes, flags are `true`
x = 1

=== quotation mark that is not closed
@title
# %% raises="ValueError
► the value of `raises` is not JSON
x = 1

=== misspelt key
@title
# %% measurd=true
► unknown key `measurd` on a code cell; did you mean `measured`?
x = 1

=== misspelt key of prose
@title
# %% [markdown] langg="pl"
► unknown key `langg` on a markdown cell; did you mean `lang`?
# Tekst.

=== unknown key
@title
# %% zzz=1
► unknown key `zzz` on a code cell; known: lang, fold, measured, raises, warns, exercise, role
x = 1

=== key of the other kind of cell
@title
# %% [markdown] lang="pl" fold=true
► unknown key `fold` on a markdown cell
# Tekst.

=== key twice
@title
# %% fold=true fold=true
► `fold` is given twice
x = 1

=== flag that is false
@title
# %% fold=false
► `fold` is a flag: write `fold=true` or leave it out
x = 1

=== flag that is a number
@title
# %% measured=1
► `measured` is a flag: write `measured=true` or leave it out
x = 1

=== unknown language
@title
# %% lang="de"
► `lang` is one of pl, en, not `de`
x = 1

=== raises without a type
@title
# %% raises=": text"
► `raises` is "Type: a part of the message", as in `raises="RuntimeError: view size"`
x = 1

=== warns that is a number
@title
# %% warns=["UserWarning", 1]
► `warns` is "Type: a part of the message"
x = 1

=== role without an exercise
@title
# %% role="check"
► `exercise` and `role` go together
x = 1

=== unknown role
@title
# %% exercise="six" role="answer"
► `role` is one of starter, check, wrong, solution, not `answer`
x = 1

=== minutes as a text
@title
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes="5"
► `minutes` is a whole number of at least 1, as in `minutes=5`
# Tekst.

=== minutes of an exercise that takes no time
@title
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=0
► `minutes` is a whole number of at least 1, as in `minutes=5`
# Tekst.

=== unknown belt
@title
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="green" minutes=5
► `belt` is one of white, brown, black, not `green`
# Tekst.

=== empty cell
@title
# %%
► the cell is empty

# %%
x = 1

=== prose without a comment sign
@title
# %% [markdown] lang="pl"

# Tekst.
#
Tekst.
► a line of a [markdown] cell starts with `# `

=== comment sign without a space
@title
# %% [markdown] lang="pl"
#Tekst.
► a line of a [markdown] cell starts with `# `

=== code that is not Python
@title
# %%

x = 1


def broken(:
► not valid Python: invalid syntax
    pass

=== second cell is not Python
@title
# %%
x = 1

# %%
x = = 2
► not valid Python: invalid syntax

=== indentation
@title
# %%
if True:
print(1)
► not valid Python: expected an indented block after 'if' statement on line 1

=== code that only the compiler refuses
@title
# %%
x = 1
return
► not valid Python: 'return' outside function

=== magic
@title
# %%
import math

%timeit math.sqrt(2)
► a magic or a shell command; lessons are plain Python

=== magic for a cell
@title
# %%
%%bash
► a magic or a shell command; lessons are plain Python
ls

=== shell command
@title
# %%
!ls
► a magic or a shell command; lessons are plain Python

=== cell whose sign has no space
@title
# %%
x = 1

#%%
► write `# %%`
y = 2

=== every mistake is told at once
@title
# %% fold
► expected key=value, found `fold`
x = 1

# %%
► the cell is empty

# %% lang="de"
► `lang` is one of pl, en, not `de`

# %% [markdown] lang="pl"
Tekst.
► a line of a [markdown] cell starts with `# `

=== every cell that is not Python is told at once
@title
# %%
x = = 2
► not valid Python: invalid syntax

# %%
%matplotlib inline
► a magic or a shell command; lessons are plain Python
""",
    CELLS,
)

PAIRS = cases(
    """
=== Polish without English
@title
# %% [markdown] lang="pl"
► prose without its twin: a [markdown] cell with lang="en" has to stand right after this lang="pl"
# Tekst.

# %%
x = 1

=== Polish without English at the end
@title
# %% [markdown] lang="pl"
► prose without its twin
# Tekst.

=== English without Polish
@title
# %% [markdown] lang="en"
► prose without its twin: a [markdown] cell with lang="pl" has to stand right before this lang="en"
# Text.

=== English first
@title
# %% [markdown] lang="en"
► has to stand right before this lang="en" cell
# Text.

# %% [markdown] lang="pl"
► has to stand right after this lang="pl" cell
# Tekst.

=== code between twins
@title
# %% [markdown] lang="pl"
► has to stand right after this lang="pl" cell
# Tekst.

# %%
x = 1

# %% [markdown] lang="en"
► has to stand right before this lang="en" cell
# Text.

=== two Polish cells and one English
@title
# %% [markdown] lang="pl"
► has to stand right after this lang="pl" cell
# Tekst.

# %% [markdown] lang="pl"
# Tekst.

# %% [markdown] lang="en"
# Text.

=== prose without a language
@title
# %% [markdown]
► prose without a language: write `# %% [markdown] lang="pl"` or `lang="en"`
# Text.

=== heading that one twin lacks
@title
# %% [markdown] lang="pl"
# ## Raz
#
# Tekst.

# %% [markdown] lang="en"
► twins differ in structure at block 1: Polish has heading 2 where English has nothing
# Text.

=== headings of different levels
@title
# %% [markdown] lang="pl"
# ## Raz
#
# ### Dwa

# %% [markdown] lang="en"
► twins differ in structure at block 2: Polish has heading 3 where English has heading 2
# ## One
#
# ## Two

=== lists of different lengths
@title
# %% [markdown] lang="pl"
# - raz
# - dwa
# - trzy

# %% [markdown] lang="en"
► twins differ in structure at block 3: Polish has list item where English has nothing
# - one
# - two

=== tables of different lengths
@title
# %% [markdown] lang="pl"
# | a |
# | - |
# | b |

# %% [markdown] lang="en"
► Polish has nothing where English has row
# | a |
# | - |
# | b |
# | c |

=== alerts of different kinds
@title
# %% [markdown] lang="pl"
# > [!NOTE]
# > Tekst.

# %% [markdown] lang="en"
► Polish has alert NOTE where English has alert TIP
# > [!TIP]
# > Text.

=== fold that one twin lacks
@title
# %% [markdown] lang="pl"
# <details><summary>Więcej</summary>
#
# Tekst.
#
# </details>

# %% [markdown] lang="en"
► Polish has fold, fold where English has nothing
# Text.

=== formula that one twin lacks
@title
# %% [markdown] lang="pl"
# Tekst.

# %% [markdown] lang="en"
► Polish has nothing where English has formula
# $$
# x
# $$

=== link that one twin lacks
@title
# %% [markdown] lang="pl"
# Tekst.
#
# Zobacz [tam](https://pytorch.org/docs).
► twins differ in links: the English twin lacks `https://pytorch.org/docs`

# %% [markdown] lang="en"
# Text.

=== links to different places
@title
# %% [markdown] lang="pl"
# [Tam](https://pytorch.org/a).
► twins differ in links: the English twin lacks `https://pytorch.org/a`

# %% [markdown] lang="en"
# [There](https://pytorch.org/b).
► twins differ in links: the Polish twin lacks `https://pytorch.org/b`

=== code span that one twin lacks
@title
# %% [markdown] lang="pl"
# Metoda.

# %% [markdown] lang="en"
# The method `view`.
► twins differ in code spans: the Polish twin lacks `view`

=== value that one twin lacks
@title
# %%
size = 1

# %% [markdown] lang="pl"
# Bajty: {{ size }}.
► twins differ in values: the English twin lacks `size`

# %% [markdown] lang="en"
# Bytes.

=== image that one twin has
@title
# %% [markdown] lang="pl"
# ![Kot](kot.png)
► twins differ in images: the English twin lacks `kot.png`
► image `kot.png`: draw it in a cell and show it with show_figure

# %% [markdown] lang="en"
# Cat.
""",
    CELLS,
)

PROSE = cases(
    """
=== no title
# %% [markdown] lang="pl"
# Tekst.
► the first prose cell begins with the title, `# Title`

# %% [markdown] lang="en"
# Text.

=== title without a paragraph
# %% [markdown] lang="pl"
# # Tytuł
► a paragraph has to follow the title: it becomes the description of the page
#
# ## Raz

# %% [markdown] lang="en"
# # Title
► a paragraph has to follow the title: it becomes the description of the page
#
# ## One

=== code before the title
# %%
► the first cell is the title, in prose
x = 1

@title

=== two titles
# %% [markdown] lang="pl"
► 2 headings of level 1; only the title is one
# # Raz
#
# Opis.
#
# # Dwa

# %% [markdown] lang="en"
# # One
#
# Description.
#
# # Two

=== heading that skips a level
@title
# %% [markdown] lang="pl"
# ## Raz
#
# #### Dwa
► heading jumps from level 2 to 4

# %% [markdown] lang="en"
# ## One
#
# #### Two
► heading jumps from level 2 to 4

=== two headings with the same address
@title
# %% [markdown] lang="pl"
# ## Raz
#
# ## Dwa

# %% [markdown] lang="en"
# ## One
#
# ## One!
► two headings share the address `#one`

=== math in a heading
@title
# %% [markdown] lang="pl"
# ## Koszt $n^2$
► math in a heading breaks its address and the table of contents

# %% [markdown] lang="en"
# ## The cost of $n^2$
► math in a heading breaks its address and the table of contents

=== image
@title
# %% [markdown] lang="pl"
# ![Kot](kot.png)
► image `kot.png`: draw it in a cell and show it with show_figure

# %% [markdown] lang="en"
# ![Cat](kot.png)
► image `kot.png`: draw it in a cell and show it with show_figure

=== HTML in a line
@title
# %% [markdown] lang="pl"
# Naciśnij <kbd>A</kbd>.
► `<kbd>`: the only HTML in prose is <details> and <summary>
► `</kbd>`: the only HTML in prose is <details> and <summary>

# %% [markdown] lang="en"
# Press A.

=== block of HTML
@title
# %% [markdown] lang="pl"
# <div align="center">
► `<div align="center">`: the only HTML in prose is <details> and <summary>
► `</div>`: the only HTML in prose is <details> and <summary>
# Tekst
# </div>

# %% [markdown] lang="en"
# Text

=== comment of HTML
@title
# %% [markdown] lang="pl"
# Tekst.

# %% [markdown] lang="en"
# Text. <!-- TODO -->
► `<!-- TODO -->`: the only HTML in prose is <details> and <summary>

=== fold that is open
@title
# %% [markdown] lang="pl"
# <details open><summary>Raz</summary>
► `<details open>`: the only HTML in prose is <details> and <summary>
#
# </details>

# %% [markdown] lang="en"
# <details><summary>One</summary>
#
# </details>

=== link to a lesson that does not exist
@title
# %% [markdown] lang="pl"
# [Tam](../2_second/91_gone.py).
► link to `lessons/2_second/91_gone.py`, which does not exist

# %% [markdown] lang="en"
# [There](../2_second/91_gone.py).
► link to `lessons/2_second/91_gone.py`, which does not exist

=== link to a heading that another lesson lacks
@title
# %% [markdown] lang="pl"
# [Tam](../2_second/90_good.py#nowhere).
► link to `#nowhere`, which lessons/2_second/90_good.py does not have; it has #title

# %% [markdown] lang="en"
# [There](../2_second/90_good.py#nowhere).
► link to `#nowhere`, which lessons/2_second/90_good.py does not have; it has #title

=== link to a heading that this lesson lacks
@title
# %% [markdown] lang="pl"
# [Tam](#tytul).
► link to `#tytul`, which lessons/1_first/01_broken.py does not have; it has #title

# %% [markdown] lang="en"
# [There](#tytul).
► link to `#tytul`, which lessons/1_first/01_broken.py does not have; it has #title

=== link that is not secure
@title
# %% [markdown] lang="pl"
# [Tam](http://pytorch.org).
► link to `http://pytorch.org`: links lead to a lesson (`../2_autograd/08_x.py#heading`), to a head

# %% [markdown] lang="en"
# [There](http://pytorch.org).
► link to `http://pytorch.org`: links lead to a lesson

=== link to a file that is not a lesson
@title
# %% [markdown] lang="pl"
# [Tam](../../README.md).
► link to `../../README.md`: links lead to a lesson

# %% [markdown] lang="en"
# [There](../../README.md).
► link to `../../README.md`: links lead to a lesson

=== value that no cell assigns
@title
# %% [markdown] lang="pl"
# Tekst.
#
# Bajty: {{ size }}.
► unknown value `{{ size }}`: no cell assigns it at its top level

# %% [markdown] lang="en"
# Bytes: {{ size }}.
► unknown value `{{ size }}`: no cell assigns it at its top level

# %%
def inside() -> None:
    size = 1

=== value that two cells assign
@title
# %%
size = 1

# %%
size = 2

# %% [markdown] lang="pl"
# Bajty: {{ size }}.
► value `{{ size }}` is ambiguous: 2 cells assign it

# %% [markdown] lang="en"
# Bytes: {{ size:.1f }}.
► value `{{ size }}` is ambiguous: 2 cells assign it

=== value without spaces
@title
# %%
size = 1

# %% [markdown] lang="pl"
# Bajty: {{size}}.
► {{size}}

# %% [markdown] lang="en"
# Bytes: {{size}}.
► {{size}}

=== unknown value in a summary
@title
# %% [markdown] lang="pl"
# <details><summary>Po {{ steps }} krokach</summary>
► unknown value `{{ steps }}`
#
# </details>

# %% [markdown] lang="en"
# <details><summary>After {{ steps }} steps</summary>
► unknown value `{{ steps }}`
#
# </details>

=== unknown value in a formula
@title
# %% [markdown] lang="pl"
# $$
► unknown value `{{ steps }}`
# {{ steps }}
# $$

# %% [markdown] lang="en"
# $$
► unknown value `{{ steps }}`
# {{ steps }}
# $$

=== value that is an expression
@title
# %%
size = 1

# %% [markdown] lang="pl"
# Bajty: {{ size + 1 }}.
► {{ size + 1 }}

# %% [markdown] lang="en"
# Bytes: {{ size + 1 }}.
► {{ size + 1 }}
""",
    CELLS,
)

CODE = cases(
    """
=== import of another package
@title
# %%
import json

import polars as pl
► import of `polars`, which is neither in the standard library nor in [tool.blackbelt] imports

=== import inside a function
@title
# %%
def load() -> None:
    from requests.sessions import Session
► import of `requests`, which is neither in the standard library nor in [tool.blackbelt] imports

=== whole package of helpers
@title
# %%
import snippets
► helpers are imported as `from snippets.module import name`

=== whole module of helpers
@title
# %%
import snippets.bilingual
► helpers are imported as `from snippets.module import name`

=== module of helpers from its package
@title
# %%
from snippets import bilingual
► helpers are imported as `from snippets.module import name`

=== renamed helper
@title
# %%
from snippets.bilingual import say as s
► helpers are imported as `from snippets.module import name`

=== unknown module of helpers
@title
# %%
from snippets.nothing import say
► there is no snippets/nothing.py; there are: __init__, bilingual,

=== unknown helper
@title
# %%
from snippets.bilingual import shout
► snippets/bilingual.py does not define `shout`

=== all helpers
@title
# %%
from snippets.bilingual import *
► snippets/bilingual.py does not define `*`

=== name of a helper is taken
@title
# %%
from snippets.bilingual import say

print(say(pl="a", en="b"))

# %%
► `languages` is also a name of snippets/bilingual.py; call it something else

languages = ["pl"]

=== figure without any alternative text
@title
# %%
from matplotlib import pyplot as plt

from snippets.figures import show_figure

fig, ax = plt.subplots()
show_figure(fig)
► figure without alternative text: show_figure needs alt_pl and alt_en

=== figure with an empty alternative text
@title
# %%
from matplotlib import pyplot as plt

from snippets.figures import show_figure

fig, ax = plt.subplots()
show_figure(
► figure without alternative text: show_figure needs alt_en
    fig,
    alt_pl="Dwie osie.",
    alt_en=" ",
)

=== says outside of a wrong answer
@title
# %% says="text"
► `says` belongs to a cell with role="wrong"
x = 1
""",
    CELLS,
)

EXERCISES = cases(
    """
=== no prompt
@title
# %% exercise="six" role="starter"
► exercise `six` needs exactly one prompt pair
answer = 0

@check
@solution

=== no starter
@title
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=5
► exercise `six` needs exactly one cell with role="starter", found 0
# ### Szóstka

# %% [markdown] lang="en" exercise="six" role="prompt" belt="white" minutes=5
# ### Six

@check
@solution

=== no check
@title
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=5
► exercise `six` needs exactly one cell with role="check", found 0
# ### Szóstka

# %% [markdown] lang="en" exercise="six" role="prompt" belt="white" minutes=5
# ### Six

@starter
@solution

=== no solution
@title
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=5
► exercise `six` needs exactly one cell with role="solution", found 0
# ### Szóstka

# %% [markdown] lang="en" exercise="six" role="prompt" belt="white" minutes=5
# ### Six

@starter
@check

=== two solutions
@title
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=5
► exercise `six` needs exactly one cell with role="solution", found 2
# ### Szóstka

# %% [markdown] lang="en" exercise="six" role="prompt" belt="white" minutes=5
# ### Six

@starter
@check
@solution
@solution

=== solution before the check
@title
@prompt
@starter
@solution
# %% exercise="six" role="check"
► exercise `six`: `check` comes too late; the order is prompt, starter, check, hint, wrong, solut
assert answer == 6, "six"

=== prompt twin without a belt
@title
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=5
# ### Szóstka

# %% [markdown] lang="en" exercise="six" role="prompt" minutes=5
► the prompt of exercise `six` needs belt="white" (brown, black) and minutes=5
# ### Six

@starter
@check
@solution

=== prompt without minutes
@title
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white"
► the prompt of exercise `six` needs belt="white" (brown, black) and minutes=5
# ### Szóstka

# %% [markdown] lang="en" exercise="six" role="prompt" belt="white"
► the prompt of exercise `six` needs belt="white" (brown, black) and minutes=5
# ### Six

@starter
@check
@solution

=== belts that differ
@title
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=5
# ### Szóstka

# %% [markdown] lang="en" exercise="six" role="prompt" belt="black" minutes=5
► the two prompts of exercise `six` differ in belt or minutes
# ### Six

@starter
@check
@solution

=== wrong answer that does not declare its message
@title
@prompt
@starter
@check
# %% exercise="six" role="wrong"
► wrong answer of exercise `six` needs says="part of the message"
answer = 5

@solution

=== hint without its twin
@title
@prompt
@starter
@check
# %% [markdown] lang="pl" exercise="six" role="hint"
► prose without its twin
# Policz.

@solution

=== id used twice
@title
@prompt
@starter
@check
@solution
# %%
x = 1

# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=5
► two exercises or questions are called `six`, or other cells stand between its cells
# ### Jeszcze raz

# %% [markdown] lang="en" exercise="six" role="prompt" belt="white" minutes=5
# ### Once more

@starter
@check
@solution

=== cell in the middle of an exercise
@title
# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=5
► exercise `six` needs exactly one cell with role="check", found 0
► exercise `six` needs exactly one cell with role="solution", found 0
# ### Szóstka

# %% [markdown] lang="en" exercise="six" role="prompt" belt="white" minutes=5
# ### Six

@starter
# %%
x = 1

# %% exercise="six" role="check"
► exercise `six` needs exactly one prompt pair
► exercise `six` needs exactly one cell with role="starter", found 0
assert answer == 6, "six"

@solution

=== exception declared in an exercise
@title
@prompt
@starter
# %% exercise="six" role="check" raises="AssertionError"
► cells of an exercise take no lang, fold, raises or warns
assert answer == 6, "six"

@solution
""",
    CELLS,
)

STATIC = READING | PAIRS | PROSE | CODE | EXERCISES


@pytest.mark.parametrize("name", STATIC)
def test_check(name: str, course: TinyCourse) -> None:
    course.write(BROKEN, STATIC[name].source)
    course.write(GOOD, GOOD_LESSON)
    done = course.command("check")
    assert done.code == 1
    assert done.out == ""
    compare(done.of(BROKEN), STATIC[name])
    assert not done.of(GOOD)
    assert {problem.command for problem in done.problems} == {CHECK}
    count = len(done.problems)
    assert done.err.endswith(f"\n{count} problem{'s' if count > 1 else ''}\n")


def test_a_problem_looks_like_a_compilers(course: TinyCourse) -> None:
    course.write(BROKEN, TITLE + "# %%\nimport polars\n")
    line = TITLE.count("\n") + 2
    assert course.command("check").err.splitlines() == [
        f"{BROKEN}:{line}: import of `polars`, which is neither in the standard library nor in "
        "[tool.blackbelt] imports: torch, numpy, matplotlib, IPython, pandas, seaborn, snippets",
        f"    next: {CHECK}",
        "1 problem",
    ]


def test_two_modules_of_helpers_share_no_name(course: TinyCourse) -> None:
    helpers = course.root / "snippets"
    (helpers / "one.py").write_text("import json\n\n_GAP = json.loads('1')\n")
    (helpers / "two.py").write_text("import json\n\nSIDE = 2\n_GAP = json.loads('2')\n")
    course.write(GOOD, GOOD_LESSON)
    assert course.command("check").err.splitlines() == [
        "snippets/two.py:4: `_GAP` is also a name of snippets/one.py; call it something else",
        f"    next: {CHECK}",
        "1 problem",
    ]


def test_sound_lessons_have_no_problems(course: TinyCourse) -> None:
    course.write(BROKEN, "\n".join(CELLS.values()))
    course.write(GOOD, GOOD_LESSON)
    assert course.command("check") == Done(0, "2 lessons, no problems\n", "")
    assert course.command("check", "90").out == "1 lesson, no problems\n"


def test_lessons_that_are_broken_in_different_ways_are_all_reported(course: TinyCourse) -> None:
    broken: dict[str, str | bytes] = {
        "lessons/1_first/01_unreadable.py": b"\xff",
        "lessons/1_first/02_header.py": READING["word in a header"].source,
        "lessons/1_first/03_twin.py": PAIRS["Polish without English"].source,
        "lessons/2_second/04_import.py": CODE["import of another package"].source,
        "lessons/2_second/05_link.py": PROSE["link that is not secure"].source,
    }
    for path, source in broken.items():
        course.write(path, source)
    course.write(GOOD, GOOD_LESSON)
    done = course.command("check")
    assert [problem.path for problem in done.problems] == [*broken, "lessons/2_second/05_link.py"]


def test_links_to_a_lesson_that_cannot_be_read_are_left_alone(course: TinyCourse) -> None:
    course.write(BROKEN, READING["word in a header"].source)
    links = TITLE.replace("Opis.", "[a](../1_first/01_broken.py#any).")
    course.write(GOOD, links.replace("Description.", "[a](../1_first/01_broken.py#any)."))
    assert [problem.path for problem in course.command("check").problems] == [BROKEN]


def test_file_that_is_not_utf_8(course: TinyCourse) -> None:
    course.write(BROKEN, TITLE.encode() + "# %%\n# zażółć\n".encode("iso-8859-2"))
    line = TITLE.count("\n") + 2
    what = "byte 0xbf is not UTF-8; save the file with UTF-8 encoding"
    done = course.command("check")
    assert (done.code, done.problems) == (1, (Problem(BROKEN, line, what),))


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_empty_file(course: TinyCourse, text: str) -> None:
    course.write(BROKEN, text)
    course.write(GOOD, GOOD_LESSON)
    what = "the file is empty; delete it and let the skeleton be written"
    again = "uv run blackbelt new 1_first 01_broken"
    done = course.command("check")
    assert (done.code, done.problems) == (1, (Problem(BROKEN, 1, what, again),))


def test_null_byte(course: TinyCourse) -> None:
    course.write(BROKEN, TITLE + "# %%\nx = 1\0\n")
    done = course.command("check")
    assert done.code == 1
    assert "null byte" in done.of(BROKEN)[0].what


@pytest.mark.parametrize(
    ("second", "what"),
    [
        ("lessons/2_second/01_other.py", f"number `01` is already taken by {BROKEN}"),
        ("lessons/2_second/02_broken.py", f"slug `broken` is already taken by {BROKEN}"),
    ],
)
def test_name_taken_twice(course: TinyCourse, second: str, what: str) -> None:
    course.write(BROKEN, GOOD_LESSON)
    course.write(second, GOOD_LESSON)
    done = course.command("check")
    assert (done.code, done.problems) == (1, (Problem(second, 1, what),))


def test_lesson_that_is_not_planned(course: TinyCourse) -> None:
    course.write(BROKEN, GOOD_LESSON, planned=False)
    what = "`1_first/01_broken` is not in lessons/roadmap.toml; add it there or rename the file"
    assert course.command("check").problems == (Problem(BROKEN, 1, what),)


@pytest.mark.parametrize("name", ["1_short.py", "01-hyphen.py", "01_Capital.py", "notes.py"])
def test_file_with_another_name(course: TinyCourse, name: str) -> None:
    path = f"lessons/1_first/{name}"
    course.write(path, GOOD_LESSON, planned=False)
    what = "a lesson is `lessons/N_module/NN_slug.py`, in lower case with underscores"
    assert course.command("check").problems == (Problem(path, 1, what),)


def test_roadmap_that_cannot_be_read(course: TinyCourse) -> None:
    (course.root / "lessons" / "roadmap.toml").write_text("[[module]]\nfolder = ", encoding="utf-8")
    done = course.command("check")
    assert done.code == 1
    assert [problem.path for problem in done.problems] == ["lessons/roadmap.toml"]
    assert "not a valid roadmap: TOMLDecodeError('Invalid value (at " in done.err


def test_outside_of_a_course(tmp_path: Path) -> None:
    done = command(["check"], tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"blackbelt: {tmp_path} is not inside the course: "
        "no pyproject.toml with [tool.blackbelt] here or above\n"
    )


@pytest.mark.parametrize("verb", ["run", "check"])
def test_lesson_that_does_not_exist(course: TinyCourse, verb: str) -> None:
    course.write(GOOD, GOOD_LESSON)
    done = course.command(verb, "99")
    assert done.code == 1
    assert "no lesson `99`; there are: 90_good\n    next: uv run blackbelt" in done.err


def test_lesson_that_cannot_be_read_is_named(course: TinyCourse) -> None:
    course.write(BROKEN, READING["word in a header"].source)
    course.write(GOOD, GOOD_LESSON)
    done = course.command("run", "01")
    assert done.code == 1
    compare(done.of(BROKEN), READING["word in a header"])


class TestNew:
    def test_skeleton_is_a_sound_lesson(self, course: TinyCourse) -> None:
        course.plan("lessons/1_first/01_new.py")
        done = course.command("new", "1_first", "01_new")
        assert done.code == 0
        assert done.out.endswith("01_new.py\nnext: uv run blackbelt serve 01\n")
        assert course.command("check") == Done(0, "1 lesson, no problems\n", "")

    def test_file_that_exists_stays(self, course: TinyCourse) -> None:
        file = course.write(GOOD, GOOD_LESSON)
        done = course.command("new", "2_second", "90_good")
        what = "the lesson exists already; nothing was written"
        assert done.problems == (Problem(GOOD, 1, what, "uv run blackbelt serve 90"),)
        assert done.code == 1
        assert file.read_text(encoding="utf-8") == GOOD_LESSON

    def test_name_that_is_not_planned(self, course: TinyCourse) -> None:
        course.plan(GOOD)
        done = course.command("new", "2_second", "91_bad")
        what = "`91_bad` is not planned in 2_second; planned: 90_good. Add it to the roadmap first"
        again = "uv run blackbelt new 2_second 91_bad"
        assert done.problems == (Problem("lessons/roadmap.toml", 1, what, again),)
        assert done.code == 1
        assert not list(course.root.glob("lessons/*/*.py"))

    def test_module_that_does_not_exist(self, course: TinyCourse) -> None:
        done = course.command("new", "3_third", "01_new")
        what = "no module `3_third`; there are: 1_first, 2_second"
        again = "uv run blackbelt new 3_third 01_new"
        assert done.problems == (Problem("lessons/roadmap.toml", 1, what, again),)
        assert done.code == 1
        assert not (course.root / "lessons" / "3_third").exists()


# From here on lessons are executed: all of them by one command, side by side.

RUNNING = cases(
    """
=== endless
@title
# %%
print("before")

# %%
import threading

threading.Event().wait()
► the cell ran longer than 10 s (cell_seconds in pyproject.toml)

=== starter_passes
@title
@prompt
# %% exercise="six" role="starter"
answer = 6

# %% exercise="six" role="check"
► the check already passes after the starter of line 15; it has to fail there
assert answer == 6, f"six is wanted, not {answer}"

@solution

=== wrong_passes
@title
@prompt
@starter
# %% exercise="six" role="check"
► the check already passes after the wrong of line 20; it has to fail there
assert answer, "something is wanted"

# %% exercise="six" role="wrong" says="something"
answer = 5

@solution

=== wrong_says_something_else
@title
@prompt
@starter
# %% exercise="six" role="check"
assert answer == 6, f"six is wanted, not {answer}"
► the wrong answer of line 20 declares says='not 7', but the check says: six is wanted, not 5

# %% exercise="six" role="wrong" says="not 7"
answer = 5

@solution

=== solution_fails
@title
@prompt
@starter
# %% exercise="six" role="check"

doubled = answer * 2
assert doubled == 12, f"twelve is wanted, not {doubled}"
► the check fails after the solution of line 22: AssertionError: twelve is wanted, not 14

# %% exercise="six" role="solution"
answer = 7

=== check_is_broken
@title
@prompt
@starter
# %% exercise="six" role="check"
assert answers == 6, "six is wanted"
► after the starter of line 15 the check ends with `NameError: name 'answers' is not defined`;

@solution

=== check_is_silent
@title
@prompt
@starter
# %% exercise="six" role="check"
assert answer == 6
► it has to be an AssertionError whose message helps the reader

@solution

=== check_warns
@title
@prompt
@starter
# %% exercise="six" role="check"
► undeclared warning: UserWarning: careful
import warnings

warnings.warn("careful", stacklevel=1)
assert answer == 6, f"six is wanted, not {answer}"

@solution

=== exception
@title
# %%
x = 1

# %%

print("one")
y = 1 / (x - 1)
► the cell raised ZeroDivisionError: division by zero\\n    | one
print("two")

=== exception_in_a_function
@title
# %%
def divide(x: float) -> float:
    return 1 / x


# %%
one = divide(1)
zero = divide(0)
► the cell raised ZeroDivisionError: division by zero

=== exception_in_a_library
@title
# %%
import json

json.loads("{")
► the cell raised JSONDecodeError: Expecting property name enclosed in double quotes

=== exception_did_not_come
@title
# %% raises="ValueError: seven"
► declared `raises=ValueError: seven`, but nothing was raised
x = 1

=== exception_of_another_type
@title
# %% raises="ValueError: seven"
x = 1
raise KeyError("seven")
► declared `raises=ValueError: seven`, but it raised KeyError: 'seven'

=== exception_with_another_text
@title
# %% raises="ValueError: seven"
raise ValueError("eight")
► declared `raises=ValueError: seven`, but it raised ValueError: eight

=== warning
@title
# %%
► undeclared warning: UserWarning: careful
import warnings

warnings.warn("careful", stacklevel=1)

=== warning_did_not_come
@title
# %% warns="UserWarning: careful"
► declared `warns=UserWarning: careful`, but it did not come
x = 1

=== warning_with_another_text
@title
# %% warns="UserWarning: careful"
► undeclared warning: UserWarning: reckless
► declared `warns=UserWarning: careful`, but it did not come
import warnings

warnings.warn("reckless", stacklevel=1)

=== warning_of_a_thread
@title
# %%
► text on stderr: UserWarning: careful
import threading
import warnings

thread = threading.Thread(target=lambda: warnings.warn("careful", stacklevel=1))
thread.start()
thread.join()

=== stderr
@title
# %%
► text on stderr: psst
import sys

print("psst", file=sys.stderr)

=== figure
@title
# %%
from matplotlib import pyplot as plt

plt.plot([1, 2])
plt.show()
► show it with snippets.figures.show_figure

=== flood
@title
# %%
► an output of 2,001 characters; at most 2,000 are shown
print("x" * 2000)

=== killed
@title
# %%
x = 1

# %%
► the kernel died in this cell: it ended with exit code 3 (os._exit, or a library
import os

os._exit(3)

=== two_faults
@title
# %%
► text on stderr: psst
import sys

print("psst", file=sys.stderr)

# %%
1 / 0
""",
    CELLS,
)
# Lessons of the same course that cannot be read, or have problems before they run.
UNREADABLE = "lessons/1_first/80_unreadable.py"
UNSOUND = "lessons/1_first/81_unsound.py"
# Runs, and then quotes what prose cannot quote.
QUOTES_LIST = "lessons/1_first/82_quotes_list.py"


def path_of(name: str) -> str:
    return f"lessons/1_first/{list(RUNNING).index(name) + 1:02}_{name}.py"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyCourse, Done]:
    """A course with every lesson above and two that are sound, after `blackbelt run`."""
    course = TinyCourse(tmp_path_factory.mktemp("course"), cell_seconds=10)
    for name, case in RUNNING.items():
        course.write(path_of(name), case.source.replace("\\n", "\n"))
    course.write(UNREADABLE, READING["word in a header"].source)
    course.write(UNSOUND, CODE["import of another package"].source)
    values = TITLE.replace("Opis.", "{{ sizes }}").replace("Description.", "{{ sizes }}")
    course.write(QUOTES_LIST, values + "# %%\nsizes = [1]\n")
    course.write(GOOD, GOOD_LESSON)
    return course, course.command("run")


@pytest.mark.parametrize("name", RUNNING)
def test_run(name: str, ran: tuple[TinyCourse, Done]) -> None:
    _, done = ran
    case = RUNNING[name]
    wanted = tuple((line, text.replace("\\n", "\n")) for line, text in case.problems)
    found = done.of(path_of(name))
    compare(found, Case(case.source, wanted))
    number = Path(path_of(name)).name[:2]
    assert {problem.command for problem in found} == {f"uv run blackbelt run {number}"}


def test_run_reports_every_broken_lesson(ran: tuple[TinyCourse, Done]) -> None:
    _, done = ran
    assert done.code == 1
    broken = {problem.path for problem in done.problems}
    assert broken == {UNREADABLE, UNSOUND, QUOTES_LIST, *map(path_of, RUNNING)}
    assert f"{len(done.problems)} problems\n" in done.err
    assert "Traceback" not in done.err


def test_run_keeps_the_sound_lessons(ran: tuple[TinyCourse, Done]) -> None:
    course, done = ran
    assert re.search(r"^done  90_good  \d", done.err, re.M)
    files = (course.root / ".cache" / "runs").iterdir()
    kept = [json.loads(file.read_text(encoding="utf-8"))["run"] for file in files]
    printed = [[o["text"] for step in run["steps"] for o in step["outputs"]] for run in kept]
    assert sorted(printed) == [[], ["sound\n"]]


def test_run_keeps_nothing_of_broken_lessons_and_does_not_repeat_sound_ones(
    ran: tuple[TinyCourse, Done],
) -> None:
    course, _ = ran
    done = course.command("run", "90")
    assert re.search(r"^lessons: 0 run, 1 unchanged in ", done.err, re.M)


def test_the_site_shows_what_is_sound(ran: tuple[TinyCourse, Done]) -> None:
    course, _ = ran
    prepared = prepare(course.project, ("81", "82", "90"), Progress())
    assert [rendered.lesson.path for rendered in prepared.lessons] == [GOOD]
    assert prepared.broken == (UNREADABLE, UNSOUND, QUOTES_LIST)


def test_value_that_prose_cannot_quote(ran: tuple[TinyCourse, Done]) -> None:
    course, _ = ran
    prepared = prepare(course.project, ("82",), Progress())
    found = [problem for problem in prepared.problems if problem.path == QUOTES_LIST]
    command = "uv run blackbelt run 82"
    assert [(p.line, p.command) for p in found] == [(4, command), (9, command)]
    assert "`{{ sizes }}`" in found[0].what
