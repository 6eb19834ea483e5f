"""Reads a built page as the search sees it: sections with an address, in prose, code and outputs.

Sections and not pages are indexed: a reader downloads the few sentences around a hit instead of
the whole lesson, and each hit knows where on its page it is.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import groupby
from operator import itemgetter

# What a word weighs where it stands; headings weigh more by themselves.
PROSE, CODE, OUTPUT = 1.0, 0.5, 0.25

# Not what the page is about: controls, drawings, what KaTeX repeats for screen readers. Templates
# say it with `data-pagefind-ignore`, too.
_SKIPPED_TAGS = {
    *("nav", "svg", "math", "script", "style", "form", "button", "progress", "summary", "template"),
}
_SKIPPED_CLASSES = {
    "headerlink",
    "md-content__button",
    "bb-bar",
    "bb-provenance",
    "exercise__meta",
    "nb-label",
    "nb-trace",  # repeats the code above it
}
_WEIGHTS = {"nb-output": OUTPUT, "highlight": CODE}
# What else stands in the middle of a word or a sentence; all other elements separate words.
_INLINE = {"a", "mark", "q", "s", "small", "strong", "u", "var"}
_VOID = {"br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
_TITLES = {"h1", "h2", "h3", "h4", "dt"}
# Nine of ten elements stand around words and say nothing here; Python's parser is slow.
_AROUND_WORDS = re.compile(r"</?(?:span|code|abbr|em|b|i|kbd|sub|sup)\b[^>]*>")


@dataclass
class Section:
    """A heading, or a term of the glossary, and what follows it.

    Attributes:
        anchor: its address on the page; empty for the beginning.
        title: its heading.
        texts: pieces of text in their order, each with what it weighs.
    """

    anchor: str
    title: str = ""
    texts: list[tuple[float, str]] = field(default_factory=list)

    def parts(self) -> Iterator[tuple[float, str]]:
        """The text in as few parts as its weights allow."""
        for weight, pieces in groupby(self.texts, key=itemgetter(0)):
            if text := " ".join("".join(piece for _, piece in pieces).split()):
                yield weight, text


@dataclass
class Text:
    """A page.

    Attributes:
        language: of the page.
        boost: how much more than another page it counts; 0 keeps it out of the search.
        sections: never empty; the first one is the beginning of the page, titled by its heading.
    """

    language: str = ""
    boost: float = 1.0
    sections: list[Section] = field(default_factory=lambda: [Section("")])


def read(source: str) -> Text:
    """Read the HTML of a built page."""
    head, _, body = source.partition("<body")
    article = body[body.find("<article") : body.rfind("</article>")]
    reader = _Reader()
    reader.feed(head)
    reader.feed(_AROUND_WORDS.sub("", article))
    reader.close()
    page = reader.page
    for section in page.sections:
        section.title = " ".join(section.title.split())
    page.sections = [page.sections[0], *(s for s in page.sections[1:] if s.title)]
    return page


def document(section: Section, language: str) -> str:
    """A section as a page of its own, for Pagefind."""
    tag = "h2" if section.anchor else "h1"
    field_name = "heading" if section.anchor else "title"
    body = [f'<{tag} data-pagefind-meta="{field_name}">{_words(section.title)}</{tag}>']
    for weight, text in section.parts():
        # Not a paragraph: Pagefind would end it with a full stop.
        body.append(f'<pre data-pagefind-weight="{weight}">{_words(text)}</pre>')
    return f'<html lang="{language}"><body data-pagefind-body>{"".join(body)}</body></html>'


# Ends a word that is joined to the next one: not white space for readers, and not a letter.
_JOINED = "\u2060"


def _words(text: str) -> str:
    """Let every name be a word of its own, and every letter one that can be folded.

    Pagefind takes `x.requires_grad` for one word, and finds neither `requires_grad` in it nor the
    Polish l when somebody types a plain one: only letters with a mark lose it.
    """
    apart = re.sub(r"(?<=\w)([^\w\s]+)(?=\w)", rf"\1{_JOINED} ", text)
    return html.escape(apart).replace("ł", "l\u0335").replace("Ł", "L\u0335")


@dataclass(frozen=True)
class _Element:
    tag: str
    skipped: bool
    weight: float


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Text()
        self._open: list[_Element] = []
        self._titled: Section | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "html":
            self.page.language = given.get("lang", "")
        if tag == "meta" and given.get("name") == "search-boost":
            self.page.boost = float(given["content"])
        if tag in _VOID:
            self._text(" ")
            return
        if not self._open and tag != "article":
            return
        if tag not in _INLINE:
            self._text(" ")
        above = self._open[-1] if self._open else _Element("", False, PROSE)
        classes = set(given.get("class", "").split())
        ignored = "data-pagefind-ignore" in given or bool(classes & _SKIPPED_CLASSES)
        skipped = above.skipped or tag in _SKIPPED_TAGS or ignored
        weight = min([above.weight, *(_WEIGHTS[name] for name in classes & _WEIGHTS.keys())])
        self._open.append(_Element(tag, skipped, weight))
        if not skipped:
            self._begin(tag, given.get("id", ""))

    def _begin(self, tag: str, anchor: str) -> None:
        """Begin a section at a heading or a term that has an address."""
        if tag in _TITLES:
            first = self.page.sections[0]
            self._titled = first if tag == "h1" else Section(anchor)
        elif self._titled and self._titled is not self.page.sections[0]:
            self._titled.anchor = self._titled.anchor or anchor

    def updatepos(self, i: int, j: int) -> int:
        """Do not count lines, which nobody asks for here and which takes a tenth of the time."""
        return j

    def handle_endtag(self, tag: str) -> None:
        if not any(element.tag == tag for element in self._open):
            return
        while self._open.pop().tag != tag:
            pass
        if tag not in _INLINE:
            self._text(" ")
        if tag in _TITLES and self._titled:
            self._end()

    def _end(self) -> None:
        section, self._titled = self._titled, None
        assert section
        if section is self.page.sections[0]:
            return
        if section.anchor:
            self.page.sections.append(section)
        else:  # nothing can lead there: its text belongs to the section around it
            self._text(section.title)

    def handle_data(self, data: str) -> None:
        self._text(data)

    def _text(self, text: str) -> None:
        if not self._open or self._open[-1].skipped:
            return
        if self._titled:
            self._titled.title += text
            return
        self.page.sections[-1].texts.append((self._open[-1].weight, text))
