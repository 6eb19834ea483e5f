"""What contributors read is true: commands, examples, addresses, rules, and GitHub's forms."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import rules
import yaml
from tiny import REPOSITORY, TITLE, TinyCourse

from blackbelt.cli import _parser
from blackbelt.config import load_project
from blackbelt.course import load_course
from blackbelt.lesson import Options

GITHUB = REPOSITORY / ".github"
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("[0-9]*.yml"))
STYLE = REPOSITORY / "lessons" / "README.md"
CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"
SPOKEN = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted(GITHUB.rglob("*.md")),
    STYLE,
    *FORMS,
]
PROJECT = load_project(REPOSITORY)


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


# Commands


def commands(text: str) -> list[str]:
    """Commands of blackbelt in code spans and in blocks for a terminal."""
    found = re.findall(r"`uv run blackbelt ([^`]*)`", text)
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        for line in re.findall(r"^\$ (.*)$", block, re.M):
            parts = re.split(r" && ", line.split("  #")[0].strip())
            found += [p.removeprefix("uv run blackbelt ") for p in parts if "blackbelt" in p]
    return found


@pytest.mark.parametrize("file", SPOKEN, ids=lambda file: file.name)
def test_commands_exist(file: Path) -> None:
    for command in commands(read(file)):
        try:
            _parser().parse_args(shlex.split(command))
        except SystemExit:
            pytest.fail(f"{file.name}: no such command: blackbelt {command}", pytrace=False)


def test_commands_are_found_and_a_wrong_one_is_noticed() -> None:
    block = "```console\n$ pip install uv && uv run blackbelt chek  # x\n```\n"
    text = f"`uv run blackbelt links`\n\n{block}"
    assert commands(text) == ["links", "chek"]
    with pytest.raises(SystemExit):
        _parser().parse_args(["chek"])
    assert len(commands(read(CONTRIBUTING))) > 5


def test_lessons_in_commands_are_planned() -> None:
    names = {lesson.name for module in load_course(PROJECT).modules for lesson in module.lessons}
    for file in SPOKEN:
        for command in commands(read(file)):
            if command.startswith("new "):
                assert command.split()[2] in names, f"{file.name}: {command}"


# One screen, and no GPU


def test_contributing_is_one_screen() -> None:
    text = read(CONTRIBUTING)
    assert len(text.splitlines()) <= 40
    assert len(text.split()) <= 420
    first = re.search(r"```console\n(.*?)```", text, re.S)
    assert first and len(re.findall(r"^\$ ", first[1], re.M)) == 3
    assert "(lessons/README.md)" in text


def test_nobody_is_asked_for_a_gpu() -> None:
    for file in FORMS:
        for item in yaml.safe_load(read(file))["body"]:
            if item.get("validations", {}).get("required"):
                assert not re.search(r"GPU|CUDA|nvidia", str(item), re.I), (
                    f"{file.name}: {item['id']}"
                )
    ticks = [
        line for line in read(GITHUB / "PULL_REQUEST_TEMPLATE.md").splitlines() if "[ ]" in line
    ]
    assert ticks and not any("GPU" in line for line in ticks)


# The style page


def test_examples_of_the_style_page_are_sound(course: TinyCourse) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", read(STYLE), re.M | re.S)
    assert len(blocks) == 4
    values = "# %%\nsize = view_file = 24\n\n"
    text = TITLE + values + "\n".join(sorted(blocks, key=lambda block: "exercise=" in block))
    path = "lessons/1_first/01_examples.py"
    course.write(path, text)
    done = course.command("check")
    assert (done.err, done.code) == ("", 0)
    # The same with a fault in it.
    course.write(path, text.replace('belt="white"', 'belt="green"'), planned=False)
    assert course.command("check").code == 1


def test_the_style_page_explains_every_option_of_a_cell() -> None:
    text = read(STYLE)
    assert [f.name for f in fields(Options) if f"{f.name}=" not in text] == []


def test_the_page_of_rules_is_what_the_checks_enforce() -> None:
    assert read(rules.FILE) == rules.page().rstrip("\n") + "\n", "uv run python tests/rules.py"
    assert read(rules.FILE).count("\n| ") > 150


# GitHub's files


def schema_problems(schema: str, *files: Path) -> str:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode else ""


def test_github_takes_the_forms_and_the_citation() -> None:
    assert len(FORMS) == 3
    assert schema_problems("github-issue-forms", *FORMS) == ""
    assert schema_problems("github-issue-config", GITHUB / "ISSUE_TEMPLATE" / "config.yml") == ""
    assert schema_problems("citation-file-format", REPOSITORY / "CITATION.cff") == ""


@pytest.mark.parametrize(
    ("schema", "file", "there", "instead"),
    [
        ("github-issue-forms", FORMS[0], "type: input", "type: inputt"),
        ("github-issue-config", GITHUB / "ISSUE_TEMPLATE" / "config.yml", "url:", "adress:"),
        ("citation-file-format", REPOSITORY / "CITATION.cff", "authors:", "writers:"),
    ],
)
def test_a_fault_in_them_is_noticed(
    schema: str, file: Path, there: str, instead: str, tmp_path: Path
) -> None:
    text = read(file)
    assert there in text
    broken = tmp_path / file.name
    broken.write_text(text.replace(there, instead, 1), encoding="utf-8")
    assert schema_problems(schema, broken)


def test_forms_speak_both_languages() -> None:
    for file in FORMS:
        form: dict[str, Any] = yaml.safe_load(read(file))
        labels = [form["name"], *(item["attributes"]["label"] for item in form["body"])]
        assert [label for label in labels if " / " not in label] == []
        ids = [item["id"] for item in form["body"]]
        assert len(ids) == len(set(ids))


def test_the_repository_has_one_address() -> None:
    """Files that GitHub reads need whole addresses: they are those of `pyproject.toml`."""
    files = [*GITHUB.rglob("*.md"), *GITHUB.rglob("*.yml"), REPOSITORY / "CITATION.cff"]
    owner = PROJECT.owner_and_name.split("/")[0]
    named = [
        address
        for file in files
        for address in re.findall(
            rf"https://[\w.]*{owner}[\w./-]*|https://[\w.]+/{owner}[\w./-]*", read(file)
        )
    ]
    assert len(named) >= 5
    own = (PROJECT.repository, PROJECT.site_url)
    assert [address for address in named if not address.startswith(own)] == []
