"""The rules that make a scan exact, and where each is proved.

(here: this file; laws: `test_scan_laws.py`; the other files by their names)

| rule | what | proved by |
|---|---|---|
| 1 | coverage is contiguous, in UTF-8 order; empty pages are followed | laws: events_are_those_of_comparing…; `test_storage`: an_empty_page…; here: a_key_between_two_segments… |
| 2 | `IsTruncated` counts on a digest hit too | here: a_tail_that_was_deleted…, keys_after_the_last_segment… |
| 3 | a short page covers less | laws (short pages); here: a_short_page_marks_nothing… |
| 4 | few LIST calls whatever the manifest looks like | here: random_inserts…, appends…; laws: a_fragmented_manifest… |
| 5 | lanes end where the next begins; one committer | here: a_lanes_last_page…, commits_are_numbered…; laws: lanes_find… |
| 6 | numbered commits; sent twice is once; a lost one aborts | `test_commit`; `test_state_contract`; here: a_commit_that_redis_lost…, a_scan_that_begins_again… |
| 7 | all or nothing | `test_commit`: a_commit_that_cannot_be_whole… |
| 8 | fence and generation | `test_commit` (same test); `test_cleanup`; `test_leases`; `test_bucket_scanner`: a_bucket_changed… |
| 9 | marks, mass deletions, second look | `test_deletion_rules` |
| 10 | suffix and event types concern notifications; prefix the listing | here: "what is announced"; `test_storage`: a_prefix…; `test_bucket_scanner`: a_changed_prefix… |
| 11 | `event_id` and `sequencer` | laws: a_crash_at_any_commit…, the_events_of_one_key…; here: the_same_change_found_again… |
| 12 | documented strings | `test_bucket_scanner`: an_unchanged_objects_state…, states_are_removed…; here: "documented strings" |
| 13 | notifications off | here: with_notifications_off… |
| 14 | pages written otherwise cost parsing only | here: a_gateway_that_writes… |
| 15 | Redis emptied or restored | `test_losses` |
| 16 | HEAD of a newer object | here: what_head_says_of_another_version… |
"""  # noqa: E501 - a table

import json
import threading
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.adapters.redis.read_only_state import reading_only
from scanning.core.errors import (
    AccessDenied,
    CommitOutOfStep,
    ScanAborted,
    StorageUnavailable,
    Throttled,
)
from scanning.core.listing.body import Columns, UnreadableListing, render_entries
from scanning.core.listing.rows import ListedRows
from scanning.core.types import (
    Change,
    Claim,
    EventType,
    ObjectMetadata,
    ObjectState,
    ScanCounts,
)
from scanning.ports import Commit
from scanning.scan.bucket_pass import MOST_STUCK, BucketPass
from scanning.scan.notifier import HEADS_AT_ONCE, HEADS_S, Notifier
from tests.support.fakes import Bucket, Crash, FakePage, FakeStorage, Site, crash_if
from tests.support.sites import ALL, NEW, OLD, Broken, announced, numbered, scanned, site, without

# --- coverage


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_key_between_two_segments_is_found_in_the_later_one(lanes):
    here = site(lanes=lanes)
    bucket = numbered(120, step=2)
    scanned(here, bucket)
    announced(here)
    borders = [entry.last_key for entry in here.states.open(here.bucket).entries]
    assert len(borders) >= 12
    between = {f"{key}~": ("n", OLD, 1) for key in borders}
    scanned(here, bucket | between)
    # In key order in each lane, and there may be several.
    assert sorted(announced(here)) == [("detected", key) for key in sorted(between)]


@pytest.mark.parametrize("kept", [100, 95, 90, 81, 1])
def test_a_tail_that_was_deleted_is_found_although_all_digests_before_it_hit(kept):
    here = site(mass_minimum=10**9)
    bucket = numbered(100)
    scanned(here, bucket)
    announced(here)
    scanned(here, dict(list(bucket.items())[:kept]))
    assert announced(here) == [("deleted", key) for key in list(bucket)[kept:]]


@pytest.mark.parametrize("more", [1, 10, 25])
def test_keys_after_the_last_segment_are_found_although_all_digests_hit(more):
    here = site()
    scanned(here, numbered(100))
    announced(here)
    scanned(here, numbered(100 + more))
    assert announced(here) == [("detected", key) for key in list(numbered(100 + more))[100:]]


def test_a_short_page_marks_nothing_as_missing():
    here = site()
    scanned(here, numbered(100))
    announced(here)
    storage = scanned(here, numbered(100), short=[3, 9, 1, 5, 9, 9])
    assert announced(here) == []
    assert here.counts.compared == 0
    assert storage.parsed == 0
    assert not any(entry.missing for commit in here.states.commits for entry in entries(commit))


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(["a b", "a!c", "a%20b", "a%30", "z"], id="one before it"),
        pytest.param(["a", "a!", "a%2Fb", "a%30", "a/b"], id="one after it"),
        pytest.param(["a b", "a!c", "a%", "a%20b", "z"], id="that is gone itself"),
    ],
)
@pytest.mark.parametrize("is_held", [True, False], ids=["held", "deleted"])
def test_a_key_that_is_how_another_is_written_is_not_taken_for_it(keys, is_held):
    """Where a segment ends is looked for in what the server wrote, and that is URL-encoded."""
    here = site(page_size=4, mass_minimum=1 if is_held else 10**9, mass_share=0.0)
    bucket: Bucket = dict.fromkeys(keys, ("e", OLD, 1))
    scanned(here, bucket)
    announced(here)
    gone = here.states.open(here.bucket).entries[0].last_key
    scanned(here, without(bucket, gone))
    assert announced(here) == ([] if is_held else [("deleted", gone)])
    for step in range(3):
        scanned(here, without(bucket, gone) | {keys[1]: (f"v{step}", OLD, 1)})
        assert announced(here) == [("updated", keys[1])]


def entries(commit: Any) -> list[Any]:
    return [piece.entry for piece in commit.pieces]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda keys: [*keys[:3], keys[1], *keys[4:]], id="not in order"),
        pytest.param(lambda keys: ["key-00000", *keys[1:]], id="begins too early"),
    ],
)
def test_a_listing_that_makes_no_sense_ends_the_scan_and_deletes_nothing(wrong):
    class Confused(FakeStorage):
        def page(self, start_after: str, max_keys: int) -> FakePage:
            page = super().page(start_after, max_keys)
            if not start_after:
                return page
            rows = self.rows(page.entries).columns
            return replace(page, entries=render_entries(replace(rows, keys=wrong(rows.keys))))

        def rows(self, entries: bytes) -> ListedRows:
            try:
                return super().rows(entries)
            except UnreadableListing as exc:
                raise StorageUnavailable(str(exc)) from exc

    here = site()
    scanned(here, numbered(100))
    announced(here)
    with pytest.raises(StorageUnavailable, match="its keys are not in order"):
        here.scan(Confused(numbered(100)))
    assert announced(here) == []
    assert here.states.objects() == numbered(100)


# --- how many LIST calls


def inserted(here: Site, rounds: int, more: int) -> tuple[int, int]:
    """LIST calls, and the least that were possible, while keys come in all over the bucket."""
    bucket, asked, least = numbered(1000, step=1000, width=6), 0, 0
    scanned(here, bucket)
    for number in range(rounds):
        # A step that has nothing in common with the bucket's.
        places = [(number * more + n) * 7919 % 1_000_000 for n in range(more)]
        fresh = {f"key-{place:06d}x": ("e", OLD, 1) for place in places}
        bucket = bucket | fresh
        asked += scanned(here, bucket).requests
        least += -(-len(bucket) // here.settings.page_size)
    return asked, least


def test_random_inserts_cost_no_more_list_calls_than_there_must_be():
    here = site(page_size=50)
    asked, least = inserted(here, rounds=20, more=37)
    assert asked <= 1.05 * least
    known = here.states.open(here.bucket).entries
    assert len(known) <= 2.2 * sum(entry.count for entry in known) / 50


def test_appends_and_deletions_cost_no_more_list_calls_than_there_must_be():
    here = site(page_size=50, mass_minimum=10**9)
    for first, last in [(0, 1000), (0, 1500), (400, 1500), (450, 1600)]:
        bucket = dict(list(numbered(last).items())[first:])
        storage = scanned(here, bucket)
        assert storage.requests == -(-len(bucket) // 50)


def test_lanes_cost_a_list_call_each_where_less_than_a_page_is_appended():
    here = site(page_size=50, lanes=4, mass_minimum=10**9)
    scanned(here, numbered(1000))
    for first, last in [(0, 1040), (400, 1040), (450, 1080)]:
        bucket = dict(list(numbered(last).items())[first:])
        assert scanned(here, bucket).requests <= -(-len(bucket) // 50) + 4


# --- lanes and commits


def test_a_lanes_last_page_is_cut_where_the_next_lane_begins():
    here = site(page_size=10, lanes=3)
    bucket = numbered(120, step=2)
    scanned(here, bucket)
    announced(here)
    # All that lies around the ends of lanes changes, and nothing is said twice or not at all.
    new = ("n", OLD, 1)
    changed = dict.fromkeys(bucket, new) | {f"{key}~": new for key in bucket}
    storage = scanned(here, changed)
    assert storage.requests > len(changed) // 10
    said = announced(here)
    assert len(said) == len(changed)
    assert {key for _, key in said} == changed.keys()
    assert here.states.objects() == changed


def test_commits_are_numbered_without_a_gap_however_many_lanes_there_are():
    here = site(page_size=5, lanes=4)
    scanned(here, numbered(200))
    scanned(here, numbered(200, etag="new"))
    numbers = [commit.number for commit in here.states.commits]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 80


@pytest.mark.parametrize("lanes", [1, 4])
def test_no_commit_holds_more_than_a_page_of_changes(lanes):
    """However much is put between two neighbouring keys."""
    here = site(page_size=10, lanes=lanes)
    bucket = numbered(100)
    scanned(here, bucket)
    between = {f"key-00034-{number:03d}": ("n", OLD, 1) for number in range(95)}
    scanned(here, bucket | between | {f"key-{n:05d}": ("n", OLD, 1) for n in range(30, 60)})
    assert max(len(commit.notifications) for commit in here.states.commits) <= 10
    assert max(len(commit.strings) for commit in here.states.commits) <= 10
    assert here.states.objects().keys() == (bucket | between).keys()


class Noted(FakeStorage):
    """Notes in ``steps`` when a page was asked for."""

    def __init__(self, objects: Bucket, steps: list[str]) -> None:
        super().__init__(objects)
        self.steps = steps

    def page(self, start_after: str, max_keys: int) -> FakePage:
        self.steps.append("list")
        return super().page(start_after, max_keys)


def one_by_one() -> Site:
    """Each page is asked for when it is wanted."""
    here = site()
    here.settings = replace(here.settings, slow_page_s=60.0)
    return here


def test_what_follows_is_listed_while_a_commit_is_on_its_way():
    here = one_by_one()
    steps: list[str] = []
    here.states.after_commit = lambda: steps.append("committed")
    here.scan(Noted(numbered(30), steps))
    assert steps == ["list", "list", "committed", "list", "committed", "committed"]


def test_a_scan_that_is_stopped_leaves_no_commit_on_its_way():
    here = one_by_one()
    steps: list[str] = []

    def stop() -> None:
        if len(steps) == 3:
            raise ScanAborted("the process ends")

    means = here.means(Noted(numbered(100), steps), keep_going=stop)
    with pytest.raises(ScanAborted):
        BucketPass(here.bucket, here.claim(), means).run()
    assert here.states.number == 2
    assert here.counts.changes == 20


def test_a_commit_that_redis_lost_ends_the_scan_and_the_next_finds_it_all():
    here = site()
    bucket = numbered(50)

    def lose() -> None:
        if here.states.number == 3:
            here.states.number = 1

    here.states.after_commit = lose
    with pytest.raises(CommitOutOfStep):
        here.scan(FakeStorage(bucket))
    here.states.after_commit = lambda: None
    scanned(here, bucket)
    assert {key for _, key in announced(here)} == bucket.keys()
    assert here.states.objects() == bucket


def test_a_scan_that_begins_again_under_its_claim_goes_on_after_what_it_committed():
    """Keys that were rotated during a scan: the second try has the same claim as the first."""
    here = site()
    bucket = numbered(100)
    claim = here.claim()
    with pytest.raises(Crash):
        here.scan_under(claim, Broken(bucket, after=4))
    committed = here.states.number
    assert 0 < committed < 10
    assert here.scan_under(claim, FakeStorage(bucket)).complete
    assert announced(here) == [("detected", key) for key in bucket]
    assert here.states.objects() == bucket
    assert len(here.states.commits) == here.states.number > committed


class NothingBehind(FakeStorage):
    """Lists nothing that begins behind some key: it was deleted, and the server wants it."""

    def __init__(self, objects: Bucket, key: str) -> None:
        super().__init__(objects)
        self.key = key

    def page(self, start_after: str, max_keys: int) -> FakePage:
        if start_after == self.key:
            raise StorageUnavailable("500 Internal Server Error")
        return super().page(start_after, max_keys)


def test_a_pass_that_cannot_go_on_from_its_place_begins_anew_after_some_tries():
    here = site(slice_s=0.0)
    bucket = numbered(100)
    assert not here.scan(FakeStorage(bucket)).complete
    assert here.states.progress is not None
    began, place = here.states.progress.began, here.states.progress.after
    now_gone = without(bucket, place)
    here.settings = replace(here.settings, slice_s=1e9)
    here.now += 60
    storage = NothingBehind(now_gone, place)
    for here.states.stuck in range(MOST_STUCK):
        with pytest.raises(StorageUnavailable):
            here.scan(storage)
    here.states.stuck = MOST_STUCK
    end = here.scan(storage)
    assert end.complete
    assert (end.progress.began, end.progress.listed) == (began, 99)
    gone = ("deleted", place)
    assert announced(here) == [*(("detected", key) for key in bucket), gone]


@given(st.integers(1, 60), st.integers(1, 4), st.lists(st.booleans(), max_size=60))
def test_a_pass_that_broke_off_anywhere_ends_as_if_it_had_not(count, lanes, crashes):
    """Also in what it says of the whole: how many objects there are, and how many were known."""
    here = site(page_size=3, lanes=lanes, mass_minimum=4)
    first, second = numbered(count, step=2), numbered(count, etag="new")
    scanned(here, first)
    announced(here)
    crashing = iter(crashes)
    here.states.after_commit = lambda: crash_if(next(crashing, False))
    end = here.scan_to_the_end(FakeStorage(second))
    missing = len(first.keys() - second.keys())
    assert end.progress.listed == len(second)
    assert (end.held is not None) == (missing > len(first) / 2 and len(first) >= 4)
    if end.held:
        assert (end.held.missing, end.held.known) == (missing, len(first))


class FirstLaneLast(FakeStorage):
    """The first lane's second page comes only when other lanes have had many of theirs."""

    def page(self, start_after: str, max_keys: int) -> FakePage:
        page = super().page(start_after, max_keys)
        with self.asking:
            self.asking.notify_all()
            if start_after == "key-00002":
                assert self.asking.wait_for(lambda: self.requests >= 12, timeout=10)
        return page

    asking = threading.Condition()


def test_objects_are_counted_once_although_lanes_were_ahead_when_the_pass_broke_off():
    here = site(page_size=3, lanes=4)
    scanned(here, numbered(90))
    commits = count(1)
    here.states.after_commit = lambda: crash_if(next(commits) == 8)
    with pytest.raises(Crash):
        here.scan(FirstLaneLast(numbered(90, etag="new")))
    end = here.scan_to_the_end(FakeStorage(numbered(90, etag="new")))
    assert end.progress.listed == 90


# --- what is announced


def test_the_suffix_and_the_wanted_events_concern_notifications_only():
    here = site().wanting(suffix=".jpg", events=frozenset({EventType.UPDATED}))
    before = {"a.jpg": ("e", OLD, 1), "a.txt": ("e", OLD, 1), "b.jpg": ("e", OLD, 1)}
    scanned(here, before)
    assert announced(here) == []
    assert here.states.objects() == before
    assert here.counts.detected == 3
    after = {"a.jpg": ("n", OLD, 1), "a.txt": ("n", OLD, 1), "c.jpg": ("e", OLD, 1)}
    scanned(here, after)
    assert announced(here) == [("updated", "a.jpg")]
    assert here.states.objects() == after
    assert (here.counts.updated, here.counts.detected, here.counts.deleted) == (2, 1, 1)
    # Another suffix is another question to the same knowledge.
    here.wanting(suffix="", events=ALL)
    scanned(here, after)
    assert announced(here) == []


def test_with_notifications_off_the_state_advances_and_nothing_is_queued():
    here = site().wanting(notifications=False)
    scanned(here, numbered(30))
    scanned(here, numbered(40, etag="new"))
    assert announced(here) == []
    assert all(commit.recent == "" for commit in here.states.commits)
    assert here.states.objects() == numbered(40, etag="new")
    here.wanting(notifications=True)
    scanned(here, numbered(41, etag="new"))
    assert announced(here) == [("detected", "key-00040")]


class Once:
    """Crashes the first time."""

    happened = False

    def __call__(self) -> None:
        if not self.happened:
            self.happened = True
            raise Crash


def test_a_first_scan_as_baseline_is_silent_to_its_end_also_over_slices_and_crashes():
    here = site(slice_s=0.0).wanting(first_scan="baseline")
    here.states.after_commit = crash_once = Once()
    scanned(here, numbered(100))
    assert crash_once.happened
    assert announced(here) == []
    scanned(here, numbered(101))
    assert announced(here) == [("detected", "key-00100")]


def test_a_pass_that_pauses_again_and_again_asks_for_little_twice_although_it_has_lanes():
    """What the lanes have listed that are ahead of the first one is listed again after a pause."""
    here = site()
    bucket = numbered(8000)
    scanned(here, bucket)

    class Slow(FakeStorage):
        def page(self, start_after: str, max_keys: int) -> FakePage:
            here.now += 1.0
            return super().page(start_after, max_keys)

    here.settings = replace(here.settings, lanes=4, slice_s=200.0)
    storage = Slow(bucket)
    slices = count(1)
    while not here.scan(storage).complete:
        next(slices)
    assert next(slices) < 12
    assert storage.requests < 2 * 800
    assert announced(here) == [("detected", key) for key in bucket]


def test_a_first_scan_as_baseline_announces_what_came_after_it_began():
    """It takes hours in a large bucket, and longer where its endpoint fails on the way."""
    here = site(slice_s=0.0).wanting(first_scan="baseline")
    bucket = numbered(100) | {"until then": ("e", int(here.now * 1000), 1)}
    assert not here.scan(FakeStorage(bucket)).complete
    here.now += 3600
    late = {"meanwhile": ("e", int(here.now * 1000), 1)}
    scanned(here, bucket | late)
    assert announced(here) == [("created", "meanwhile")]


def test_a_baseline_announces_uploads_in_parts_that_may_have_been_under_way_when_it_began():
    """Many servers give them the time at which they began."""
    here = site().wanting(first_scan="baseline")
    now, hour = int(here.now * 1000), 3600 * 1000
    scanned(
        here,
        {
            "in parts": ("e-3", now - hour, 1),
            "in parts, long ago": ("e-3", now - 25 * hour, 1),
            "written at once": ("e", now - hour, 1),
        },
    )
    assert announced(here) == [("created", "in parts")]


def test_a_baseline_announces_what_appears_where_it_had_been_whatever_its_time():
    """It lists from the start again after failures at one place, before it was ever complete."""
    here = site(slice_s=0.0).wanting(first_scan="baseline")
    bucket = numbered(100)
    while len(here.states.objects()) < 50:
        assert not here.scan(FakeStorage(bucket)).complete
    here.states.stuck = MOST_STUCK
    assert not here.scan(FakeStorage(bucket | {"key-00007x": ("e", OLD, 1)})).complete
    here.states.stuck = 0
    scanned(here, bucket | {"key-00007x": ("e", OLD, 1)})
    assert announced(here) == [("detected", "key-00007x")]
    assert here.states.complete


@pytest.mark.parametrize("etag", ["e", ""], ids=["ETags", "empty ETags"])
@pytest.mark.parametrize("more", [{}, {"key-00007x": ("e", OLD, 1)}], ids=["alone", "beside a key"])
def test_another_size_is_an_update_though_etag_and_time_are_the_same(etag, more):
    """Written twice within a second, to a server that counts in seconds."""
    here = site()
    bucket = dict.fromkeys(numbered(20), (etag, OLD, 1))
    scanned(here, bucket)
    announced(here)
    for size in (2, 3):
        bucket |= {"key-00007": (etag, OLD, size)} | more
        scanned(here, bucket)
        assert ("updated", "key-00007") in announced(here)
    assert here.states.objects() == bucket


@pytest.mark.parametrize(("trusts", "updated"), [(False, 300), (True, 0)])
def test_times_that_move_alone_are_no_updates_where_etags_are_trusted(trusts, updated):
    """Two nodes of a server say other times of the same objects."""
    here = site(page_size=50).wanting(trust_etags=trusts)
    bucket = numbered(300)
    scanned(here, bucket)
    announced(here)
    moved: Bucket = dict.fromkeys(bucket, ("e", OLD + 400, 1))
    scanned(here, moved)
    assert len(announced(here)) == updated
    scanned(here, moved | {"key-00007": ("e2", OLD + 400, 1), "key-00007x": ("e", OLD, 1)})
    events = {event["key"]: event for event in here.states.queue}
    assert announced(here) == [("updated", "key-00007"), ("detected", "key-00007x")]
    # What was announced before is what is said to have been before.
    assert events["key-00007"]["previous"]["last_modified"] == (OLD if trusts else OLD + 400) / 1000
    storage = scanned(
        here, moved | {"key-00007": ("e2", OLD + 400, 1), "key-00007x": ("e", OLD, 1)}
    )
    assert (announced(here), storage.parsed) == ([], 0)


@pytest.mark.parametrize("changed", [("e", OLD + 400, 2), ("f", OLD + 400, 1), ("", OLD + 400, 1)])
def test_where_etags_are_trusted_another_size_or_etag_and_none_are_updates(changed):
    here = site().wanting(trust_etags=True)
    scanned(here, {"a": (changed[0] and "e", OLD, 1)})
    announced(here)
    scanned(here, {"a": changed})
    assert announced(here) == [("updated", "a")]


def test_an_older_state_without_a_size_differs_from_no_size():
    here = site().wanting(taken_over=True)
    here.states.strings = {
        "a": ObjectState("e", OLD / 1000, 0),
        "b": ObjectState("e", OLD / 1000, 2),
    }
    scanned(here, dict.fromkeys("ab", ("e", OLD, 7)))
    assert announced(here) == [("updated", "b")]


def test_a_bucket_that_was_taken_over_announces_only_what_differs_from_the_older_states():
    here = site().wanting(taken_over=True)
    here.states.strings = {
        "same": ObjectState("e", OLD / 1000, 1),
        "changed": ObjectState("old", OLD / 1000, 1),
    }
    bucket = dict.fromkeys(("same", "changed", "new"), ("e", OLD, 1))
    scanned(here, bucket)
    assert announced(here) == [("updated", "changed"), ("detected", "new")]
    # Known from now on: the strings are a view, and no longer read.
    here.states.strings.clear()
    scanned(here, bucket)
    assert announced(here) == []


def test_a_baseline_that_takes_over_announces_what_came_after_the_older_monitor_at_the_latest():
    here = site().wanting(taken_over=True, first_scan="baseline")
    here.states.older_scan_at = OLD / 1000
    here.states.strings = {"known": ObjectState("e", OLD / 1000 + 1, 1)}
    day = 24 * 3600 * 1000
    bucket = {
        "known": ("e", OLD + 1000, 1),
        "never seen": ("e", OLD - day, 1),
        "since": ("e", OLD + 1, 1),
        "while it was uploaded": ("e", OLD - day + 1, 1),
    }
    scanned(here, bucket)
    assert announced(here) == [("detected", "since"), ("detected", "while it was uploaded")]


def test_older_states_count_for_buckets_that_were_taken_over_only():
    here = site()
    here.states.strings = {"same": ObjectState("e", OLD / 1000, 1)}
    scanned(here, {"same": ("e", OLD, 1)})
    assert announced(here) == [("detected", "same")]


def test_the_same_change_found_again_after_a_crash_has_the_same_id():
    here = site()
    scanned(here, numbered(10))
    here.states.queue.clear()
    lost: list[str] = []
    commit = here.states.commit

    def crash(claim: Claim, written: Commit) -> None:
        """Redis goes away before the first commit of the scan."""
        if not lost:
            lost.extend(written.notifications)
            raise Crash
        commit(claim, written)

    here.states.commit = crash  # type: ignore[method-assign,assignment]
    with pytest.raises(Crash):
        here.scan(FakeStorage(numbered(10, etag="new")))
    here.now += 2 * 86400  # by now, what was created is only detected
    scanned(here, numbered(10, etag="new"))
    found = {event["key"]: event["event_id"] for event in here.states.queue}
    assert {event["key"]: event["event_id"] for event in map(json.loads, lost)} == found
    assert len(set(found.values())) == 10


def test_created_and_detected_are_one_thing_to_an_id():
    def ids(now: float) -> list[str]:
        here = site()
        here.now = now
        scanned(here, {"key": ("e", NEW, 1)})
        return [event["event_id"] for event in here.states.queue]

    assert ids(NEW / 1000) == ids(NEW / 1000 + 10 * 86400)


# --- HEAD


def test_what_head_says_of_another_version_is_not_told():
    heads: dict[str, ObjectMetadata | Exception] = {
        "listed": ObjectMetadata("e", "image/png", {"a": "b"}),
        "newer": ObjectMetadata("newer", "image/png", {"a": "b"}),
        "refused": StorageUnavailable("no answer"),
    }
    here = site().wanting(fetch_metadata=True)
    bucket = dict.fromkeys(("gone", "listed", "newer", "refused"), ("e", NEW, 1))
    storage = scanned(here, bucket, heads=heads)
    assert sorted(storage.asked) == sorted(bucket)
    told = {event["key"]: (event["content_type"], event["metadata"]) for event in here.states.queue}
    nothing: tuple[str, dict[str, str]] = ("application/octet-stream", {})
    assert told == {
        "gone": nothing,
        "listed": ("image/png", {"a": "b"}),
        "newer": nothing,
        "refused": nothing,
    }


def test_a_server_that_takes_long_over_heads_does_not_hold_a_commit_up():
    """Its index answers and its disks do not: the events are worth more than their metadata."""
    now = [0.0]

    class Slow(FakeStorage):
        def head(self, key: str) -> ObjectMetadata | None:
            now[0] += HEADS_S
            return super().head(key)

    here = site().wanting(fetch_metadata=True)
    storage = Slow({})
    state = ObjectState("e", NEW / 1000, 1)
    changes = [Change(EventType.CREATED, f"{n}", state, None) for n in range(1000)]
    with Notifier(here.bucket, storage, clock=lambda: now[0]) as notifier:
        for commits in (1, 2):
            texts = notifier.notifications(changes, now=NEW / 1000, sequencer="")
            assert len(texts) == len(changes)
            assert commits <= len(storage.asked) <= 2 * HEADS_AT_ONCE * commits


def test_heads_that_are_refused_or_never_of_what_was_listed_are_warned_of_once():
    bucket = {f"k{number}": ("e", NEW, 1) for number in range(3)}
    other = ObjectMetadata("other", "text/plain", {})
    refused = AccessDenied("bucket: no")

    def warned(heads: Any) -> list[tuple[str, int, Any]]:
        here = site().wanting(fetch_metadata=True)
        storage = FakeStorage(bucket, heads=heads)
        end = here.scan(storage)
        assert len(here.states.queue) == 3
        return [(str(w.kind), w.count, w.examples) for w in end.warnings]

    assert warned(dict.fromkeys(bucket, refused)) == [("head_refused", 3, ("k0", "k1", "k2"))]
    assert warned(dict.fromkeys(bucket, other)) == [("head_mismatch", 3, ("k0", "k1", "k2"))]
    right = ObjectMetadata('W/"e"', "text/plain", {})
    assert warned(dict.fromkeys(bucket, other) | {"k1": right}) == []
    assert warned({"k1": Throttled("bucket: slow down")}) == []


def test_only_objects_that_are_new_or_changed_and_wanted_are_asked_about():
    here = site().wanting(fetch_metadata=True, suffix=".jpg")
    scanned(here, {"old.jpg": ("e", OLD, 1), "new.jpg": ("e", NEW, 1), "new.txt": ("e", NEW, 1)})
    storage = scanned(here, {"old.jpg": ("n", OLD, 1), "new.txt": ("n", NEW, 1)})
    assert storage.asked == ["old.jpg"]


# --- pages that are written otherwise


def otherwise(columns: Columns) -> bytes:
    return render_entries(columns).replace(b"</Size>", b"</Size><StorageClass>X</StorageClass>")


def test_a_gateway_that_writes_pages_otherwise_costs_parsing_and_no_event():
    here = site(strings=False)
    bucket = numbered(100)
    scanned(here, bucket)
    announced(here)
    for render in (otherwise, render_entries, otherwise):
        storage = scanned(here, bucket, render=render)
        assert storage.parsed > 0
        assert announced(here) == []
        assert here.counts.changes == 0
        # Until the other gateway answers, this one's pages are known.
        assert scanned(here, bucket, render=render).parsed == 0


# --- documented strings


def expiring(here: Site, ttl_s: float) -> dict[str, float]:
    """When each key's string expires."""
    return {key: state.last_processed + ttl_s for key, state in here.states.strings.items()}


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 400)), max_size=30))
def test_no_documented_string_expires_while_its_object_is_there(history):
    """Whatever comes, goes and is joined: as long as scans are not very rare."""
    here = site(page_size=8, ttl_s=1000.0, mass_minimum=10**9)
    for objects, pause in history:
        bucket = {"always": ("e", OLD, 1)} | numbered(objects, step=1 + objects % 3)
        scanned(here, bucket)
        here.states.queue.clear()
        assert here.states.strings.keys() == bucket.keys()
        for _ in range(2):
            here.now += min(pause, 100)
            scanned(here, bucket)
            assert min(expiring(here, 1000.0).values()) > here.now


def test_the_strings_of_a_segment_in_which_something_changes_all_the_time_do_not_expire():
    here = site(ttl_s=1000.0)
    bucket = numbered(10)
    for step in range(30):
        scanned(here, bucket | {"key-00003": (f"v{step}", OLD, 1)})
        here.now += 100
        assert min(expiring(here, 1000.0).values()) > here.now
    here.settings = replace(here.settings, strings=False)
    scanned(here, bucket)
    assert here.states.strings == {}


@pytest.mark.parametrize("gone", ["key-00004", "key-00009"])
def test_the_string_of_an_object_that_comes_back_while_it_is_held_has_not_expired(gone):
    here = site(ttl_s=1000.0, mass_minimum=1, mass_share=0.0)
    bucket = numbered(10)
    for step in range(30):
        scanned(here, without(bucket, gone) if step < 25 else bucket)
        here.now += 100
        assert min(expiring(here, 1000.0).values()) > here.now
    assert len(announced(here)) == 10


def test_strings_that_are_switched_off_go_also_those_of_joined_segments():
    here = site(page_size=8, mass_minimum=10**9)
    scanned(here, numbered(40))
    here.settings = replace(here.settings, strings=False)
    bucket = numbered(3)
    scanned(here, bucket)
    scanned(here, bucket)
    assert here.states.strings == {}
    assert announced(here)[-1][0] == "deleted"


# --- looking without touching


@given(st.integers(0, 120), st.integers(1, 3), st.sets(st.integers(0, 120), max_size=60))
def test_a_dry_run_finds_what_a_scan_finds(count, step, gone):
    here = site(page_size=4, lanes=4, mass_minimum=10**9)
    before = numbered(count, step=step)
    scanned(here, before)
    after = without(numbered(120), *(f"key-{number:05d}" for number in gone))
    here.states.queue.clear()
    counts = ScanCounts()
    told: list[str] = []
    here.settings = replace(here.settings, lanes=1)
    with reading_only(here.states, told.extend) as states:
        means = here.means(FakeStorage(after), states=states, counts=counts)
        BucketPass(here.bucket, here.claim(), means).run()
    assert here.states.objects() == before
    scanned(here, after)
    assert counts == here.counts
    ids = [json.loads(text)["event_id"] for text in told]
    assert ids == [event["event_id"] for event in here.states.queue]
