"""What can be wrong with what is stored of a bucket, apart from what changed in the bucket."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from operator import lt
from typing import TYPE_CHECKING

from scanning.core.segments.matcher import digest
from scanning.core.segments.model import Marks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.listing.body import Columns
    from scanning.core.segments.matcher import Listed
    from scanning.core.segments.model import Entry, Merged
    from scanning.core.types import ObjectState

_MOST_EXAMPLES = 5


class Fault(StrEnum):
    """The names are those of ``runscan --full --json``."""

    LOST = "lost_segments"  # rows that are not there, cannot be read, or are not in order
    ENTRY = "wrong_entries"  # the manifest says something else of a segment than its rows
    HIDDEN = "hidden_rows"  # rows that differ from a listing which has the stored digest
    DIGEST = "wrong_digests"  # rows that are right under a digest that is not
    STRING = "wrong_states"  # documented states that are missing or differ from their rows
    COUNT = "wrong_counts"  # the number of objects that was noted with the last scan


@dataclass(slots=True)
class Findings:
    """``wrong`` counts faults; ``examples`` are the first keys of each kind."""

    segments: int = 0
    wrong: Counter[Fault] = field(default_factory=Counter)
    examples: dict[Fault, list[str]] = field(default_factory=dict)

    def add(self, fault: Fault, keys: Sequence[str], number: int | None = None) -> None:
        """Note a fault of these keys, once for each of them, or ``number`` times together."""
        self.wrong[fault] += len(keys) if number is None else number
        shown = self.examples.setdefault(fault, [])
        shown += keys[: _MOST_EXAMPLES - len(shown)]


def are_sound(columns: Columns, entry: Entry, *, after: str) -> bool:
    """Tell whether these can be the rows of a segment that stands after the key ``after``."""
    keys = columns.keys
    in_place = bool(keys) and after < keys[0] and keys[-1] <= entry.last_key
    return in_place and all(map(lt, keys, keys[1:]))


def corrected_entry(entry: Entry, columns: Columns) -> Entry:
    """Correct the entry if it does not describe these rows; it has no digest then."""
    count, missing = len(columns), entry.missing
    in_range = all(_are_rows(rows, count) for rows in (missing, entry.moved))
    in_range = in_range and set(entry.absent) <= set(missing)
    if in_range and (entry.count, entry.last_key) == (count, columns.keys[-1]):
        return entry
    corrected = replace(entry, count=count, last_key=columns.keys[-1])
    if not in_range:
        corrected = corrected.with_marks(Marks())
    return without_digest(corrected)


def _are_rows(numbers: Sequence[int], count: int) -> bool:
    """Tell whether these number some of ``count`` rows, in order."""
    return all(0 <= n < count for n in numbers) and all(map(lt, numbers, numbers[1:]))


def without_digest(entry: Entry) -> Entry:
    """Make the next scan compare the segment row by row."""
    return replace(entry, digest=b"", length=0, raw_key=b"")


def fault_of_digest(entry: Entry, found: Listed, merged: Merged) -> Fault | None:
    """Check a segment's digest, now that all of its range was listed."""
    if not entry.digest:
        return None
    fits = digest(found.raw) == entry.digest and len(found.raw) == entry.length
    moved = merged.moved, merged.moved_times
    is_same = merged.same and merged.missing == entry.missing
    is_same = is_same and moved == (entry.moved, entry.moved_times)
    if fits and not is_same:
        return Fault.HIDDEN
    return Fault.DIGEST if is_same and not fits else None


def differing(merged: Merged) -> list[str]:
    """Find the keys whose rows are not what was listed."""
    rows = sorted({*merged.missing, *merged.appeared, *merged.updated, *merged.moved})
    return [merged.columns.keys[n] for n in rows]


def wrong_states(
    columns: Columns, rows: Sequence[int], stored: Sequence[ObjectState | None]
) -> list[str]:
    """Find the keys of rows whose documented states, in the same order, are not theirs."""
    return [
        columns.keys[row]
        for row, state in zip(rows, stored, strict=True)
        if state is None
        or (state.etag, round(state.last_modified * 1000), state.size)
        != (columns.etags[row], columns.last_modified[row], columns.sizes[row])
    ]
