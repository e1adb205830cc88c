"""What is said of one key: in the core by cases, and compared with what scans then do."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pytest

from scanning import engine, wiring
from scanning.core import redis_keys
from scanning.core.explain import KeyFacts, Known, Listed, LookedAt, ScheduleStatus, explain
from scanning.core.listing.body import Columns
from scanning.core.probing import LastProbe
from scanning.core.schedule import PollingIntervals
from scanning.core.segments.model import Entry
from scanning.core.types import BucketConfig, EventType, KeyPair, ObjectState
from scanning.inspection.explain import known_of
from scanning.ports import Progress
from scanning.scan.context import ScanSettings
from tests.support import engine_buckets
from tests.support.commands import Ran, manage
from tests.support.fakes import FakeStates, FakeStorage, Site
from tests.support.notifications import queued

NOW = 1_700_000_000.0
QUEUE = "linode:notifications:queue"
BUCKET = BucketConfig("media", "s3.example", "region", "MEDIA", events=frozenset(EventType))
STATE = ObjectState("aaa", NOW - 60, 1)
OLD = ObjectState("aaa", NOW - 25 * 3600, 1)
DUE = ScheduleStatus(due_at=NOW + 30)
IT = KeyFacts(BUCKET, "in/a.txt", NOW, Known(), DUE, STATE)
KNOWN = replace(IT, known=Known(STATE))


def of_bucket(it: KeyFacts = IT, **changes: Any) -> KeyFacts:
    return replace(it, bucket=replace(it.bucket, **changes))


# --- the core, case by case

FOUND = {
    "new": (IT, "created", "was modified within 24 hours"),
    "new and old": (
        replace(IT, listed=OLD),
        "detected",
        "more than 24 hours ago: that is detected",
    ),
    "nothing differs": (KNOWN, None, "Nothing differs"),
    "only the size differs": (
        replace(KNOWN, listed=STATE._replace(size=9)),
        "updated",
        "another size than known",
    ),
    "another etag": (
        replace(KNOWN, listed=STATE._replace(etag="b")),
        "updated",
        "another ETag than",
    ),
    "later": (
        replace(KNOWN, listed=STATE._replace(last_modified=NOW)),
        "updated",
        "a later time than known",
    ),
    "later, where ETags are trusted": (
        of_bucket(replace(KNOWN, listed=STATE._replace(last_modified=NOW)), trust_etags=True),
        None,
        "Nothing differs",
    ),
    "later, and that whole buckets move is held": (
        replace(KNOWN, listed=STATE._replace(last_modified=NOW)),
        "updated",
        "held if most of the bucket's objects have moved times",
    ),
    "later, and nobody is to hear of it": (
        replace(
            KNOWN,
            known=Known(STATE, moved_to=NOW, held_moved_since=NOW - 60, takes_times=True),
            listed=STATE._replace(last_modified=NOW),
        ),
        None,
        "Somebody chose to take the new times silently",
    ),
    "later than when somebody wanted silence": (
        replace(
            KNOWN,
            known=Known(STATE, moved_to=NOW - 5, takes_times=True),
            listed=STATE._replace(last_modified=NOW),
        ),
        "updated",
        "a later time than known",
    ),
    "another etag while a storm is held": (
        replace(
            KNOWN,
            known=Known(STATE, held_moved_since=NOW - 60),
            listed=STATE._replace(etag="b", last_modified=NOW),
        ),
        "updated",
        "another ETag than",
    ),
    "noted in a pass that is unfinished": (
        replace(
            KNOWN,
            known=Known(STATE, is_covered=True, moved_to=NOW),
            listed=STATE._replace(last_modified=NOW),
        ),
        "updated",
        "a later time than known",
    ),
    "restored": (replace(KNOWN, listed=OLD), "updated", "an earlier time than known, as when an"),
    "gone": (replace(KNOWN, listed=None), "deleted", "once a scan has listed the whole bucket"),
    "gone and missed": (
        replace(IT, known=Known(STATE, is_missing=True), listed=None),
        "deleted",
        "a scan has already missed it",
    ),
    "never there": (replace(IT, listed=None), None, "nothing is known of it"),
    "outside the prefix": (of_bucket(prefix="out/"), None, 'the bucket\'s prefix "out/"'),
    "no key": (replace(IT, key=""), None, "at least one character"),
    "a key that is too long": (replace(IT, key="é" * 513), None, "and this one has 1026"),
    "a key that is no text": (replace(IT, key="\udc80"), None, "Keys are UTF-8"),
    "first scan": (replace(IT, known=Known(is_first=True)), "created", "announces everything"),
    "baseline": (
        of_bucket(replace(IT, known=Known(is_first=True)), first_scan="baseline"),
        None,
        "first scan is a baseline",
    ),
    "baseline, and an upload in parts that may have been under way": (
        of_bucket(
            replace(IT, known=Known(is_first=True), listed=STATE._replace(etag="e-2")),
            first_scan="baseline",
        ),
        EventType.CREATED,
        "may have been under way",
    ),
    "baseline, and it came during it": (
        of_bucket(replace(IT, known=Known(is_first=True, began=NOW - 90)), first_scan="baseline"),
        "created",
        "after it had begun",
    ),
    "taken over": (replace(IT, known=Known(older=STATE, is_first=True)), None, "Nothing differs"),
    "taken over and changed": (
        of_bucket(replace(IT, known=Known(older=OLD, is_first=True)), first_scan="baseline"),
        "updated",
        "what the older monitor knew",
    ),
    "taken over, and nobody knew it": (
        of_bucket(
            replace(IT, known=Known(is_first=True, older_scan_at=NOW + 2 * 86400)),
            first_scan="baseline",
            taken_over=True,
        ),
        None,
        "only remembers what was there",
    ),
    "taken over, and it came since": (
        of_bucket(
            replace(IT, known=Known(is_first=True, older_scan_at=NOW - 60)),
            first_scan="baseline",
            taken_over=True,
        ),
        "created",
        "after the older monitor's last scan",
    ),
    "taken over and gone": (
        replace(IT, known=Known(older=OLD, is_first=True), listed=None),
        None,
        "nothing is known of it",
    ),
    "damaged": (replace(IT, damage="media: lost"), None, "cannot be used: media: lost"),
    "cannot be listed": (
        replace(KNOWN, problem="media: no"),
        None,
        "could not be listed: media: no",
    ),
}


@pytest.mark.parametrize(("it", "event", "reason"), FOUND.values(), ids=FOUND)
def test_what_the_next_scan_finds(it, event, reason):
    said = explain(it)
    assert said.event == event
    assert reason in " ".join(said.reasons)
    assert said.announced == (event is not None)
    assert "The next pass is due in 30 s." in said.reasons


GONE = replace(KNOWN, listed=None)
HELD = replace(GONE, known=Known(STATE, is_missing=True, held_since=NOW - 60))
STORMY = replace(
    KNOWN,
    known=Known(STATE, moved_to=NOW, held_moved_since=NOW - 60),
    listed=STATE._replace(last_modified=NOW),
)
FULL = replace(IT, schedule=replace(DUE, queue_length=10), queue_high_water=10)
COVERED = Known(is_first=True, is_covered=True)
KEPT_BACK = {
    "notifications are off": (of_bucket(notifications=False), "notifications are off"),
    "an event that is not wanted": (
        of_bucket(GONE, events=frozenset({EventType.UPDATED, EventType.CREATED})),
        "does not announce deleted; it announces created, updated.",
    ),
    "no event is wanted": (of_bucket(events=frozenset()), "it announces nothing."),
    "the suffix": (of_bucket(suffix=".mp4"), 'does not end with ".mp4"'),
    "the queue is full": (FULL, "The queue holds 10 notifications, and scanning pauses from 10 on"),
    "the bucket is full": (
        replace(IT, known=Known(objects=10), most_objects=10),
        "has 10 known objects, and may have 10 (SCAN_MOST_OBJECTS",
    ),
    "a mass deletion": (
        replace(HELD, schedule=replace(DUE, held_missing=7)),
        "7 known objects are",
    ),
    "a storm of moved times": (
        replace(STORMY, schedule=replace(DUE, held_moved=7)),
        "7 known objects have another time, and the ETag and size that are known",
    ),
    "behind an unfinished pass": (replace(IT, known=Known(is_covered=True)), "the pass after it"),
    "behind an unfinished first pass": (
        of_bucket(replace(IT, known=COVERED), first_scan="baseline"),
        "the pass after it",
    ),
    "paused": (of_bucket(active=False), "The bucket is paused"),
    "removed": (replace(IT, schedule=ScheduleStatus(is_clearing=True)), "The bucket was removed"),
    "not managed": (
        replace(IT, schedule=ScheduleStatus(is_managed=False)),
        "manage.py importbuckets",
    ),
}


@pytest.mark.parametrize(("it", "reason"), KEPT_BACK.values(), ids=KEPT_BACK)
def test_why_an_event_is_not_announced(it, reason):
    said = explain(it)
    assert said.event is not None
    assert not said.announced
    assert reason in " ".join(said.reasons)


def test_what_is_never_announced_is_not_said_to_come_later():
    said = " ".join(explain(of_bucket(FULL, notifications=False)).reasons)
    assert "is not announced later either" in said
    assert "QUEUE_HIGH_WATER" not in said


@pytest.mark.parametrize("held", [HELD, STORMY], ids=["deletion", "moved times"])
def test_what_is_held_is_announced_after_the_configured_second_look(held):
    assert explain(replace(held, second_look_s=60)).announced
    assert not explain(replace(held, second_look_s=61)).announced


def test_a_hold_and_a_full_queue_do_not_concern_what_has_no_event():
    quiet = replace(KNOWN, schedule=replace(DUE, queue_length=10), queue_high_water=10)
    said = " ".join(explain(quiet).reasons)
    assert "queue" not in said
    assert "held" not in said


NEXT = {
    "soon": (DUE, "The next pass is due in 30 s."),
    "now": (ScheduleStatus(due_at=NOW - 5), "A scan is due now."),
    "long ago": (ScheduleStatus(due_at=NOW - 300), "A scan has been due for 300 s: do workers run"),
    "never": (ScheduleStatus(), "The schedule does not know the bucket yet"),
    "running": (replace(DUE, is_running=True), "The bucket is being scanned now."),
    "failing": (replace(DUE, error="media: time-out"), "The last scan failed: media: time-out"),
}


@pytest.mark.parametrize(("schedule", "reason"), NEXT.values(), ids=NEXT)
def test_when_the_next_scan_is(schedule, reason):
    assert reason in " ".join(explain(replace(IT, schedule=schedule)).reasons)


# --- what is stored of a key


def test_the_stored_state_of_every_key_is_found_in_its_segment():
    here = Site(settings=replace(Site().settings, page_size=3))
    objects = {f"key-{n:02}": (f"etag-{n}", 1_600_000_000_000 + n, n) for n in range(0, 40, 2)}
    here.scan_to_the_end(FakeStorage(objects))
    for key, (etag, modified, size) in objects.items():
        known = known_of(here.states, here.bucket, key)
        assert known == Known(ObjectState(etag, modified / 1000, size), objects=len(objects))
    for n in (-1, 1, 21, 99):
        assert known_of(here.states, here.bucket, f"key-{n:02}") == Known(objects=20)


class Moving(FakeStates):
    """A scan joins segments with others between a look at the manifest and one at the rows."""

    def read_segment(self, bucket: BucketConfig, entry: Entry) -> Columns | None:
        if self.loads == 0:
            self.loads = 1
            return None
        return super().read_segment(bucket, entry)


def test_a_segment_that_moved_while_somebody_looked_is_looked_up_again():
    here = Site(states=Moving())
    here.scan_to_the_end(FakeStorage({"a": ("e", 0, 0)}))
    assert known_of(here.states, here.bucket, "a").state == ObjectState("e", 0.0, 0)


def test_a_missing_row_an_unfinished_pass_and_a_hold_are_seen():
    here = Site(settings=ScanSettings(mass_minimum=2))
    here.scan_to_the_end(FakeStorage({"a": ("e", 0, 0), "b": ("e", 0, 0)}))
    here.scan(FakeStorage({}))
    here.states.progress = Progress(began=0.0, after="a")
    known = {key: known_of(here.states, here.bucket, key) for key in ("a", "b")}
    assert known["a"] == Known(
        ObjectState("e", 0.0, 0),
        is_missing=True,
        is_covered=True,
        began=0.0,
        held_since=here.now,
        objects=2,
    )
    assert not known["b"].is_covered
    here.states.released = 1
    assert known_of(here.states, here.bucket, "a").held_since is None


def test_the_time_that_a_key_moved_to_and_the_hold_of_that_are_seen():
    here = Site(settings=ScanSettings(mass_minimum=2))
    here.scan_to_the_end(FakeStorage({"a": ("e", 0, 0), "b": ("e", 0, 0)}))
    here.scan_to_the_end(FakeStorage({"a": ("e", 5000, 0), "b": ("e", 6000, 0)}))
    known = {key: known_of(here.states, here.bucket, key) for key in ("a", "b")}
    state = ObjectState("e", 0.0, 0)
    assert known["a"] == Known(state, moved_to=5.0, held_moved_since=here.now, objects=2)
    assert known["b"].moved_to == 6.0
    here.states.takes_times = True
    assert known_of(here.states, here.bucket, "a").takes_times


# --- against real servers, before and after a scan


class Place(NamedTuple):
    name: str
    scan: Callable[[], list[dict[str, Any]]]


@pytest.fixture
def place(store, s3_server, capsys) -> Callable[..., Place]:
    """A managed bucket, and a way to scan it that says what was announced."""

    def make(**given: Any) -> Place:
        name = s3_server.bucket()
        ours = engine_buckets.document(name)["bucketwatch"] | given.pop("bucketwatch", {})
        engine_buckets.put_real(s3_server, name, bucketwatch=ours, **given)

        def scan() -> list[dict[str, Any]]:
            store.delete(QUEUE)
            assert manage(capsys, "runscan", name).status == 0
            return queued(store)

        return Place(name, scan)

    return make


ANY = {"events": ["created", "updated", "detected", "deleted"]}
BUCKETS: dict[str, dict[str, Any]] = {
    "everything wanted": {"bucketwatch": ANY},
    "no deletions wanted": {},
    "a suffix": {"bucketwatch": ANY | {"suffix": ".txt"}},
    "a prefix": {"bucketwatch": ANY | {"prefix": "a b/"}},
    "a baseline": {"bucketwatch": ANY | {"first_scan": "baseline"}},
    "notifications off": {"notifications": False},
}
# Neighbours in UTF-8 order, one the beginning of the other, and all that URLs and XML escape.
KEYS = [
    "a b/",
    "a b/x",
    "a b/x.txt",
    "a b/x.txt2",
    "a b/&<>\"'%+",
    "ü/日本.txt",
    "z",
    "zz\U0010ffff",
]


@pytest.mark.parametrize("given", BUCKETS.values(), ids=BUCKETS)
def test_the_next_scan_does_what_was_said(place, s3_server, given):
    here = place(**given)

    def agrees() -> None:
        said = {key: engine.explain(here.name, key) for key in [*KEYS, "never there"]}
        expected = {key: e.event for key, e in said.items() if e.announced}
        assert {event["key"]: event["event_type"] for event in here.scan()} == expected

    for key in KEYS[::2]:
        s3_server.put(here.name, key)
    agrees()
    for key in KEYS[1:4]:
        s3_server.put(here.name, key, b"changed")
    agrees()
    for key in KEYS[:3]:
        s3_server.client().delete_object(Bucket=here.name, Key=key)
    agrees()
    agrees()


@pytest.mark.parametrize("minimum", [1, 1000])
def test_the_next_scan_does_with_moved_times_what_was_said(place, s3_server, settings, minimum):
    deletions = settings.SCANNING.deletions.model_copy(update={"mass_minimum": minimum})
    settings.SCANNING = settings.SCANNING.model_copy(update={"deletions": deletions})
    here = place()
    s3_server.put(here.name, "key")
    here.scan()
    s3_server.touch(here.name, "key")
    assert engine.explain(here.name, "key").announced
    events = here.scan()
    assert len(events) == (minimum == 1000)
    after = engine.explain(here.name, "key")
    assert after.event == (None if events else EventType.UPDATED)
    assert not after.announced
    assert len(here.scan()) == 0


def test_an_explanation_shows_what_is_stored_and_what_is_listed(place, s3_server):
    here = place()
    s3_server.put(here.name, "key", b"one")
    before = engine.explain(here.name, "key")
    assert (before.stored, before.event) == (None, EventType.CREATED)
    here.scan()
    s3_server.put(here.name, "key", b"three")
    now = engine.explain(here.name, "key")
    assert now.stored == before.listed
    assert now.listed is not None
    assert (now.listed.size, now.event, now.announced) == (5, EventType.UPDATED, True)


def test_an_explanation_changes_nothing(place, s3_server, store):
    here = place()
    s3_server.put(here.name, "key")
    here.scan()
    before = engine_buckets.dump(store)
    engine.explain(here.name, "key")
    engine.explain(here.name, "other")
    assert engine_buckets.dump(store) == before


def test_a_bucket_that_cannot_be_listed_is_explained_all_the_same(place, s3_server):
    here = place()
    s3_server.put(here.name, "key")
    here.scan()
    s3_server.client().delete_object(Bucket=here.name, Key="key")
    s3_server.client().delete_bucket(Bucket=here.name)
    said = engine.explain(here.name, "key")
    assert said.stored is not None
    assert (said.event, said.announced, said.listed) == (None, False, None)
    assert "there is no such bucket" in said.problem
    assert said.problem in said.reasons[0]


def test_keys_that_were_just_rotated_are_looked_up_again(place, s3_server):
    here = place()
    bucket = wiring.background().bucket_configs.load().buckets[here.name]
    wiring.vault().write(bucket.credential, KeyPair("wrong", "wrong"))
    assert engine.explain(here.name, "key").problem
    wiring.vault().write(bucket.credential, KeyPair(s3_server.access_key, s3_server.secret_key))
    wiring.reset()
    assert not engine.explain(here.name, "key").problem


def test_damaged_state_is_said(place, s3_server, store):
    here = place()
    s3_server.put(here.name, "key")
    here.scan()
    [segment] = store.scan_iter(match=f"{redis_keys.OURS}{here.name}:*:seg:*")
    store.delete(segment)
    said = engine.explain(here.name, "key")
    assert (said.stored, said.event, said.announced) == (None, None, False)
    assert said.listed is not None
    assert said.reasons[0].startswith(f"What is stored cannot be used: {here.name}: a part of its")
    assert said.problem in said.reasons[0]


# --- when the key's range was listed, and when it will be

LOOKED = LookedAt(NOW - 3, (("", "a"), ("in/", "in/b"), ("x", None)))
SCANNED = replace(DUE, last_pass_at=NOW - 90)
GROWS = PollingIntervals(60.0, 900.0)


@pytest.mark.parametrize(
    ("it", "listed", "said"),
    [
        pytest.param(IT, None, "No scan has listed the key's range", id="never"),
        pytest.param(
            replace(IT, schedule=SCANNED),
            Listed(NOW - 90, "pass"),
            "last listed by the pass that began 90 s ago.",
            id="by a pass",
        ),
        pytest.param(
            replace(IT, schedule=SCANNED, known=Known(began=NOW - 30, is_covered=True)),
            Listed(NOW - 30, "pass"),
            "The pass under way has listed the key's range; it began 30 s ago.",
            id="by the pass under way",
        ),
        pytest.param(
            replace(IT, schedule=SCANNED, known=Known(began=NOW - 30)),
            Listed(NOW - 90, "pass"),
            "by the pass that began 90 s ago.",
            id="not yet by the pass under way",
        ),
        pytest.param(
            replace(IT, schedule=replace(SCANNED, last_look=LOOKED)),
            Listed(NOW - 3, "look"),
            "last listed by a look, which began 3 s ago.",
            id="by a look",
        ),
        pytest.param(
            replace(IT, key="in/c", schedule=replace(SCANNED, last_look=LOOKED)),
            Listed(NOW - 90, "pass"),
            "by the pass that began 90 s ago.",
            id="not by a look at other ranges",
        ),
        pytest.param(
            replace(IT, key="z", schedule=replace(SCANNED, last_look=LOOKED)),
            Listed(NOW - 3, "look"),
            "by a look",
            id="behind the last known key",
        ),
        pytest.param(
            replace(IT, schedule=replace(SCANNED, last_pass_at=NOW, last_look=LOOKED)),
            Listed(NOW, "pass"),
            "by the pass that began 0 s ago.",
            id="by a pass after the look",
        ),
    ],
)
def test_who_listed_the_range_of_the_key_last(it, listed, said):
    explained = explain(it)
    assert explained.last_listed == listed
    assert said in " ".join(explained.reasons)


def test_nobody_lists_what_is_outside_the_prefix():
    explained = explain(of_bucket(replace(IT, schedule=SCANNED), prefix="out/"))
    assert explained.last_listed is None
    assert "range" not in " ".join(explained.reasons)


@pytest.mark.parametrize(
    ("status", "pass_due", "said"),
    [
        pytest.param(DUE, NOW + 30, "The next pass is due in 30 s.", id="pass"),
        pytest.param(
            replace(DUE, due_at=NOW, pass_due=NOW + 600),
            NOW + 600,
            "A look is due now: at what hints named, and where something changed lately. "
            "The next pass is due in 600 s.",
            id="look",
        ),
        pytest.param(
            replace(DUE, quiet_s=3000.0),
            NOW + 30,
            "Passes are 240 s apart now, and up to 900 s while nothing changes; nothing had for "
            "3000 s when the last one began.",
            id="grown interval",
        ),
    ],
)
def test_when_the_range_of_the_key_is_listed_next(status, pass_due, said):
    explained = explain(replace(IT, schedule=status, intervals=GROWS))
    assert explained.pass_due == pass_due
    assert said in " ".join(explained.reasons)


@pytest.mark.parametrize(
    ("probe_s", "has_totals", "said"),
    [
        pytest.param(5.0, True, "totals are asked for every 5 s, and a look follows", id="probes"),
        pytest.param(5.0, False, "A look follows every 5 s: at what changed lately.", id="none"),
    ],
)
def test_how_often_a_bucket_is_probed_is_a_part_of_when_it_is_listed(probe_s, has_totals, said):
    reasons = explain(replace(IT, probe_s=probe_s, has_totals=has_totals)).reasons
    assert said in reasons[-1]
    assert "look" not in " ".join(explain(IT).reasons)


def test_the_probes_of_a_bucket_are_those_of_its_plan(place, store):
    here = place(bucketwatch={"probe_interval": 7})
    assert "every 7 s" not in " ".join(engine.explain(here.name, "key").reasons)
    here.scan()
    assert "totals are asked for every 7 s" in engine.explain(here.name, "key").reasons[-1]
    wiring.background().probes.record({here.name: LastProbe(None)}, {})
    assert engine.explain(here.name, "key").reasons[-1].startswith("A look follows every 7 s")


def test_an_interval_that_does_not_grow_is_not_spoken_of():
    quiet = replace(IT, schedule=replace(DUE, quiet_s=9e9), intervals=PollingIntervals(60.0))
    assert "apart" not in " ".join(explain(quiet).reasons)


def test_the_last_pass_and_look_are_those_of_the_bucket_that_is_watched_now(place, store):
    here = place()
    here.scan()
    at = float(store.hget(redis_keys.bucket(here.name), "scan_at"))
    assert engine.explain(here.name, "key").last_listed == (at, "pass")
    store.hset(redis_keys.bucket(here.name), "looked_at", json.dumps([at + 1, [["j", "l"]]]))
    assert engine.explain(here.name, "key").last_listed == (at + 1, "look")
    assert engine.explain(here.name, "other").last_listed == (at, "pass")
    store.hset(redis_keys.bucket(here.name), "complete", "another generation")
    assert engine.explain(here.name, "other").last_listed is None


# --- the command


@pytest.fixture
def command(capsys) -> Callable[..., Ran]:
    return partial(manage, capsys, "explain")


def test_the_command_prints_what_people_read(command, place, s3_server):
    here = place()
    s3_server.put(here.name, "a\u202eb", b"one")
    status, out, _ = command(here.name, "a\u202eb")
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == f"{here.name}: a\\u202eb"
    assert lines[1] == "  stored     nothing"
    assert lines[2].startswith("  listed     20")
    assert " UTC, 3 bytes, ETag " in lines[2]
    assert lines[3] == "  next scan  created, announced"
    assert all(line.startswith("  - ") for line in lines[4:])


def test_the_command_prints_what_programs_read(command, place, s3_server):
    here = place()
    s3_server.put(here.name, "key", b"one")
    status, out, _ = command(here.name, "key", "--json")
    said = json.loads(out)
    listed = said.pop("listed")
    assert said.pop("reasons")
    assert (status, listed["size"]) == (0, 3)
    assert time.time() - 3600 < listed["last_modified"] < time.time() + 60
    assert said == {
        "bucket": here.name,
        "key": "key",
        "stored": None,
        "event": "created",
        "announced": True,
        "problem": None,
        "last_listed": None,
        "pass_due": None,
    }


def test_the_command_fails_where_the_bucket_cannot_be_listed(command, s3_server, store):
    engine_buckets.put_real(s3_server, "never-created")
    status, out, _ = command("never-created", "key")
    assert status == 1
    assert "  listed     unknown\n  next scan  unknown\n" in out


def test_the_command_knows_no_bucket_of_that_name(command, store):
    status, out, err = command("nobody", "key")
    assert (status, out) == (2, "")
    assert err.startswith("CommandError: nobody: Redis holds no configuration of this")


def test_the_command_says_in_one_line_that_redis_is_away(command, redis_server):
    redis_server.stop()
    status, _, err = command("media", "key")
    assert status == 1
    assert len(err.splitlines()) == 1
