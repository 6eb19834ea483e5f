"""Runs as plain data, for the cache, for recordings and for the way back from a worker."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from blackbelt.results import Call, Output, Provenance, Run, StepRun, Table, TableCell


def run_to_data(run: Run) -> dict[str, Any]:
    """A run as JSON can hold it."""
    return asdict(run)


def run_from_data(data: dict[str, Any]) -> Run:
    """The run again.

    Raises:
        KeyError, TypeError, AttributeError: the data is not that of a run.
    """
    steps = tuple(
        StepRun(**step | {"outputs": tuple(_output(output) for output in step["outputs"])})
        for step in data["steps"]
    )
    return Run(**data | {"steps": steps, "provenance": Provenance(**data["provenance"])})


def _output(data: dict[str, Any]) -> Output:
    """An output; what an old recording does not know is left empty."""
    calls = tuple(Call(**call) for call in data.get("calls", ()))
    shown = table_from_data(data["table"]) if data.get("table") else None
    return Output(
        **data | {"calls": calls, "causes": tuple(data.get("causes", ())), "table": shown}
    )


def table_from_data(data: dict[str, Any]) -> Table:
    """A table, also as the kernel tells it."""
    head, body = (
        tuple(tuple(TableCell(**cell) for cell in row) for row in data[part])
        for part in ("head", "body")
    )
    rows, columns = data["shape"]
    return Table(head, body, (rows, columns))


def checksum(data: object) -> str:
    """SHA-256 of data, whatever white space its file has."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
