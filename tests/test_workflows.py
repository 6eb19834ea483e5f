"""Workflows are safe, and an edit that makes one unsafe is noticed."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from tiny import REPOSITORY
from workflow_rules import faults

GITHUB = REPOSITORY / ".github"
CI = REPOSITORY / ".ci"
HASH = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
CHECKOUT = f"{HASH} # v7.0.1"


def test_nothing_is_wrong() -> None:
    assert faults(GITHUB) == []


def test_ci_runs_every_python_that_the_project_allows() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = SpecifierSet(project["requires-python"])
    versions = [f"3.{minor}" for minor in range(30) if allowed.contains(f"3.{minor}.5")]
    assert versions[0] == "3.11"
    assert len(versions) < 10, "no upper bound"
    for name, job in (("check.yml", "gates"), ("weekly.yml", "cpu")):
        jobs = yaml.safe_load((GITHUB / "workflows" / name).read_text(encoding="utf-8"))["jobs"]
        assert jobs[job]["strategy"]["matrix"]["python"] == versions


# File, what stands there, what is put there, and a part of what has to be said.
EDITS: dict[str, tuple[str, str, str, str]] = {
    "tag": ("check.yml", CHECKOUT, "actions/checkout@v7", "unpinned-uses"),
    "no version": ("check.yml", CHECKOUT, HASH, "not pinned by hash"),
    "short hash": ("check.yml", CHECKOUT, "actions/checkout@3d3c42e # v7.0.1", "not pinned"),
    "privileged trigger": ("check.yml", "  pull_request:", "  pull_request_target:", "dangerous"),
    "own machine": ("check.yml", "ubuntu-24.04", "self-hosted", "on a machine of ours"),
    "own machine by label": (
        "check.yml",
        "ubuntu-24.04",
        "${{ vars.GPU_RUNNER }}",
        "on a machine of ours",
    ),
    "pull request on GPU": (
        "publish.yml",
        "  workflow_dispatch:\n",
        "  workflow_dispatch:\n  pull_request:\n",
        "on a machine of ours",
    ),
    "write": ("check.yml", "contents: read", "contents: write", "may read contents"),
    "all permissions": ("check.yml", "permissions: {}\n", "", "permissions"),
    "kept token": ("check.yml", "persist-credentials: false", "lfs: false", "artipacked"),
    "injection": (
        "check.yml",
        "run: .ci/run",
        'run: .ci/run && echo "${{ github.event.pull_request.title }}"',
        "template-injection",
    ),
    "a secret": (
        "publish.yml",
        "GH_TOKEN: ${{ github.token }}",
        "GH_TOKEN: ${{ secrets.DEPLOY }}",
        "a secret",
    ),
    "no timeout": ("check.yml", "    timeout-minutes: 90\n", "", "timeout-minutes"),
    "no group": ("publish.yml", "concurrency:\n  group: publish\n", "env:\n  a: b\n", "concurr"),
    "cached publication": (
        "publish.yml",
        "uses: $/.github/actions/setup",
        "uses: actions/cache@27d5ce7f107fe9357f9df03efb73ab90386fccae # v5.0.5",
        "a pull request may have written",
    ),
    "cached packages": (
        "weekly.yml",
        "- uses: $/.github/actions/setup",
        '- uses: $/.github/actions/setup\n        with: { cache: "true" }',
        "a pull request may have written",
    ),
    "waits for ever": ("weekly.yml", "vars.GPU_RUNNER != '' && ", "", "would wait"),
    "misspelt key": ("weekly.yml", "runs-on:", "run-on:", "run-on"),
    "misspelt command": ("publish.yml", "blackbelt build", "blackbelt biuld", "biuld"),
    "misspelt option": ("weekly.yml", "upgrade --report", "upgrade --raport", "--raport"),
    "a gate of its own": ("check.yml", "run: .ci/run", "run: uv run pytest", "beside .ci/run"),
    "dependabot": ("dependabot.yml", "default-days: 7", "default-days: 0", "cooldown"),
    "action": ("action.yml", "using: composite", "using: composit", "composit"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_unsafe_edit_is_noticed(name: str, tmp_path: Path) -> None:
    file, old, new, said = EDITS[name]
    copy = shutil.copytree(GITHUB, tmp_path / ".github")
    (path,) = copy.rglob(file)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    found = "\n".join(faults(copy))
    assert said in found, found


def run(
    script: str, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [CI / script, *arguments]
    variables = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"} | environment
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


def git(*arguments: str | Path) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


class TestPublish:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Path:
        for file in ("index.html", "en/index.html", "404.html", "_static/x", "lessons/01.ipynb"):
            (tmp_path / "site" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "site" / file).write_text(file)
        (tmp_path / "site/.gitignore").write_text("*.ipynb\n")
        return tmp_path / "site"

    def test_the_branch_is_one_commit_with_all_of_the_site(
        self, site: Path, tmp_path: Path
    ) -> None:
        remote = tmp_path / "remote.git"
        git("init", "--quiet", "--bare", remote)
        assert run("publish", site, remote).returncode == 0
        (site / "lessons/02.ipynb").write_text("new")
        (site / "_static/x").unlink()
        done = run("publish", site, remote, GITHUB_SHA="0123abcd")
        assert done.returncode == 0, done.stderr
        listed = git("-C", remote, "ls-tree", "-r", "--name-only", "gh-pages").split()
        assert {"lessons/01.ipynb", "lessons/02.ipynb", ".nojekyll"} < set(listed)
        assert "_static/x" not in listed
        log = git("-C", remote, "log", "--format=%s", "gh-pages").splitlines()
        assert log == ["Site of 0123abcd"]
        # The folder of the site stays what the build wrote.
        assert not (site / ".git").exists()
        assert not (site / ".nojekyll").exists()

    def test_half_a_site_is_not_published(self, site: Path, tmp_path: Path) -> None:
        remote = tmp_path / "remote.git"
        git("init", "--quiet", "--bare", remote)
        (site / "en/index.html").write_text("")
        done = run("publish", site, remote)
        assert done.returncode == 1
        assert "en/index.html" in done.stderr
        assert git("-C", remote, "branch", "--list") == ""


class TestRunner:
    MAIN = {  # noqa: RUF012
        "BLACKBELT_REPOSITORY": "someone/tiny",
        "GITHUB_REPOSITORY": "someone/tiny",
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_EVENT_NAME": "push",
    }

    @pytest.mark.parametrize("event", ["push", "schedule", "workflow_dispatch"])
    def test_main_is_let_in(self, event: str) -> None:
        assert run("only-main.sh", **(self.MAIN | {"GITHUB_EVENT_NAME": event})).returncode == 0

    @pytest.mark.parametrize(
        "changed",
        [
            {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/7/merge"},
            {"GITHUB_EVENT_NAME": "pull_request_target"},
            {"GITHUB_EVENT_NAME": "push schedule"},
            {"GITHUB_EVENT_NAME": ""},
            {"GITHUB_EVENT_NAME": "issue_comment"},
            {"GITHUB_REF": "refs/heads/other"},
            {"GITHUB_REF": "refs/tags/main"},
            {"GITHUB_REPOSITORY": "stranger/tiny"},
            {"BLACKBELT_REPOSITORY": ""},
        ],
        ids=str,
    )
    def test_all_else_is_refused(self, changed: dict[str, str]) -> None:
        assert run("only-main.sh", **(self.MAIN | changed)).returncode != 0


class TestWeekly:
    RUN = "https://github.com/someone/tiny/actions/runs/1"

    def issue(self, folder: Path, *, opened: str = "", failed: bool = False) -> tuple[str, str]:
        """What `gh` was asked for, and the text that it was given."""
        tool = folder / "bin" / "gh"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(
            f"#!/bin/sh\necho \"$1 $2 $3\" >>'{folder}/asked'\n"
            f'[ "$2" = list ] && printf %s "{opened}"\n'
            'while [ $# -gt 0 ]; do [ "$1" = --body-file ] && '
            f"cp \"$2\" '{folder}/body'; shift; done; true\n"
        )
        tool.chmod(0o755)
        path = f"{tool.parent}{os.pathsep}{os.environ['PATH']}"
        told = folder / "told"
        done = run("weekly-issue", told, PATH=path, RUN=self.RUN, FAILED=str(failed).lower())
        assert done.returncode == 0, done.stderr
        asked, body = folder / "asked", folder / "body"
        return (
            asked.read_text() if asked.exists() else "",
            body.read_text() if body.exists() else "",
        )

    def tell(self, folder: Path, name: str, text: str) -> None:
        file = folder / "told" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def test_a_quiet_week_opens_nothing(self, tmp_path: Path) -> None:
        assert self.issue(tmp_path) == ("", "")

    def test_what_was_told_becomes_an_issue(self, tmp_path: Path) -> None:
        self.tell(tmp_path, "told-gpu/lessons.md", "lesson 05 changed\n")
        self.tell(tmp_path, "told-cpu-3.13/lessons.md", "lesson 01 broke\n")
        asked, body = self.issue(tmp_path)
        assert "issue create" in asked
        assert body.index("## cpu-3.13\n\nlesson 01 broke") < body.index("## gpu\n\nlesson 05")
        assert self.RUN in body

    def test_an_open_issue_gets_a_comment(self, tmp_path: Path) -> None:
        self.tell(tmp_path, "told-gpu/lessons.md", "again\n")
        asked, body = self.issue(tmp_path, opened="12")
        assert "issue comment 12" in asked
        assert "issue create" not in asked
        assert "again" in body

    def test_a_job_that_fails_without_a_word_is_told(self, tmp_path: Path) -> None:
        asked, body = self.issue(tmp_path, failed=True)
        assert "issue create" in asked
        assert "failed before it could tell why" in body

    def test_a_flood_fits_into_an_issue_and_leaves_room_for_others(self, tmp_path: Path) -> None:
        flood = "~~~~diff\n" + "+żółw\n" * 30_000 + "~~~~\n"
        self.tell(tmp_path, "told-cpu/lessons.md", flood)
        self.tell(tmp_path, "told-gpu/lessons.md", "lesson 05 broke\n")
        _, body = self.issue(tmp_path)
        assert len(body) < 65_536
        # The block that was cut is closed before what another job told.
        before, after = body.split("## gpu")
        assert before.count("~~~~") == 2
        assert "the rest is in the artifacts" in before
        assert "lesson 05 broke" in after

    def test_a_command_that_fails_leaves_its_last_words(self, tmp_path: Path) -> None:
        file = tmp_path / "told" / "gates.md"
        script = "for i in $(seq 200); do echo line $i; done; echo '``` wrong' >&2; exit 3"
        done = run("told", file, "bash", "-c", script)
        assert done.returncode == 3
        assert "line 1\n" in done.stdout
        kept = file.read_text()
        assert "``` wrong" in kept
        assert "line 199" in kept
        assert "line 2\n" not in kept

    def test_a_command_that_succeeds_leaves_nothing(self, tmp_path: Path) -> None:
        assert run("told", tmp_path / "gates.md", "true").returncode == 0
        assert not (tmp_path / "gates.md").exists()
