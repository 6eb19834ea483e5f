"""What the site says where it shows the way: indexes, prerequisites, topics, changes."""

from dataclasses import dataclass

_NBSP = "\u00a0"

Forms = tuple[str, str, str]


@dataclass(frozen=True)
class Wayfinding:
    """The texts of one language. Fields ending in `_forms` hold singular, few and many."""

    # Navigation
    indexes: str
    api: str
    errors: str
    topics: str

    # Module pages and lessons
    lessons: str
    map: str
    map_hint: str
    reading: str
    exercises: str
    ready: str
    belts_forms: dict[str, Forms]
    after_lesson: str
    needs: str
    leads_to: str
    mentions: str

    # Indexes
    letters: str
    types: str
    explained: str
    used: str
    used_too: str
    shown: str
    filter: str
    nothing_found: str

    # Changes
    changes: str
    all_changes: str
    feed: str

    # Cards
    motto: str


POLISH = Wayfinding(
    indexes="Skorowidze",
    api="Nazwy z API",
    errors="Komunikaty błędów",
    topics="Tematy",
    lessons="Lekcje",
    map="Mapa lekcji",
    map_hint="Strzałka prowadzi od lekcji do tej, która z niej korzysta; numery po znaku ← to "
    "lekcje z innych modułów. Lista poniżej mówi to samo.",
    reading="czytanie: {minutes}" + _NBSP + "min",
    exercises="ćwiczenia: {minutes}" + _NBSP + "min",
    ready="gotowe lekcje: {written} z {total}",
    belts_forms={
        "white": ("biały pas", "białe pasy", "białych pasów"),
        "brown": ("brązowy pas", "brązowe pasy", "brązowych pasów"),
        "black": ("czarny pas", "czarne pasy", "czarnych pasów"),
    },
    after_lesson="Co umiesz po tej lekcji",
    needs="Warto najpierw znać",
    leads_to="Korzystają z tej lekcji",
    mentions="Ta lekcja odsyła do",
    letters="Pierwsze litery nazw",
    types="Rodzaje wyjątków i ostrzeżeń",
    explained="Wyjaśnienie",
    used="Użycie",
    used_too="Także",
    shown="Gdzie się pojawia",
    filter="Zawęź listę",
    nothing_found="Nic tu nie pasuje.",
    changes="Zmiany w tej lekcji, ostatnia {date}",
    all_changes="Wszystkie zmiany pliku",
    feed="Nowe i zmienione lekcje",
    motto="Co się dzieje w środku, gdy program działa, a wynik jest zły",
)

ENGLISH = Wayfinding(
    indexes="Indexes",
    api="Names of the API",
    errors="Error messages",
    topics="Topics",
    lessons="Lessons",
    map="Map of the lessons",
    map_hint="An arrow leads from a lesson to one that builds on it; numbers after ← are lessons "
    "of other modules. The list below says the same.",
    reading="reading: {minutes}" + _NBSP + "min",
    exercises="exercises: {minutes}" + _NBSP + "min",
    ready="lessons ready: {written} of {total}",
    belts_forms={
        "white": ("white belt", "white belts", "white belts"),
        "brown": ("brown belt", "brown belts", "brown belts"),
        "black": ("black belt", "black belts", "black belts"),
    },
    after_lesson="What you can do after this lesson",
    needs="Good to know first",
    leads_to="Lessons that build on this one",
    mentions="This lesson points to",
    letters="First letters of the names",
    types="Types of exceptions and warnings",
    explained="Explained",
    used="Used",
    used_too="Also",
    shown="Where it appears",
    filter="Narrow the list",
    nothing_found="Nothing here matches.",
    changes="Changes to this lesson, the latest on {date}",
    all_changes="All changes to the file",
    feed="New and changed lessons",
    motto="What happens inside when the program runs and the result is wrong",
)
