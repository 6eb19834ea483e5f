"""A Python-Markdown extension: the first use of each glossary term explains itself on hover."""

import re
from typing import Any
from xml.etree import ElementTree

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor

from blackbelt.glossary import Term, pattern

# Where an explanation would be wrong or in the way.
_LEFT_ALONE = {
    "a",
    "abbr",
    "code",
    "dt",
    "pre",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "summary",
    "script",
}
# Formulas, and what code has put out.
_CLASSES_LEFT_ALONE = {"arithmatex", "nb-output"}


class _Explain(Treeprocessor):
    def __init__(self, md: Markdown, terms: tuple[Term, ...], language: str) -> None:
        super().__init__(md)
        self._pattern, self._forms = pattern(terms, language)
        self._language = language

    def run(self, root: ElementTree.Element) -> None:
        self._visit(root, set())

    def _visit(self, element: ElementTree.Element, seen: set[str]) -> None:
        if element.tag in _LEFT_ALONE or element.get("class") in _CLASSES_LEFT_ALONE:
            return
        original = list(element)
        self._text(element, seen)
        for child in original:
            self._visit(child, seen)
            self._tail(element, child, seen)

    def _text(self, element: ElementTree.Element, seen: set[str]) -> None:
        text, marks = self._split(element.text or "", seen)
        element.text = text
        for position, mark in enumerate(marks):
            element.insert(position, mark)

    def _tail(
        self, parent: ElementTree.Element, child: ElementTree.Element, seen: set[str]
    ) -> None:
        text, marks = self._split(child.tail or "", seen)
        child.tail = text
        position = list(parent).index(child) + 1
        for offset, mark in enumerate(marks):
            parent.insert(position + offset, mark)

    def _split(self, text: str, seen: set[str]) -> tuple[str, list[ElementTree.Element]]:
        """The text up to the first new term, and an element with tail for each new term."""
        marks: list[ElementTree.Element] = []
        before, position = "", 0
        for match in self._pattern.finditer(text):
            term = self._forms[re.sub(r"[\s\u00a0]", " ", match[0].lower())]
            if term.id in seen:
                continue
            seen.add(term.id)
            self._append(marks, text[position : match.start()])
            if not marks:
                before = text[: match.start()]
            # Focusable, so that the keyboard opens the explanation, too.
            attributes = {"title": term.definitions[self._language], "tabindex": "0"}
            mark = ElementTree.Element("abbr", attributes)
            mark.text = match[0]
            marks.append(mark)
            position = match.end()
        if not marks:
            return text, []
        self._append(marks, text[position:])
        return before, marks

    @staticmethod
    def _append(marks: list[ElementTree.Element], text: str) -> None:
        if marks:
            marks[-1].tail = text


class GlossaryExtension(Extension):
    """Explains terms in the text of a page.

    Options:
        terms: the glossary.
        language: `pl` or `en`.
    """

    def __init__(self, **options: Any) -> None:
        self.config = {"terms": [(), "the glossary"], "language": ["pl", "language of the page"]}
        super().__init__(**options)

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (the name is Python-Markdown's)
        terms = self.getConfig("terms")
        if terms:
            explain = _Explain(md, tuple(terms), self.getConfig("language"))
            # After inline patterns (20), when code spans are elements.
            md.treeprocessors.register(explain, "glossary", 15)


def makeExtension(**options: Any) -> GlossaryExtension:  # noqa: N802
    return GlossaryExtension(**options)
