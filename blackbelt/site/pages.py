"""What the templates and the hand-written pages need to know about lessons."""

import html
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin

from mkdocs.structure.pages import Page

from blackbelt.config import Project
from blackbelt.glossary import Term
from blackbelt.lesson import Lesson
from blackbelt.prepare import Prepared, Rendered, StandIn
from blackbelt.render import fenced
from blackbelt.roadmap import Module
from blackbelt.site import module_page
from blackbelt.site.addresses import url
from blackbelt.strings import for_language
from blackbelt.text import plain


def find(prepared: Prepared, uri: str) -> Rendered | None:
    """The lesson whose notebook this file of `docs/` is."""
    name = PurePosixPath(uri)
    stem = name.name.split(".")[0]
    for rendered in prepared.lessons:
        if rendered.lesson.name == stem and rendered.lesson.module == name.parent.name:
            return rendered
    return None


def body(prepared: Prepared, uri: str, language: str) -> str:
    """Markdown of a lesson's page."""
    if rendered := find(prepared, uri):
        return rendered.pages[language].markdown
    name = PurePosixPath(uri)
    place = (name.parent.name, name.name.split(".")[0])
    return next(
        stand_in(one, language) for one in prepared.stand_ins if (one.module, one.name) == place
    )


def stand_in(lesson: StandIn, language: str) -> str:
    """Body of the page that stands for a lesson without results while the site is served."""
    strings = for_language(language)
    parts = [f"# {lesson.title(language)}", strings.broken if lesson.problems else strings.running]
    if lesson.problems:
        parts.append(fenced("\n".join(str(problem) for problem in lesson.problems), "text"))
    return "\n\n".join(parts) + "\n"


def description(rendered: Rendered, language: str) -> str:
    """For the value of an attribute, into which Material puts it as it is."""
    return html.escape(plain(rendered.lesson.description(language)))


def header(
    rendered: Rendered, prepared: Prepared, project: Project, page: Page, language: str
) -> dict[str, Any]:
    """What stands under the title of a lesson and at its end; see `partials/lesson-bar.html`."""
    lesson, where = rendered.lesson, rendered.run.provenance
    module = prepared.course.module(lesson.module)
    nb_url: str = page.nb_url  # type: ignore[attr-defined]  # set by mkdocs-jupyter
    folder = PurePosixPath(page.file.dest_uri).parent
    notebook = folder / nb_url.rsplit("/", 1)[-1]
    position, total = _position(lesson, prepared)
    return {
        "number": lesson.number,
        "module_number": module.number,
        "module_title": module.titles[language],
        "module_url": url(f"lessons/{module.folder}/", language),
        "position": position,
        "total": total,
        "minutes": rendered.minutes[language],
        "exercises": len(lesson.exercises),
        "notebook_url": nb_url,
        "source_url": urljoin(page.abs_url or "", f"{lesson.name}.py"),
        "colab_url": f"https://colab.research.google.com/github/{project.owner_and_name}/blob/gh-pages/{notebook}",
        "vscode_url": f"https://vscode.dev/github/{project.owner_and_name}/blob/main/{lesson.path}",
        "edit_url": f"{project.repository}/edit/main/{lesson.path}",
        "run": {
            "device": where.device,
            "torch": where.torch,
            "python": where.python,
            "date": where.date,
            "recorded": where.recorded,
            "cuda": where.cuda,
            "driver": where.driver,
            "commit": where.commit,
            "commit_url": f"{project.repository}/commit/{where.commit}" if where.commit else "",
        },
    }


def _position(lesson: Lesson, prepared: Prepared) -> tuple[int, int]:
    """Place among all lessons of the roadmap, those not written yet included."""
    module = prepared.course.module(lesson.module)
    names = [p.name for m in prepared.course.modules if m.extra == module.extra for p in m.lessons]
    return names.index(lesson.name) + 1, len(names)


def roadmap(prepared: Prepared, language: str) -> list[dict[str, Any]]:
    """All modules and lessons for the home page; lessons that are not written have no address."""
    return [
        {
            "number": module.number,
            "title": module.titles[language],
            "summary": module.summaries[language],
            "url": url(f"lessons/{module.folder}/", language),
            "extra": module.extra,
            "lessons": _lessons(module, prepared, language),
        }
        for module in prepared.course.modules
    ]


def _lessons(module: Module, prepared: Prepared, language: str) -> list[dict[str, Any]]:
    written = {lesson.name: lesson for lesson in prepared.listed}
    items = []
    for planned in module.lessons:
        lesson = written.get(planned.name)
        title = plain(lesson.title(language)) if lesson else planned.titles[language]
        address = url(f"lessons/{module.folder}/{planned.name}/", language) if lesson else None
        item: dict[str, Any] = {"number": planned.number, "title": title, "url": address}
        items.append(item | _contents(lesson))
    return items


def _contents(lesson: Lesson | StandIn | None) -> dict[str, str]:
    """What a reader can do in a lesson, by the names that progress is kept under."""
    if not isinstance(lesson, Lesson):
        return {"exercises": "", "questions": ""}
    return {
        "exercises": " ".join(f"{exercise.belt}:{exercise.id}" for exercise in lesson.exercises),
        "questions": " ".join(question.id for question in lesson.predictions),
    }


def expand(
    markdown: str,
    uri: str,
    prepared: Prepared,
    glossary: tuple[Term, ...],
    project: Project,
    language: str,
) -> str:
    """Fill the marks of a hand-written page."""
    markdown = markdown.replace("{{ repository }}", project.repository)
    markdown = markdown.replace("{{ site }}", project.site_url)
    if "<!-- lessons -->" in markdown:
        module = prepared.course.module(PurePosixPath(uri).parent.name)
        markdown = markdown.replace(
            "<!-- lessons -->", module_page.lessons(module, prepared, language)
        )
    if "<!-- glossary -->" in markdown:
        markdown = markdown.replace("<!-- glossary -->", _glossary(glossary, prepared, language))
    return markdown


def _glossary(terms: tuple[Term, ...], prepared: Prepared, language: str) -> str:
    other = "en" if language == "pl" else "pl"
    paths = {lesson.number: lesson for lesson in prepared.listed}
    lines = []
    for term in sorted(terms, key=lambda term: _alphabetic(term.names[language])):
        lesson = paths.get(term.lesson)
        link = ""
        if lesson:
            word = for_language(language).lesson
            link = f" [{word} {lesson.number}](lessons/{lesson.module}/{lesson.name}.ipynb)"
        lines.append(
            f"**{term.names[language]}**{{ #{term.id} }} · *{term.names[other]}*\n"
            f":   {term.definitions[language]}{link}"
        )
    return "\n\n".join(lines)


_POLISH_ORDER = {
    letter: index for index, letter in enumerate("aąbcćdeęfghijklłmnńoópqrsśtuvwxyzźż")
}


def _alphabetic(name: str) -> list[tuple[int, str]]:
    return [(_POLISH_ORDER.get(letter, -1), letter) for letter in name.lower()]
