"""A state store that remembers nothing after the scan: for looking without touching."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.listing import Columns
    from scanning.core.types import BucketConfig, Claim, ObjectState
    from scanning.ports import Commit, KnownState, StateStore


class ReadOnlyStates:
    """Implements `ports.StateStore` over another one that it only reads.

    Of what the scan commits it keeps what the same scan may read again: the last segment, which
    the next may join (in a scan of one lane), and segments with missing rows.
    """

    def __init__(self, states: StateStore) -> None:
        self._states = states
        self._written: dict[str, Columns] = {}
        self._last: dict[str, Columns] = {}

    def open(self, bucket: BucketConfig) -> KnownState:
        return self._states.open(bucket)

    def load(self, bucket: BucketConfig, segments: Sequence[str]) -> list[Columns]:
        ours = self._written | self._last
        return [
            ours[id_] if id_ in ours else self._states.load(bucket, [id_])[0] for id_ in segments
        ]

    def older_states(self, bucket: BucketConfig, keys: Sequence[str]) -> list[ObjectState | None]:
        return self._states.older_states(bucket, keys)

    def commit(self, claim: Claim, commit: Commit) -> None:  # noqa: ARG002 - the port's signature
        written = {p.entry.id: p.columns for p in commit.pieces if p.columns is not None}
        missing = {p.entry.id for p in commit.pieces if p.entry.missing}
        # Marks may come to rows that the commit before wrote.
        rows_at_hand = self._last | written
        self._written |= {id_: rows for id_, rows in rows_at_hand.items() if id_ in missing}
        if written:
            self._last = written
