"""The rule of a bucket's state has three forms, in Python, SQL and Lua: all must say the same."""

import time
from typing import Any

import pytest
import redis

from buckets import selectors, services
from buckets.models import Bucket
from buckets.selectors import State
from buckets.sync import scan_status
from scanning import wiring
from scanning.core import redis_keys
from scanning.core.metrics.telemetry import LATE_S
from tests.support import api_client

pytestmark = pytest.mark.django_db(transaction=True)

LOST, FAILING, HELD = {"lost_since": 5}, {"error_class": "Throttled"}, {"held_since": 5}
MOVED = {"held_moved_since": 5}
SCANNED: dict[Any, Any] = {"scan_at": 5}
EVERYTHING = LOST | FAILING | HELD | SCANNED


def case(state: State, facts: dict[Any, Any], *flags: str) -> Any:
    return pytest.param(state, facts, flags, id=" ".join(["+".join(facts) or "nothing", *flags]))


@pytest.mark.parametrize(
    ("state", "facts", "flags"),
    [
        case(State.PAUSED, {}, "paused"),
        case(State.PAUSED, LOST, "paused"),
        case(State.PAUSED, FAILING | HELD | SCANNED, "paused"),
        case(State.PAUSED, EVERYTHING, "paused"),
        case(State.LOST, LOST),
        case(State.LOST, EVERYTHING),
        case(State.FAILING, FAILING),
        case(State.FAILING, FAILING, "late"),
        case(State.FAILING, FAILING | HELD | SCANNED, "late"),
        case(State.HELD, HELD),
        case(State.HELD, HELD | SCANNED, "late"),
        case(State.HELD, MOVED | SCANNED),
        case(State.HELD, HELD | MOVED, "late"),
        case(State.FAILING, FAILING | MOVED | SCANNED),
        case(State.LATE, {}, "late"),
        case(State.LATE, SCANNED, "late"),
        case(State.WAITING, {}),
        case(State.WAITING, {}, "late", "running"),
        case(State.WATCHED, SCANNED),
        case(State.WATCHED, SCANNED, "late", "running"),
    ],
)
def test_python_sql_and_lua_see_the_same_state(
    store: redis.Redis, state: State, facts: dict[Any, Any], flags: tuple[str, ...]
):
    bucket = api_client.add_bucket("media-in")
    if "paused" in flags:
        services.update_bucket(bucket=bucket, monitoring_enabled=False)
    elif "lost_since" not in facts:  # what is lost is off the schedule, as what is paused
        due = time.time() + (-LATE_S - 60 if "late" in flags else 600)
        store.zadd(redis_keys.due(bucket.region), {bucket.name: due})
        store.sadd(redis_keys.REGIONS, bucket.region)
    if "running" in flags:
        store.zadd(redis_keys.running(bucket.region), {bucket.name: time.time() + 600})
    if facts:
        store.hset(redis_keys.bucket(bucket.name), mapping=facts)
    store.zadd(redis_keys.STATUS_CHANGES, {bucket.name: 1})
    scan_status.flush()

    late = selectors.late_buckets()
    row = Bucket.objects.get()

    assert selectors.state(row, late=row.name in late) == state
    assert [s for s in State if selectors.in_state(Bucket.objects.all(), s, late=late)] == [state]
    assert [s for s, number in selectors.state_counts(late=late).items() if number] == [state]
    in_redis = wiring.interactive().telemetry.bucket_states()
    assert [name for name, number in in_redis.items() if number] == [state.name.lower()]


def test_every_state_has_its_place_in_lists():
    assert sorted(selectors.WORST_FIRST) == sorted(State)
