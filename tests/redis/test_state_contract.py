"""What every `ports.StateStore` does: the one in memory that other tests use, and the real one."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest

from scanning import wiring
from scanning.adapters.redis.read_only_state import reading_only
from scanning.core.errors import CommitOutOfStep
from scanning.core.scan_warnings import ScanWarning, WarningKind
from scanning.core.segments.model import Entry, Piece
from scanning.core.types import BucketConfig, Claim, ObjectState
from scanning.ports import Commit, Position, Progress, StateStore
from tests.support import engine_buckets
from tests.support.fakes import BUCKET, FakeStates, columns_of

QUEUE = "linode:notifications:queue"


@dataclass
class Store:
    states: StateStore
    bucket: BucketConfig
    claim: Claim
    behind: Any

    def queued(self) -> int:
        if isinstance(self.behind, FakeStates):
            return len(self.behind.queue)
        return int(self.behind.llen(QUEUE))

    def commit(self, number: int, **written: Any) -> None:
        self.states.commit(self.claim, Commit(number=number, **written))

    def entries(self) -> Sequence[Entry]:
        return list(self.states.open(self.bucket).entries)


@pytest.fixture(params=["fake", "redis"])
def store(request, redis_server) -> Iterator[Store]:
    if request.param == "fake":
        fake = FakeStates()
        claim = Claim("bucket", "region", 1, 0, 0.0, None, 0.0, 0)
        yield Store(fake, BUCKET, claim, fake)
        return
    bucket = engine_buckets.put("bucket")
    claimed = wiring.background().leases.claim(bucket, slots=1)
    assert claimed is not None
    with redis_server.client() as client:
        yield Store(wiring.background().states, bucket, claimed, client)


def piece(id_: str, *names: str) -> Piece:
    columns = columns_of({name: (f"etag of {name}", 1_700_000_000_123, 5) for name in names})
    return Piece(Entry(id_, columns.keys[-1], len(columns), b"\x80" * 16, 40, b"raw"), columns)


def test_what_is_committed_is_known_from_then_on(store):
    """One story, so that the fake does what `test_commit.py` proves of Redis case by case."""
    known = store.states.open(store.bucket)
    assert (list(known.entries), known.progress, known.is_first) == ([], None, True)
    assert (known.held_since, known.released) == (None, 0)

    pieces = [piece("b", "m", "z"), piece("a", "\U0001f600"), piece("c", "é")]
    began = Progress(began=1.5, after="key", listed=3, appeared=2, is_listed=True)
    warnings = (ScanWarning(WarningKind.ODD_ROW, 2, ("a", "b")),)
    store.commit(
        1, pieces=pieces, progress=began, warnings=warnings, notifications=['{"n":1}', '{"n":2}']
    )
    assert store.entries() == [pieces[0].entry, pieces[2].entry, pieces[1].entry]  # by last key
    assert store.states.load(store.bucket, list("bac")) == [p.columns for p in pieces]
    assert store.states.open(store.bucket).progress == began
    assert store.states.open(store.bucket).warnings == warnings

    changed = piece("b", "m", "y", "z")
    marked = replace(pieces[2].entry, missing=(0,), strings_at=12.5)
    moved = replace(changed.entry, moved=(0, 2), moved_times=(5, 7))
    changed = replace(changed, entry=moved)
    written = [changed, Piece(marked, None)]
    later = replace(began, after="later")
    store.commit(2, pieces=written, removed=["a"], progress=later, notifications=['{"n":3}'])
    assert store.entries() == [changed.entry, marked]
    assert store.states.load(store.bucket, list("bc")) == [changed.columns, pieces[2].columns]
    assert store.states.open(store.bucket).progress == later
    assert store.states.open(store.bucket).warnings == ()
    assert store.queued() == 3


def test_what_lanes_have_covered_ahead_counts_until_the_next_commit(store):
    """The next one may be a look's, or of a host that knows nothing of it."""
    ahead = (("m", "p\U0001f600"), ("s", "t"))
    store.commit(1, pieces=[piece("a", "k")], progress=Progress(1.5, after="b"), ahead=ahead)
    assert store.states.open(store.bucket).ahead == ahead
    store.commit(2, progress=Progress(1.5, after="b"))
    assert store.states.open(store.bucket).ahead == ()


def test_strings_are_states_for_whoever_takes_over(store):
    state = ObjectState("etag", 1.5, 3, 2.5)
    store.commit(1, strings={"a": state, "b": state})
    assert store.states.older_states(store.bucket, ["b", "c", "a"]) == [state, None, state]
    store.commit(2, no_strings=["a", "never"])
    assert store.states.older_states(store.bucket, ["a", "b"]) == [None, state]


@pytest.mark.parametrize(
    ("number", "refusal"),
    [(0, pytest.raises(CommitOutOfStep)), (1, nullcontext()), (3, pytest.raises(CommitOutOfStep))],
)
def test_only_the_number_that_follows_changes_anything(store, number, refusal):
    store.commit(1, pieces=[piece("a", "k")], notifications=["{}"])
    with refusal:
        store.commit(number, pieces=[piece("b", "l")], notifications=["{}"], removed=["a"])
    assert store.entries() == [piece("a", "k").entry]
    assert store.queued() == 1
    store.commit(2)


def test_rows_from_before_the_last_commit_are_refused(store):
    store.commit(1, pieces=[piece("a", "k")])
    at = Position(store.claim.fence, 1)
    assert store.states.load(store.bucket, ["a"], at) == [piece("a", "k").columns]
    with pytest.raises(CommitOutOfStep):
        store.states.load(store.bucket, ["a"], replace(at, commit=2))


def test_rows_are_not_read_as_those_of_an_entry_that_has_changed(store):
    """Joined, cut, marked or gone: the rows may be others, and so may their numbers."""
    before = [piece("a", "k", "l"), piece("b", "m")]
    store.commit(1, pieces=before)
    for one in before:
        assert store.states.read_segment(store.bucket, one.entry) == one.columns
    marked = Piece(replace(before[0].entry, missing=(1,)), None)
    store.commit(2, pieces=[marked], removed=["b"])
    for one in before:
        assert store.states.read_segment(store.bucket, one.entry) is None
    assert store.states.read_segment(store.bucket, marked.entry) == before[0].columns


def test_looking_without_touching_stops_where_a_scan_came_between(store):
    store.commit(1, pieces=[piece("a", "k"), piece("b", "l")])
    with reading_only(store.states, lambda _: None) as looking:
        looking.open(store.bucket)
        store.commit(2, pieces=[piece("a", "k", "l")], removed=["b"])
        for segment in "ab":
            with pytest.raises(CommitOutOfStep, match="a scan changed what is known"):
                looking.load(store.bucket, [segment])


def test_looking_without_touching_sees_its_own_writes_and_leaves_none(store):
    store.commit(1, pieces=[piece("a", "k")])
    told: list[str] = []
    with reading_only(store.states, told.extend) as looking:
        assert looking.open(store.bucket) == store.states.open(store.bucket)
        looking.commit(
            store.claim, Commit(number=2, pieces=[piece("b", "l")], notifications=["{}"])
        )
        assert looking.load(store.bucket, ["b", "a"]) == [
            piece("b", "l").columns,
            piece("a", "k").columns,
        ]
    assert told == ["{}"]
    assert store.entries() == [piece("a", "k").entry]
    assert store.queued() == 0
