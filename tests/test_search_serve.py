"""The search while the site is served: its index follows what is saved."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_serve import Served, lesson

ONE = "lessons/1_first/01_one.py"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    if made.process.poll() is None:
        made.stop(signal.SIGKILL)


def until(found: Callable[[], bool], served: Served) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert served.process.poll() is None, served.said
        assert time.monotonic() < deadline, served.said
        time.sleep(0.1)


def titles(served: Served) -> list[str]:
    try:
        text = served.get("pagefind/sections.en.json")
    except (urllib.error.URLError, ConnectionError):
        return []
    return [page[1] for page in json.loads(text).values()]


def mkdocs(served: Served) -> None:
    """Start MkDocs' own server on the course."""
    with served.log.open("ab") as log:
        served.process = subprocess.Popen(
            [sys.executable, "-m", "mkdocs", "serve", "-a", f"127.0.0.1:{served.port}"],
            cwd=served.course.root,
            stdout=log,
            stderr=log,
            env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        )


@pytest.mark.parametrize("start", [Served.start, mkdocs], ids=["blackbelt", "mkdocs"])
def test_index_follows_what_is_saved(served: Served, start: Callable[[Served], None]) -> None:
    served.course.write(ONE, lesson("1", title="Pierwsza"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    start(served)
    until(lambda: "Pierwsza" in titles(served), served)
    assert served.get("pagefind/pagefind.js")
    served.course.write(ONE, lesson("1", title="Zmieniona"))
    until(lambda: "Zmieniona" in titles(served), served)
    served.course.write(ONE, lesson("1", title="Zmieniona raz jeszcze"))
    below = served.stop()
    assert not [process for process in below if process.is_running()]
    assert "the search stays" not in served.said, served.said
    assert "Traceback" not in served.said, served.said
