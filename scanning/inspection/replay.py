"""Announce again what is known of a bucket, without asking S3 for anything but HEADs.

The notifications go through the same numbered, fenced commits as those of scans, so that a key's
events stay in order and none is queued twice. The lease is given back every few seconds: scans of
the bucket come in between, and what they change is announced by them.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scanning.core import notification
from scanning.core.changes import classify
from scanning.core.errors import (
    BucketwatchError,
    CommitOutOfStep,
    ConfigurationChanged,
    LeaseLost,
    QueueFull,
)
from scanning.core.replay import as_replay
from scanning.core.segments.model import states_of
from scanning.core.segments.writer import entries_after
from scanning.core.types import Change
from scanning.inspection.stored_segments import open_whole, read_beside_scans
from scanning.ports import Commit, Position
from scanning.scan.notifier import Notifier

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from scanning.core.listing.body import Columns
    from scanning.core.replay import Selection
    from scanning.core.segments.model import Entry
    from scanning.core.types import BucketConfig, Claim
    from scanning.ports import KnownState, Leases, StateStore, Storage
    from scanning.scan.heartbeat import LeaseHeartbeat

_SLICE_S = 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """How far a replay has come; ``waits_for`` says what it waits for, "" if for nothing."""

    announced: int
    after: str
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """Known objects that were chosen: those to announce, and those that the bucket leaves out."""

    wanted: int
    left_out: int


@dataclass(frozen=True, slots=True)
class ReplayContext:
    """What a replay needs of the world.

    ``bucket`` reads the configuration anew; it raises ConfigurationChanged if there is none to
    announce with.
    """

    bucket: Callable[[], BucketConfig]
    storage: Storage
    states: StateStore
    leases: Leases
    heartbeat: LeaseHeartbeat
    slots: int


class Replay:
    """Known objects that ``chosen`` selects, announced again as the replay ``id_``.

    It begins after the key ``after``: where an earlier run of the same id was interrupted.
    """

    def __init__(
        self, context: ReplayContext, chosen: Selection, *, id_: str, after: str = ""
    ) -> None:
        self.id = id_
        self._context, self._chosen = context, chosen
        self._after = after
        self._announced = self._number = 0
        self._done = False

    def count(self) -> Counted:
        """How many objects there are to announce now. Reads all that is known of them."""
        bucket = self._context.bucket()
        wanted = chosen = 0
        with Notifier(bucket, self._context.storage) as notifier:
            for _, changes in self._changes(self._segments_beside_scans(bucket)):
                chosen += len(changes)
                wanted += len(notifier.select(changes))
        return Counted(wanted, chosen - wanted)

    def notifications(self) -> Iterator[str]:
        """What would be queued, but without what HEAD says, and with the sequencer of no commit."""
        bucket = replace(self._context.bucket(), fetch_metadata=False)
        order = notification.sequencer(0, 0)
        with Notifier(bucket, self._context.storage) as notifier:
            for _, changes in self._changes(self._segments_beside_scans(bucket)):
                wanted = notifier.select(changes)
                for text in notifier.notifications(wanted, now=time.time(), sequencer=order):
                    yield as_replay(text, self.id)

    def run(self) -> Generator[Step, None, None]:
        """Announce everything; a step after each commit, and whenever there is a reason to wait.

        Whoever takes a step that waits for something takes the next one a moment later. Raises
        ConfigurationChanged when the bucket was changed so that it cannot go on.
        """
        context = self._context
        while not self._done:
            bucket = context.bucket()
            claim = context.leases.claim(bucket, slots=context.slots)
            if claim is None:
                yield self._step("the bucket is being scanned, or its region has no free slot")
                continue
            try:
                with context.heartbeat.keeping(claim):
                    yield from self._slice(bucket, claim)
            except QueueFull:
                waits_for = "the queue is half full: consumers have to read first"
            except (LeaseLost, CommitOutOfStep) as exc:
                waits_for = str(exc)
            else:
                waits_for = ""
            finally:
                with contextlib.suppress(BucketwatchError):  # it expires by itself
                    context.leases.release(claim)
            if waits_for:
                yield self._step(waits_for)

    def _step(self, waits_for: str = "") -> Step:
        return Step(self._announced, self._after, waits_for)

    def _slice(self, bucket: BucketConfig, claim: Claim) -> Iterator[Step]:
        if claim.generation != bucket.generation:
            raise ConfigurationChanged(f"{bucket.name}: removed or changed during the replay")
        until = time.monotonic() + _SLICE_S
        known = open_whole(self._context.states, bucket, claim)
        self._number = known.commit
        with Notifier(bucket, self._context.storage) as notifier:
            for last_key, changes in self._changes(self._segments(known, claim, bucket)):
                if wanted := notifier.select(changes):
                    self._commit(notifier, claim, known, wanted)
                self._after = last_key
                yield self._step()
                if time.monotonic() >= until:
                    return
        self._done = True

    def _changes(
        self, segments: Iterator[tuple[Entry, Columns]]
    ) -> Iterator[tuple[str, list[Change]]]:
        """Segment by segment its last key, and what is to be said of the chosen rows."""
        after = self._after
        for entry, columns in segments:
            yield entry.last_key, self._of_rows(columns, entry.missing, after)
            after = entry.last_key
            if self._chosen.is_past(after):
                return

    def _segments(
        self, known: KnownState, claim: Claim, bucket: BucketConfig
    ) -> Iterator[tuple[Entry, Columns]]:
        """The segments that may hold chosen rows, while a lease keeps scans away."""
        for entry in self._entries(known, self._after):
            at = Position(claim.fence, self._number)
            [columns] = self._context.states.load(bucket, [entry.id], at)
            yield entry, columns

    def _segments_beside_scans(self, bucket: BucketConfig) -> Iterator[tuple[Entry, Columns]]:
        """The same without a lease."""
        states = self._context.states
        known = open_whole(states, bucket)
        return read_beside_scans(states, bucket, known, self._entries, after=self._after)

    def _entries(self, known: KnownState, after: str) -> Sequence[Entry]:
        """Those from the first on that reaches beyond ``after`` and has chosen keys."""
        entries, prefix = known.entries, self._chosen.prefix
        start = max(
            entries_after(entries, after),
            bisect_left(entries, prefix, key=lambda entry: entry.last_key),
        )
        return entries[start:]

    def _of_rows(self, columns: Columns, missing: tuple[int, ...], after: str) -> list[Change]:
        now = time.time()
        rows = self._chosen.rows(columns, missing=frozenset(missing), after=after)
        return [
            Change(event_type, key, state, None)
            for key, state in states_of(columns, rows, now).items()
            if (event_type := classify(None, state, now=now))
        ]

    def _commit(
        self,
        notifier: Notifier,
        claim: Claim,
        known: KnownState,
        changes: list[Change],
    ) -> None:
        number, now = self._number + 1, time.time()
        order = notification.sequencer(claim.fence, number)
        texts = notifier.notifications(changes, now=now, sequencer=order)
        self._context.states.commit(
            claim,
            Commit(
                number,
                notifications=[as_replay(text, self.id) for text in texts],
                recent=notifier.recent_entry(changes, now=now, replay=self.id),
                # A pass that is under way goes on where it was.
                progress=known.progress,
                warnings=known.warnings,
            ),
        )
        self._number = number
        self._announced += len(changes)
