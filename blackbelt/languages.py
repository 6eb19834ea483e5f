"""Text that holds both languages, as `snippets.bilingual.say` writes it during a run."""

import re

OPEN, BODY, CLOSE = "\ue0f0", "\ue0f1", "\ue0f2"
_PART = re.compile(f"{OPEN}([a-z]+){BODY}(.*?)(?={OPEN}|{CLOSE})", re.S)
_WHOLE = re.compile(f"{OPEN}[a-z]+{BODY}.*?{CLOSE}", re.S)


def keep(text: str, language: str) -> str:
    """Keep one language of a text, and everything that belongs to both."""

    def part(match: re.Match[str]) -> str:
        texts: dict[str, str] = dict(_PART.findall(match[0]))
        return texts.get(language, "")

    return _WHOLE.sub(part, text)
