"""What has to hold for everything below `.github/`: GitHub's schemas, zizmor, and our own rules."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner

from blackbelt.cli import _parser

_SCHEMAS = {
    "workflows/*.yml": ("vendor.github-workflows", "custom.github-workflows-require-timeout"),
    "actions/*/action.yml": ("vendor.github-actions",),
    "dependabot.yml": ("vendor.dependabot",),
}
_PINNED = re.compile(r"^\s*-? *uses: (?:\$/\.github/\S+|[\w.-]+/[\w.-]+@[0-9a-f]{40} # v[\d.]+)$")
# What `.ci/run` is there for: a workflow that calls it by another way will differ one day.
_GATES = re.compile(r"\b(?:ruff|mypy|pytest|blackbelt check)\b")


def faults(folder: Path) -> list[str]:
    """Everything that is wrong below a folder that is or may become `.github/`."""
    return [*_schemas(folder), *_zizmor(folder), *_rules(folder)]


def _schemas(folder: Path) -> Iterator[str]:
    for pattern, schemas in _SCHEMAS.items():
        files = sorted(folder.glob(pattern))
        if not files:
            yield f"{pattern}: there is no such file"
            continue
        for schema in schemas:
            # Within this process: starting it for each schema would take half of the time.
            arguments = ["--builtin-schema", schema, *map(str, files)]
            done = CliRunner().invoke(check_jsonschema, arguments)
            if done.exit_code:
                yield done.output


def _zizmor(folder: Path) -> Iterator[str]:
    # The one of this environment, whatever is on PATH.
    tool = str(Path(sys.executable).with_name("zizmor"))
    command = [tool, "--offline", "--quiet", "--persona", "auditor", str(folder)]
    # Without its variables, which may hold a configuration or a token.
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    if done.returncode:
        yield done.stdout + done.stderr


def _rules(folder: Path) -> Iterator[str]:
    files = sorted([*folder.glob("workflows/*.yml"), *folder.glob("actions/*/action.yml")])
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{file.name}:{number}"
            if re.match(r"\s*-? *uses:", line) and not _PINNED.match(line):
                yield f"{where}: not pinned by hash, with the version in a comment: {line.strip()}"
            if "secrets." in line or "secrets:" in line:
                yield f"{where}: a secret; jobs have the token of their run and nothing else"
    workflows = {file.name: _read(file) for file in folder.glob("workflows/*.yml")}
    for name, workflow in sorted(workflows.items()):
        yield from (f"{name}: {what}" for what in _workflow(workflow))
    reached = _reached(workflows)
    for name, workflow in sorted(workflows.items()):
        rules = _for_strangers if name in reached else _for_us
        yield from (f"{name}: {what}" for what in rules(workflow))


def _read(file: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


def _events(workflow: dict[Any, Any]) -> set[str]:
    # YAML 1.1 takes the key `on` for a truth value.
    events = workflow[True]
    return {events} if isinstance(events, str) else set(events)


def _reached(workflows: dict[str, dict[Any, Any]]) -> set[str]:
    """Workflows that run for a pull request, also those that another one calls."""
    reached = {name for name, flow in workflows.items() if "pull_request" in _events(flow)}
    for name in tuple(reached):
        calls = [str(job.get("uses", "")) for job in workflows[name]["jobs"].values()]
        reached |= {Path(call).name for call in calls if call}
    return reached & workflows.keys()


def _workflow(workflow: dict[Any, Any]) -> Iterator[str]:
    if workflow.get("permissions") != {}:
        yield "permissions are given to jobs, not to all of them: `permissions: {}`"
    if "concurrency" not in workflow:
        yield "no concurrency group"
    for name, job in workflow["jobs"].items():
        label = str(job.get("runs-on", "ubuntu-"))
        if label != "${{ vars.GPU_RUNNER }}" and not re.fullmatch(r"ubuntu-[\d.]*", label):
            yield f"{name}: runs-on is a version of Ubuntu, or the label that GPU_RUNNER holds"
        if "GPU_RUNNER" in label and not _is_guarded(str(job.get("if", ""))):
            yield f"{name}: would wait for a runner that is not there, or run for other branches"
        for step in job.get("steps", []):
            yield from (f"{name}: {what}" for what in _step(step))


def _is_guarded(condition: str) -> bool:
    return {"vars.GPU_RUNNER != ''", "github.ref == 'refs/heads/main'"} <= set(
        condition.split(" && ")
    )


def _step(step: dict[str, Any]) -> Iterator[str]:
    text = step.get("run", "")
    if "${{" in text:
        yield f"an expression in a script; hand it over in `env`: {text.strip()}"
    if _GATES.search(text):
        yield f"a gate beside .ci/run: {text.strip()}"
    for command in re.findall(r"uv run blackbelt (.*)", text):
        try:
            _parser().parse_args(shlex.split(command))
        except SystemExit:
            yield f"no command of blackbelt: {command}"


def _for_strangers(workflow: dict[Any, Any]) -> Iterator[str]:
    """Rules for what runs code of a pull request."""
    for name, job in workflow["jobs"].items():
        if not str(job.get("runs-on", "ubuntu-")).startswith("ubuntu-"):
            yield f"{name}: code of a pull request on a machine of ours"
        if job.get("permissions") != {"contents": "read"}:
            yield f"{name}: a pull request may read contents, and nothing else"
        if "environment" in job:
            yield f"{name}: an environment for a pull request"


def _for_us(workflow: dict[Any, Any]) -> Iterator[str]:
    """Rules for what is published, or runs on machines of ours."""
    for name, job in workflow["jobs"].items():
        for step in job.get("steps", []):
            if "actions/cache" in step.get("uses", "") or "cache" in step.get("with", {}):
                yield f"{name}: a cache, which a pull request may have written"
