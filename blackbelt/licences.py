"""Licences of everything that is installed: `python -m blackbelt.licences` writes the list.

Packages are used and not distributed; what the site does distribute is in `VENDORED.toml`, but
for Material's theme and Pagefind's scripts. So weak copyleft and PyTorch's CUDA libraries are
fine, and strong copyleft is not: contributors could not reuse the engine under its MIT licence.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILE = ".github/licences.toml"
COMMAND = "uv run python -m blackbelt.licences"
_HEAD = f"""\
# Licences of all packages that are installed with the course, its development tools included.
# Written by `{COMMAND}`; the tests fail where it is not up to date, or where a
# licence is not one of those that blackbelt/licences.py allows.

"""
_ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause",
    "BSL-1.0", "CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib",
    # Weak copyleft: changes to the package itself would have to be published.
    "MPL-1.1", "MPL-2.0",
    # CUDA's libraries, which PyTorch's wheels for Linux ask for.
    "LicenseRef-NVIDIA-Proprietary",
}  # fmt: skip
# What packages write that do not use SPDX identifiers; `BSD` says nothing of its clauses.
_SPELLINGS = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
    "Python Software Foundation License": "PSF-2.0",
}
# What the metadata does not say, or not as an expression, by what the package holds.
_STATED = {
    "axe-playwright-python": "MIT AND MPL-2.0",  # its LICENSE, and axe.min.js
    "chunspell": "MIT AND (MPL-1.1 OR GPL-2.0-only OR LGPL-2.1-only)",  # its code, and Hunspell's
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # no files, only names of NVIDIA's packages
    "morfeusz2": "BSD-2-Clause",  # http://morfeusz.sgjp.pl/doc/license/, program and dictionary
}
_TOKEN = re.compile(r"\(|\)|\bAND\b|\bOR\b|[\w.+-]+(?: WITH [\w.-]+)?")
_LONGEST = 40


def main() -> None:
    """Write the list anew, and keep what only other systems install."""
    root = Path(__file__).resolve().parent.parent
    file = root / FILE
    found = installed(root)
    known = read_list(root) if file.is_file() else {}
    names = locked(root)
    merged = {name: licence for name, licence in known.items() if name in names} | found
    lines = [f'{name} = "{licence}"\n' for name, licence in sorted(merged.items())]
    file.write_text(_HEAD + "".join(lines), encoding="utf-8")
    print(f"{FILE}: {len(merged)} packages")


def read_list(root: Path) -> dict[str, str]:
    """The list, licence by package."""
    found: dict[str, str] = tomllib.loads((root / FILE).read_text(encoding="utf-8"))
    return found


def locked(root: Path) -> set[str]:
    """Packages that some system installs."""
    lock = tomllib.loads((root / "uv.lock").read_text(encoding="utf-8"))
    return {package["name"] for package in lock["package"]}


def faults(listed: Mapping[str, str], found: Mapping[str, str], names: set[str]) -> Iterator[str]:
    """What is wrong with the list: not up to date, or a licence that is not allowed.

    Args:
        listed: what the list says.
        found: what is installed here.
        names: what may be installed anywhere.
    """
    for name in sorted(listed.keys() | found.keys()):
        if name not in listed:
            yield f"{name}: not listed ({found[name]}); next: {COMMAND}"
        elif name not in names:
            yield f"{name}: listed, but no dependency any more; next: {COMMAND}"
        elif name in found and not _is_same(found[name], listed[name]):
            what = f"{name}: listed as {listed[name]}, but it is {found[name]}"
            yield f"{what}; next: {COMMAND}"
        elif not is_allowed(listed[name]):
            yield f"{name}: {listed[name]} is not allowed (see blackbelt/licences.py)"


def _is_same(one: str, other: str) -> bool:
    """Whether two licences agree; releases for other Pythons may say more of the clauses."""
    return one == other or (one.startswith("BSD") and other.startswith("BSD"))


def installed(root: Path) -> dict[str, str]:
    """Licences of all that the project asks for, directly or not, in this environment."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = list(project["project"]["dependencies"])
    for more in (project["project"]["optional-dependencies"], project["dependency-groups"]):
        wanted += [requirement for group in more.values() for requirement in group]
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(Requirement(text), "") for text in wanted]
    while queue:
        requirement, extra = queue.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for one in ("", *requirement.extras):
            if (name, one) in seen:
                continue
            seen.add((name, one))
            try:
                package = distribution(name)
            except PackageNotFoundError:
                # A group that is not installed here.
                continue
            found[name] = licence_of(package)
            queue += [(Requirement(text), one) for text in package.requires or ()]
    return found


def licence_of(package: Distribution) -> str:
    """The licence of a package, as an SPDX expression where that can be told."""
    # Typed as a protocol that lacks `get`, which every version of Python has here.
    metadata = cast(Message, package.metadata)
    if stated := _STATED.get(canonicalize_name(metadata["Name"])):
        return stated
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [
        text.split(" :: ")[-1]
        for text in metadata.get_all("Classifier", [])
        if text.startswith("License ::")
    ]
    free_text = str(metadata.get("License") or "").strip()
    # A classifier `BSD License` says less than `BSD-3-Clause`; whole texts are of no use here.
    if free_text in _ALLOWED or not classifiers:
        classifiers = [free_text.split("\n", maxsplit=1)[0][:_LONGEST] or "unknown"]
    return " AND ".join(sorted(_SPELLINGS.get(name, name) for name in classifiers))


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met with allowed licences alone."""
    tokens = _TOKEN.findall(expression)
    # Whatever is no token is no expression either.
    if "".join(tokens).replace(" ", "") != expression.replace(" ", ""):
        return False
    value = _either(tokens)
    return value and not tokens


def _either(tokens: list[str]) -> bool:
    value = _both(tokens)
    while tokens and tokens[0] == "OR":
        tokens.pop(0)
        value = _both(tokens) or value
    return value


def _both(tokens: list[str]) -> bool:
    value = _one(tokens)
    while tokens and tokens[0] == "AND":
        tokens.pop(0)
        value = _one(tokens) and value
    return value


def _one(tokens: list[str]) -> bool:
    if not tokens:
        return False
    token = tokens.pop(0)
    if token != "(":
        return token in _ALLOWED
    value = _either(tokens)
    return bool(tokens) and tokens.pop(0) == ")" and value


if __name__ == "__main__":
    main()
