"""Text that a cell says to the reader, in the language of the page it lands on.

A lesson runs once and becomes two pages. While the site is built, `say` therefore
returns both texts between private-use characters, and each page keeps its own.
Everywhere else (VS Code, Jupyter, Colab) it returns plain text in one language.
"""

import os

OPEN, BODY, CLOSE = "\ue0f0", "\ue0f1", "\ue0f2"


def languages() -> tuple[str, ...]:
    """Languages to speak, in page order: `("pl", "en")` in a build, else one."""
    return tuple(os.environ.get("BLACKBELT_LANGUAGES", "pl").split(","))


def say(*, pl: str, en: str) -> str:
    """Return the text in the reader's language.

    Args:
        pl: the Polish text.
        en: the English text, with the same content.
    """
    texts = {"pl": pl, "en": en}
    spoken = languages()
    if len(spoken) == 1:
        return texts[spoken[0]]
    return "".join(f"{OPEN}{code}{BODY}{texts[code]}" for code in spoken) + CLOSE
