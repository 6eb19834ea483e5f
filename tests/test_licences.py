"""The list of licences is that of what is installed, and each of them is allowed."""

from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from tiny import REPOSITORY

from blackbelt.licences import (
    _STATED,
    faults,
    installed,
    is_allowed,
    licence_of,
    locked,
    read_list,
)


def test_the_list_is_up_to_date_and_everything_in_it_is_allowed() -> None:
    found = installed(REPOSITORY)
    assert {"torch", "mkdocs-material", "pagefind-bin", "distributed", "zizmor"} <= found.keys()
    assert list(faults(read_list(REPOSITORY), found, locked(REPOSITORY))) == []


@pytest.mark.parametrize(
    ("listed", "found", "said"),
    [
        ({}, {"a": "MIT"}, "a: not listed (MIT)"),
        ({"gone": "MIT"}, {}, "gone: listed, but no dependency any more"),
        ({"a": "MIT"}, {"a": "GPL-3.0-only"}, "a: listed as MIT, but it is GPL-3.0-only"),
        ({"a": "GPL-3.0-only"}, {"a": "GPL-3.0-only"}, "a: GPL-3.0-only is not allowed"),
        # Installed on another system only.
        ({"b": "AGPL-3.0-only"}, {}, "b: AGPL-3.0-only is not allowed"),
    ],
)
def test_what_is_wrong_with_a_list(
    listed: dict[str, str], found: dict[str, str], said: str
) -> None:
    (fault,) = faults(listed, found, {"a", "b"})
    assert fault.startswith(said)


def test_another_python_may_have_a_release_that_says_more() -> None:
    assert list(faults({"a": "BSD"}, {"a": "BSD-3-Clause"}, {"a"})) == []


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("MIT AND BSD-3-Clause", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-2.0-only OR GPL-3.0-only", False),
        ("MIT AND (MPL-1.1 OR GPL-2.0-only)", True),
        ("(MIT OR Apache-2.0) AND GPL-2.0-only", False),
        # AND binds more strongly than OR.
        ("GPL-2.0-only AND MIT OR MIT", True),
        ("MIT OR MIT AND GPL-2.0-only", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("unknown", False),
        ("", False),
        ("MIT, some of it", False),
        ("MIT AND", False),
        ("(MIT", False),
        ("MIT MIT", False),
    ],
)
def test_expressions(expression: str, allowed: bool) -> None:
    assert is_allowed(expression) is allowed


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT\nClassifier: License :: OSI Approved :: BSD License", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD\nLicense: BSD-3-Clause", "BSD-3-Clause"),
        ("Classifier: License :: OSI Approved :: BSD License\nLicense: Copyright, all", "BSD"),
        (
            "Classifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
            "GNU General Public License v3 (GPLv3) AND MIT",
        ),
        ("License: Apache 2.0", "Apache 2.0"),
        ("Summary: says nothing", "unknown"),
    ],
)  # fmt: skip
def test_what_a_package_says(metadata: str, licence: str, tmp_path: Path) -> None:
    folder = tmp_path / "thing-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: thing\nVersion: 1\n{metadata}\n"
    )
    found = licence_of(PathDistribution(folder))
    assert found == {"Apache 2.0": "Apache-2.0"}.get(licence, licence)


def test_nothing_is_stated_of_packages_that_are_not_used() -> None:
    assert _STATED.keys() <= locked(REPOSITORY)
