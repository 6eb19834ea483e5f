"""Error messages that lessons show are found by what really happened."""

import pytest
from tiny import TITLE, TinyCourse

from blackbelt.error_index import Message, error_index, shown_messages
from blackbelt.lesson import Lesson
from blackbelt.plan import plan
from blackbelt.prepare import prepare
from blackbelt.progress import Progress
from blackbelt.results import Output, Run, StepRun

LESSON = (
    TITLE
    + """\
# %% raises="ValueError: no such"
raise ValueError("no such thing: 12")

# %% [markdown] lang="pl"
# ## Później

# %% [markdown] lang="en"
# ## Later

# %% warns="UserWarning: slow"
import warnings
warnings.warn("slow, and it takes 3.5 s")

# %%
try:
    [][7]
except IndexError as error:
    print(f"{type(error).__name__}: {error}")
print("note: this is not an exception")
print("see RuntimeError: within a sentence")

# %% [markdown] lang="pl" exercise="six" role="prompt" belt="white" minutes=5
# ### Szóstka

# %% [markdown] lang="en" exercise="six" role="prompt" belt="white" minutes=5
# ### Six

# %% exercise="six" role="starter"
answer = 0

# %% exercise="six" role="check"
assert answer == 6, "six is wanted"

# %% exercise="six" role="solution"
answer = 6
"""
)


def test_messages_of_a_run(course: TinyCourse) -> None:
    for number in ("01", "02"):
        text = LESSON.replace("Title", f"Title {number}").replace("12", number)
        course.write(f"lessons/1_first/{number}_errors_{number}.py", text)
    prepared = prepare(course.project, (), Progress())
    assert prepared.problems == ()
    found = error_index([(r.lesson, r.run) for r in prepared.lessons])
    places = {(m.type, m.text): [(p.lesson.number, p.section) for p in m.places] for m in found}
    assert places == {
        ("IndexError", "list index out of range"): [("01", "later"), ("02", "later")],
        ("UserWarning", "slow, and it takes 3.5 s"): [("01", "later"), ("02", "later")],
        # One message with two numbers; the first is shown.
        ("ValueError", "no such thing: 01"): [("01", "title-01"), ("02", "title-02")],
    }
    assert [m.address for m in found] == [
        "indexerror-list-index-out-of-range",
        "userwarning-slow-and-it-takes-s",
        "valueerror-no-such-thing",
    ]


def index(course: TinyCourse, *outputs: Output) -> tuple[Message, ...]:
    """The index of a lesson of one cell with these outputs."""
    course.write("lessons/1_first/01_one.py", TITLE + "# %%\nprint(1)\n")
    [lesson] = course.load().lessons
    assert len(plan(lesson)) == 1
    return error_index([(lesson, Run((StepRun(outputs),)))])


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("error", "RuntimeError: first line\nsecond line", "first line"),
        ("error", "RuntimeError: ends with a colon:\nlist", "ends with a colon"),
        ("error", "RuntimeError: \ue0f0pl\ue0f1źle\ue0f0en\ue0f1wrong\ue0f2", "wrong"),
        ("error", "RuntimeError: <b>&amp;</b>", "<b>&amp;</b>"),
        ("error", "RuntimeError: ", None),
        ("error", "KeyboardInterrupt", None),
        ("error", "torch._dynamo.exc.Unsupported: Graph break", "Graph break"),
        ("text", "torch.OutOfMemoryError: CUDA out of memory", "CUDA out of memory"),
        ("text", "  ValueError: indented", "indented"),
        ("text", "Total: 3", None),
        ("figure", "ValueError: in an alternative text", None),
        ("error", "ValueError: " + "word " * 100, ("word " * 100)[:299].strip() + " …"),
    ],
)
def test_texts(course: TinyCourse, kind: str, text: str, expected: str | None) -> None:
    output = Output(kind, text)  # type: ignore[arg-type]
    assert [m.text for m in index(course, output)] == ([expected] if expected else [])


def test_two_messages_that_begin_alike_are_two(course: TinyCourse) -> None:
    """Ten words make the address; what differs later is the same failure."""
    same = "a b c d e f g h i j"
    found = index(
        course,
        Output("error", f"ValueError: {same} k"),
        Output("error", f"ValueError: {same} l"),
        Output("error", f"TypeError: {same} l"),
        Output("error", "ValueError: a b"),
    )
    assert [(m.type, m.text[-1]) for m in found] == [
        ("TypeError", "l"),
        ("ValueError", "b"),
        ("ValueError", "k"),
    ]


def test_message_without_words_has_an_address(course: TinyCourse) -> None:
    assert [m.address for m in index(course, Output("error", "KeyError: 3"))] == ["keyerror"]


def test_language_of_a_cell_does_not_matter(course: TinyCourse) -> None:
    outputs = (Output("error", "ValueError: x", language="pl"),)
    course.write("lessons/1_first/01_one.py", TITLE + "# %%\nprint(1)\n")
    [lesson] = course.load().lessons
    assert isinstance(lesson, Lesson)
    assert list(shown_messages(lesson, Run((StepRun(outputs),)))) == [("ValueError", "x", "title")]
