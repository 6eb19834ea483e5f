"""How long `blackbelt serve` lets people wait: python benchmarks/serve.py [--lessons 60]

1. A cold start of the course as it is: nothing has been run, and nothing is cached but bytecode.
2. In a course of many lessons: from saving prose, a title or code to the moment at which a
   browser that shows the lesson is told to reload.

CPU seconds are those of the server; unlike wall seconds they can be compared on a busy machine.
"""

import argparse
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
from many_lessons import copy_course, many_lessons

LESSON = "1_tensors/01_storage_vs_view"


class Served:
    """A running `blackbelt serve`."""

    def __init__(self, course: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/"
        command = [sys.executable, "-m", "blackbelt.cli", "serve", "--port", str(port)]
        self.began = time.perf_counter()
        self._process = subprocess.Popen(command, cwd=course, stderr=(course / "log").open("wb"))
        self._measured = psutil.Process(self._process.pid)

    def page(self, address: str) -> str:
        """The page once the server answers."""
        while True:
            try:
                with urllib.request.urlopen(self.address + address, timeout=60) as answer:
                    return str(answer.read().decode())
            except (urllib.error.URLError, ConnectionError):
                if self._process.poll() is not None:
                    raise RuntimeError("the server has ended") from None
                time.sleep(0.05)

    def await_reload(self, address: str, text: str) -> None:
        """Do what a browser with this page does, until the page has the text."""
        while text not in (page := self.page(address)):
            found = re.search(r"livereload\((\d+), *(\d+)\)", page)
            assert found
            poll = f"{self.address}livereload/{found[1]}/{found[2]}"
            request = urllib.request.Request(poll, headers={"Referer": self.address + address})
            with urllib.request.urlopen(request, timeout=120) as answer:
                answer.read()

    @property
    def cpu(self) -> float:
        times = self._measured.cpu_times()
        return float(times.user + times.system)

    def idle(self) -> None:
        """Wait until it has nothing to do."""
        before = self.cpu
        while True:
            time.sleep(2)
            if self.cpu - before < 0.2:
                return
            before = self.cpu

    def stop(self) -> float:
        began = time.perf_counter()
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)
        return time.perf_counter() - began


def measure_start(folder: Path) -> None:
    copy_course(folder)
    served = Served(folder)
    served.page("")
    print(f"cold start: answers after {time.perf_counter() - served.began:.1f} s", end="")
    print(f" ({served.cpu:.1f} s CPU)", flush=True)
    served.await_reload(f"lessons/{LESSON}/", "nb-output")
    print(f"first lesson has run after {time.perf_counter() - served.began:.1f} s", flush=True)
    print(f"ended after {served.stop():.1f} s", flush=True)


def measure_saves(folder: Path, lessons: int, repeats: int) -> None:
    many_lessons(folder, lessons)
    print(f"{lessons} lessons x 2 languages, {repeats} saves each: median (worst)")
    served = Served(folder)
    served.page("")
    print(f"cold start: answers after {time.perf_counter() - served.began:.1f} s", flush=True)
    served.await_reload(f"lessons/{LESSON}/", "nb-output")
    served.idle()
    file = folder / "lessons" / f"{LESSON}.py"
    original = file.read_text(encoding="utf-8")
    places = {
        "prose": re.compile(r"(?<=\n# )(?=[A-Z][a-z]+ [a-z]+ )"),
        "title": re.compile(r"(?<=\n# # )"),
        "code": re.compile(r"(?<=print\()(?=\d+, 'of the cells')"),
    }
    for kind, place in places.items():
        seconds, cpu = [], []
        for number in range(repeats):
            mark = f"{number + 1}{len(kind)}00"
            text = place.sub(mark if kind == "code" else f"Saved{mark} ", original, count=1)
            assert text != original
            before, began = served.cpu, time.perf_counter()
            file.write_text(text, encoding="utf-8")
            served.await_reload(f"lessons/{LESSON}/", mark)
            seconds.append(time.perf_counter() - began)
            served.idle()
            cpu.append(served.cpu - before)
        wall, work = statistics.median(seconds), statistics.median(cpu)
        print(
            f"{kind}: {wall:.2f} ({max(seconds):.2f}) s, {work:.2f} ({max(cpu):.2f}) s CPU",
            flush=True,
        )
        file.write_text(original, encoding="utf-8")
        served.idle()
    before = served.cpu
    time.sleep(10)
    print(f"idle: {(served.cpu - before) * 10:.1f} % of a core")
    print(f"ended after {served.stop():.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lessons", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for measure in (
        measure_start,
        lambda folder: measure_saves(folder, options.lessons, options.repeats),
    ):
        folder = Path(tempfile.mkdtemp(prefix="blackbelt-benchmark-"))
        try:
            measure(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
