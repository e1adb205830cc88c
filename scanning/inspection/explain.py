"""One key of a bucket: what is known of it, and what a listing shows now. Changes nothing."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING

from scanning.core.errors import BucketwatchError, PermanentError
from scanning.core.explain import KeyFacts, Known, why_outside
from scanning.core.segments.key_ranges import is_within
from scanning.core.segments.model import states_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from scanning.core.explain import ScheduleStatus
    from scanning.core.types import BucketConfig, ObjectState
    from scanning.ports import KnownState, StateStore, Storage


def collect_facts(
    bucket: BucketConfig,
    key: str,
    *,
    states: StateStore,
    listed: Callable[[], ObjectState | None],
    schedule: ScheduleStatus,
    now: float,
) -> KeyFacts:
    """Collect all that counts for one key; a fact that cannot be had carries the reason.

    ``listed`` asks S3; it is not called for keys that no listing can show. Raises RedisUnavailable.
    """
    facts = KeyFacts(bucket, key, now, Known(), schedule, listed=None)
    if not why_outside(bucket, key):
        try:
            facts = replace(facts, listed=listed())
        except BucketwatchError as exc:
            facts = replace(facts, problem=str(exc))
    try:
        return replace(facts, known=known_of(states, bucket, key))
    except PermanentError as exc:
        return replace(facts, damage=str(exc))


def known_of(states: StateStore, bucket: BucketConfig, key: str) -> Known:
    """Read what is stored of a key. Raises StateDamaged, RedisUnavailable."""
    while (known := _known_of(states, bucket, key)) is None:
        pass  # a scan has written the segment anew after the manifest was read
    return known


def listed_of(storage: Storage, key: str) -> ObjectState | None:
    """List with ``key`` as the prefix: the key comes first, or not at all.

    One request. Raises the errors of S3.
    """
    columns = storage.rows(storage.page("", 1).entries).columns
    return states_of(columns, [0], 0.0).get(key) if len(columns) else None


def _known_of(states: StateStore, bucket: BucketConfig, key: str) -> Known | None:
    """Read what is stored of a key; None if it changed meanwhile."""
    known = states.open(bucket)
    row = _row(states, bucket, known, key)
    if row is None:
        return None
    state, is_missing, moved_to = row
    older = None
    if state is None and known.is_first and bucket.taken_over:
        [older] = states.older_states(bucket, [key])
    progress = known.progress
    return Known(
        state=state,
        is_missing=is_missing,
        older=older,
        is_first=known.is_first,
        older_scan_at=known.older_scan_at,
        began=progress.began if progress else None,
        is_covered=progress is not None
        and (progress.is_listed or key <= progress.after or is_within(key, known.ahead)),
        held_since=None if known.released else known.held_since,
        moved_to=moved_to,
        held_moved_since=None if known.released_moved else known.held_moved_since,
        takes_times=known.takes_times,
        objects=sum(entry.count for entry in known.entries),
    )


def _row(
    states: StateStore, bucket: BucketConfig, known: KnownState, key: str
) -> tuple[ObjectState | None, bool, float | None] | None:
    """Read the key's stored state, and what is noted of it; None if the segment was rewritten.

    That is whether its listing lacked it, and the time that its listing showed, if only that moved.
    """
    place = bisect_left(known.entries, key, key=lambda entry: entry.last_key)
    if place == len(known.entries):
        return None, False, None
    entry = known.entries[place]
    columns = states.read_segment(bucket, entry)
    if columns is None:
        return None
    row = bisect_left(columns.keys, key)
    if row == len(columns) or columns.keys[row] != key:
        return None, False, None
    times = dict(zip(entry.moved, entry.moved_times, strict=True))
    moved_to = times[row] / 1000 if row in times else None
    return states_of(columns, [row], 0.0)[key], row in entry.missing, moved_to
