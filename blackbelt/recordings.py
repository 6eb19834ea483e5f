"""Recordings: results from a GPU, kept in the repository for machines that have none.

A recording is shown only while the lesson's code and snippets are those that it was made from.
It must stay importable where only lessons are run: with no MkDocs and no Markdown parser.
"""

import base64
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from blackbelt.config import Project
from blackbelt.course import Course
from blackbelt.files import write_whole
from blackbelt.keys import source_hash
from blackbelt.lesson import Lesson
from blackbelt.plan import plan
from blackbelt.problems import Problem
from blackbelt.results import Run
from blackbelt.serialize import checksum, run_from_data, run_to_data

FORMAT = 1
# Fifty lessons of this size are 15 MB, which a clone of the repository can bear.
LARGEST = 300 * 1024
# A picture that is larger without loss, such as noise drawn in colours, gets a palette.
_LARGEST_PICTURE = 40_000
_NAMED = 3


class DamagedError(ValueError):
    """The file is not a recording as `record` writes it; the message says why."""


@dataclass(frozen=True)
class Note:
    """A recording that is not shown, and why. Not an error: the lesson runs without it."""

    path: str
    what: str
    command: str

    def __str__(self) -> str:
        return f"note: {self.path}: {self.what}\n    next: {self.command}"


def recorded_run(course: Course, lesson: Lesson) -> Run | None:
    """The recording of a lesson, if it is of this code; its provenance says that it is one."""
    file = _file(course.project, lesson)
    try:
        data = _read(file, file.stat().st_mtime_ns)
        if data["lesson"] != lesson.path or data["source"] != _source(course, lesson):
            return None
        run = _decode(file, file.stat().st_mtime_ns)
    except (OSError, DamagedError):
        # `notes` tells about it.
        return None
    return run if len(run.steps) == len(plan(lesson)) else None


def notes(course: Course, lessons: tuple[Lesson, ...]) -> Iterator[Note]:
    """Recordings of these lessons that are stale or damaged, and those of no lesson at all."""
    chosen = {lesson.path for lesson in lessons}
    by_file = {_file(course.project, lesson): lesson for lesson in course.lessons}
    for file in sorted((course.project.root / "recordings").glob("*.json")):
        lesson = by_file.get(file)
        if lesson is None:
            what = "no lesson has this name, so it is never shown"
            yield Note(_shown(course, file), what, f"git rm {_shown(course, file)}")
        elif lesson.path in chosen and (what := _fault(course, lesson, file)):
            command = f"uv run blackbelt run --record {lesson.number}"
            yield Note(_shown(course, file), what, command)


def record(course: Course, lesson: Lesson, run: Run) -> tuple[Problem, ...]:
    """Write the recording of a run. The one that there is stays if there is a problem."""
    command = f"uv run blackbelt run --record {lesson.number}"
    if not run.provenance.cuda:
        what = (
            f"not recorded: it ran on {run.provenance.device} with torch {run.provenance.torch}, "
            "which has no CUDA device here; install a build of torch for CUDA"
        )
        return (Problem(lesson.path, 1, what, command),)
    payload, sizes = _encode(run)
    data = {
        "format": FORMAT,
        "lesson": lesson.path,
        "source": _source(course, lesson),
        "sha256": checksum(payload),
        **payload,
    }
    # One value a line: a change can be read in `git diff`.
    text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) > LARGEST:
        what = (
            f"the recording has {len(raw) / 1024:,.0f} KB; at most {LARGEST // 1024} are kept in "
            f"the repository. The largest outputs: {_largest(lesson, sizes)}"
        )
        return (Problem(lesson.path, 1, what, command),)
    write_whole(_file(course.project, lesson), raw, durable=True)
    return ()


def _file(project: Project, lesson: Lesson) -> Path:
    return project.root / "recordings" / f"{lesson.name}.json"


def _shown(course: Course, file: Path) -> str:
    return file.relative_to(course.project.root).as_posix()


def _source(course: Course, lesson: Lesson) -> str:
    return source_hash(lesson, course.snippets)


def _fault(course: Course, lesson: Lesson, file: Path) -> str:
    try:
        data = _read(file, file.stat().st_mtime_ns)
    except (OSError, DamagedError) as error:
        return f"damaged, so it is never shown: {error}"
    if data["lesson"] != lesson.path:
        return f"this is the recording of {data['lesson']}, so it is never shown"
    if data["source"] == _source(course, lesson):
        return ""
    where = data["provenance"]
    return (
        f"stale, so it is not shown: the code of {lesson.path} or a snippet has changed since it "
        f"was recorded ({where['date']}, {where['device']}, torch {where['torch']})"
    )


@lru_cache(maxsize=256)
def _read(file: Path, _changed: int) -> dict[str, Any]:
    """The content of a file that is what `record` wrote; kept while the file stays the same."""
    try:
        data = json.loads(file.read_bytes().decode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise DamagedError(f"not valid JSON: {error}") from None
    known = {"format", "lesson", "source", "sha256"}
    if not isinstance(data, dict) or not known <= data.keys():
        raise DamagedError("not a recording")
    if data["format"] != FORMAT:
        raise DamagedError(f"format {data['format']}, where {FORMAT} is read")
    if checksum({key: value for key, value in data.items() if key not in known}) != data["sha256"]:
        raise DamagedError("its content has been changed, its checksum has not")
    return data


def _encode(run: Run) -> tuple[dict[str, Any], list[tuple[int, int, str]]]:
    """A run with small figures, and for each output its bytes, its step, and what it is."""
    data = run_to_data(run)
    figures: dict[str, dict[str, str]] = {}
    sizes: list[tuple[int, int, str]] = []
    for index, step in enumerate(data["steps"]):
        for output in step["outputs"]:
            svg, png = output.pop("svg"), output.pop("png")
            size = len(output["text"])
            if svg or png:
                figure = _small(svg, png)
                # Pages often show the same picture in both languages.
                name = hashlib.sha256(json.dumps(figure).encode()).hexdigest()[:12]
                output["figure"] = name
                size += sum(map(len, figure.values())) if name not in figures else 0
                figures[name] = figure
            sizes.append((size, index, output["kind"]))
    data["provenance"].pop("recorded")
    return {"provenance": data.pop("provenance"), **data, "figures": figures}, sizes


def _small(svg: str, png: str) -> dict[str, str]:
    """What the page shows of a figure: the vector, or where that is too large the picture."""
    from blackbelt.figures import compact, is_vector

    if is_vector(svg):
        data = gzip.compress(compact(svg).encode(), 9, mtime=0)
        return {"svg.gz": base64.b64encode(data).decode()}
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        picture = image.convert("RGB")
    webp = _webp(picture)
    if len(webp) > _LARGEST_PICTURE:
        webp = _webp(picture.quantize(256, dither=Image.Dither.NONE).convert("RGB"))
    return {"webp": base64.b64encode(webp).decode()}


def _webp(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, method=4)
    return buffer.getvalue()


@lru_cache(maxsize=256)
def _decode(file: Path, changed: int) -> Run:
    data = _read(file, changed)
    try:
        figures = {name: _full(figure) for name, figure in data["figures"].items()}
        steps = [step | {"outputs": _outputs(step["outputs"], figures)} for step in data["steps"]]
        rest = ("format", "lesson", "source", "sha256", "figures")
        fields = {key: value for key, value in data.items() if key not in rest}
        run = run_from_data(fields | {"steps": steps})
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise DamagedError(f"it lacks what a run has: {error!r}") from None
    return replace(run, provenance=replace(run.provenance, recorded=True))


def _outputs(
    outputs: list[dict[str, Any]], figures: dict[str, dict[str, str]]
) -> list[dict[str, Any]]:
    found = []
    for output in outputs:
        plain = {key: value for key, value in output.items() if key != "figure"}
        found.append(plain | (figures[output["figure"]] if "figure" in output else {}))
    return found


def _full(figure: dict[str, str]) -> dict[str, str]:
    if "svg.gz" in figure:
        return {"svg": gzip.decompress(base64.b64decode(figure["svg.gz"])).decode()}
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(figure["webp"]))) as image:
        image.save(buffer, "PNG")
    return {"png": base64.b64encode(buffer.getvalue()).decode()}


def _largest(lesson: Lesson, sizes: list[tuple[int, int, str]]) -> str:
    steps = plan(lesson)
    largest = sorted(sizes, reverse=True)[:_NAMED]
    return ", ".join(
        f"{size / 1024:,.0f} KB ({kind}) of {lesson.path}:{steps[index].cell.line}"
        for size, index, kind in largest
    )
