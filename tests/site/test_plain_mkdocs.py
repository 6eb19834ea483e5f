"""`mkdocs build` alone writes the site, twice the same; what is missing in it is an error."""

import hashlib
from pathlib import Path

import pytest
from built_site import ROOT, BuiltSite, fingerprint
from small_course import LESSON, mkdocs, write_course

pytest_plugins = ["site_fixtures"]

# It imports nothing, so that its kernel starts at once.
SOURCE = """\
# %% [markdown] lang="pl"
# # Tytuł
#
# Opis.
#
# ## Pierwsza część

# %% [markdown] lang="en"
# # Title
#
# Description.
#
# ## First part

# %%
answer = 6 * 7
print(answer)

# %% [markdown] lang="pl"
# Odpowiedź to {{ answer }}, a [pierwsza część](#first-part) jest wyżej.

# %% [markdown] lang="en"
# The answer is {{ answer }}, and the [first part](#first-part) is above.
"""


def hashes(site: Path) -> dict[str, str]:
    return {
        file.relative_to(site).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(site.rglob("*"))
        if file.is_file()
    }


def different(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Files that are not the same in both, with the reason."""
    return [
        f"{name}: {'content differs' if name in one and name in other else 'only in one'}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def test_mkdocs_alone_writes_the_same_bytes(built: BuiltSite, tmp_path: Path) -> None:
    """The other build is that of `blackbelt build`, with other hashes, on another clock."""
    environment = {
        "SOURCE_DATE_EPOCH": str(built.epoch),
        "PYTHONHASHSEED": "2",
        "TZ": "Pacific/Kiritimati",
    }
    done = mkdocs(ROOT, tmp_path / "site", environment)
    assert done.returncode == 0, done.stdout + done.stderr
    site = hashes(built.folder)
    assert len(site) > 50
    found = different(site, hashes(tmp_path / "site"))
    edited = [] if fingerprint() == built.sources else ["sources were edited between the builds"]
    assert not found, "\n".join(edited + found)


def test_a_different_byte_would_be_noticed(tmp_path: Path) -> None:
    for folder, texts in (("a", ("x", "y", None)), ("b", ("x", "z", "w"))):
        (tmp_path / folder).mkdir()
        for name, text in zip(("same", "other", "new"), texts, strict=True):
            if text:
                (tmp_path / folder / name).write_text(text)
    found = different(hashes(tmp_path / "a"), hashes(tmp_path / "b"))
    assert found == ["new: only in one", "other: content differs"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course with one lesson; its run is in the cache after the first build."""
    root = tmp_path_factory.mktemp("small") / "course"
    write_course(root, SOURCE)
    done = mkdocs(root, root / "site", {})
    # Without this, a failure below would prove nothing.
    assert done.returncode == 0, done.stdout + done.stderr
    page = (root / "site" / LESSON.removesuffix(".py") / "index.html").read_text(encoding="utf-8")
    assert "Odpowiedź to 42" in page
    return root


@pytest.mark.parametrize("page", ["docs/about.en.md", "lessons/1_tensors/index.en.md"])
def test_page_without_its_twin_is_an_error(small: Path, tmp_path: Path, page: str) -> None:
    text = (small / page).read_bytes()
    (small / page).unlink()
    try:
        done = mkdocs(small, tmp_path / "site", {})
    finally:
        (small / page).write_bytes(text)
    assert done.returncode != 0, "an English page in Polish would have been published"
    assert Path(page).name.split(".")[0] in done.stdout + done.stderr


@pytest.mark.parametrize("page", ["docs/about.pl.md", "docs/about.en.md", LESSON])
def test_missing_anchor_is_an_error(small: Path, tmp_path: Path, page: str) -> None:
    target = "no-such-anchor-anywhere"
    file = small / page
    text = file.read_bytes()
    if file.suffix == ".py":
        wrong = text.replace(b"#first-part", f"#{target}".encode())
    else:
        wrong = text + f"\n[x](how-to-use.md#{target})\n".encode()
    assert wrong != text
    file.write_bytes(wrong)
    try:
        done = mkdocs(small, tmp_path / "site", {})
    finally:
        file.write_bytes(text)
    assert done.returncode != 0
    assert target in done.stdout + done.stderr
