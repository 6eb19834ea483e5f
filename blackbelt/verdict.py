"""Judges what a cell did: the declared exception or warning came, nothing else did, checks work."""

import re
import signal
from collections.abc import Callable, Iterator

from blackbelt.config import Project
from blackbelt.executed import Ending, Note, StoppedError
from blackbelt.languages import keep
from blackbelt.lesson import Lesson
from blackbelt.plan import Step
from blackbelt.problems import Problem
from blackbelt.results import Output, StepRun

_SHOWN_LINES = 12
_SHOWN_CHARACTERS = 2000
# How repr writes the characters that keep two languages apart.
_ESCAPED_MARK = r"\ue0f0"
_MISSING = re.compile(r"^ModuleNotFoundError: No module named '([^.']+)")
_DISK_FULL = re.compile(r"^OSError: \[Errno 28\]|No space left on device")


def judge(lesson: Lesson, step: Step, run: StepRun, longest: int) -> tuple[Problem, ...]:
    """What is wrong with the execution of a step; nothing if it did what it declares.

    Args:
        lesson: the lesson.
        step: what was executed.
        run: what it put out.
        longest: how many characters one text may hold.
    """
    rules = _exercise if step.phase in ("check fails", "check passes") else _cell
    command = _again(lesson)
    raised = _error(run)
    at_error = _line(step, raised.line if raised else 0)
    problems = [Problem(lesson.path, at_error, what, command) for what in rules(step, run)]
    problems += [
        Problem(lesson.path, _line(step, line), what, command)
        for line, what in _outputs(step, run, longest)
    ]
    return tuple(problems)


def _outputs(step: Step, run: StepRun, longest: int) -> Iterator[tuple[int, str]]:
    """Problems with the lines of the cell, 0 where only the cell is known."""
    declared = step.cell.options.warns
    warnings = [output for output in run.outputs if output.kind == "warning"]
    for warning in warnings:
        if not any(expected.matches(*_type_and_text(warning)) for expected in declared):
            yield 0, f"undeclared warning: {_short(warning)}"
    for expected in declared:
        if not any(expected.matches(*_type_and_text(warning)) for warning in warnings):
            yield 0, f"declared `warns={expected}`, but it did not come"
    for output in run.outputs:
        if len(output.text) > longest:
            yield 0, f"an output of {len(output.text):,} characters; at most {longest:,} are shown"
        if _ESCAPED_MARK in output.text:
            yield (
                0,
                "the text of `say` was shown by repr: print it, or raise it in an AssertionError",
            )
        if output.kind == "stderr":
            yield 0, f"text on stderr: {output.text.strip()[:300]}"
        if output.kind == "figure":
            yield from ((output.line, what) for what in _figure(output))


def _figure(output: Output) -> Iterator[str]:
    if output.language is None:
        yield "a figure in one language only: show it with snippets.figures.show_figure"
    elif not output.text.strip():
        yield f"a figure without alternative text in `{output.language}`: show_figure takes it"


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
    what = f"the cell raised {_short(error)}{_advice(error)}"
    return "\n".join([what, *_last_lines(run.outputs)])


def _advice(error: Output) -> str:
    if missing := _MISSING.match(error.text):
        name = missing[1]
        return (
            f"; `{name}` is not installed: add it to `dependencies` and to `imports` of "
            "[tool.blackbelt] in pyproject.toml, then `uv sync`"
        )
    if _DISK_FULL.search(error.text):
        return "; free some space on the disk of the temporary folder (TMPDIR)"
    return ""


def _last_lines(outputs: tuple[Output, ...]) -> list[str]:
    printed = "".join(output.text for output in outputs if output.kind in ("text", "stderr"))
    # One line may be a flood.
    lines = keep(printed[-_SHOWN_CHARACTERS:], "en").splitlines()[-_SHOWN_LINES:]
    return [f"    | {line}" for line in lines]


def not_started(lesson: Lesson, why: str) -> Problem:
    """The lesson has no kernel to run in."""
    return Problem(lesson.path, 1, f"the kernel did not start: {why}", _again(lesson))


def stopped(
    lesson: Lesson, step: Step, error: StoppedError, project: Project, *, lesson_is_over: bool
) -> Problem:
    """A cell that took too long, printed too much, or ended the kernel."""
    match error.reason:
        case "time" if lesson_is_over:
            limit = project.lesson_seconds
            what = f"the lesson ran longer than {limit} s (lesson_seconds in pyproject.toml)"
        case "time":
            limit = project.cell_seconds
            what = f"the cell ran longer than {limit} s (cell_seconds in pyproject.toml)"
        case "flood":
            limit = project.output_characters
            what = (
                f"the cell floods its output and was stopped; at most {limit:,} characters are "
                "shown (output_characters in pyproject.toml)"
            )
        case _:
            what = f"the kernel died in this cell: {_cause(error.status)}"
    text = "\n".join([what, *_last_lines(error.outputs)])
    return Problem(lesson.path, _line(step, error.line), text, _again(lesson))


def _cause(status: int) -> str:
    if status >= 0:
        return f"it ended with exit code {status} (os._exit, or a library that ends the process)"
    if -status == 9:
        return "it was killed by signal 9 (SIGKILL), most likely because memory ran out"
    if -status == 11:
        return "segmentation fault (signal 11)"
    try:
        return f"it was ended by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"it was ended by signal {-status}"


def judge_notes(
    lesson: Lesson, step: Step, notes: tuple[Note, ...], scrub: Callable[[str], str]
) -> tuple[Problem, ...]:
    """What a cell did to files outside of the lesson's folder."""
    written = {(note.path, note.line) for note in notes if note.kind == "write"}
    return tuple(
        Problem(
            lesson.path,
            _line(step, line),
            f"the cell writes outside of the lesson's folder: {scrub(path)}; write to the working "
            "directory or with `tempfile`",
            _again(lesson),
        )
        for path, line in sorted(written)
    )


def judge_end(
    lesson: Lesson,
    steps: tuple[Step, ...],
    end: Ending,
    threads: dict[int, tuple[Step, int]],
    processes: dict[int, tuple[Step, int]],
) -> tuple[Problem, ...]:
    """What a lesson leaves running after its last cell.

    Args:
        lesson: the lesson.
        steps: what was executed.
        end: what was found.
        threads: step and line that started each thread.
        processes: step and line that started each process.
    """
    if not steps:
        # A lesson without code starts nothing.
        return ()
    problems = []
    nowhere = (steps[-1], 0)
    for pid, command in end.processes.items():
        what = f"the lesson leaves a child process behind: {command[:300]}"
        problems.append((processes.get(pid, nowhere), f"{what}; wait for it, or end it"))
    for number, name in end.threads.items():
        what = f"the lesson leaves a thread behind: {name}"
        problems.append((threads.get(number, nowhere), f"{what}; join it, or make it a daemon"))
    return tuple(
        Problem(lesson.path, _line(step, line), what, _again(lesson))
        for (step, line), what in problems
    )


def _line(step: Step, line: int) -> int:
    """Line of the file; the cell's header where the line of the cell is not known."""
    return step.cell.first + line - 1 if line else step.cell.line


def _again(lesson: Lesson) -> str:
    return f"uv run blackbelt run {lesson.number}"
