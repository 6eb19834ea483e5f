"""Each mistake in a question gets one message that says what, where, and what to do next.

The lessons are written as `tiny.cases` describes: `► text` stands under the line that has to be
reported, and says a part of the message. A lesson must have these problems and no others.
"""

import pytest
from tiny import TITLE, TinyCourse, cases, compare

PATH = "lessons/1_first/01_broken.py"

CELLS = {
    "title": TITLE,
    "pl": """\
# %% [markdown] lang="pl" predict="size"
# Ile?
#
# - [x] Dwa
#
#   Bo dwa.
#
# - [ ] Trzy
#
#   Nie trzy.
""",
    "en": """\
# %% [markdown] lang="en" predict="size"
# How many?
#
# - [x] Two
#
#   Because two.
#
# - [ ] Three
#
#   Not three.
""",
    "answers": """\
# - [x] Two
#
#   Because two.
#
# - [ ] Three
#
#   Not three.
""",
}

FAULTS = cases(
    """
=== no right option
@title
# %% [markdown] lang="pl" predict="size"
# Ile?
#
# - [ ] Dwa
► question `size`: no option is right; mark it with `[x]`
#
#   Bo dwa.
#
# - [ ] Trzy
#
#   Nie trzy.

@en

=== two right options
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
#
# - [x] Two
#
#   Because two.
#
# - [x] Three
► question `size`: a second right option; exactly one has `[x]`
#
#   Not three.

=== option without a reason
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
#
# - [x] Two
► question `size`: the option `Two` has no reason; write it as a paragraph of its own, indented
# - [ ] Three
#
#   Not three.

=== answer of a quiz without a reason
@title
# %% [markdown] lang="pl" quiz="exam" question="name" kind="type"
# Jak?
#
# - [x] `view`
► question `name`: the option ``view`` has no reason

# %% [markdown] lang="en" quiz="exam" question="name" kind="type"
# How?
#
# - [x] `view`
#
#   It is.

=== another number of options
@title
@pl

# %% [markdown] lang="en" predict="size"
► the twins of question `size` differ in the number of options: 2 and 3
# How many?
#
@answers
#
# - [ ] Four
#
#   Not four.

=== another right option
@title
@pl

# %% [markdown] lang="en" predict="size"
► the twins of question `size` differ in which option is right: 1 and 2
# How many?
#
# - [ ] Three
#
#   Not three.
#
# - [x] Two
#
#   Because two.

=== another kind
@title
# %% [markdown] lang="pl" quiz="exam" question="size" kind="many"
# Ile?
#
@answers

# %% [markdown] lang="en" quiz="exam" question="size"
► the twins of question `size` differ in kind: many and one
# How many?
#
@answers

=== one option
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
#
# - [x] Two
► question `size`: 1 options; a question of kind="one" has 2 to 5
#
#   Because two.

=== two steps to put in order
@title
# %% [markdown] lang="pl" quiz="exam" question="steps" kind="order"
# Co po czym?
#
# 1. To
► question `steps`: 2 options; a question of kind="order" has 3 to 8
#
#    Najpierw.
#
# 2. Tamto
#
#    Potem.

# %% [markdown] lang="en" quiz="exam" question="steps" kind="order"
# What follows what?
#
# 1. This
► question `steps`: 2 options; a question of kind="order" has 3 to 8
#
#    First.
#
# 2. That
#
#    Then.

=== option without a mark
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
#
# - [x] Two
#
#   Because two.
#
# - Three
► question `size`: an option begins with `[ ]` or `[x]`
#
#   Not three.

=== option without text
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
#
# - [x] Two
#
#   Because two.
#
# - [ ]
► question `size`: the text of an option is a line of prose, not ``
#
#   Not three.

=== option that is a list
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
#
# - [x] Two
#
#   Because two.
#
# - [ ] - Three
► question `size`: the text of an option is a line of prose, not `- Three`
#
#   Not three.

=== option twice
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
#
# - [x] Two
#
#   Because two.
#
# - [ ] Two
► question `size`: the option `Two` is there twice
#
#   Not three.

=== mark in an order
@title
# %% [markdown] lang="pl" quiz="exam" question="steps" kind="order"
# Co po czym?
#
# 1. [x] To
► question `steps`: an option of kind="order" has no `[x]`
#
#    Najpierw.

# %% [markdown] lang="en" quiz="exam" question="steps" kind="order"
# What follows what?
► question `steps`: a question of kind="order" ends with an ordered list, `1. …`; there is none
#
@answers

=== no list
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
► question `size`: a question of kind="one" ends with a task list, `- [ ] …`; there is none

=== list without marks
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
► question `size`: a question of kind="one" ends with a task list, `- [ ] …`; there is none
#
# - Two
# - Three

=== text after the list
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
#
@answers
#
# Run it.
► question `size`: text after the list of options; a reason is indented below its option

=== second list
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
#
@answers
#
# * [ ] Four
► question `size`: a second list of options; there is one
#
#   Not four.

=== list without a question
@title
@pl

# %% [markdown] lang="en" predict="size"
# - [x] Two
► question `size`: the text of the question has to stand before its list
#
#   Because two.
#
# - [ ] Three
#
#   Not three.

=== heading in a question
@title
@pl

# %% [markdown] lang="en" predict="size"
# ## A heading
► question `size`: a heading; it stands in the prose before the question
#
# How many?
#
@answers

=== address away from its link
@title
@pl

# %% [markdown] lang="en" predict="size"
# How [many][a]?
► question `size`: write addresses where the links are
#
# [a]: https://example.org
#
@answers

=== twin with another id
@title
# %% [markdown] lang="pl" predict="amount"
► prose without its twin: a [markdown] cell with lang="en" predict="amount" has to stand right after
# Ile?
#
@answers

# %% [markdown] lang="en" predict="size"
► prose without its twin: a [markdown] cell with lang="pl" predict="size" has to stand right before
# How many?
#
@answers

=== twin in a quiz
@title
# %% [markdown] lang="pl" predict="size"
► prose without its twin: a [markdown] cell with lang="en" predict="size" has to stand right after
# Ile?
#
@answers

# %% [markdown] lang="en" quiz="exam" question="size"
► prose without its twin: a [markdown] cell with lang="pl" question="size" has to stand right before
# How many?
#
@answers

=== two questions of a quiz with one id
@title
# %% [markdown] lang="pl" quiz="exam" question="size"
# Ile?
#
@answers

# %% [markdown] lang="en" quiz="exam" question="size"
# How many?
#
@answers

# %% [markdown] lang="pl" quiz="exam" question="size"
► two exercises or questions are called `size`
# Ile?
#
@answers

# %% [markdown] lang="en" quiz="exam" question="size"
# How many?
#
@answers

=== quiz in two parts
@title
# %% [markdown] lang="pl" quiz="exam" question="one"
# Ile?
#
@answers

# %% [markdown] lang="en" quiz="exam" question="one"
# How many?
#
@answers

# %%
x = 1

# %% [markdown] lang="pl" quiz="exam" question="two"
► two exercises or questions are called `exam`, or other cells stand between its cells
# Ile?
#
@answers

# %% [markdown] lang="en" quiz="exam" question="two"
# How many?
#
@answers

=== quiz question without an id
@title
# %% [markdown] lang="pl" quiz="exam"
► a question of a quiz has both, `quiz="its-quiz"` and `question="its-id"`
# Ile?

=== question without a quiz
@title
# %% [markdown] lang="pl" question="size"
► a question of a quiz has both, `quiz="its-quiz"` and `question="its-id"`
# Ile?

=== unknown kind
@title
# %% [markdown] lang="pl" quiz="exam" question="size" kind="few"
► `kind` is one of one, many, type, order, not `few`
# Ile?

=== kind of a prediction
@title
# %% [markdown] lang="pl" predict="size" kind="one"
► `kind` goes with `quiz` and `question`; a prediction has exactly one right option
# Ile?

=== prediction on code
@title
# %% predict="size"
► unknown key `predict` on a code cell; it belongs on a markdown cell
x = 1

=== prediction in an exercise
@title
# %% [markdown] lang="pl" exercise="size" role="prompt" predict="size" belt="white" minutes=5
► `exercise` and `predict` do not go together: make two pairs
# Ile?

=== belt of a prediction
@title
# %% [markdown] lang="pl" predict="size" belt="white" minutes=5
► `belt` and `minutes` belong to the prompt of an exercise
# Ile?

=== id with a capital letter
@title
# %% [markdown] lang="pl" predict="Size"
► `predict` is lower-case letters, digits and hyphens, as in `predict="slice-file"`, not `Size`
# Ile?

=== links, code spans and values of reasons
@title
@pl

# %% [markdown] lang="en" predict="size"
# How many?
#
# - [x] Two
#
#   Because `two`, [see](https://example.org), {{ amount }}.
► twins differ in code spans: the Polish twin lacks `two`
► twins differ in links: the Polish twin lacks `https://example.org`
► twins differ in values: the Polish twin lacks `amount`
► unknown value `{{ amount }}`
#
# - [ ] Three
#
#   Not <b>three</b>, [at all](nowhere.py).
► the only HTML in prose is <details> and <summary>
► the only HTML in prose is <details> and <summary>
► twins differ in links: the Polish twin lacks `nowhere.py`
► link to `nowhere.py`

=== two questions with one id
@title
@pl

@en

# %%
x = 1

# %% [markdown] lang="pl" predict="size"
► two exercises or questions are called `size`
# Ile?
#
@answers

# %% [markdown] lang="en" predict="size"
# How many?
#
@answers
""",
    CELLS,
)


@pytest.mark.parametrize("name", FAULTS)
def test_check(name: str, course: TinyCourse) -> None:
    course.write(PATH, FAULTS[name].source)
    done = course.command("check")
    assert done.code == 1
    compare(done.of(PATH), FAULTS[name])
