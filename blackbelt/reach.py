"""Ask the web whether links still lead somewhere: the slow half of `blackbelt links`.

It runs on a schedule and not on changes: an address breaks on the day its owner likes, and that
must not stop anybody's work on something else.
"""

import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from itertools import groupby
from typing import IO
from urllib.parse import unquote, urldefrag, urlsplit

from blackbelt.problems import CommandError, Problem
from blackbelt.web_links import WebLink

COMMAND = "uv run blackbelt links --external"
# Codes that say "I do not talk to programs", and nothing about the page.
_REFUSALS = {401, 403, 405, 406, 418, 429, 451, 999}
_FOREVER = {301, 308}
_IDS = re.compile(r"""\b(?:id|name)\s*=\s*(?:"([^"]+)"|'([^']+)'|([^\s"'>]+))""")
# Pages whose headings and lines only a script makes.
_DRAWN_BY_SCRIPT = ("github.com",)
_LARGEST_PAGE = 10_000_000
_AT_A_TIME = 8


@dataclass(frozen=True)
class Answer:
    """What became of a request.

    Attributes:
        broken: why the link is broken, or nothing.
        note: what a person may want to know about a link that works, or nothing.
        reached: whether any server answered.
    """

    broken: str = ""
    note: str = ""
    reached: bool = True


@dataclass(frozen=True)
class Patience:
    """How long to insist, in seconds: of one request, and between those that failed."""

    timeout: float = 30
    pauses: tuple[float, ...] = (2, 10)


class _Followed(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and remembers whether all of them are meant for ever."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self.codes.append(code)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_reach(
    links: Iterable[WebLink], patience: Patience | None = None
) -> tuple[list[Problem], list[str]]:
    """Request each address once.

    Returns:
        A problem for each place that links to a broken address, and notes on the others.

    Raises:
        CommandError: no server answered at all.
    """
    places: dict[str, list[WebLink]] = {}
    for link in sorted(links):
        places.setdefault(link.address, []).append(link)
    answers = _ask_all(list(places), patience or Patience())
    if answers and not any(answer.reached for answer in answers.values()):
        first = next(iter(answers.values())).broken
        what = f"none of {len(answers)} addresses can be reached from this machine: {first}"
        raise CommandError(what, COMMAND)
    problems = [
        Problem(link.path, link.line, f"{address} {answer.broken}", COMMAND)
        for address, answer in answers.items()
        if answer.broken
        for link in places[address]
    ]
    notes = [
        f"{places[address][0].path}:{places[address][0].line}: note: {address} {answer.note}"
        for address, answer in answers.items()
        if answer.note
    ]
    return sorted(problems), sorted(notes)


def _ask_all(addresses: list[str], patience: Patience) -> Mapping[str, Answer]:
    """Several servers at a time, but one request at a time to each: they are guests' houses."""

    def server(address: str) -> str:
        return urlsplit(address).netloc

    def ask_one_server(group: list[str]) -> list[tuple[str, Answer]]:
        return [(address, _insist(address, patience)) for address in group]

    ordered = sorted(addresses, key=server)
    groups = [list(group) for _, group in groupby(ordered, key=server)]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return dict(pair for pairs in pool.map(ask_one_server, groups) for pair in pairs)


def _insist(address: str, patience: Patience) -> Answer:
    """Ask again where the failure may pass: no answer, or a server in trouble."""
    for pause in (*patience.pauses, None):
        answer, may_pass = _ask(address, patience.timeout)
        if not may_pass or pause is None:
            break
        time.sleep(pause)
    return answer


def _ask(address: str, timeout: float) -> tuple[Answer, bool]:
    """Request an address; also says whether it may go better a second time."""
    page, fragment = urldefrag(address)
    followed = _Followed()
    opener = urllib.request.build_opener(followed)
    request = urllib.request.Request(page, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with opener.open(request, timeout=timeout) as response:
            text = ""
            if fragment and not (urlsplit(page).hostname or "").endswith(_DRAWN_BY_SCRIPT):
                text = response.read(_LARGEST_PAGE).decode("utf-8", "replace")
            final = response.geturl()
    except urllib.error.HTTPError as error:
        if error.code in _REFUSALS:
            return Answer(note=f"refuses programs ({error.code}); open it in a browser"), False
        return Answer(broken=f"answers {error.code} {error.reason}".rstrip()), error.code >= 500
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Answer(broken=f"cannot be reached: {reason}", reached=False), True
    if text and unquote(fragment) not in _ids(text):
        return Answer(broken=f"has no place `#{fragment}`"), False
    if followed.codes and set(followed.codes) <= _FOREVER:
        return Answer(note=f"has moved to {final}"), False
    return Answer(), False


def _ids(text: str) -> set[str]:
    return {next(filter(None, match.groups()), "") for match in _IDS.finditer(text)}
