"""The command line: `blackbelt serve`, `check`, `run`, `build`, and what keeps a course well."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from blackbelt.config import Project, load_project
from blackbelt.problems import CommandError, CourseError, Problem

if TYPE_CHECKING:
    from blackbelt.course import Course
    from blackbelt.lesson import Lesson
    from blackbelt.progress import Progress
    from blackbelt.store import Runner


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 is success, 1 problems, 2 a wrong command line."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace, Project], int] = options.command
    try:
        return command(options, load_project())
    except CourseError as error:
        return _report(error.problems)
    except CommandError as error:
        print(error, file=sys.stderr)
        return 1
    except FileNotFoundError as error:
        print(f"blackbelt: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="blackbelt", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(
        name: str, command: Callable[[argparse.Namespace, Project], int], text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    many = "numbers or names of lessons, such as 01; all of them if none is given"
    serve = add("serve", _serve, "run the lessons and serve the site with live reload")
    serve.add_argument("lessons", nargs="*", help=many)
    serve.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1 (default 8000)")
    build = add("build", _build, "write the finished site to site/")
    build.add_argument("--site-dir", help="another folder than site/")
    build.add_argument(
        "--offline", action="store_true", help="a copy to open from a folder, in site-offline/"
    )
    check = add("check", _check, "check the lessons without running them")
    check.add_argument("lessons", nargs="*", help=many)
    check.add_argument("--types", action="store_true", help="check their types, too (slower)")
    run = add("run", _run, "run lessons and prove their exercises")
    run.add_argument("lessons", nargs="*", help=many)
    run.add_argument("--fresh", action="store_true", help="run even what did not change")
    run.add_argument(
        "--report", action="store_true", help="show what the lessons take: seconds and memory"
    )
    how = run.add_mutually_exclusive_group()
    how.add_argument(
        "--record", action="store_true", help="store the results of this GPU in recordings/"
    )
    how.add_argument(
        "--twice", action="store_true", help="run two times and show what differs between them"
    )
    run.add_argument(
        "--scheduler", metavar="ADDRESS", help="run on a Dask cluster, such as tcp://host:8786"
    )
    links = add("links", _links, "list the links to the web")
    links.add_argument("--external", action="store_true", help="ask the web whether they work")
    spell = add("spell", _spell, "check the spelling of both languages")
    spell.add_argument(
        "--accept", action="store_true", help="make the project's lists of words fit the texts"
    )
    upgrade = add("upgrade", _upgrade, "pin newer releases, if every lesson runs with them")
    upgrade.add_argument("--to", metavar="DAY", help="releases until this day (default: today)")
    upgrade.add_argument(
        "--report", metavar="FILE", help="tell in Markdown which lessons broke or changed, if any"
    )
    new = add("new", _new, "write the skeleton of a lesson")
    new.add_argument("module", help="folder of the module, such as 3_data")
    new.add_argument("name", help="number and slug, such as 15_iterable_dataset")
    return parser


def _report(problems: Sequence[Problem]) -> int:
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}", file=sys.stderr)
    return 1 if problems else 0


def _check(options: argparse.Namespace, project: Project) -> int:
    from blackbelt.check import check
    from blackbelt.course import load_course
    from blackbelt.recordings import notes

    course = load_course(project)
    lessons = course.select(tuple(options.lessons))
    problems = check(course, lessons)
    if options.types and not problems:
        from blackbelt.check_types import check_types

        problems = check_types(course, lessons)
    if not problems:
        print(f"{len(lessons)} lesson{'s' if len(lessons) != 1 else ''}, no problems")
    for note in notes(course, lessons):
        print(note)
    return _report(problems)


def _run(options: argparse.Namespace, project: Project) -> int:
    from blackbelt.course import load_course
    from blackbelt.progress import Progress
    from blackbelt.store import obtain

    course = load_course(project)
    lessons = course.select(tuple(options.lessons))
    runner = _runner(options)
    problems = _examine(course, lessons)
    broken = {problem.path for problem in problems}
    progress = Progress()
    sound = [lesson for lesson in lessons if lesson.path not in broken]
    if options.record:
        problems += _record(course, sound, progress, runner)
    elif options.twice:
        problems += _twice(sound, project, progress, runner)
    else:
        runs, failures = obtain(course, sound, progress, fresh=options.fresh, runner=runner)
        problems += failures
        if options.report:
            from blackbelt.report import report

            print(report(course, runs))
    progress.summary()
    return _report(problems)


def _runner(options: argparse.Namespace) -> "Runner | None":
    """What executes the lessons, or None for the kernels of this machine."""
    if options.scheduler:
        from blackbelt.cluster import cluster_runner

        return cluster_runner(options.scheduler)
    if options.record:
        from blackbelt.keys import device_class

        if device_class() != "cuda":
            what = (
                "--record stores what a GPU gives, and this machine has none that CUDA can use; "
                "record on a machine that has one, or run the lessons here"
            )
            raise CommandError(what, " ".join(["uv run blackbelt run", *options.lessons]))
    return None


def _examine(course: "Course", lessons: "tuple[Lesson, ...]") -> list[Problem]:
    try:
        from blackbelt.check import check
    except ModuleNotFoundError as error:
        # Recording needs what lessons need, not what builds the site.
        print(f"lessons are not checked: {error.name} is not installed here", file=sys.stderr)
        return list(course.problems)
    return list(check(course, lessons))


def _record(
    course: "Course", lessons: "list[Lesson]", progress: "Progress", runner: "Runner | None"
) -> list[Problem]:
    from blackbelt.recordings import record
    from blackbelt.store import obtain

    runs, failures = obtain(course, lessons, progress, fresh=True, runner=runner)
    problems = list(failures)
    for lesson in lessons:
        if run := runs.get(lesson.path):
            found = record(course, lesson, run)
            if not found:
                print(f"wrote recordings/{lesson.name}.json: {run.provenance.device}")
            problems += found
    return problems


def _twice(
    lessons: "list[Lesson]", project: Project, progress: "Progress", runner: "Runner | None"
) -> list[Problem]:
    from blackbelt.run import run_lessons
    from blackbelt.twice import run_twice

    compared = run_twice(lessons, project, progress, runner or run_lessons)
    for note in compared.notes:
        print(note)
    return list(compared.problems)


def _links(options: argparse.Namespace, project: Project) -> int:
    from blackbelt.course import load_course
    from blackbelt.web_links import of_course

    links = of_course(load_course(project))
    if not options.external:
        print("\n".join(f"{link.path}:{link.line}: {link.address}" for link in sorted(links)))
        return 0
    from blackbelt.reach import check_reach

    problems, notes = check_reach(links)
    count = len({link.address for link in links})
    print(*notes, f"{count} addresses, {len(problems)} broken links", sep="\n")
    return _report(problems)


def _spell(options: argparse.Namespace, project: Project) -> int:
    from blackbelt.course import load_course
    from blackbelt.passages import passages
    from blackbelt.spelling import accept, check_spelling, load_dictionaries

    course = load_course(project)
    texts = list(passages(course))
    dictionaries = load_dictionaries(project)
    if options.accept:
        if course.problems:  # their words would be taken off the lists
            raise CourseError(course.problems)
        print(f"{accept(project, texts, dictionaries)} new words; look at them: git diff lessons/")
        dictionaries = load_dictionaries(project)
    found = check_spelling(project, texts, dictionaries, whole=not course.problems)
    problems = [*course.problems, *found]
    if not problems:
        print(f"{len(texts)} texts, no problems")
    return _report(sorted(problems))


def _upgrade(options: argparse.Namespace, project: Project) -> int:
    from blackbelt.upgrade import upgrade_and_tell

    return _report(upgrade_and_tell(project, options.to, options.report))


def _new(options: argparse.Namespace, project: Project) -> int:
    from blackbelt.course import load_course
    from blackbelt.skeleton import write_skeleton

    path = write_skeleton(load_course(project), options.module, options.name)
    print(f"wrote {path}\nnext: uv run blackbelt serve {path.name[:2]}")
    return 0


def _mkdocs(*arguments: str) -> int:
    # Material prints a page about its successor on every start.
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
    from mkdocs.__main__ import cli

    try:
        cli(list(arguments), prog_name="mkdocs", standalone_mode=True)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _build(options: argparse.Namespace, project: Project) -> int:
    from blackbelt.files import alone

    os.chdir(project.root)
    extra = ["--site-dir", options.site_dir] if options.site_dir else []
    if options.offline:
        from blackbelt.site import offline

        offline.ask()
        extra = ["--no-directory-urls", *(extra or ["--site-dir", "site-offline"])]

    def waiting() -> None:
        print("another build is writing the site; waiting for its end", file=sys.stderr)

    with alone(project.cache / "build.lock", waiting):
        return _mkdocs("build", "--strict", "--clean", *extra)


def _serve(options: argparse.Namespace, project: Project) -> int:
    os.chdir(project.root)
    # Material prints a page about its successor on every start.
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
    if options.lessons:
        os.environ["BLACKBELT_ONLY"] = " ".join(options.lessons)
    from blackbelt.site.serve import serve

    serve(project, tuple(options.lessons), options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
