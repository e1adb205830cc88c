"""Stored segments, read without a lease while scans go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanning.core.errors import StateDamaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from scanning.core.listing.body import Columns
    from scanning.core.segments.model import Entry
    from scanning.core.types import BucketConfig, Claim
    from scanning.ports import KnownState, StateStore


def open_whole(states: StateStore, bucket: BucketConfig, claim: Claim | None = None) -> KnownState:
    """Open a bucket; raises StateDamaged if a segment is lost, and what ``open`` raises."""
    known = states.open(bucket, claim)
    if not known.is_whole:
        raise StateDamaged.of(bucket.name)
    return known


def read_beside_scans(
    states: StateStore,
    bucket: BucketConfig,
    known: KnownState,
    choose: Callable[[KnownState, str], Iterable[Entry]],
    *,
    after: str = "",
) -> Iterator[tuple[Entry, Columns]]:
    """Read the segments that ``choose`` takes of those that reach beyond a key, one at a time.

    A segment that a scan has joined, cut or written anew since the manifest was read is looked up
    again, behind the last key: so no key comes twice, and none is left out, if the reader passes
    over the rows up to the last key before.
    """
    while True:
        for entry in choose(known, after):
            columns = states.read_segment(bucket, entry)
            if columns is None:
                break
            yield entry, columns
            after = entry.last_key
        else:
            return
        known = open_whole(states, bucket)
