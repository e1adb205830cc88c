"""`manage.py replay`: what is known is announced again, marked, in order, and once."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from django.contrib.admin.models import LogEntry
from hypothesis import given
from hypothesis import strategies as st

from buckets import services
from buckets.management.commands.replay import Command
from buckets.models import Bucket
from scanning import engine, wiring
from scanning.core import redis_keys
from scanning.core.errors import ConfigurationChanged
from scanning.core.listing.body import Columns
from scanning.core.replay import Selection, as_replay, read_moment
from scanning.core.types import EventType
from scanning.inspection import replay as replay_module
from scanning.inspection.replay import Replay
from scanning.ports import Progress
from scanning.scan.context import ScanSettings
from tests.support import commands, engine_buckets
from tests.support.commands import Ran
from tests.support.fakes import FakeStorage, Site
from tests.support.notifications import QUEUE, example, queued

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

# --- which objects, and what is said of them


def columns(*rows: tuple[str, int]) -> Columns:
    return Columns([k for k, _ in rows], ["e"] * len(rows), [m for _, m in rows], [1] * len(rows))


ROWS = columns(("a", 1000), ("in/", 2000), ("in/a", 3000), ("in/b", 4000), ("z", 5000))


@pytest.mark.parametrize(
    ("chosen", "missing", "after", "rows"),
    [
        (Selection(), (), "", [0, 1, 2, 3, 4]),
        (Selection("in/"), (), "", [1, 2, 3]),
        (Selection(since=3.0), (), "", [2, 3, 4]),
        (Selection("in/", since=3.0), (), "in/a", [3]),
        (Selection(), (1, 4), "", [0, 2, 3]),
        (Selection(), (), "z", []),
    ],
)
def test_rows_are_chosen_by_prefix_time_and_place(chosen, missing, after, rows):
    assert chosen.rows(ROWS, missing=missing, after=after) == rows


@given(st.text(max_size=3), st.lists(st.text(max_size=4)))
def test_no_chosen_key_comes_after_one_that_is_past(prefix, some_keys):
    ordered = sorted(some_keys)
    past = [key for key in ordered if Selection(prefix).is_past(key)]
    assert not any(key.startswith(prefix) for key in ordered if past and key >= past[0])


def test_a_replayed_notification_has_an_id_of_its_own_and_says_of_which_replay_it_is():
    first = example(event_type="detected")
    del first["previous"]
    text = json.dumps(first)
    replayed = json.loads(as_replay(text, "r1"))
    assert replayed == first | {"event_id": replayed["event_id"], "replay": "r1"}
    ids = {json.loads(as_replay(text, replay))["event_id"] for replay in ("r1", "r1", "r2")}
    assert len(ids | {first["event_id"]}) == 3


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-02-01", datetime(2026, 2, 1, tzinfo=UTC)),
        ("2026-02-01T10:30", datetime(2026, 2, 1, 10, 30, tzinfo=UTC)),
        ("2026-02-01T10:30+02:00", datetime(2026, 2, 1, 8, 30, tzinfo=UTC)),
        ("2026-02-01T10:30Z", datetime(2026, 2, 1, 10, 30, tzinfo=UTC)),
        ("90m", datetime(2026, 3, 1, 10, 30, tzinfo=UTC)),
        ("24h", datetime(2026, 2, 28, 12, tzinfo=UTC)),
        ("2w", datetime(2026, 2, 15, 12, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_time_or_an_age(text, moment):
    assert read_moment(text, now=NOW) == moment


@pytest.mark.parametrize("text", ["", "h", "yesterday", "-1d", "1.5h", "7", "99999999999d"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        read_moment(text, now=NOW)


# --- the command


@pytest.fixture
def manage(capsys, transactional_db) -> Callable[..., Ran]:
    return partial(commands.manage, capsys)


@pytest.fixture
def bucket(store, s3_server, manage) -> Callable[..., Bucket]:
    """A bucket with these objects, scanned once; its first notifications are gone."""

    def make(*objects: str, **options: Any) -> Bucket:
        name = s3_server.bucket()
        for key in objects:
            s3_server.put(name, key)
        added = services.add_bucket(
            name=name,
            endpoint=s3_server.url,
            region=engine_buckets.REGION,
            access_key=s3_server.access_key,
            secret_key=s3_server.secret_key,
            **options,
        )
        assert manage("runscan", name).status == 0
        first.extend(queued(store))
        store.delete(QUEUE)
        return added

    first: list[dict[str, Any]] = []
    make.first = first  # type: ignore[attr-defined]
    return make


@pytest.fixture
def replay(manage) -> Callable[..., Ran]:
    return lambda bucket, *options: manage("replay", "--bucket", bucket.name, *options)


@pytest.fixture
def small_segments(settings) -> None:
    """Two objects in each segment, and a lease for each."""
    defaults = settings.SCANNING.defaults.model_copy(update={"max_objects_per_batch": 2})
    settings.SCANNING = settings.SCANNING.model_copy(update={"defaults": defaults})


def test_known_objects_are_announced_again_as_they_were_but_for_their_marks(replay, bucket, store):
    media = bucket("a", "b", "c")
    ran = replay(media, "--yes")
    assert ran.status == 0
    assert ran.err == f"{media.name}: 3 known objects to announce\n"
    events = queued(store)
    [run] = {event.pop("replay") for event in events}
    assert ran.out == f"{media.name}: 3 objects announced again, replay {run}\n"
    for again, first in zip(events, bucket.first, strict=True):
        assert again.pop("event_id") != first.pop("event_id")
        assert again.pop("sequencer") > first.pop("sequencer")
        assert again.pop("detection_time") >= first.pop("detection_time")
        assert again == first


def test_prefix_and_time_choose(replay, bucket, store):
    media = bucket("in/a", "in/b", "out/c")
    assert replay(media, "--prefix", "in/", "--since", "24h", "--yes").status == 0
    assert [event["key"] for event in queued(store)] == ["in/a", "in/b"]
    none = replay(media, "--prefix", "none/", "--yes", "--id", "r2")
    assert none.out == f"{media.name}: 0 objects announced again, replay r2\n"
    assert len(queued(store)) == 2


def test_a_dry_run_prints_what_would_be_queued_and_writes_nothing(replay, bucket, store):
    media = bucket("a", "b")
    before = engine_buckets.dump(store)
    ran = replay(media, "--dry-run")
    assert ran.err == f"{media.name}: 2 known objects to announce\n"
    assert ran.out.splitlines() == [
        f"created   {media.name}  a  1 bytes",
        f"created   {media.name}  b  1 bytes",
    ]
    told = [
        json.loads(line)
        for line in replay(media, "--dry-run", "--json", "--id", "x").out.splitlines()
    ]
    assert engine_buckets.dump(store) == before
    assert replay(media, "--yes", "--id", "x").status == 0
    assert [event["event_id"] for event in told] == [event["event_id"] for event in queued(store)]


def test_events_that_the_bucket_leaves_out_are_left_out_unless_asked_for(replay, bucket, store):
    media = bucket("a.txt", "b.mp4", announce_created=False, suffix=".mp4")
    ran = replay(media, "--yes")
    assert ran.status == 0
    assert ran.out.startswith(f"{media.name}: 0 objects announced again")
    assert f"{media.name}: 2 more are left out" in ran.err
    assert "1 object announced again" in replay(media, "--yes", "--any-type").out
    assert [event["key"] for event in queued(store)] == ["b.mp4"]


def test_a_bucket_whose_notifications_are_off_announces_nothing(replay, bucket, store):
    media = bucket("a")
    services.set_notifications(bucket=media, enabled=False)
    ran = replay(media, "--yes")
    assert ran.status == 1
    assert (
        ran.err == f"CommandError: {media.name}: its notifications are off: switch them on first\n"
    )
    assert queued(store) == []


def test_what_a_listing_has_missed_is_not_announced(
    replay, bucket, store, s3_server, manage, settings
):
    deletions = settings.SCANNING.deletions.model_copy(update={"mass_minimum": 1})
    settings.SCANNING = settings.SCANNING.model_copy(update={"deletions": deletions})
    media = bucket("a", "b")
    for key in ("a", "b"):
        s3_server.client().delete_object(Bucket=media.name, Key=key)
    assert "held until somebody confirms" in manage("runscan", media.name).out
    assert "0 known objects to announce" in replay(media, "--yes").err


def test_an_unfinished_pass_goes_on_where_it_was(replay, bucket, store):
    media = bucket("a")
    progress = json.dumps({"began": 1.0, "after": "a"})
    store.hset(redis_keys.bucket(media.name), "progress", progress)
    replay(media, "--yes")
    configured = wiring.background().bucket_configs.get(media.name)
    assert configured is not None
    assert wiring.background().states.open(configured).progress == Progress(began=1.0, after="a")


def test_the_history_says_who_announced_what(replay, bucket):
    media = bucket("a", "b")
    replay(media, "--yes", "--id", "r1")
    entries = LogEntry.objects.filter(object_id=str(media.pk)).order_by("pk")
    assert [entry.change_message for entry in entries][-2:] == [
        "Began to announce objects again, replay r1",
        "Announced 2 objects again, replay r1",
    ]


def test_the_end_is_said_in_json(replay, bucket):
    media = bucket("a", "b")
    said = json.loads(replay(media, "--yes", "--id", "r1", "--json").out)
    assert said == {"bucket": media.name, "replay": "r1", "announced": 2}


def test_tail_shows_what_is_a_replay(replay, bucket, manage):
    media = bucket("a")
    replay(media, "--yes", "--id", "r1")
    first, again = manage("tail", "--no-follow").out.splitlines()
    assert again[21:] == f"{first[21:]}  (replay r1)"
    shown = [json.loads(line) for line in manage("tail", "--no-follow", "--json").out.splitlines()]
    assert [line.get("replay") for line in shown] == [None, "r1"]


# --- asking before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "status", "number"), [("y\n", 0, 1), ("\n", 1, 0), ("no\n", 1, 0)]
)
def test_somebody_has_to_confirm_it(replay, bucket, store, monkeypatch, answer, status, number):
    media = bucket("a")
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    ran = replay(media)
    assert ran.status == status
    assert ran.out.startswith(f"Announce 1 object of {media.name} again? [y/N] ")
    assert len(queued(store)) == number


def test_where_nobody_can_confirm_it_nothing_is_announced(replay, bucket, store, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    ran = replay(bucket("a"))
    assert ran.status == 2
    assert "say --yes" in ran.err
    assert queued(store) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bucket", "nobody"], "unknown bucket: nobody"),
        ([], "the following arguments are required: --bucket"),
        (["--bucket", "b", "--since", "soon"], "must be like 2025-04-10"),
        (["--bucket", "b", "--since", "2099-01-01"], "2099-01-01 00:00 UTC is still to come"),
        (["--bucket", "b", "--id", "two words"], "must be at most 64 letters"),
    ],
)
def test_what_makes_no_sense_exits_with_2(manage, store, arguments, message):
    ran = manage("replay", *arguments)
    assert ran.status == 2
    assert message in ran.err


# --- beside consumers, scans and other hands


def test_half_of_the_queue_is_left_to_what_happens_meanwhile(
    replay, bucket, store, settings, monkeypatch
):
    media = bucket("a", "b")
    full = settings.SCANNING.queue.model_copy(update={"high_water": 4})
    settings.SCANNING = settings.SCANNING.model_copy(update={"queue": full})
    wiring.reset()
    store.rpush(QUEUE, "{}", "{}")
    slept = []

    def consume(seconds: float) -> None:
        slept.append(store.zcard(redis_keys.running(engine_buckets.REGION)))
        if len(slept) == 2:
            store.delete(QUEUE)

    monkeypatch.setattr(Command, "sleep", staticmethod(consume))
    ran = replay(media, "--yes")
    assert ran.status == 0
    assert ran.err.count("waiting: the queue is half full: consumers have to read first") == 1
    assert [event["key"] for event in queued(store)] == ["a", "b"]
    assert slept == [0, 0]  # nobody waits with a lease in hand


@pytest.fixture
def running(store) -> Callable[..., Iterator[replay_module.Step]]:
    def start(bucket: Bucket, **given: Any) -> Iterator[replay_module.Step]:
        return engine.replay(bucket.name, Selection(), id_="r1", **given).run()

    return start


def keys_in(store: redis.Redis) -> list[str]:
    return [event["key"] for event in queued(store)]


def test_it_waits_while_a_worker_scans_the_bucket(bucket, running, store):
    media = bucket("a")
    store.zadd(redis_keys.running(engine_buckets.REGION), {media.name: 4e9})
    steps = running(media)
    assert "is being scanned" in next(steps).waits_for
    store.delete(redis_keys.running(engine_buckets.REGION))
    assert [step.announced for step in steps] == [1]
    assert keys_in(store) == ["a"]


def test_a_lost_lease_loses_and_repeats_nothing(bucket, running, store, small_segments):
    media = bucket("a", "b", "c", "d", "e")
    steps = running(media)
    assert next(steps) == replay_module.Step(2, "b")
    configured = wiring.background().bucket_configs.get(media.name)
    assert configured is not None
    store.delete(
        redis_keys.running(engine_buckets.REGION)
    )  # the lease has expired, and somebody else came
    other = wiring.background().leases.claim(configured, slots=15)
    assert other is not None
    assert "the lease expired" in next(steps).waits_for
    wiring.background().leases.release(other)
    assert list(steps)[-1] == replay_module.Step(5, "e")
    assert keys_in(store) == ["a", "b", "c", "d", "e"]


def test_the_lease_is_given_back_between_slices(
    bucket, running, store, small_segments, monkeypatch
):
    monkeypatch.setattr(replay_module, "_SLICE_S", 0.0)
    media = bucket("a", "b", "c", "d", "e")
    fences = [store.hget(redis_keys.bucket(media.name), "fence") for _ in running(media)]
    assert len(set(fences)) == len(fences) >= 3
    assert keys_in(store) == ["a", "b", "c", "d", "e"]
    assert store.zcard(redis_keys.running(engine_buckets.REGION)) == 0


def test_it_stops_when_notifications_are_switched_off(
    bucket, running, store, small_segments, monkeypatch
):
    monkeypatch.setattr(replay_module, "_SLICE_S", 0.0)
    media = bucket("a", "b", "c")
    steps = running(media)
    next(steps)
    services.set_notifications(bucket=media, enabled=False)
    with pytest.raises(ConfigurationChanged, match="notifications are off"):
        list(steps)
    assert keys_in(store) == ["a", "b"]


@pytest.fixture
def eight_in_a_segment(settings) -> None:
    defaults = settings.SCANNING.defaults.model_copy(update={"max_objects_per_batch": 8})
    settings.SCANNING = settings.SCANNING.model_copy(update={"defaults": defaults})


def manifest_of(bucket: Bucket) -> str:
    configured = wiring.background().bucket_configs.get(bucket.name)
    assert configured is not None
    return redis_keys.manifest(bucket.name, configured.generation)


def test_a_scan_that_joins_and_cuts_segments_beside_it_is_no_damage_and_changes_no_count(
    bucket, manage, s3_server, store, eight_in_a_segment
):
    media = bucket(*"abcdefghijklmnop", *(f"z{n}" for n in range(8)))
    for key in "defghjklmnop":
        s3_server.client().delete_object(Bucket=media.name, Key=key)
    assert manage("runscan", media.name).status == 0
    manifest = manifest_of(media)
    segments = store.hkeys(manifest)
    replay = engine.replay(media.name, Selection(), id_="r1")
    told = replay.notifications()
    first = next(told)  # the manifest is read, and the first of three segments

    s3_server.put(media.name, "i", "another")
    for number in range(8):
        s3_server.put(media.name, f"z{number}x")
    assert manage("runscan", media.name).status == 0
    assert not set(segments) <= set(store.hkeys(manifest))
    shown = [json.loads(text)["key"] for text in (first, *told)]
    there = ["a", "b", "c", "i", *(f"z{n}{x}" for n in range(8) for x in ("", "x"))]
    assert shown == there
    assert replay.count().wanted == len(there)


def test_a_manifest_that_has_lost_a_segment_is_damage(bucket, replay, store, small_segments):
    media = bucket("a", "b", "c")
    manifest = manifest_of(media)
    store.hdel(manifest, store.hkeys(manifest)[0])
    ran = replay(media, "--yes")
    assert ran.status == 1
    assert "a part of its state in Redis is missing" in ran.err


LISTED = st.dictionaries(
    st.integers(0, 40).map("{:02}".format),
    st.tuples(st.sampled_from("ef"), st.just(0), st.just(1)),
    max_size=40,
)


@given(st.lists(LISTED, min_size=1, max_size=6), st.sampled_from([4, 8]), st.data())
def test_beside_any_scans_each_object_that_stays_is_announced_once(listings, page_size, data):
    settings = ScanSettings(page_size=page_size, mass_minimum=10**9)
    here = Site(settings=settings).wanting(events=frozenset(EventType))
    here.scan(FakeStorage(listings[0]))
    means: Any = SimpleNamespace(
        bucket=lambda: here.bucket, states=here.states, storage=FakeStorage({})
    )
    told = []
    later = iter(listings[1:])
    for text in Replay(means, Selection(), id_="r1").notifications():
        told.append(json.loads(text)["key"])
        if data.draw(st.booleans()) and (listing := next(later, None)) is not None:
            here.scan(FakeStorage(listing))
    assert told == sorted(set(told))
    scanned = listings[: len(listings) - len(list(later))]
    assert set.intersection(*map(set, scanned)) <= set(told) <= set().union(*scanned)


def test_an_interrupted_replay_says_how_to_go_on_and_goes_on(
    replay, bucket, running, store, small_segments, monkeypatch
):
    media = bucket("a", "b c", "d")

    def ctrl_c(seconds: float) -> None:
        raise KeyboardInterrupt

    with closing(running(media)) as steps:
        step = next(steps)
    assert step == replay_module.Step(2, "b c")
    monkeypatch.setattr(Command, "sleep", staticmethod(ctrl_c))
    store.zadd(redis_keys.running(engine_buckets.REGION), {media.name: 4e9})
    ran = replay(media, "--yes", "--id", "r1", "--after", step.after)
    assert ran.status == 130
    assert ran.err.splitlines()[-1] == (
        "Interrupted after 0 objects. The rest: "
        f"manage.py replay --bucket {media.name} --id r1 --after 'b c'"
    )
    store.delete(redis_keys.running(engine_buckets.REGION))
    assert replay(media, "--yes", "--id", "r1", "--after", "b c").status == 0
    assert keys_in(store) == ["a", "b c", "d"]
