"""Runs as plain data, for the cache, for recordings and for the way back from a worker."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from blackbelt.results import Output, Provenance, Run, StepRun


def run_to_data(run: Run) -> dict[str, Any]:
    """A run as JSON can hold it."""
    return asdict(run)


def run_from_data(data: dict[str, Any]) -> Run:
    """The run again.

    Raises:
        KeyError, TypeError, AttributeError: the data is not that of a run.
    """
    steps = tuple(
        StepRun(**step | {"outputs": tuple(Output(**output) for output in step["outputs"])})
        for step in data["steps"]
    )
    return Run(**data | {"steps": steps, "provenance": Provenance(**data["provenance"])})


def checksum(data: object) -> str:
    """SHA-256 of data, whatever white space its file has."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
