"""The ports in memory: a bucket, and what is remembered of it."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from scanning.core.changes import Version
from scanning.core.deletions import HeadAnswer
from scanning.core.errors import CommitOutOfStep, StateDamaged, TransientError
from scanning.core.listing.body import Columns, UnreadableListing, render_entries
from scanning.core.listing.rows import ListedRows, read_entries
from scanning.core.scan_warnings import ScanWarning
from scanning.core.segments.key_ranges import Covered
from scanning.core.segments.model import Entry
from scanning.core.totals import NO_CHANGE, Totals
from scanning.core.types import (
    BucketConfig,
    Claim,
    KeyPair,
    LookRequest,
    ObjectMetadata,
    ObjectState,
    ScanCounts,
)
from scanning.core.vault_names import entries_of, pairs_in
from scanning.ports import Commit, KnownState, Position, Progress, Storage
from scanning.scan.bucket_pass import BucketPass, PassEnd
from scanning.scan.context import ScanContext, ScanSettings
from scanning.scan.look import BucketLook, LookEnd

Bucket = dict[str, tuple[str, int, int]]
"""Key -> ETag, last_modified (ms), size."""


@dataclass(frozen=True)
class FakePage:
    entries: bytes
    last_key: str
    is_truncated: bool


class FakeStorage:
    """A bucket; ``short`` says by how many rows each page falls short, one after the other.

    ``render`` writes entries as the server does; ``heads`` are the answers of HEAD.
    """

    def __init__(
        self,
        objects: Bucket,
        short: Sequence[int] = (),
        *,
        render: Callable[[Columns], bytes] = render_entries,
        heads: Mapping[str, ObjectMetadata | Exception] | None = None,
    ) -> None:
        self.objects = objects
        self.short = list(short)
        self.render, self.heads = render, heads or {}
        self.requests = 0
        self.parsed = 0
        self.asked: list[str] = []

    def page(self, start_after: str, max_keys: int) -> FakePage:
        self.requests += 1
        keys = sorted(key for key in self.objects if key > start_after)
        fewer = self.short.pop() if self.short else 0
        most = max(1, max_keys - fewer)
        columns = columns_of({key: self.objects[key] for key in keys[:most]})
        last = columns.keys[-1] if columns.keys else ""
        return FakePage(self.render(columns), last, len(keys) > most)

    def begins_anywhere(self) -> bool:
        return True

    def rows(self, entries: bytes) -> ListedRows:
        self.parsed += bool(entries)
        return read_entries(entries, url_encoded=True, by_parser=no_parser)

    def head(self, key: str) -> ObjectMetadata | None:
        self.asked.append(key)
        answer = self.heads.get(key)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def look_up(self, key: str) -> Version | HeadAnswer:
        found = self.objects.get(key)
        return (found[0], found[1] // 1000, found[2]) if found else HeadAnswer.GONE

    def totals(self) -> Totals | None:
        return Totals(len(self.objects), sum(size for _, _, size in self.objects.values()))


def no_parser(entries: bytes) -> Columns:
    raise UnreadableListing("it is of no usual shape")


def columns_of(objects: Bucket) -> Columns:
    keys = sorted(objects)
    return Columns(
        keys,
        [objects[key][0] for key in keys],
        [objects[key][1] for key in keys],
        [objects[key][2] for key in keys],
    )


class Crash(TransientError):
    """Somebody pulled the plug."""


def crash_if(condition: object) -> None:
    if condition:
        raise Crash


@dataclass
class FakeStates:
    """``before_commit`` and ``after_commit`` may raise, as a crash at that moment would."""

    segments: dict[str, Columns] = field(default_factory=dict)
    manifest: dict[str, Entry] = field(default_factory=dict)
    queue: list[dict[str, Any]] = field(default_factory=list)
    strings: dict[str, ObjectState] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    number: int = 0
    progress: Progress | None = None
    ahead: Sequence[Covered] = ()
    complete: bool = False
    held_since: float | None = None
    released: int = 0
    held_moved_since: float | None = None
    released_moved: int = 0
    takes_times: bool = False
    stuck: int = 0
    warnings: tuple[ScanWarning, ...] = ()
    older_scan_at: float | None = None
    loads: int = 0
    listed: Totals = NO_CHANGE
    last_pass_at: float | None = None
    totals_apart: Totals | None = None
    totals_before: Totals | None = None
    before_commit: Callable[[], None] = lambda: None
    after_commit: Callable[[], None] = lambda: None

    def open(self, bucket: BucketConfig, claim: Claim | None = None) -> KnownState:
        entries = sorted(self.manifest.values(), key=lambda entry: entry.last_key)
        return KnownState(
            entries,
            self.progress,
            is_first=not self.complete,
            held_since=self.held_since,
            released=self.released,
            commit=self.number,
            older_scan_at=self.older_scan_at,
            stuck=self.stuck,
            warnings=self.warnings,
            ahead=self.ahead,
            held_moved_since=self.held_moved_since,
            released_moved=self.released_moved,
            takes_times=self.takes_times,
            last_pass_at=self.last_pass_at,
            listed=self.listed,
            totals_apart=self.totals_apart,
            totals_before=self.totals_before,
        )

    def load(
        self, bucket: BucketConfig, segments: Sequence[str], at: Position | None = None
    ) -> list[Columns]:
        self.loads += 1
        if at is not None and at.commit != self.number:
            raise CommitOutOfStep("out of step")
        try:
            return [self.segments[id_] for id_ in segments]
        except KeyError as exc:
            raise StateDamaged("a part of its state is missing") from exc

    def read_segment(self, bucket: BucketConfig, entry: Entry) -> Columns | None:
        if self.manifest.get(entry.id) != entry:
            return None
        [columns] = self.load(bucket, [entry.id])
        return columns

    def older_states(self, bucket: BucketConfig, keys: Sequence[str]) -> list[ObjectState | None]:
        return [self.strings.get(key) for key in keys]

    def begin(self, claim: Claim, commit: Commit) -> Callable[[], None]:
        """Commit as late as may be: nothing has happened until the commit is waited for."""
        return partial(self.commit, claim, commit)

    def commit(self, claim: Claim, commit: Commit) -> None:
        self.before_commit()
        if commit.number == self.number:
            return  # sent twice
        if commit.number != self.number + 1:
            raise CommitOutOfStep("out of step")
        for id_ in commit.removed:
            del self.manifest[id_]
            self.segments.pop(id_, None)
        for piece in commit.pieces:
            self.manifest[piece.entry.id] = piece.entry
            if piece.columns is not None:
                self.segments[piece.entry.id] = piece.columns
        self.listed += commit.gained
        self.strings |= commit.strings
        for key in commit.no_strings:
            self.strings.pop(key, None)
        self.queue += map(json.loads, commit.notifications)
        self.number, self.progress = commit.number, commit.progress
        self.ahead = commit.ahead
        self.warnings = tuple(commit.warnings)
        if commit.took_times:
            self.held_moved_since, self.takes_times = None, False
        self.commits.append(commit)
        self.after_commit()

    def objects(self) -> Bucket:
        """Return all that is remembered, missing keys too."""
        return {
            key: (columns.etags[row], columns.last_modified[row], columns.sizes[row])
            for columns in self.segments.values()
            for row, key in enumerate(columns.keys)
        }


BUCKET = BucketConfig("bucket", "s3.example", "region", "CREDENTIAL", fetch_metadata=False)


@dataclass
class Site:
    """One bucket, its memory, and a worker that scans it."""

    bucket: BucketConfig = BUCKET
    states: FakeStates = field(default_factory=FakeStates)
    settings: ScanSettings = field(default_factory=ScanSettings)
    now: float = 1_700_000_000.0
    fence: int = 0
    counts: ScanCounts = field(default_factory=ScanCounts)

    def claim(self) -> Claim:
        """Take the right to scan, with a larger fence than ever before."""
        self.fence += 1
        return Claim("bucket", "region", self.fence, 0, 0.0, None, 0.0, self.states.number)

    def means(self, storage: Storage, **others: Any) -> ScanContext:
        """Make the context of a scan of ``storage``; ``others`` replace its members."""
        ours: dict[str, Any] = {
            "states": self.states,
            "clock": lambda: self.now,
            "keep_going": lambda: None,
            "settings": self.settings,
            "counts": self.counts,
        }
        return ScanContext(storage=storage, **ours | others)

    def scan(self, storage: Storage) -> PassEnd:
        """Scan under a new claim, and return what its worker records at the end."""
        return self.scan_under(self.claim(), storage)

    def scan_under(self, claim: Claim, storage: Storage) -> PassEnd:
        self.counts = ScanCounts()
        end = BucketPass(self.bucket, claim, self.means(storage)).run()
        return self._record(end)

    def look(self, storage: Storage, *keys: str) -> LookEnd:
        """Look at a bucket that had a pass, under a new claim."""
        self.counts = ScanCounts()
        request = LookRequest(keys, pass_due=0.0)
        end = BucketLook(self.bucket, self.claim(), request, self.means(storage)).run()
        assert isinstance(end, LookEnd)
        return end

    def _record(self, end: PassEnd) -> PassEnd:
        states, totals = self.states, end.totals
        states.totals_before = totals.before if totals and not end.complete else None
        if end.complete:
            states.last_pass_at = end.progress.began
            states.totals_apart = totals.apart if totals else states.totals_apart
        self.states.warnings = () if end.complete else end.warnings
        self.states.ahead = end.ahead
        if end.complete:
            self.states.progress, self.states.complete = end.again, end.again is None
            self.states.held_since = end.held.since if end.held else None
            self.states.released = 0
            self.states.held_moved_since = end.held_times.since if end.held_times else None
            self.states.released_moved, self.states.takes_times = 0, False
        else:
            self.states.progress = end.progress
        return end

    def scan_to_the_end(self, storage: Storage) -> PassEnd:
        """Scan until a pass is complete, whatever crashes on the way."""
        while True:
            try:
                end = self.scan(storage)
            except Crash:
                continue
            if end.complete:
                return end

    def wanting(self, **changes: Any) -> "Site":
        self.bucket = replace(self.bucket, **changes)
        return self


class FakeVault:
    """A vault in memory; ``before_read`` may raise, or wait, and ``reads`` counts."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.reads = 0
        self.before_read: Callable[[], None] = lambda: None

    def read_all(self) -> Mapping[str, KeyPair]:
        self.reads += 1
        self.before_read()
        return pairs_in(dict(self.entries))

    def write(self, prefix: str, pair: KeyPair) -> None:
        self.entries |= entries_of(prefix, pair)

    def names(self) -> frozenset[str]:
        return frozenset(self.entries)

    def read_secrets(self, names: Collection[str]) -> Mapping[str, str]:
        return {name: self.entries[name] for name in names if name in self.entries}

    def write_many(self, entries: Mapping[str, str]) -> None:
        self.entries |= entries

    def delete_many(self, names: Collection[str]) -> None:
        for name in names:
            self.entries.pop(name, None)
