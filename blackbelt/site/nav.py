"""The navigation of the site, in one language, with explicit titles.

Titles are explicit because a server that builds only the pages that changed does not read the
titles of the others.
"""

from typing import Any

from blackbelt.config import Project
from blackbelt.prepare import Prepared
from blackbelt.strings import for_language
from blackbelt.text import plain


def build(prepared: Prepared, project: Project, language: str) -> list[dict[str, Any]]:
    """MkDocs' `nav`: home, each module with its written lessons, and the hand-written pages.

    Files are named without the language: static-i18n finds the right one.
    """
    strings = for_language(language)
    course: list[dict[str, Any]] = []
    for module in prepared.course.modules:
        items: list[dict[str, str]] = []
        if (project.lessons / module.folder / f"index.{language}.md").is_file():
            items.append({module.titles[language]: f"lessons/{module.folder}/index.md"})
        for lesson in prepared.listed:
            if lesson.module == module.folder:
                title = f"{lesson.number}. {plain(lesson.title(language))}"
                items.append({title: f"lessons/{module.folder}/{lesson.name}.ipynb"})
        if items:
            course.append({f"{module.number}. {module.titles[language]}": items})
    return [
        {strings.home: "index.md"},
        {strings.course: course},
        {strings.how_to_use: "how-to-use.md"},
        *_indexes(project, language),
        {strings.about: "about.md"},
    ]


def _indexes(project: Project, language: str) -> list[dict[str, Any]]:
    """The pages on which to look something up, those that there are."""
    strings = for_language(language)
    names = {
        "glossary": strings.glossary,
        "api": strings.way.api,
        "errors": strings.way.errors,
        "tags": strings.way.topics,
    }
    there = [name for name in names if (project.docs / f"{name}.{language}.md").is_file()]
    items = [{names[name]: f"{name}.md"} for name in there]
    return [{strings.way.indexes: items}] if items else []
