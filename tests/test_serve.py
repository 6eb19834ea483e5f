"""`blackbelt serve`: nobody waits for runs, and whatever is saved shows by itself.

Each test acts as an author who edits files, and as a browser that polls for reloads.
"""

import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tiny import MODULES, REPOSITORY, TITLE, TinyCourse

from blackbelt.strings import for_language

DEADLINE = 120.0
PAGES = ("index", "how-to-use", "glossary", "about")
TERM = """\
[[term]]
id = "view"
pl = "widok"
en = "view"
forms_pl = ["widok"]
forms_en = ["view"]
definition_pl = "{definition}"
definition_en = "{definition}"
"""


def lesson(code: str, *, title: str = "Title") -> str:
    prose = TITLE.replace("# # Title", f"# # {title}").replace("Description.", "This is a view.")
    return f"{prose}# %%\n{code}\n"


def waiting_for(gate: Path, then: str) -> str:
    """Code that runs until the file exists."""
    loop = f"while not Path({str(gate)!r}).exists():\n    time.sleep(0.05)"
    return f"import time\nfrom pathlib import Path\n\n{loop}\n{then}"


class Served:
    """A tiny course with a site, and `blackbelt serve` working on it."""

    def __init__(self, root: Path) -> None:
        self.course = TinyCourse(root, cell_seconds=100)
        shutil.copyfile(REPOSITORY / "mkdocs.yml", root / "mkdocs.yml")
        shutil.copytree(REPOSITORY / "docs" / "assets", root / "docs" / "assets")
        for name in PAGES:
            for language in ("pl", "en"):
                self.write(f"docs/{name}.{language}.md", f"# {name}\n\n<!-- {name} -->\n")
        for module in MODULES:
            for language in ("pl", "en"):
                self.write(
                    f"lessons/{module}/index.{language}.md", "# Module\n\n<!-- lessons -->\n"
                )
        self.write("docs/glossary.toml", TERM.format(definition="Tensor shared."))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = root / "log"

    def write(self, path: str, text: str) -> None:
        (self.course.root / path).write_text(text, encoding="utf-8")

    def start(self, *lessons: str) -> None:
        command = [str(Path(sysconfig.get_path("scripts"), "blackbelt")), "serve", *lessons]
        # A shell that runs tests in the background switches Ctrl-C off for all that they start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                cwd=self.course.root,
                stdout=log,
                stderr=log,
            )

    def stop(self, how: signal.Signals = signal.SIGINT) -> list[psutil.Process]:
        """End the server; returns the processes that were below it."""
        below: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(how)
        self.process.wait(15)
        return below

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def get(self, address: str, *, seconds: float = 60, referer: str = "") -> str:
        url = f"http://127.0.0.1:{self.port}/{address}"
        request = urllib.request.Request(url, headers={"Referer": referer} if referer else {})
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return str(answer.read().decode())

    def page(self, address: str) -> str:
        """The page, as soon as the server is there; nothing if there is no such page."""
        until = time.monotonic() + DEADLINE
        while True:
            try:
                return self.get(address)
            except urllib.error.HTTPError as error:
                assert error.code == 404
                return ""
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, self.said
                assert time.monotonic() < until, self.said
                time.sleep(0.05)

    def reload(self, address: str, page: str, *, seconds: float = 60) -> None:
        """Wait, as the script in the page does, until the server tells it to reload."""
        found = re.search(r"livereload\((\d+), *(\d+)\)", page)
        assert found, page
        here = f"http://127.0.0.1:{self.port}/{address}"
        self.get(f"livereload/{found[1]}/{found[2]}", seconds=seconds, referer=here)

    def until(self, address: str, seen: Callable[[str], bool]) -> str:
        """The page once it is as wanted, with nobody pressing the reload button."""
        until = time.monotonic() + DEADLINE
        while not seen(page := self.page(address)):
            assert time.monotonic() < until, f"{address}:\n{page}\n{self.said}"
            if page:
                self.reload(address, page)
            else:
                time.sleep(0.05)
        return page


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[Served]:
    """A course that has never run, not served yet."""
    served = Served(tmp_path)
    yield served
    end(served)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A served course with three lessons that have run; each test has a lesson of its own."""
    served = Served(tmp_path_factory.mktemp("served"))
    for number in (1, 2, 3):
        path = f"lessons/1_first/0{number}_l{number}.py"
        served.course.write(path, lesson(f'print("result {number}")'))
    served.start()
    for number in (1, 2, 3):
        served.until(address(number), lambda page: "nb-output" in page)
    yield served
    end(served)


def end(served: Served) -> None:
    if hasattr(served, "process") and served.process.poll() is None:
        for process in served.stop(signal.SIGTERM):
            if process.is_running():
                process.kill()


def address(number: int, language: str = "") -> str:
    return f"{language}lessons/1_first/0{number}_l{number}/"


def test_lessons_appear_by_themselves_one_by_one(cold: Served) -> None:
    gate = cold.course.root / "gate"
    cold.course.write("lessons/1_first/01_l1.py", lesson('print("at once")'))
    cold.course.write("lessons/1_first/02_l2.py", lesson(waiting_for(gate, 'print("later")')))
    cold.start()
    waiting = cold.page(address(2))
    assert for_language("pl").running in waiting
    assert for_language("en").running in cold.page(address(2, "en/"))
    first = cold.until(address(1), lambda page: "at once" in page)
    assert for_language("pl").running in cold.page(address(2))
    gate.touch()
    cold.reload(address(2), waiting)
    assert "later" in cold.page(address(2))
    assert "later" in cold.page(address(2, "en/"))
    # Whoever reads the first lesson is not disturbed by the second.
    with pytest.raises(TimeoutError):
        cold.reload(address(1), first, seconds=1)


def test_prose_shows_without_a_run(served: Served) -> None:
    runs = served.said.count("run  ")
    before = served.page(address(1, "en/"))
    text = lesson('print("result 1")').replace("Opis.", "Nowy opis.")
    served.write("lessons/1_first/01_l1.py", text.replace("This is", "This became"))
    served.reload(address(1, "en/"), before)
    assert "This became a" in served.page(address(1, "en/"))
    assert "Nowy opis." in served.page(address(1))
    assert "Nowy opis." in served.until("lessons/1_first/", lambda page: "Nowy opis." in page)
    assert served.said.count("run  ") == runs


def test_code_shows_after_its_run_and_the_old_page_until_then(served: Served) -> None:
    gate = served.course.root / "gate"
    runs = served.said.count("run  ")
    before = served.page(address(2))
    served.write("lessons/1_first/02_l2.py", lesson(waiting_for(gate, 'print("changed")')))
    wait(lambda: served.said.count("run  ") > runs)
    assert "result 2" in served.page(address(2))
    assert "result 3" in served.page(address(3))
    gate.touch()
    served.reload(address(2), before)
    assert "changed" in served.page(address(2))
    assert served.said.count("run  ") == runs + 1


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("x = 1\nraise ValueError('spilt')", "spilt"),
        ("x = = 1", "not valid Python"),
        ("x = 1\n# %% oops", "expected key=value"),
    ],
    ids=["raises", "check", "unreadable"],
)
def test_broken_lesson_says_so_and_recovers(served: Served, broken: str, problem: str) -> None:
    served.write("lessons/1_first/03_l3.py", lesson(broken))
    page = served.until(address(3), lambda page: problem in page)
    assert for_language("pl").broken in page
    assert problem in served.page(address(3, "en/"))
    assert re.search(rf"lessons/1_first/03_l3\.py:\d+: .*{problem}", served.said)
    assert "nb-output" in served.page(address(1))
    served.write("lessons/1_first/03_l3.py", lesson('print("result 3")'))
    served.until(address(3), lambda page: "result 3" in page and problem not in page)
    assert "03_l3.py is mended" in served.said


def test_title_shows_in_the_navigation_of_other_pages(served: Served) -> None:
    before = served.page(address(3, "en/"))
    served.write("lessons/1_first/01_l1.py", lesson('print("result 1")', title="Renamed"))
    served.reload(address(3, "en/"), before)
    assert "1. Renamed" in served.page(address(3, "en/"))


def test_lesson_comes_and_goes(served: Served) -> None:
    roadmap = (served.course.root / "lessons/roadmap.toml").read_text(encoding="utf-8")
    file = served.course.root / "lessons/1_first/04_l4.py"
    served.course.plan("lessons/1_first/04_l4.py")
    served.write("lessons/1_first/04_l4.py", lesson('print("result 4")', title="Newcomer"))
    served.until(address(1, "en/"), lambda page: "Newcomer" in page)
    served.until(address(4), lambda page: "result 4" in page)
    file.unlink()
    served.write("lessons/roadmap.toml", roadmap)
    served.until(address(1, "en/"), lambda page: "Newcomer" not in page)
    assert served.page(address(4)) == ""


def test_invalid_roadmap_leaves_the_site_as_it_was(served: Served) -> None:
    roadmap = (served.course.root / "lessons/roadmap.toml").read_text(encoding="utf-8")
    served.write("lessons/roadmap.toml", "[[module")
    wait(lambda: "not a valid roadmap" in served.said)
    assert "nb-output" in served.page(address(1))
    served.write("lessons/roadmap.toml", roadmap.replace('en = "Module"', 'en = "Restored"'))
    served.until("en/", lambda page: "Restored" in page)


def test_what_is_not_a_lesson_shows_too(served: Served) -> None:
    served.write("docs/about.en.md", "# about\n\nA second edition.\n")
    served.until("en/about/", lambda page: "A second edition." in page)
    served.write("lessons/1_first/index.pl.md", "# Module\n\nWstęp.\n\n<!-- lessons -->\n")
    served.until("lessons/1_first/", lambda page: "Wstęp." in page)
    served.write("docs/glossary.toml", TERM.format(definition="Another explanation."))
    served.until("glossary/", lambda page: "Another explanation." in page)
    hover = '<abbr tabindex="0" title="Another explanation.">view</abbr>'
    served.until(address(2, "en/"), lambda page: hover in page)
    before = served.page("about/")
    served.write("docs/assets/css/blackbelt.css", "body { color: black }")
    served.reload("about/", before)
    assert served.get("assets/css/bundle.css").startswith("body{color:#000}")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_end_leaves_nothing_behind(cold: Served, how: signal.Signals) -> None:
    never = cold.course.root / "never"
    cold.course.write("lessons/1_first/01_l1.py", lesson(waiting_for(never, "x = 1")))
    cold.start()
    assert for_language("pl").running in cold.page(address(1))
    wait(lambda: "run  " in cold.said)
    wait(lambda: psutil.Process(cold.process.pid).children(recursive=True) != [])
    below = cold.stop(how)
    assert cold.process.returncode == 130
    gone, alive = psutil.wait_procs(below, timeout=5)
    assert gone
    assert not alive
    assert "Traceback" not in cold.said


def test_taken_port_is_reported(cold: Served) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", cold.port))
        other.listen()
        cold.start()
        assert cold.process.wait(60) == 1
    assert f"port {cold.port} of 127.0.0.1 cannot be used" in cold.said
    assert f"next: uv run blackbelt serve --port {cold.port + 1}" in cold.said


def test_only_the_named_lessons_are_run(cold: Served) -> None:
    cold.course.write("lessons/1_first/01_l1.py", lesson('print("one")'))
    cold.course.write("lessons/1_first/02_l2.py", lesson('print("two")'))
    cold.start("02")
    cold.until(address(2), lambda page: "two" in page)
    assert cold.page(address(1)) == ""
    assert "run   01_l1" not in cold.said


def wait(done: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)
