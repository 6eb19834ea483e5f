"""A small site with predictions, a quiz and exercises, for the tests of what a reader does."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from built_site import BuiltSite, Server, Visit
from playwright.sync_api import Browser
from tiny import REPOSITORY, TinyCourse

# Not imported above: pytest would load it twice.
pytest_plugins = ["site_fixtures"]

GOLDEN = REPOSITORY / "tests" / "golden"
LESSONS = ("08_exercise", "10_predict", "11_quiz")


@pytest.fixture(scope="session")
def learning(tmp_path_factory: pytest.TempPathFactory) -> BuiltSite:
    """The built site of a course of three golden lessons."""
    course = TinyCourse(tmp_path_factory.mktemp("learning"))
    for name in LESSONS:
        text = (GOLDEN / f"{name}.py").read_text(encoding="utf-8")
        course.write(f"lessons/1_first/{name}.py", text)
    ours = REPOSITORY / "docs"
    shutil.copytree(ours, course.root / "docs", ignore=lambda _, names: {"lessons"} & {*names})
    shutil.copyfile(REPOSITORY / "mkdocs.yml", course.root / "mkdocs.yml")
    for page in course.root.glob("docs/index.*.md"):
        text = page.read_text(encoding="utf-8")
        first = "lessons/1_tensors/01_storage_vs_view"
        page.write_text(text.replace(first, "lessons/1_first/08_exercise"), encoding="utf-8")
    for language in ("pl", "en"):
        index = course.root / "lessons" / "1_first" / f"index.{language}.md"
        index.write_text("# Module\n\n<!-- lessons -->\n", encoding="utf-8")
    done = course.command("build")
    assert done.code == 0, done.err
    return BuiltSite(course.root / "site", course.project.site_url, 0, "")


@pytest.fixture(scope="session")
def learning_server(learning: BuiltSite) -> Iterator[Server]:
    from site_fixtures import serving

    with serving(learning) as started:
        yield started


@pytest.fixture
def reader(browser: Browser, learning_server: Server) -> Iterator[Callable[..., Visit]]:
    """Open windows on the small site, each with a storage of its own."""
    from site_fixtures import windows

    with windows(browser, learning_server) as opened:
        yield opened
