"""States that remember nothing after the scan: for looking without touching."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import IO, TYPE_CHECKING

from scanning.adapters.redis import segment_codec
from scanning.core.errors import CommitOutOfStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scanning.core.listing.body import Columns
    from scanning.core.segments.model import Entry
    from scanning.core.types import BucketConfig, Claim, ObjectState
    from scanning.ports import Commit, KnownState, Position, StateStore

_IN_MEMORY_BYTES = 1 << 24


@contextlib.contextmanager
def reading_only(
    states: StateStore, announce: Callable[[Sequence[str]], None]
) -> Iterator[ReadOnlyStateStore]:
    """Open the known state for one scan that changes none of it."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
        yield ReadOnlyStateStore(states, file, announce)


class ReadOnlyStateStore:
    """Implements `ports.StateStore` over another one that it only reads.

    Of what the scan commits it keeps what the same scan may read again: the last segment, which
    the next may join (in a scan of one lane), and, in ``file``, segments with marked rows, or
    with moved times that were taken.
    ``announce`` is given the notifications that each commit would queue.
    """

    def __init__(
        self, states: StateStore, file: IO[bytes], announce: Callable[[Sequence[str]], None]
    ) -> None:
        self._states = states
        self._file = file
        self._announce = announce
        self._opened: dict[str, Entry] = {}
        self._last: dict[str, Columns] = {}
        self._places: dict[str, tuple[int, int]] = {}

    def open(self, bucket: BucketConfig, claim: Claim | None = None) -> KnownState:
        known = self._states.open(bucket)
        self._opened = {entry.id: entry for entry in known.entries}
        return known

    def load(
        self,
        bucket: BucketConfig,
        segments: Sequence[str],
        at: Position | None = None,
    ) -> list[Columns]:
        return [self._own(id_) or self._known(bucket, id_) for id_ in segments]

    def read_segment(self, bucket: BucketConfig, entry: Entry) -> Columns | None:
        return self._states.read_segment(bucket, entry)

    def older_states(self, bucket: BucketConfig, keys: Sequence[str]) -> list[ObjectState | None]:
        return self._states.older_states(bucket, keys)

    def commit(self, claim: Claim, commit: Commit) -> None:
        if commit.notifications:
            self._announce(commit.notifications)
        written = {p.entry.id: p.columns for p in commit.pieces if p.columns is not None}
        # Marks may come to rows that the commit before wrote.
        rows_at_hand = self._last | written
        for piece in commit.pieces:
            id_, before = piece.entry.id, self._opened.get(piece.entry.id)
            is_marked = piece.entry.missing or piece.entry.moved or (before and before.moved)
            if is_marked and id_ in rows_at_hand:
                self._keep(id_, rows_at_hand[id_])
        if written:
            self._last = written

    def begin(self, claim: Claim, commit: Commit) -> Callable[[], None]:
        self.commit(claim, commit)
        return lambda: None

    def _known(self, bucket: BucketConfig, id_: str) -> Columns:
        rows = self.read_segment(bucket, self._opened[id_])
        if rows is None:
            raise CommitOutOfStep(
                f"{bucket.name}: a scan changed what is known of it meanwhile; run this again"
            )
        return rows

    def _own(self, id_: str) -> Columns | None:
        if id_ in self._last or id_ not in self._places:
            return self._last.get(id_)
        place, length = self._places[id_]
        self._file.seek(place)
        return segment_codec.unpack_rows(self._file.read(length))

    def _keep(self, id_: str, rows: Columns) -> None:
        packed = segment_codec.pack_rows(rows)
        self._places[id_] = (self._file.seek(0, os.SEEK_END), len(packed))
        self._file.write(packed)
