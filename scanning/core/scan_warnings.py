"""What a server did that a scan coped with: counted by kind, with a few examples, for people.

A warning never ends a scan. What a pass warned of stands at its bucket until the next pass ends.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from scanning.core.remedies import Remedy
from scanning.core.texts import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MOST_EXAMPLES: Final = 5
_MOST_EXAMPLE: Final = 200


class WarningKind(StrEnum):
    ODD_ROW = "odd_row"
    CONFLICTING_ROWS = "conflicting_rows"
    CONTRADICTED_ABSENCE = "contradicted_absence"
    UNCONFIRMED_ABSENCE = "unconfirmed_absence"
    HEAD_REFUSED = "head_refused"
    HEAD_MISMATCH = "head_mismatch"
    LEFT_OUT = "left_out"


# The meaning follows a number of objects.
EXPLAINED: Final = {
    WarningKind.ODD_ROW: Remedy(
        "listed in a way that cannot be read: left out, and never announced",
        "Rename or remove these objects with the client that made them; the rest of the bucket is "
        "watched as usual.",
    ),
    WarningKind.CONFLICTING_ROWS: Remedy(
        "listed twice with different ETag, size or time: the last row counts",
        "The server's index is inconsistent. Ask its operator to check the bucket's index.",
    ),
    WarningKind.CONTRADICTED_ABSENCE: Remedy(
        "missing from the listing, and there when asked for by name: not announced as deleted",
        "The server's listings are incomplete. Ask its operator to check the bucket's index.",
    ),
    WarningKind.UNCONFIRMED_ABSENCE: Remedy(
        "missing from one listing: announced as deleted if the next complete one lacks them too",
        "Nothing: these keys may not ask for objects (HEAD). Allow GetObject or ListBucket to hear "
        "of deletions one polling interval earlier.",
    ),
    WarningKind.HEAD_REFUSED: Remedy(
        "announced without content type and metadata: HEAD was refused",
        "Allow the bucket's key to read objects (GetObject), or turn its metadata off.",
    ),
    WarningKind.HEAD_MISMATCH: Remedy(
        "announced without content type and metadata: HEAD told of another version each time",
        "Listing and HEAD of this server disagree. Ask its operator, or turn the bucket's metadata "
        "off.",
    ),
    WarningKind.LEFT_OUT: Remedy(
        "left out, because the bucket has as many as it may: neither known nor announced",
        "Raise SCAN_MOST_OBJECTS or the bucket's own limit, or remove objects: what is left out is "
        "announced as soon as there is room.",
    ),
}


@dataclass(frozen=True, slots=True)
class ScanWarning:
    """``count`` objects that one kind of oddity concerns; ``examples`` are printable keys."""

    kind: WarningKind
    count: int
    examples: tuple[str, ...] = ()


class ScanWarnings:
    """Collects what a scan warns of. Lanes and HEADs of one scan add to it one after the other."""

    def __init__(self, earlier: Iterable[ScanWarning] = ()) -> None:
        self._found = {warning.kind: warning for warning in earlier}

    def add(self, kind: WarningKind, *examples: str, count: int | None = None) -> None:
        """Count an oddity at ``examples``, which are keys as the server wrote them."""
        known = self._found.get(kind, ScanWarning(kind, 0))
        room = MOST_EXAMPLES - len(known.examples)
        shown = tuple(clean(text, _MOST_EXAMPLE) for text in examples[:room])
        number = len(examples) if count is None else count
        self._found[kind] = ScanWarning(kind, known.count + number, known.examples + shown)

    def take(self) -> tuple[ScanWarning, ...]:
        """Hand out what was collected, and begin anew."""
        if not self._found:  # nearly always, and asked with each page
            return ()
        taken = tuple(self)
        self._found.clear()
        return taken

    def merge(self, others: Iterable[ScanWarning]) -> None:
        for warning in others:
            self.add(warning.kind, *warning.examples, count=warning.count)

    def count_of(self, kind: WarningKind) -> int:
        return self._found[kind].count if kind in self._found else 0

    def __iter__(self) -> Iterator[ScanWarning]:
        return iter([self._found[kind] for kind in WarningKind if kind in self._found])


def as_rows(warnings: Iterable[ScanWarning]) -> list[list[str | int]]:
    """Write warnings as rows of kind, count and examples."""
    return [[str(w.kind), w.count, *w.examples] for w in warnings]


def from_rows(rows: Iterable[Sequence[Any]]) -> tuple[ScanWarning, ...]:
    """Read what `as_rows` wrote; kinds that a later version wrote are left out."""
    known = set(WarningKind)
    return tuple(
        ScanWarning(WarningKind(kind), int(count), tuple(map(str, examples)))
        for kind, count, *examples in rows
        if kind in known
    )


def as_json(warnings: Iterable[ScanWarning]) -> str:
    """Write warnings as Redis keeps them; "" if there are none."""
    rows = as_rows(warnings)
    return json.dumps(rows) if rows else ""


def from_json(text: str | None) -> tuple[ScanWarning, ...]:
    return from_rows(json.loads(text)) if text else ()
