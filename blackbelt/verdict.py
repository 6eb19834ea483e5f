"""Judges what a cell did: the declared exception or warning came, nothing else did, checks work."""

from collections.abc import Iterator

from blackbelt.languages import keep
from blackbelt.lesson import Lesson
from blackbelt.plan import Step
from blackbelt.problems import Problem
from blackbelt.results import Output, StepRun

_SHOWN_LINES = 12
# How repr writes the characters that keep two languages apart.
_ESCAPED_MARK = r"\ue0f0"


def judge(lesson: Lesson, step: Step, run: StepRun, longest: int) -> tuple[Problem, ...]:
    """What is wrong with the execution of a step; nothing if it did what it declares.

    Args:
        lesson: the lesson.
        step: what was executed.
        run: what it put out.
        longest: how many characters one text may hold.
    """
    rules = _exercise if step.phase in ("check fails", "check passes") else _cell
    command = f"uv run blackbelt run {lesson.number}"
    raised = _error(run)
    at_error = step.cell.first + raised.line - 1 if raised and raised.line else step.cell.line
    problems = [Problem(lesson.path, at_error, what, command) for what in rules(step, run)]
    problems += [
        Problem(lesson.path, step.cell.line, what, command) for what in _outputs(step, run, longest)
    ]
    return tuple(problems)


def _outputs(step: Step, run: StepRun, longest: int) -> Iterator[str]:
    declared = step.cell.options.warns
    warnings = [output for output in run.outputs if output.kind == "warning"]
    for warning in warnings:
        if not any(expected.matches(*_type_and_text(warning)) for expected in declared):
            yield f"undeclared warning: {_short(warning)}"
    for expected in declared:
        if not any(expected.matches(*_type_and_text(warning)) for warning in warnings):
            yield f"declared `warns={expected}`, but it did not come"
    for output in run.outputs:
        if len(output.text) > longest:
            yield f"an output of {len(output.text):,} characters; at most {longest:,} are shown"
        if _ESCAPED_MARK in output.text:
            yield "the text of `say` was shown by repr: print it, or raise it in an AssertionError"
        if output.kind == "stderr":
            yield f"text on stderr: {output.text.strip()[:300]}"
        if output.kind == "figure" and output.language is None:
            yield "a figure in one language only: show it with snippets.figures.show_figure"


def _cell(step: Step, run: StepRun) -> Iterator[str]:
    options = step.cell.options
    error = _error(run)
    if options.raises is None and error is not None:
        yield _unexpected(error, run)
    elif options.raises is not None:
        if error is None:
            yield f"declared `raises={options.raises}`, but nothing was raised"
        elif not options.raises.matches(*_type_and_text(error)):
            yield f"declared `raises={options.raises}`, but it raised {_short(error)}"


def _exercise(step: Step, run: StepRun) -> Iterator[str]:
    answer = step.after
    assert answer is not None
    error = _error(run)
    role, line = answer.options.role, answer.line
    if step.phase == "check passes":
        if error is not None:
            yield f"the check fails after the solution of line {line}: {_short(error)}"
        return
    if error is None:
        yield f"the check already passes after the {role} of line {line}; it has to fail there"
        return
    name, text = _type_and_text(error)
    if name != "AssertionError" or not text.strip():
        yield (
            f"after the {role} of line {line} the check ends with `{_short(error)}`; "
            "it has to be an AssertionError whose message helps the reader"
        )
    elif answer.options.says and answer.options.says not in keep(text, "en"):
        yield (
            f"the wrong answer of line {line} declares says={answer.options.says!r}, "
            f"but the check says: {keep(text, 'en')}"
        )


def _error(run: StepRun) -> Output | None:
    return next((output for output in run.outputs if output.kind == "error"), None)


def _type_and_text(output: Output) -> tuple[str, str]:
    name, _, text = output.text.partition(": ")
    return name.split(".")[-1], text


def _short(output: Output) -> str:
    return keep(output.text, "en").strip()[:400]


def _unexpected(error: Output, run: StepRun) -> str:
    printed = "".join(output.text for output in run.outputs if output.kind in ("text", "stderr"))
    lines = [f"    | {line}" for line in keep(printed, "en").splitlines()[-_SHOWN_LINES:]]
    return "\n".join([f"the cell raised {_short(error)}", *lines])
