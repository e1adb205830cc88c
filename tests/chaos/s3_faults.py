"""What goes wrong at an S3 server: each fault spoils a right answer in its way."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

STALL_S: Final = 4.0  # longer than the read time-out of the hosts
SLOW_S: Final = 0.3
SHOWN: Final = 0.8  # of the keys of a page that leaves some out
DRIP_S: Final = 6.0  # for so long a body comes byte by byte, and then no more
MOVED_MS: Final = 1_500  # how far a node's clock is ahead


@dataclass(frozen=True, slots=True)
class Answer:
    """``announced`` is the Content-Length, if it is not the body's.

    ``sent`` is how much goes out of a body that is not sent whole (-1: not even the head); then
    the connection ends, by a ``reset`` or in order. ``drip_s``: the body comes byte by byte for so
    long, and is not sent whole.
    """

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    announced: int | None = None
    sent: int | None = None
    reset: bool = False
    drip_s: float = 0.0


def error(status: int, code: str, more: str = "", **headers: str) -> Answer:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message></Message>'
        f"{more}<RequestId>tx0</RequestId></Error>"
    )
    return Answer(status, body.encode(), tuple(headers.items()))


def _cut(answer: Answer, dice: random.Random) -> Answer:
    """Fewer bytes than announced, then the end of the connection."""
    return replace(answer, sent=dice.randrange(max(1, len(answer.body))))


def _cut_xml(answer: Answer, dice: random.Random) -> Answer:
    """A body that is cut short, and a length that says so."""
    return replace(answer, body=answer.body[: dice.randrange(max(1, len(answer.body)))])


def _reset_inside(answer: Answer, dice: random.Random) -> Answer:
    return replace(_cut(answer, dice), reset=True)


def _behind_blanks(*_: object) -> Answer:
    """A proxy that has sent 200 and blanks before it knows better."""
    right = error(200, "SlowDown")
    return replace(right, body=b" \n" * 2000 + right.body)


def _with_entities(answer: Answer, _: random.Random) -> Answer:
    kind = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
    return Answer(200, kind + answer.body)


def _with_folder(answer: Answer, _: random.Random) -> Answer:
    """One that stands for keys, though no delimiter was asked for."""
    end = b"</ListBucketResult>"
    folder = b"<CommonPrefixes><Prefix>photos%2F</Prefix></CommonPrefixes>"
    return replace(answer, body=answer.body.replace(end, folder + end))


FAULTS: Final[Mapping[str, Callable[[Answer, random.Random], Answer]]] = {
    "slow_down": lambda *_: error(503, "SlowDown"),
    "too_many": lambda *_: error(429, "TooManyRequests"),
    "failed": lambda *_: error(500, "InternalError"),
    "bad_gateway": lambda *_: Answer(502, b"<html><body>Bad Gateway</body></html>"),
    "error_under_200": lambda *_: error(200, "InternalError"),
    "page_under_200": lambda *_: Answer(200, b"<html><body>Under maintenance</body></html>"),
    "nothing_under_200": lambda *_: Answer(200, b""),
    "slow_down_behind_blanks": _behind_blanks,
    "entities": _with_entities,
    "folder": _with_folder,
    "drip": lambda answer, _: replace(answer, drip_s=DRIP_S),
    "stall": lambda answer, _: replace(answer, delay_s=STALL_S),
    "slow": lambda answer, _: replace(answer, delay_s=SLOW_S),
    "reset": lambda answer, _: replace(answer, sent=-1, reset=True),
    "hang_up": lambda answer, _: replace(answer, sent=-1),
    "reset_inside": _reset_inside,
    "cut": _cut,
    "cut_xml": _cut_xml,
}
# These stay until somebody changes something, so a scanner may look away for long.
PERMANENT: Final[Mapping[str, Callable[[Answer, random.Random], Answer]]] = {
    "redirect": lambda *_: error(
        301, "PermanentRedirect", "<Endpoint>elsewhere.example.com</Endpoint>"
    ),
    "redirect_once": lambda *_: error(
        307, "TemporaryRedirect", Location="http://elsewhere.example.com/"
    ),
    "forbidden": lambda *_: error(403, "AccessDenied"),
    "no_such_bucket": lambda *_: error(404, "NoSuchBucket"),
}
# A listing that is no error, and does not show what is there: from the keys of a page and whether
# more follow, to what is shown of them.
LIES: Final[
    Mapping[str, Callable[[Sequence[str], bool, random.Random], tuple[list[str], bool]]]
] = {
    "leaves_out": lambda keys, more, dice: ([k for k in keys if dice.random() < SHOWN], more),
    "ends_early": lambda keys, *_: (list(keys), False),
    "shows_nothing": lambda *_: ([], False),
}
# A row that is there and cannot be read.
ODD_ROWS: Final[Sequence[tuple[bytes, bytes]]] = (
    (rb"<Size>\d+</Size>", b"<Size>-1</Size>"),
    (rb"<Size>\d+</Size>", b""),
    (rb"<LastModified>[^<]*</LastModified>", b"<LastModified/>"),
    (rb"<LastModified>[^<]*</LastModified>", b"<LastModified>0001-01-01T00:00:00Z</LastModified>"),
    (rb"</Key>", b"%FF%C3</Key>"),
)
# These are in how a listing is cut into pages and written, and no errors.
SHAPES: Final = (
    *("short_page", "empty_page", "other_style"),
    *("repeats", "gzip", "terse", "inclusive", "ignored"),
)
# What is shown depends on where a page begins, or on the node that shows it.
PLACES: Final = ("loses_place",)
ROWS: Final = ("odd_rows", "moved_clock")
# What HEAD says instead: that nobody may ask, that there is nothing, what was there before.
HEAD_LIES: Final = ("head_refused", "head_gone", "head_stale", "head_weak")
# Totals that are wrong: others than last time, or the same ones whatever changed.
TOTALS_LIES: Final[Mapping[str, Callable[[random.Random], int]]] = {
    "totals_move": lambda dice: dice.randrange(10**6),
    "totals_stay": lambda _: 7,
}
_KINDS: Final = frozenset(
    {*FAULTS, *PERMANENT, *LIES, *SHAPES, *PLACES, *ROWS, *HEAD_LIES, *TOTALS_LIES}
)


def zipped(answer: Answer) -> Answer:
    """Compress it, although nobody asked for that."""
    return replace(
        answer,
        body=gzip.compress(answer.body, 1),
        headers=(*answer.headers, ("Content-Encoding", "gzip")),
    )


class Dice:
    """Draws the faults of one endpoint. Rates are shares of all requests, by name."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._rates: dict[str, float] = {}
        self.drawn: dict[str, int] = {}

    def set(self, rates: Mapping[str, float]) -> None:
        if unknown := rates.keys() - _KINDS:
            raise KeyError(f"no such faults: {sorted(unknown)}")
        self._rates = dict(rates)

    def shape(self) -> str:
        """How this listing is shaped; "" as it should be."""
        return self._draw(SHAPES)

    def shown(self, keys: Sequence[str], more: bool) -> tuple[list[str], bool]:  # noqa: FBT001
        """What a page shows of its keys, and whether it says that more follow."""
        lie = LIES.get(self._draw(tuple(LIES))) if LIES.keys() & self._rates.keys() else None
        return lie(keys, more, self._dice) if lie else (list(keys), more)

    def loses_place(self) -> bool:
        """Tell whether a page that begins behind a key that is gone is taken for the end."""
        return bool(self._draw(PLACES))

    def written(self, rows: list[bytes]) -> list[bytes]:
        """Write the rows of a page as a node does that has its own clock, or makes mistakes."""
        match self._draw(ROWS) if rows else "":
            case "odd_rows":
                for _ in range(3):
                    pattern, odd = self._dice.choice(ODD_ROWS)
                    number = self._dice.randrange(len(rows))
                    rows[number] = re.sub(pattern, odd, rows[number])
            case "moved_clock":
                return [_moved(row) for row in rows]
        return rows

    def head(self) -> str:
        """Which lie HEAD tells; "" for the truth."""
        return self._draw(HEAD_LIES)

    def totals(self, objects: int, size_bytes: int) -> tuple[int, int]:
        """What HEAD of a bucket tells of its totals."""
        lie = TOTALS_LIES.get(self._draw(tuple(TOTALS_LIES)))
        return (lie(self._dice), lie(self._dice)) if lie else (objects, size_bytes)

    def spoil(self, answer: Answer) -> Answer:
        name = self._draw((*FAULTS, *PERMANENT))
        fault = FAULTS.get(name) or PERMANENT.get(name)
        return fault(answer, self._dice) if fault else answer

    def below(self, number: int) -> int:
        return self._dice.randrange(number)

    def _draw(self, names: tuple[str, ...]) -> str:
        rates = self._rates  # one moment of it: it is replaced whole
        drawn = self._dice.random()
        for name in names:
            drawn -= rates.get(name, 0.0)
            if drawn < 0:
                self.drawn[name] = self.drawn.get(name, 0) + 1
                return name
        return ""


def _moved(row: bytes) -> bytes:
    def move(written: re.Match[bytes]) -> bytes:
        moment = datetime.fromisoformat(written[1].decode()) + timedelta(milliseconds=MOVED_MS)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()

    return re.sub(rb"(?<=<LastModified>)([^<]*)", move, row)
