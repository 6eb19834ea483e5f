"""Spelling in both languages: dictionaries, the project's own words, and words that it avoids.

Polish is looked up in a dictionary of inflected forms (Morfeusz with SGJP), English in Hunspell's.
What they do not know and the project means stands in `lessons/words.pl.txt` and
`lessons/words.en.txt`; a line `word -> better` there names a word to avoid, in all its forms.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from blackbelt.config import Project
from blackbelt.lesson import LANGUAGES
from blackbelt.passages import Passage
from blackbelt.problems import CommandError, Problem

COMMAND = "uv run blackbelt spell"
_WORD = re.compile(r"\w+(?:[’']\w+)*")
_PLAIN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# Endings in which the course follows the British, and what Americans write instead.
_AMERICAN = (
    ("isation", "ization"),
    ("ise", "ize"),
    ("ising", "izing"),
    ("our", "or"),
    ("ll", "l"),
    ("grey", "gray"),
)
# Where the other language is quoted: "krok (stride)", "komunikat „size mismatch”".
_ASIDES = (("(", ")"), ("„", "”"))
# SGJP knows words that nobody has used for a century, and "sie" is a likelier slip than `si`.
_ARCHAIC = {"daw.", "arch.", "przest."}


@dataclass(frozen=True)
class Words:
    """The project's words of one language.

    Attributes:
        known: right although no dictionary has them. One in lower case may begin a sentence.
        avoid: the basic form of a word to avoid, and what to write instead.
        lines: the line of each entry in its file.
    """

    known: frozenset[str]
    avoid: dict[str, str]
    lines: dict[str, int]


def words_file(project: Project, language: str) -> Path:
    """Where the project's words of a language stand, one in a line."""
    return project.lessons / f"words.{language}.txt"


def read_words(project: Project, language: str) -> Words:
    """Read the project's words; a missing file is an empty one."""
    file = words_file(project, language)
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    known, avoid, lines = set[str](), dict[str, str](), dict[str, int]()
    for number, row in enumerate(text.split("\n"), 1):
        entry = row.partition("#")[0].strip()
        word, arrow, better = (part.strip() for part in entry.partition("->"))
        if not word:
            continue
        lines.setdefault(word, number)
        if arrow:
            avoid[word] = better
        else:
            known.add(word)
    return Words(frozenset(known), avoid, lines)


@dataclass(frozen=True)
class Dictionary:
    """What is right in one language.

    Attributes:
        basic_forms: basic forms of a word that the dictionary has; none means unknown.
        words: the project's own.
    """

    basic_forms: Callable[[str], frozenset[str]]
    words: Words

    def knows(self, word: str) -> bool:
        return bool(self.basic_forms(word)) or self.own(word) is not None

    def own(self, word: str) -> str | None:
        """The entry of the project's list that allows the word, if there is one."""
        forms = (word, word.removesuffix("'s"), _lower_first(word), _lower_first(word)[:-2])
        possible = forms if word.endswith("'s") else (word, _lower_first(word))
        return next((form for form in possible if form in self.words.known), None)

    def better(self, word: str) -> str:
        """What to write instead of a word that the project avoids, or nothing."""
        avoided = self.words.avoid
        for form in (word, word.lower(), *sorted(self.basic_forms(word))):
            if form in avoided:
                return avoided[form]
        return ""


def load_dictionaries(project: Project) -> dict[str, Dictionary]:
    """Load both dictionaries; a third of a second.

    Raises:
        CommandError: they are not installed.
    """
    lookups = {"pl": _polish, "en": _english}
    try:
        loaded = {code: lookups[code]() for code in LANGUAGES}
    except ModuleNotFoundError as error:
        what = f"dictionaries are part of the dev group, and {error.name} is not installed"
        raise CommandError(what, "uv sync") from error
    words = {code: read_words(project, code) for code in LANGUAGES}
    british = {
        american: word
        for word in words["en"].known
        for ours, theirs in _AMERICAN
        if ours in word and loaded["en"](american := word.replace(ours, theirs))
    }
    en = Words(words["en"].known, british | words["en"].avoid, words["en"].lines)
    return {"pl": Dictionary(loaded["pl"], words["pl"]), "en": Dictionary(loaded["en"], en)}


@dataclass(frozen=True)
class Seen:
    """A word of a text, and what is to be said of it.

    Attributes:
        better: what to write instead, if the project avoids the word.
        own: the entry of the project's list that allows it, if it needs one.
        unknown: whether nothing allows it.
    """

    passage: Passage
    word: str
    better: str = ""
    own: str = ""
    unknown: bool = False


def check_spelling(
    project: Project,
    texts: Iterable[Passage],
    dictionaries: dict[str, Dictionary],
    *,
    whole: bool,
) -> Iterator[Problem]:
    """Find every word that is unknown or to be avoided, and words that are listed for nothing.

    Args:
        project: where the texts and lists are.
        texts: what to check.
        dictionaries: of both languages.
        whole: whether these are all texts, so that a listed word can be known to be needless.
    """
    needed: dict[str, set[str]] = {code: set() for code in LANGUAGES}
    reported: set[tuple[str, int, str]] = set()
    files: dict[str, list[str]] = {}
    for seen in _look_up(texts, dictionaries):
        path, language = seen.passage.path, seen.passage.language
        needed[language].add(seen.own)
        if not (seen.better or seen.unknown):
            continue
        if path not in files:
            files[path] = (project.root / path).read_text(encoding="utf-8").split("\n")
        line = _line_of(seen.word, seen.passage.line, files[path])
        if (path, line, seen.word) not in reported:
            reported.add((path, line, seen.word))
            yield Problem(path, line, _explain(seen, dictionaries[language]), COMMAND)
    for code in LANGUAGES if whole else ():
        listed = dictionaries[code].words
        for word in sorted(listed.known - needed[code]):
            path = words_file(project, code).relative_to(project.root).as_posix()
            what = f"`{word}` is listed for nothing: no text needs it; remove the line"
            yield Problem(path, listed.lines[word], what, COMMAND)


def accept(project: Project, texts: Iterable[Passage], dictionaries: dict[str, Dictionary]) -> int:
    """Write the lists anew with exactly the words that are needed; returns how many are new."""
    needed: dict[str, set[str]] = {code: set() for code in LANGUAGES}
    for seen in _look_up(texts, dictionaries):
        if seen.own or seen.unknown:
            needed[seen.passage.language].add(seen.own or seen.word.removesuffix("'s"))
    for code, words in needed.items():
        words -= {word for word in words if word != (low := _lower_first(word)) and low in words}
        file = words_file(project, code)
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        kept = [row for row in text.split("\n") if row.startswith("#") or "->" in row or not row]
        head = "\n".join(kept).rstrip("\n")
        rows = sorted(words, key=lambda word: (word.lower(), word))
        file.write_text("\n".join([*([head, ""] if head else []), *rows]) + "\n", encoding="utf-8")
    return sum(len(words - dictionaries[code].words.known) for code, words in needed.items())


def _look_up(texts: Iterable[Passage], dictionaries: dict[str, Dictionary]) -> Iterator[Seen]:
    for passage in texts:
        ours = dictionaries[passage.language]
        others = [d for code, d in dictionaries.items() if code != passage.language]
        for word, aside in _words(passage.text):
            foreign = passage.foreign or aside
            if not foreign and (better := ours.better(word)):
                yield Seen(passage, word, better=better)
            elif ours.basic_forms(word):
                yield Seen(passage, word)
            elif own := ours.own(word):
                yield Seen(passage, word, own=own)
            else:
                unknown = not (foreign and any(d.knows(word) for d in others))
                yield Seen(passage, word, unknown=unknown)


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """Words of a text, and whether they are bracketed or quoted; what has digits is a name."""
    for match in _WORD.finditer(text):
        word = match[0].replace("’", "'")
        if len(word) > 1 and _PLAIN.fullmatch(word):
            before = text[: match.start()]
            aside = any(before.count(a) > before.count(b) for a, b in _ASIDES)
            yield word, aside


def _explain(seen: Seen, ours: Dictionary) -> str:
    if seen.better:
        return f"the course does not write `{seen.word}`, but: {seen.better}"
    near = get_close_matches(seen.word, ours.words.known, n=2, cutoff=0.8)
    hint = f" (near: {', '.join(near)})" if near else ""
    language = seen.passage.language
    named = {"pl": "Polish", "en": "English"}[language]
    return (
        f"no {named} dictionary has `{seen.word}`{hint}; mend it, or, if it is right, "
        f"add it to lessons/words.{language}.txt (`{COMMAND} --accept` adds all such words)"
    )


def _polish() -> Callable[[str], frozenset[str]]:
    import morfeusz2

    strict = morfeusz2.STRICTLY_CASE_SENSITIVE
    analyser = morfeusz2.Morfeusz(generate=False, case_handling=strict)

    @cache
    def basic_forms(word: str) -> frozenset[str]:
        found: set[str] = set()
        for form in {word, _lower_first(word)}:
            # A word may be analysed in pieces (zrobił|by|m), each of which has to be known.
            readings = analyser.analyse(form)
            if any(tag[2] == "ign" for _, _, tag in readings):
                continue
            lemmas = {tag[1].split(":")[0] for _, _, tag in readings if not _ARCHAIC & set(tag[4])}
            found |= lemmas
        return frozenset(found)

    return basic_forms


def _english() -> Callable[[str], frozenset[str]]:
    from hunspell import Hunspell

    speller = Hunspell("en_US")

    @cache
    def basic_forms(word: str) -> frozenset[str]:
        try:
            if not speller.spell(word):
                return frozenset()
        except UnicodeEncodeError:  # the dictionary has the letters of Western Europe
            return frozenset()
        return frozenset(speller.stem(word)) or frozenset({word})

    return basic_forms


def _lower_first(word: str) -> str:
    return word[:1].lower() + word[1:]


def _line_of(word: str, first: int, lines: list[str]) -> int:
    """The line of a word in a block that begins in line `first`."""
    typed = word.replace("'", "[’']")
    for number, line in enumerate(lines[first - 1 :], first):
        if re.search(rf"(?<!\w){typed}(?!\w)", line):
            return number
    return first
