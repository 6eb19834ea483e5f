"""The hooks of a commit stop what CI would stop, and let a sound commit pass.

They run in a clone of this checkout, with the environment that runs these tests.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import REPOSITORY

CONFIG = ".pre-commit-config.yaml"
LESSON = "lessons/1_tensors/01_storage_vs_view.py"
HOOKS = yaml.safe_load((REPOSITORY / CONFIG).read_text(encoding="utf-8"))["repos"][0]["hooks"]


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is tracked or about to be, as one commit."""
    listed = git(REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, tmp_path / name)
    for name in (".mypy_cache", ".cache/check"):  # only for speed
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, tmp_path / name, dirs_exist_ok=True)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    git(tmp_path, *who, "commit", "--quiet", "--message", "before")
    return tmp_path


def run_hooks(folder: Path) -> dict[str, str]:
    """The verdict on what is staged, by the name of the hook, and what a failed one printed."""
    git(folder, "add", "--all")
    environment = os.environ | {
        # The environment of these tests, as it is: no installation for the clone.
        "UV_PROJECT_ENVIRONMENT": sys.prefix,
        "UV_NO_SYNC": "1",
        "PREK_HOME": str(folder.parent / "prek"),
    }
    command = [str(Path(sys.executable).parent / "prek"), "run", "--color=never"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    verdicts = {hook["id"]: "" for hook in HOOKS}
    current = ""
    for line in done.stdout.splitlines():
        for hook in HOOKS:
            if line.startswith(hook["name"][:50]):
                current = hook["id"]
                verdicts[current] = line.rsplit(".", 1)[-1].strip(" )")
                break
        else:
            if current:
                verdicts[current] += f"\n{line}"
    assert all(verdicts.values()), done.stdout + done.stderr
    return verdicts


def test_faults_are_stopped_each_by_its_hook(clone: Path) -> None:
    lesson = clone / LESSON
    text = lesson.read_text(encoding="utf-8")
    assert "Tensor Views" in text
    text = text.replace("# ## Now you can\n", "# ### Now you can\n", 1)
    lesson.write_text(text.replace("Everything in this", "Everythign in this", 1), encoding="utf-8")
    faulty = "import os\n\nnumber:int = 'text'\n"
    (clone / "blackbelt" / "faulty.py").write_text(faulty, encoding="utf-8")
    (clone / "lessons" / "1_tensors" / "draft.ipynb").write_text("{}\n", encoding="utf-8")
    verdicts = run_hooks(clone)
    assert {name for name, said in verdicts.items() if said.startswith("Failed")} == set(verdicts)
    assert "F401" in verdicts["ruff"]
    assert "files were modified by this hook" in verdicts["ruff-format"]
    assert "faulty.py:3: error: Incompatible types" in verdicts["types"]
    assert f"{LESSON}:" in verdicts["lessons"]
    assert "Everythign" in verdicts["spelling"]
    assert "lessons/1_tensors/draft.ipynb" in verdicts["notebooks"]


def test_a_sound_commit_passes_and_runs_only_what_it_touches(clone: Path) -> None:
    with (clone / "CONTRIBUTING.md").open("a", encoding="utf-8") as file:
        file.write("\nOne more sentence.\n")
    verdicts = run_hooks(clone)
    assert verdicts["lessons"].startswith("Passed")
    assert verdicts["spelling"].startswith("Passed")
    for name in ("ruff", "ruff-format", "types", "notebooks"):
        assert verdicts[name] == "(no files to check)Skipped"


def test_hooks_are_gates_of_ci() -> None:
    gates = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    for hook in HOOKS:
        assert hook["language"] in ("system", "fail")
        if hook["language"] == "system":
            command = hook["entry"].removesuffix(" --force-exclude")
            assert f"step {command}" in gates, f"{hook['id']}: .ci/run has no `step {command}`"


def test_no_notebook_is_tracked() -> None:
    tracked = git(REPOSITORY, "ls-files", "*.ipynb").split()
    assert [name for name in tracked if not name.startswith("tests/golden/")] == []
