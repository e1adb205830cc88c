"""The second witness of a deletion: HEAD of each key that a listing lacks, or the next listing."""

from __future__ import annotations

import logging
import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol

from scanning import logs
from scanning.core.deletions import (
    HeadAnswer,
    HeadVerdict,
    is_second_listing,
    judge_head,
    tells_missing_keys,
)
from scanning.core.errors import BucketwatchError, ScanAborted
from scanning.core.scan_warnings import WarningKind
from scanning.core.segments.model import states_of
from scanning.scan.lane_splitter import Lane
from scanning.scan.prefetch import list_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from scanning.core.changes import Version
    from scanning.core.listing.body import Columns
    from scanning.core.segments.model import Entry
    from scanning.core.types import BucketConfig, ObjectState
    from scanning.scan.context import ScanContext

logger = logging.getLogger(__name__)

HEADS_AT_ONCE: Final = 8
# After so many unanswered HEADs a scan sends no more: the rest waits for the next one.
UNANSWERED_LIMIT: Final = 16
# Beyond so many missing keys, HEAD is sent for a sample of them, and their ranges are listed again.
BULK_THRESHOLD: Final = 1000
SAMPLE_SIZE: Final = 100
_RANDOM: Final = random.SystemRandom()
_RUN: Final = 20  # segments whose missing rows are compared with a second listing at once


class DeletionConfirmer(Protocol):
    """Confirms that missing rows are gone. ``marks``: it counts on what earlier passes marked."""

    marks: bool

    def confirm(self, entry: Entry, columns: Columns) -> Collection[int]:
        """Return the missing rows of a segment that are confirmed to be gone."""


class NoConfirmer:
    """Takes every listing's word."""

    marks = False

    def confirm(self, entry: Entry, columns: Columns) -> Collection[int]:
        return entry.missing


class ListingConfirmer:
    """Confirms what an earlier complete pass lacked too, an interval before this one ``began``.

    ``replaces_head``: HEAD is refused, which an operator may want to change.
    """

    marks = True

    def __init__(self, context: ScanContext, *, began: float, replaces_head: bool) -> None:
        self._context, self._began, self._replaces_head = context, began, replaces_head

    def confirm(self, entry: Entry, columns: Columns) -> Collection[int]:
        interval_s = self._context.settings.interval_s
        ripe = is_second_listing(entry.absent_since, self._began, interval_s=interval_s)
        gone = entry.absent if ripe else ()
        if self._replaces_head and (waiting := set(entry.missing) - set(gone)):
            keys = [columns.keys[row] for row in sorted(waiting)]
            self._context.warnings.add(WarningKind.UNCONFIRMED_ABSENCE, *keys)
        return gone


class HeadConfirmer:
    """Confirms what HEAD says is gone (404); close it when the scan ends.

    What is there by HEAD is warned of. What HEAD does not answer for waits for the next pass.
    """

    marks = False

    def __init__(self, bucket: BucketConfig, context: ScanContext) -> None:
        self._bucket, self._context = bucket, context
        self._unanswered = 0
        self._all_confirmed = False
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def is_trustworthy(self) -> bool | None:
        """Learn whether HEAD tells what is gone from what is not; None without an answer."""
        answer = self._head(f"{self._bucket.prefix}{uuid.uuid4()}")
        return None if answer is None else tells_missing_keys(answer)

    def confirm(self, entry: Entry, columns: Columns) -> Collection[int]:
        if self._all_confirmed:
            return entry.missing
        states = states_of(columns, entry.missing, 0.0)
        verdicts = self._ask(states)
        contradicted = [key for key in verdicts if verdicts[key] is HeadVerdict.EXISTS]
        if contradicted:
            self._context.warnings.add(WarningKind.CONTRADICTED_ABSENCE, *contradicted)
        rows = zip(entry.missing, verdicts.values(), strict=True)
        return [row for row, verdict in rows if verdict is HeadVerdict.GONE]

    # --- many missing keys at once

    def confirm_all(
        self, entries: Sequence[Entry], load: Callable[[str], Columns], *, after: str
    ) -> bool:
        """Send HEAD for a sample of the missing keys, list their ranges again, then confirm all.

        ``entries`` begin after the key ``after``. If a single key is there, none of them counts as
        gone, and the warning counts them all.
        """
        contradicted, unsure = self._ask_for_sample(entries, load)
        if not contradicted and not unsure:
            contradicted, unsure = self._list_again(entries, load, after)
        if contradicted:
            missing = sum(len(entry.missing) for entry in entries)
            kind = WarningKind.CONTRADICTED_ABSENCE
            self._context.warnings.add(kind, *contradicted, count=missing)
        self._all_confirmed = not contradicted and not unsure
        return self._all_confirmed

    def _ask_for_sample(
        self, entries: Sequence[Entry], load: Callable[[str], Columns]
    ) -> tuple[list[str], bool]:
        missing = sum(len(entry.missing) for entry in entries)
        chosen = iter(sorted(_RANDOM.sample(range(missing), min(SAMPLE_SIZE, missing))))
        states: dict[str, ObjectState] = {}
        start, number = 0, next(chosen, None)
        for entry in entries:
            end, rows = start + len(entry.missing), list[int]()
            while number is not None and number < end:
                rows.append(entry.missing[number - start])
                number = next(chosen, None)
            if rows:
                states |= states_of(load(entry.id), rows, 0.0)
            start = end
        verdicts = self._ask(states)
        contradicted = [key for key in verdicts if verdicts[key] is HeadVerdict.EXISTS]
        return contradicted, set(verdicts.values()) != {HeadVerdict.GONE}

    def _list_again(
        self, entries: Sequence[Entry], load: Callable[[str], Columns], after: str
    ) -> tuple[list[str], bool]:
        context, contradicted, is_put_back = self._context, [], False
        for lane, run in _runs_with_missing_rows(entries, after):
            known: dict[str, ObjectState] = {}
            for entry in run:
                known |= states_of(load(entry.id), entry.missing, 0.0)
            for page in list_pages(context.storage, lane, page_size=context.settings.page_size):
                context.keep_going()
                context.counts.pages += 1
                rows = context.storage.rows(page.entries)
                listed = states_of(rows.columns, range(len(rows.columns)), 0.0)
                contradicted += [row.key for row in rows.odd if row.key in known]
                for key in known.keys() & listed.keys():
                    if known[key] == listed[key]:
                        contradicted.append(key)
                    else:
                        is_put_back = True
        return contradicted, is_put_back

    # --- asking

    def _ask(self, states: Mapping[str, ObjectState]) -> dict[str, HeadVerdict]:
        """Ask for keys, some at once; in the order of ``states``."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(
                HEADS_AT_ONCE, "witness", initializer=logs.adopt, initargs=(logs.this_scan(),)
            )
        verdicts = self._pool.map(self._verdict, states.keys(), states.values())
        return dict(zip(states, verdicts, strict=True))

    def _verdict(self, key: str, known: ObjectState) -> HeadVerdict:
        answer = self._head(key)
        return HeadVerdict.UNANSWERED if answer is None else judge_head(answer, known[:3])

    def _head(self, key: str) -> Version | HeadAnswer | None:
        self._context.keep_going()
        if self._unanswered >= UNANSWERED_LIMIT:
            return None
        try:
            return self._context.storage.look_up(key)
        except ScanAborted:
            raise
        except BucketwatchError as exc:
            self._unanswered += 1
            logger.info("%s: HEAD says nothing of a missing object: %s", self._bucket.name, exc)
            return None


def _runs_with_missing_rows(
    entries: Sequence[Entry], after: str
) -> Iterator[tuple[Lane, Sequence[Entry]]]:
    """Cut out neighbouring segments with missing rows, and the range that each run covers."""
    begin = after
    run: list[Entry] = []
    for entry in entries:
        if entry.missing:
            if not run:
                begin = after
            run.append(entry)
        if run and (not entry.missing or len(run) == _RUN):
            yield Lane(begin, run[-1].last_key), run
            run = []
        after = entry.last_key
    if run:
        yield Lane(begin, run[-1].last_key), run
