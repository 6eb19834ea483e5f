"""Links to the web: where they may stand, what they may name, and whether they lead anywhere."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny import TITLE, Case, TinyCourse, cases, command, compare

from blackbelt.problems import CommandError
from blackbelt.reach import Patience, check_reach
from blackbelt.web_links import WebLink

LESSON = "lessons/1_first/01_linked.py"
SOURCE = "https://github.com/pytorch/pytorch/blob"
AT_ONCE = Patience(timeout=10, pauses=(0, 0))

FAULTS = cases(
    """
=== source on a branch
@title
# %% [markdown] lang="pl"
# [plik](https://github.com/pytorch/pytorch/blob/main/torch/functional.py)
► link to `main`, which moves on: name a release

# %% [markdown] lang="en"
# [file](https://github.com/pytorch/pytorch/blob/main/torch/functional.py)
► link to `main`, which moves on: name a release

=== a release, a commit and a page that is no file
@title
# %% [markdown] lang="pl"
# [a](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/functional.py)
# [b](https://github.com/pytorch/pytorch/tree/0123456789012345678901234567890123456789/torch)
# [c](https://github.com/pytorch/pytorch/pull/173895)

# %% [markdown] lang="en"
# [a](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/functional.py)
# [b](https://github.com/pytorch/pytorch/tree/0123456789012345678901234567890123456789/torch)
# [c](https://github.com/pytorch/pytorch/pull/173895)

=== half a commit of another project
@title
# %% [markdown] lang="pl"
# Tekst, a w drugim wierszu odnośnik:
# [plik](https://github.com/someone/else/blob/0123456/file.py)
► link to `0123456`, which moves on

# %% [markdown] lang="en"
# Text, and in the second line a link:
# [file](https://github.com/someone/else/blob/0123456/file.py)
► link to `0123456`, which moves on

=== lists in two places
@title
# %% [markdown] lang="pl"
# [plik](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/functional.py)
► stand in one pair of prose, here that of line 17

# %% [markdown] lang="en"
# [file](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/functional.py)
► stand in one pair of prose, here that of line 17

# %% [markdown] lang="pl"
# [strona](https://docs.pytorch.org/docs/stable/notes/autograd.html)

# %% [markdown] lang="en"
# [page](https://docs.pytorch.org/docs/stable/notes/autograd.html)

=== other sites wherever they help
@title
# %% [markdown] lang="pl"
# [artykuł](https://example.org/paper)

# %% [markdown] lang="en"
# [paper](https://example.org/paper)

# %% [markdown] lang="pl"
# [strona](https://docs.pytorch.org/docs/stable/notes/autograd.html)

# %% [markdown] lang="en"
# [page](https://docs.pytorch.org/docs/stable/notes/autograd.html)
""",
    {"title": TITLE},
)


@pytest.mark.parametrize("name", FAULTS)
def test_check(name: str, course: TinyCourse) -> None:
    case: Case = FAULTS[name]
    course.write(LESSON, case.source)
    done = course.command("check")
    compare(done.of(LESSON), case)
    assert done.code == (1 if case.problems else 0)


def test_files_around_the_site_link_to_what_exists(course: TinyCourse) -> None:
    (course.root / "CONTRIBUTING.md").write_text("# Hi\n\n## Write `this`, now\n", encoding="utf-8")
    (course.root / ".github").mkdir()
    text = (
        "[a](../CONTRIBUTING.md#write-this-now) [b](https://example.org) [c](#here)\n\n"
        "# Here\n\n[d](../GONE.md)\n[e](../CONTRIBUTING.md#gone)\n"
        "[f](https://github.com/someone/else/blob/main/file.py)\n"
    )
    (course.root / ".github" / "SECURITY.md").write_text(text, encoding="utf-8")
    done = course.command("check")
    assert done.code == 1
    said = [line for line in done.err.splitlines() if line.startswith(".github")]
    assert [line.split(": ", 1)[0] for line in said] == [
        f".github/SECURITY.md:{n}" for n in (5, 6, 7)
    ]
    assert "no such file" in said[0]
    assert "no such heading" in said[1]
    assert "`main`, which moves on" in said[2]


# A server for links that are asked


class _Pages(BaseHTTPRequestHandler):
    asked: Counter[str]

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        code, _, rest = self.path.lstrip("/").partition("/")
        if code == "flaky":  # in trouble at first
            code = "503" if self.asked[self.path] < 3 else "200"
        self.send_response(int(code))
        if code in ("301", "302"):
            self.send_header("Location", "/200/elsewhere")
        self.end_headers()
        if code == "200":
            self.wfile.write(f"<h2 id='there'>{rest}</h2><a name=old></a>".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[tuple[str, Counter[str]]]:
    """A server, and how often it was asked for each path."""
    asked: Counter[str] = Counter()
    handler = type("Pages", (_Pages,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("path", "what", "times"),
    [
        ("/200/page", "", 1),
        ("/200/page#there", "", 1),
        ("/200/page#old", "", 1),
        ("/200/page#gone", "has no place `#gone`", 1),
        ("/404/page", "answers 404 Not Found", 1),
        ("/410/page", "answers 410 Gone", 1),
        ("/500/page", "answers 500", 3),
        ("/flaky/page", "", 3),
    ],
)
def test_answers(path: str, what: str, times: int) -> None:
    with serving() as (root, asked):
        problems, notes = check_reach([WebLink("a.md", 7, root + path)], AT_ONCE)
    assert notes == []
    assert asked[path.split("#", maxsplit=1)[0]] == times
    if what:
        assert str(problems[0]).startswith(f"a.md:7: {root}{path} {what}")
        assert str(problems[0]).endswith("next: uv run blackbelt links --external")
    else:
        assert problems == []


@pytest.mark.parametrize(
    ("path", "note"),
    [
        ("/301/page", "has moved to"),
        ("/302/page", ""),
        ("/403/page", "refuses programs (403)"),
        ("/429/page", "refuses programs (429)"),
    ],
)
def test_what_is_no_error(path: str, note: str) -> None:
    with serving() as (root, _):
        problems, notes = check_reach([WebLink("a.md", 7, root + path)], AT_ONCE)
    assert problems == []
    assert len(notes) == (1 if note else 0)
    assert note in "".join(notes)


def test_a_server_that_is_gone_is_told_from_a_machine_without_network() -> None:
    with serving() as (gone, _):
        pass
    with serving() as (root, asked):
        links = [
            WebLink("a.md", n, address)
            for n, address in enumerate((f"{gone}/200/", f"{root}/200/"))
        ]
        problems, _ = check_reach(links, AT_ONCE)
        assert [problem.line for problem in problems] == [0]
        assert "cannot be reached" in problems[0].what
        assert asked["/200/"] == 1
    with pytest.raises(CommandError, match="none of 2 addresses can be reached"):
        check_reach(links, AT_ONCE)


def test_the_command_asks_each_address_once_and_names_each_place(course: TinyCourse) -> None:
    course.write(LESSON, TITLE)
    forms = course.root / ".github" / "ISSUE_TEMPLATE"
    forms.mkdir(parents=True)
    docs = course.root / "docs"
    docs.mkdir()
    with serving() as (root, asked):
        page = f"---\ntitle: x\n---\n\n[a]({root}/200/a)\n[b]({root}/404/b)\n"
        for language in ("pl", "en"):
            (docs / f"page.{language}.md").write_text(page, encoding="utf-8")
        (forms / "config.yml").write_text(
            f"contact_links:\n  - url: {root}/404/c\n", encoding="utf-8"
        )
        done = course.command("links", "--external")
        listed = course.command("links")
    assert done.code == 1
    assert "3 addresses, 3 broken links" in done.out
    places = [line.split(" ", 1)[0] for line in done.err.splitlines() if "404" in line]
    assert places == [
        ".github/ISSUE_TEMPLATE/config.yml:2:",
        "docs/page.en.md:6:",
        "docs/page.pl.md:6:",
    ]
    assert set(asked.values()) == {1}
    assert listed.code == 0
    assert len(listed.out.splitlines()) == 5


def test_no_source_link_of_the_course_is_left_out() -> None:
    """The command sees what a search for the text finds."""
    repository = Path(__file__).parents[1]
    files = sorted((repository / "lessons").glob("*/*.py"))
    written = sum(file.read_text(encoding="utf-8").count(f"]({SOURCE}/") for file in files)
    assert written > 20
    listed = command(("links",), repository).out
    assert listed.count(f": {SOURCE}/") == written
