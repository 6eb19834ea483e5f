"""What a kernel puts out becomes outputs of the run. Markup and scripts in it stay behind."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import nbformat

from blackbelt.kernel import REPORT
from blackbelt.kernel_tables import TABLE
from blackbelt.results import Call, Output, Table
from blackbelt.serialize import table_from_data

Scrub = Callable[[str], str]


def translate(
    raw_outputs: list[Any], report: dict[str, Any], executed: Sequence[str], scrub: Scrub
) -> tuple[Output, ...]:
    """Outputs of a cell.

    Args:
        raw_outputs: as nbformat has them.
        report: what the kernel says about the cell.
        executed: the cells up to this one, as they were executed.
        scrub: removes what differs from run to run.
    """
    outputs = (_output(raw, report, executed, scrub) for raw in _joined(raw_outputs))
    return tuple(output for output in outputs if output)


def _output(
    raw: Any, report: dict[str, Any], executed: Sequence[str], scrub: Scrub
) -> Output | None:
    if raw.output_type == "stream":
        return Output("text" if raw.name == "stdout" else "stderr", scrub(raw.text))
    if raw.output_type == "error":
        return Output(
            "error",
            scrub(f"{raw.ename}: {raw.evalue}"),
            line=report.get("line", 0),
            calls=_calls(report, executed, scrub),
            causes=tuple(scrub(text) for text in report.get("causes", ())),
        )
    return None if REPORT in raw.data else _displayed(raw, scrub)


def _displayed(raw: Any, scrub: Scrub) -> Output | None:
    ours = raw.metadata.get("blackbelt", {})
    # Everything has this form: HTML, JSON, LaTeX, sound and widgets are shown as their text.
    text = raw.data.get("text/plain", "")
    if "warning" in ours:
        return Output("warning", scrub(text))
    if "image/svg+xml" in raw.data or "image/png" in raw.data:
        svg, png = raw.data.get("image/svg+xml", ""), raw.data.get("image/png", "")
        alt, language = ours.get("alt", ""), ours.get("lang")
        return Output("figure", alt, language, svg, png.strip(), ours.get("line", 0))
    if TABLE in raw.data:
        return Output("result", scrub(text), table=_table(raw.data[TABLE], scrub))
    # A bundle of types may come without a text: there is nothing to show then.
    return Output("result", scrub(text)) if text else None


def _table(data: dict[str, Any], scrub: Scrub) -> Table:
    table = table_from_data(data)
    head, body = (
        tuple(tuple(replace(cell, text=scrub(cell.text)) for cell in row) for row in rows)
        for rows in (table.head, table.body)
    )
    return Table(head, body, table.shape)


def _calls(report: dict[str, Any], executed: Sequence[str], scrub: Scrub) -> tuple[Call, ...]:
    steps = {source.strip("\n"): step for step, source in enumerate(executed)}
    calls: list[Call] = []
    for told in report.get("calls", ()):
        data = dict(told)
        source = data.pop("source", None)
        if source is None:
            data |= {"file": _shown(scrub(data["file"])), "code": scrub(data["code"])}
        elif (step := steps.get(source.strip("\n"))) is not None:
            data["step"] = step
        else:
            # The engine's own cells stand outside of the lesson.
            continue
        calls.append(Call(**data))
    return tuple(calls)


def _shown(file: str) -> str:
    """A file without folders that say nothing to a reader: `torch/nn/modules/module.py`."""
    file = file.removeprefix("…/")
    path = PurePosixPath(file)
    return "/".join(path.parts[-2:]) if path.is_absolute() else file


def _joined(raw_outputs: list[Any]) -> list[Any]:
    """Printed text that arrived in pieces becomes one output."""
    joined: list[Any] = []
    for raw in raw_outputs:
        last = joined[-1] if joined else None
        if last and raw.output_type == last.output_type == "stream" and raw.name == last.name:
            joined[-1] = nbformat.v4.new_output("stream", name=raw.name, text=last.text + raw.text)
        else:
            joined.append(raw)
    return joined
