"""A module's page: how long it takes, how its lessons hang together, what each of them gives."""

import html
import re

from blackbelt.options import BELTS
from blackbelt.prepare import Prepared, Rendered, StandIn
from blackbelt.roadmap import Module, Planned
from blackbelt.site.lesson_links import links
from blackbelt.site.module_map import has_map
from blackbelt.strings import for_language

# The list in a lesson that says what its reader has learnt, as authors call it.
_LEARNT = re.compile(
    r"^\#{2,3}[ ].*[ ]\{[ ]\#(?:now-you-can|what-you-can-do-now|you-can-now)[ ]\}\n+"
    r"(?P<list>(?:[-*][ ].*\n(?:(?:[ ].*)?\n)*)+)",
    re.M | re.X,
)


def lessons(module: Module, prepared: Prepared, language: str) -> str:
    """Markdown of the part that the build writes; a template puts the map in its place."""
    words = for_language(language).way
    parts = [_totals(module, prepared, language)]
    if has_map(module):
        parts += [f"## {words.map} {{ #map }}", words.map_hint, "<!-- map -->"]
    parts.append(f"## {words.lessons} {{ #lessons }}")
    parts += [_lesson(planned, prepared, language) for planned in module.lessons]
    return "\n\n".join(parts)


def _totals(module: Module, prepared: Prepared, language: str) -> str:
    strings = for_language(language)
    written = [r for r in prepared.lessons if r.lesson.module == module.folder]
    exercises = [exercise for rendered in written for exercise in rendered.lesson.exercises]
    total = len(module.lessons)
    facts = [strings.way.ready.format(written=len(written), total=total)]
    if written:
        minutes = sum(rendered.minutes[language] for rendered in written)
        facts.append(strings.way.reading.format(minutes=minutes))
    if exercises:
        minutes = sum(exercise.minutes for exercise in exercises)
        facts.append(strings.way.exercises.format(minutes=minutes))
    for belt in BELTS:
        if count := sum(exercise.belt == belt for exercise in exercises):
            facts.append(_belt(belt, strings.count(count, strings.way.belts_forms[belt])))
    return _facts(facts)


def _facts(facts: list[str]) -> str:
    items = "\n".join(f"- {fact}" for fact in facts)
    return f'<div class="bb-facts" markdown="1">\n\n{items}\n\n</div>'


def _belt(belt: str, text: str) -> str:
    return f'<span class="belt belt--{belt}">{text}</span>'


def _lesson(planned: Planned, prepared: Prepared, language: str) -> str:
    strings = for_language(language)
    lesson = prepared.by_number.get(planned.number)
    address = f"{{ #lesson-{planned.number} }}"
    if lesson is None:
        title = f"### {planned.number}. {html.escape(planned.titles[language])} {address}"
        facts = [strings.planned, *_needs(planned, prepared, language)]
        return f"{title}\n\n{_facts(facts)}"
    title = f"### {planned.number}. [{lesson.title(language)}]({lesson.name}.ipynb) {address}"
    if isinstance(lesson, StandIn):
        return title
    rendered = prepared.by_path[lesson.path]
    facts = [*_time(rendered, language), *_needs(planned, prepared, language)]
    parts = [title, _facts(facts), lesson.description(language)]
    learnt = _LEARNT.search(rendered.pages[language].markdown)
    if learnt:
        opening = f'<details class="bb-learnt" markdown="1">\n<summary>{strings.way.after_lesson}'
        parts.append(f"{opening}</summary>\n\n{learnt['list'].strip()}\n\n</details>")
    return "\n\n".join(parts)


def _time(rendered: Rendered, language: str) -> list[str]:
    strings = for_language(language)
    facts = [strings.way.reading.format(minutes=rendered.minutes[language])]
    if exercises := rendered.lesson.exercises:
        minutes = sum(exercise.minutes for exercise in exercises)
        belts = "".join(
            f'<span class="belt belt--{e.belt}" role="img" aria-label="{strings.belts[e.belt]}"'
            f' title="{strings.belts[e.belt]}"></span>'
            for e in exercises
        )
        facts.append(f"{strings.way.exercises.format(minutes=minutes)} {belts}")
    return facts


def _needs(planned: Planned, prepared: Prepared, language: str) -> list[str]:
    if not planned.needs:
        return []
    texts = [_named(number, prepared, language) for number in planned.needs]
    return [f"{for_language(language).way.needs}: {'; '.join(texts)}"]


def _named(number: str, prepared: Prepared, language: str) -> str:
    lesson = prepared.by_number.get(number)
    if lesson is None:
        [link] = links(prepared, [number], language)
        return f"{number}. {html.escape(link['title'])}"
    return f"[{number}. {lesson.title(language)}](../{lesson.module}/{lesson.name}.ipynb)"
