"""Stored state against a listing, row by row: what is wrong is found, and mended."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core.listing.body import Columns
from scanning.core.segments.model import Entry
from scanning.core.types import EventType, ScanCounts
from scanning.core.verify import Fault, Findings
from scanning.inspection.verify import Repair, Verification
from scanning.ports import Progress
from scanning.scan.context import ScanSettings
from tests.support.fakes import Bucket, FakeStorage, Site

OLD = 1_600_000_000_000


def numbered(*numbers: int, etag: str = "e") -> Bucket:
    return {f"key-{number:03d}": (etag, OLD, 1) for number in numbers}


BUCKET = numbered(*range(0, 100, 2))


def site(**settings: Any) -> Site:
    chosen = {"page_size": 10, "mass_minimum": 10**9} | settings
    return Site(settings=ScanSettings(lanes=1, **chosen)).wanting(events=frozenset(EventType))


def scanned(bucket: Bucket = BUCKET, **settings: Any) -> Site:
    """A site that knows the bucket, and has nothing to announce."""
    here = site(**settings)
    here.scan_to_the_end(FakeStorage(bucket))
    here.states.queue.clear()
    return here


def verify(
    here: Site,
    bucket: Bucket = BUCKET,
    *,
    kind: type[Verification] = Verification,
    noted: int | None = None,
) -> tuple[Findings, ScanCounts]:
    counts = ScanCounts()
    means = here.means(FakeStorage(bucket), counts=counts)
    findings = kind(here.bucket, here.claim(), means).run(noted=noted)
    return findings, counts


def announced(here: Site) -> list[tuple[str, str]]:
    events = [(event["event_type"], event["key"]) for event in here.states.queue]
    here.states.queue.clear()
    return events


def third(here: Site) -> Entry:
    """The entry of the segment with the keys 040 to 058."""
    return sorted(here.states.manifest.values(), key=lambda entry: entry.last_key)[2]


def rewrite(here: Site, **changes: Any) -> None:
    entry = replace(third(here), **changes)
    here.states.manifest[entry.id] = entry


def rows(here: Site, change: Callable[[Columns], None]) -> None:
    columns = here.states.segments[third(here).id]
    copied = copy.deepcopy(columns)
    change(copied)
    here.states.segments[third(here).id] = copied


# --- nothing wrong

KEYS = st.sets(st.integers(0, 60))


@given(
    passes=st.lists(st.tuples(KEYS, st.sampled_from("ef")), max_size=4),
    last=KEYS,
    page_size=st.integers(2, 9),
)
def test_after_any_scans_nothing_is_wrong_and_the_next_events_are_counted(passes, last, page_size):
    here = site(page_size=page_size)
    for keys, etag in passes:
        here.scan_to_the_end(FakeStorage(numbered(*keys, etag=etag)))
    now = numbered(*last)
    before = len(here.states.commits)
    findings, counts = verify(here, now)
    assert findings.wrong == {}
    assert len(here.states.commits) == before
    here.scan_to_the_end(FakeStorage(now))
    found = here.counts
    assert (counts.objects, counts.detected) == (found.objects, found.detected)
    assert counts.updated == found.updated
    assert here.states.held_since or counts.deleted == found.deleted


def test_a_hold_and_an_unfinished_pass_are_nothing_wrong():
    here = scanned(mass_minimum=10)
    here.scan(FakeStorage({}))
    assert here.states.held_since
    assert verify(here, {}, noted=0)[0].wrong == {}
    here.states.progress = Progress(began=0.0, after="key-050")
    assert verify(here, {}, noted=17)[0].wrong == {}


def test_a_held_storm_of_moved_times_is_nothing_wrong_and_counts_as_updates():
    here = scanned(mass_minimum=10)
    later = {key: (etag, time + 5000, size) for key, (etag, time, size) in BUCKET.items()}
    here.scan(FakeStorage(later))
    assert here.states.held_moved_since
    findings, counts = verify(here, later)
    assert findings.wrong == {}
    assert counts.updated == len(BUCKET)
    assert verify(here, later, kind=Repair)[0].wrong == {}
    here.scan_to_the_end(FakeStorage(later))
    assert announced(here) == []


def test_the_number_of_segments_is_said():
    assert verify(scanned())[0].segments == 5


# --- what is found, and what a repair makes of it


def hide_a_change(here: Site) -> None:
    rows(here, lambda columns: columns.etags.__setitem__(3, "another"))


def hide_a_size(here: Site) -> None:
    rows(here, lambda columns: columns.sizes.__setitem__(3, 9))


def hide_a_time(here: Site) -> None:
    rows(here, lambda columns: columns.last_modified.__setitem__(3, 5))


def hide_a_new_key(here: Site) -> None:
    def drop(columns: Columns) -> None:
        for column in (columns.keys, columns.etags, columns.last_modified, columns.sizes):
            del column[3]

    rows(here, drop)
    rewrite(here, count=9)


def hide_a_deletion(here: Site) -> None:
    rows(here, lambda columns: columns.keys.__setitem__(3, "key-045"))


def lose_rows(here: Site) -> None:
    del here.states.segments[third(here).id]


def lose_rows_and_states(here: Site) -> None:
    lose_rows(here)
    here.states.strings = {
        k: s for k, s in here.states.strings.items() if not "key-04" <= k < "key-06"
    }


def disorder(here: Site) -> None:
    rows(here, lambda columns: columns.keys.reverse())


def reach_into_the_segment_before(here: Site) -> None:
    rows(here, lambda columns: columns.keys.__setitem__(0, "key-001"))


NEW = [("detected", f"key-{number:03d}") for number in range(40, 60, 2)]
WRONG = {
    "a row that a digest hides": (
        hide_a_change,
        {Fault.HIDDEN: 1, Fault.STRING: 1},
        [("updated", "key-046")],
    ),
    "a size that a digest hides": (
        hide_a_size,
        {Fault.HIDDEN: 1, Fault.STRING: 1},
        [("updated", "key-046")],
    ),
    "a time that a digest hides": (
        hide_a_time,
        {Fault.HIDDEN: 1, Fault.STRING: 1},
        [("updated", "key-046")],
    ),
    "a moved time that was not listed": (
        lambda here: rewrite(here, moved=(3,), moved_times=(5,)),
        {Fault.HIDDEN: 1},
        [],
    ),
    "moved times beyond the rows": (
        lambda here: rewrite(here, moved=(99,), moved_times=(5,)),
        {Fault.ENTRY: 1},
        [],
    ),
    "a key that a digest hides": (hide_a_new_key, {Fault.HIDDEN: 1}, [("detected", "key-046")]),
    "a deletion that a digest hides": (
        hide_a_deletion,
        {Fault.HIDDEN: 2, Fault.STRING: 1},
        [
            ("detected", "key-046"),
            ("deleted", "key-045"),
        ],
    ),
    "a digest": (lambda here: rewrite(here, digest=b"?" * 16), {Fault.DIGEST: 1}, []),
    "the length of a digest": (lambda here: rewrite(here, length=7), {Fault.DIGEST: 1}, []),
    "a count": (lambda here: rewrite(here, count=99), {Fault.ENTRY: 1}, []),
    "a last key": (lambda here: rewrite(here, last_key="key-058x"), {Fault.ENTRY: 1}, []),
    "marks beyond the rows": (lambda here: rewrite(here, missing=(99,)), {Fault.ENTRY: 1}, []),
    "a state that is gone": (
        lambda here: here.states.strings.pop("key-046"),
        {Fault.STRING: 1},
        [],
    ),
    "a state that is another": (
        lambda here: here.states.strings.update(
            {"key-046": here.states.strings["key-048"]._replace(size=7)}
        ),
        {Fault.STRING: 1},
        [],
    ),
    "rows that are lost": (lose_rows, {Fault.LOST: 1}, []),
    "rows that are lost with their states": (lose_rows_and_states, {Fault.LOST: 1}, NEW),
    "rows without an order": (disorder, {Fault.LOST: 1}, []),
    "rows of another range": (reach_into_the_segment_before, {Fault.LOST: 1}, []),
}


@pytest.mark.parametrize(("spoil", "faults", "events"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found_and_mended(spoil, faults, events):
    here = scanned()
    before = len(here.states.commits)
    spoil(here)
    assert verify(here)[0].wrong == faults
    assert len(here.states.commits) == before

    assert verify(here, kind=Repair)[0].wrong == faults
    here.scan_to_the_end(FakeStorage(BUCKET))
    assert announced(here) == events
    here.scan_to_the_end(FakeStorage(BUCKET))  # writes the documented states again
    assert verify(here)[0].wrong == {}
    assert here.states.objects() == BUCKET
    assert {key: state[:3] for key, state in here.states.strings.items()} == {
        key: (etag, modified / 1000, size) for key, (etag, modified, size) in BUCKET.items()
    }


def test_what_a_digest_hides_is_found_by_no_ordinary_scan():
    here = scanned()
    hide_a_change(here)
    here.scan_to_the_end(FakeStorage(BUCKET))
    assert announced(here) == []


def test_a_lost_segment_of_which_nothing_is_left_is_removed():
    here = scanned()
    lose_rows(here)
    left = {key: row for key, row in BUCKET.items() if not "key-040" <= key < "key-060"}
    verify(here, left, kind=Repair)
    here.scan_to_the_end(FakeStorage(left))
    assert here.states.objects() == left
    assert verify(here, left)[0].wrong == {}


def test_a_lost_segment_whose_range_has_grown_is_built_again_in_parts():
    here = scanned()
    lose_rows(here)
    grown = (
        BUCKET
        | numbered(*range(40, 60), etag="new")
        | {f"key-050-{number:02}": ("new", OLD, 1) for number in range(40)}
    )
    verify(here, grown, kind=Repair)
    here.scan_to_the_end(FakeStorage(grown))
    changed = {key for key, row in grown.items() if BUCKET.get(key) != row}
    assert {key for _, key in announced(here)} == changed
    assert here.states.objects() == grown


def test_without_documented_states_none_are_missed():
    here = scanned(strings=False)
    assert verify(here)[0].wrong == {}
    lose_rows(here)
    verify(here, kind=Repair)
    here.scan_to_the_end(FakeStorage(BUCKET))
    assert announced(here) == NEW


def test_the_number_of_objects_that_was_noted_is_compared():
    here = scanned()
    assert verify(here, noted=50)[0].wrong == {}
    assert verify(here, noted=49)[0].wrong == {Fault.COUNT: 1}


def test_faults_are_shown_by_their_first_keys():
    here = scanned()
    here.states.strings.clear()
    findings, _ = verify(here)
    assert findings.wrong == {Fault.STRING: 50}
    assert findings.examples[Fault.STRING] == list(BUCKET)[:5]


@pytest.mark.parametrize("digest", [b"?" * 16, None], ids=["something wrong", "nothing wrong"])
def test_a_pass_that_was_under_way_begins_again_after_a_repair(digest):
    here = scanned()
    if digest:
        rewrite(here, digest=digest)
    here.states.progress = Progress(began=7.0, after="key-050", listed=25, appeared=3)
    findings, _ = verify(here, kind=Repair)
    assert bool(findings.wrong) == bool(digest)
    assert here.states.progress == Progress(began=7.0, appeared=3)


def test_a_baseline_that_was_repaired_on_its_way_announces_what_came_after_it_began():
    here = site(slice_s=0.0).wanting(first_scan="baseline")
    here.scan(FakeStorage(BUCKET))
    [entry] = here.states.manifest.values()
    here.states.manifest[entry.id] = replace(entry, digest=b"?" * 16)
    uploaded = round(here.now * 1000) + 5000
    bucket = BUCKET | {"key-099": ("e", uploaded, 1)}
    here.now += 3600
    verify(here, bucket, kind=Repair)
    here.scan_to_the_end(FakeStorage(bucket))
    assert announced(here) == [("created", "key-099")]
