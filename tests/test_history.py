"""What git knows of lessons, in repositories of every kind."""

import shutil
import subprocess
from pathlib import Path

import pytest

from blackbelt import history
from blackbelt.history import read_history

LESSON = "lessons/1_first/01_one.py"


class Repository:
    """A git repository whose commits happen an hour apart."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hours = 0
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> None:
        when = f"2026-11-{20 + self.hours // 24:02}T{self.hours % 24:02}:30:00+02:00"
        environment = {
            "PATH": "/usr/bin:/bin:/usr/local/bin",
            "HOME": str(self.root),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_DATE": when,
            "GIT_COMMITTER_DATE": when,
            **{f"GIT_{who}_NAME": "Someone" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "someone@example.org" for who in ("AUTHOR", "COMMITTER")},
        }
        command = ["git", "-c", "protocol.file.allow=always", *arguments]
        subprocess.run(command, cwd=self.root, env=environment, check=True, capture_output=True)

    def commit(self, subject: str, **files: str | None) -> None:
        """Write files (or remove them, if None), and commit everything."""
        self.hours += 1
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text, encoding="utf-8")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", subject)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "course")
    made.commit("Write one", **{LESSON: "1\n" * 20})
    made.commit("Write about it", **{"README.md": "x"})
    made.commit("Mend „one”: a | b\x1f", **{LESSON: "1\n" * 20 + "2\n"})
    return made


def subjects(root: Path, path: str = LESSON) -> list[str]:
    return [change.subject for change in read_history(root).of(path)]


def test_changes_of_a_lesson(repository: Repository) -> None:
    changes = read_history(repository.root).of(LESSON)
    assert [change.subject for change in changes] == ["Mend „one”: a | b\x1f", "Write one"]
    # 03:30 in the author's time zone.
    assert changes[0].moment.isoformat() == "2026-11-20T01:30:00+00:00"
    assert changes[0].date == "2026-11-20"
    # 01:30 there was the day before in UTC.
    assert changes[1].date == "2026-11-19"
    assert len(changes[0].commit) == 40


def test_a_new_commit_is_seen(repository: Repository) -> None:
    assert len(subjects(repository.root)) == 2
    repository.commit("Again", **{LESSON: "3"})
    assert subjects(repository.root)[0] == "Again"


def test_what_is_not_committed_is_no_change(repository: Repository) -> None:
    (repository.root / LESSON).write_text("draft", encoding="utf-8")
    (repository.root / "lessons/1_first/02_two.py").write_text("draft", encoding="utf-8")
    assert len(subjects(repository.root)) == 2
    assert subjects(repository.root, "lessons/1_first/02_two.py") == []


def test_renamed_lesson_keeps_its_past(repository: Repository) -> None:
    new, newest = "lessons/2_second/05_moved.py", "lessons/2_second/06_moved.py"
    text = "1\n" * 20 + "2\n"
    repository.commit("Move it", **{LESSON: None, new: text})
    repository.commit("Change it", **{new: text + "3\n"})
    repository.commit("Move it again", **{new: None, newest: text + "3\n"})
    repository.commit("Write another in the old place", **{LESSON: "something else"})
    assert subjects(repository.root, newest) == [
        "Move it again",
        "Change it",
        "Move it",
        "Mend „one”: a | b\x1f",
        "Write one",
    ]
    assert subjects(repository.root) == ["Write another in the old place"]


def test_merge_is_no_change_of_its_own(repository: Repository) -> None:
    repository.git("checkout", "-q", "-b", "side")
    repository.commit("On the side", **{LESSON: "4"})
    repository.git("checkout", "-q", "main")
    repository.commit("Elsewhere", **{"README.md": "y"})
    repository.git("merge", "-q", "--no-ff", "-m", "Merge the side", "side")
    assert subjects(repository.root)[0] == "On the side"


def test_shallow_clone_says_nothing_that_is_false(repository: Repository, tmp_path: Path) -> None:
    repository.commit("Write three", **{"lessons/1_first/03_three.py": "3"})
    clone = tmp_path / "clone"
    repository.git("clone", "-q", "--depth=2", f"file://{repository.root}", str(clone))
    found = read_history(clone)
    # The oldest commit of the clone, "Mend one", seems to have written everything there is.
    assert not found.complete
    assert found.of(LESSON) == ()
    assert [c.subject for c in found.of("lessons/1_first/03_three.py")] == ["Write three"]
    assert read_history(repository.root).complete


def test_project_in_a_folder_of_its_repository(tmp_path: Path) -> None:
    outer = Repository(tmp_path)
    outer.commit("Write it", **{f"inner/{LESSON}": "1", LESSON: "not this"})
    outer.commit("Change the other", **{LESSON: "not this either"})
    assert subjects(tmp_path / "inner") == ["Write it"]


def test_archive_inside_of_another_repository(tmp_path: Path) -> None:
    outer = Repository(tmp_path)
    outer.commit("Something else", **{"README.md": "x"})
    (tmp_path / "unpacked" / "lessons").mkdir(parents=True)
    assert read_history(tmp_path / "unpacked").changes == {}


def test_without_a_repository(tmp_path: Path) -> None:
    assert read_history(tmp_path).changes == {}


def test_repository_without_commits(tmp_path: Path) -> None:
    Repository(tmp_path)
    assert read_history(tmp_path).changes == {}


def test_damaged_repository(repository: Repository) -> None:
    shutil.rmtree(repository.root / ".git" / "objects")
    history._known.clear()
    assert read_history(repository.root).changes == {}


def test_without_git(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository.root))
    assert read_history(repository.root).changes == {}
