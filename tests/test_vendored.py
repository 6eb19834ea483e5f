"""Files of other projects are those of the packages that are named, and come with a licence."""

import re
import shutil
import tomllib
from importlib.metadata import files
from pathlib import Path

import pytest
from tiny import REPOSITORY

from blackbelt.vendor import faults

LIST = "docs/assets/VENDORED.toml"
FOLDERS = ("docs/assets/fonts", "docs/assets/katex", "blackbelt/vendor_data")


def test_every_file_is_that_of_its_package() -> None:
    assert list(faults(REPOSITORY)) == []


def test_every_package_has_a_version_a_hash_and_a_licence_beside_its_files() -> None:
    for package in tomllib.loads((REPOSITORY / LIST).read_text(encoding="utf-8"))["package"]:
        assert package["version"][0].isdigit()
        assert len(package["sha256"]) == 64
        assert package["licence"] in ("MIT", "OFL-1.1")
        paths = {Path(file["path"]) for file in package["files"]}
        licences = [path for path in paths if "LICENSE" in path.name]
        assert licences, package["name"]
        for path in paths:
            assert any(path.is_relative_to(licence.parent) for licence in licences), path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in FOLDERS:
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    shutil.copyfile(REPOSITORY / LIST, tmp_path / LIST)
    return tmp_path


def test_an_edit_is_noticed(root: Path) -> None:
    file = root / "blackbelt/vendor_data/katex.min.js"
    file.write_bytes(file.read_bytes() + b";")
    (fault,) = faults(root)
    assert fault.startswith("blackbelt/vendor_data/katex.min.js: not what the package holds")


def test_a_file_of_no_package_is_noticed(root: Path) -> None:
    (root / "docs/assets/fonts/other.woff2").write_bytes(b"wOF2")
    (fault,) = faults(root)
    assert fault.startswith("docs/assets/fonts/other.woff2: of no package")


def test_a_missing_file_is_noticed(root: Path) -> None:
    (root / "docs/assets/katex/katex.min.css").unlink()
    (fault,) = faults(root)
    assert fault.startswith("docs/assets/katex/katex.min.css: listed, but not there")


class TestNotices:
    """What the site publishes of packages that are installed comes with their notices."""

    NOTICES = (REPOSITORY / "docs/assets/LICENCES.txt").read_text(encoding="utf-8")

    def test_the_licence_of_the_theme_is_published_as_it_is(self) -> None:
        (file,) = (
            path for path in files("mkdocs-material") or () if "licenses/LICENSE" in str(path)
        )
        holder, _, text = file.read_text(encoding="utf-8").partition("\n")
        assert re.sub(r" <.*>", "", holder) in self.NOTICES
        assert text.strip() in self.NOTICES

    def test_every_licence_that_it_names_is_there(self) -> None:
        named = re.findall(r"assets/\S+LICENSE\.txt", self.NOTICES)
        listed = tomllib.loads((REPOSITORY / LIST).read_text(encoding="utf-8"))["package"]
        assert len(named) == len(listed)
        for path in named:
            assert (REPOSITORY / "docs" / path).is_file()

    def test_symbols_are_of_the_one_collection_that_it_names(self) -> None:
        theme = [*(REPOSITORY / "blackbelt/site/theme").rglob("*.html"), REPOSITORY / "mkdocs.yml"]
        text = "\n".join(path.read_text(encoding="utf-8") for path in theme)
        used = re.findall(r"\.icons/(\w+)/|\bicon: (\w+)/|repo: (\w+)/", text)
        assert {name for names in used for name in names if name} == {"material"}
