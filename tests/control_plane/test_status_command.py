"""`manage.py status`: the dashboard in a terminal."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
import redis
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from scanning import wiring
from scanning.core import redis_keys
from scanning.core.types import EventType
from scanning.ports import Commit
from tests.support import api_client, engine_buckets

pytestmark = pytest.mark.django_db

QUEUE = "linode:notifications:queue"


@pytest.fixture
def store(safe_redis) -> Iterator[redis.Redis]:
    with safe_redis.client() as client:
        client.set(redis_keys.LEADER, "host:1")
        yield client


def run(*options: str, **arguments: Any) -> tuple[int, str]:
    """Exit status and output."""
    out = io.StringIO()
    try:
        call_command("status", *options, stdout=out, **arguments)
    except SystemExit as exc:
        return int(exc.code or 0), out.getvalue()
    return 0, out.getvalue()


def work(store: redis.Redis, name: str = "media-in") -> None:
    """A scan that announced something."""
    engine_buckets.schedule(store, engine_buckets.put(name), at=time.time() - 4)
    [claim] = wiring.background().leases.claim_due(engine_buckets.REGION, limit=1, slots=15)
    commit = Commit(
        number=1,
        notifications=[json.dumps({"detection_time": time.time() - 750})],
        announced={EventType.CREATED: 1234},
        lags_s=[12.0],
    )
    wiring.background().states.commit(claim, commit)
    result = engine_buckets.result(name, started_at=time.time())
    wiring.background().leases.finish(claim, result, next_due=time.time() + 60)


def test_when_all_is_well_it_says_so_and_succeeds(store):
    api_client.add_with_status("media-in", last_scan_at=timezone.now())
    status, text = run()
    assert status == 0
    assert "All is well: nothing needs attention." in text
    assert "scheduled by host:1" in text


def test_what_happened_is_shown_with_units(store):
    api_client.add_with_status("media-in", last_scan_at=timezone.now())
    work(store)
    _, text = run()
    for line in (
        "QUEUE       1 waits, the oldest for 12 min; scanning pauses from 1,000,000 on",
        "LAST HOUR   1,234 created, 0 updated, 0 detected, 0 deleted",
        "SCANS       1, 0 of them failed",
        "LAG         half within 12 s, 95 % within 15 s",
    ):
        assert line in text
    assert re.search(r"^RATE        [\d.,]+ objects/s, [\d.,]+ LIST/s$", text, re.MULTILINE)
    assert f"{engine_buckets.REGION:<40}{1:>10}{0:>10}{0:>10}{15:>10}" in text


def test_buckets_are_counted_by_state(store):
    now = timezone.now()
    api_client.add_with_status("b-a", last_scan_at=now)
    api_client.add_with_status("b-b", last_error="no", last_error_class="AccessDenied")
    api_client.add_with_status("b-c", held_since=now, last_scan_at=now)
    api_client.add_with_status("b-d", monitoring_enabled=False)
    api_client.add_with_status("b-e")
    _, text = run()
    head, numbers = (line.split() for line in text.splitlines()[2:4])
    assert dict(zip(head[1:], map(int, numbers), strict=True)) == {
        "total": 5,
        "lost": 0,
        "watched": 1,
        "failing": 1,
        "held": 1,
        "paused": 1,
        "waiting": 1,
        "late": 0,
    }


def test_what_needs_attention_comes_with_reason_and_next_step(store):
    api_client.add_with_status(
        "media-in", last_error="media-in: 403\nfrom S3", last_error_class="AccessDenied"
    )
    status, text = run()
    assert status == 1
    assert text.endswith(
        "NEEDS ATTENTION: 1\n"
        "\n"
        "! FAILING: media-in: the key pair may not list the bucket\n"
        "  media-in: 403\\nfrom S3\n"
        "  -> Allow the access key to list and read the bucket, or use another\n"
        "     credential.\n"
    )


def test_every_line_fits_into_eighty_columns(store):
    long = "a-region-with-a-name-that-nobody-would-give-it" * 3
    engine_buckets.schedule(store, engine_buckets.put("media-in", region=long), at=1.0)
    api_client.add_with_status(
        "media-in", last_error="why " * 60 + "x" * 100, last_error_class="AccessDenied"
    )
    store.set(redis_keys.LEADER, "h" * 100)
    store.rpush(QUEUE, *["{}"] * 5)
    _, text = run()
    assert max(map(len, text.splitlines())) <= 80
    assert "a-region-with-a-name-that-nobody-would-…" in text


def test_many_regions_are_cut_the_late_ones_first(store):
    for number in range(40):
        bucket = engine_buckets.put(f"bucket-{number}", region=f"region-{number:02}")
        engine_buckets.schedule(store, bucket, at=1.0 if number == 39 else time.time() + 60)
    _, text = run()
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("REGION")) + 1
    assert lines[first].startswith("region-39")
    assert lines[first + 30] == "and 10 more"


def test_endpoints_that_are_not_asked_as_usual_are_listed(store):
    now = time.time()
    paces: dict[str, dict[str, float]] = {
        "well.example.com": {},
        "slow.example.com": {"rate": 12.5, "full": 25.0, "since": now},
        "dead.example.com": {"dead_since": now, "wait_until": now + 5},
    }
    for endpoint, pace in paces.items():
        store.set(redis_keys.pace(endpoint), json.dumps(pace))
        store.zadd(redis_keys.PACES, {endpoint: now})
    _, text = run()
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("ENDPOINT"))
    assert lines[first + 1].split() == ["dead.example.com", "dead", "probes", "only"]
    assert lines[first + 2].split()[:4] == ["slow.example.com", "slowed", "at", "most"]
    assert "well.example.com" not in text
    said = json.loads(run("--json")[1])
    assert [one["state"] for one in said["endpoints"]] == ["dead", "slowed", "normal"]


def test_colour_only_adds_to_words(store):
    api_client.add_with_status("media-in", last_error="no", last_error_class="AccessDenied")
    _, plain = run()
    _, coloured = run(force_color=True)
    assert "\x1b[" not in plain
    assert "\x1b[" in coloured
    assert "! FAILING" in plain


def test_without_redis_it_shows_what_the_database_knows(redis_server):
    api_client.add_with_status("media-in", last_scan_at=timezone.now())
    redis_server.stop()
    status, text = run()
    assert status == 1
    assert "! REDIS AWAY: Redis is away" in text
    assert "watched" in text
    assert "QUEUE" not in text
    assert "late" not in text.split("NEEDS")[0]
    assert json.loads(run("--json")[1])["telemetry"] is None


def test_as_json_it_is_one_object(store):
    api_client.add_with_status("media-in", last_error="no", last_error_class="AccessDenied")
    work(store, "other")
    status, text = run("--json")
    assert (status, text.count("\n")) == (1, 1)
    said = json.loads(text)
    assert said["ok"] is False
    assert said["buckets"]["failing"] == said["buckets"]["total"] == 1
    assert said["attention"] == [
        {
            "kind": "failing",
            "title": "media-in: the key pair may not list the bucket",
            "reason": "no",
            "next_step": said["attention"][0]["next_step"],
            "bucket": "media-in",
            "count": 1,
            "error_class": "AccessDenied",
        }
    ]
    assert sum(moment["created"] for moment in said["telemetry"]["last_hour"]) == 1234
    assert said["telemetry"]["queue_length"] == 1


def test_without_the_database_it_cannot_say(store):
    with connection.execute_wrapper(_database_away), pytest.raises(CommandError) as caught:
        run()
    assert caught.value.returncode == 2
    assert str(caught.value) == "The database does not answer: connection refused"


def _database_away(*_: Any) -> NoReturn:
    raise OperationalError("connection refused\nIs the server running?")


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf"])
def test_it_is_not_shown_again_all_the_time(seconds):
    with pytest.raises(CommandError, match="1 to 86400 seconds"):
        run("--watch", seconds)


@pytest.fixture
def watching(redis_server, tmp_path) -> Iterator[subprocess.Popen[str]]:
    environ = os.environ | {"REDIS_URL": redis_server.url, "DATA_DIR": str(tmp_path)}
    manage = [sys.executable, str(settings.BASE_DIR / "manage.py")]
    subprocess.run([*manage, "migrate", "--verbosity", "0"], env=environ, check=True)
    process = subprocess.Popen(
        [*manage, "status", "--json", "--watch", "1"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_it_is_shown_again_until_ctrl_c(watching, redis_server):
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["telemetry"]
    redis_server.stop()
    seen = json.loads(watching.stdout.readline())
    while seen["telemetry"]:
        seen = json.loads(watching.stdout.readline())
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=30)
    assert (watching.returncode, errors) == (130, "")
