"""A rehearsal of `docs/taking-over.md`: the older monitor, bucketwatch, and the older one again."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scanning.core import redis_keys
from tests.support.infisical_server import InfisicalServer
from tests.support.notifications import QUEUE, message
from tests.support.older_monitor import CONFIG, STATE_TTL_S, OlderMonitor
from tests.support.processes import Program, all_gone
from tests.support.product import Installation
from tests.support.servers import RedisServer, TestS3Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

BATCH = 4  # the older monitor sees no more of a bucket
AUTH = {
    "type": "oauth2",
    "client_id": "consumer",
    "client_secret": "the consumers secret",
    "token_url": "https://auth.example.com/token",
}
Event = tuple[str, str, str]


class Rehearsal:
    """Both monitors, one Redis, one vault and one S3 server."""

    def __init__(
        self, directory: Path, store: RedisServer, s3: TestS3Server, vault: InfisicalServer
    ) -> None:
        self.s3 = s3
        self.client = store.client()
        self.older = OlderMonitor(self.client, vault, batch=BATCH)
        self.vault = vault
        self.ours = Installation(
            directory,
            redis_url=store.url,
            INFISICAL_CLIENT_ID=vault.client_id,
            INFISICAL_CLIENT_SECRET=vault.client_secret,
            INFISICAL_PROJECT_ID=vault.project_id,
            INFISICAL_API_URL=vault.url,
            READY_REQUIRE_WEBHOOK="true",
        )
        self.running: Program | None = None

    def add(self, name: str, *objects: str, **members: Any) -> None:
        """A bucket of the older monitor, with these objects in it."""
        self.s3.bucket(name)
        for key in objects:
            self.s3.put(name, key)
        pair = (self.s3.access_key, self.s3.secret_key)
        self.older.add(name, self.s3.url, keys=pair, **members)

    def start(self) -> None:
        self.running = self.ours.start()

    def wait_for_a_scan_of(self, *names: str) -> None:
        """Until each bucket was scanned from its beginning to its end, from now on."""
        seconds, _ = self.client.time()

        def scanned() -> bool:
            last = [float(self.client.get(redis_keys.last_scan(name)) or 0) for name in names]
            return all(at > seconds + 1 for at in last)

        eventually(scanned)

    def stop(self) -> None:
        assert self.running
        tree = self.running.tree()
        assert self.running.signal(signal.SIGTERM) == 0, self.running.output()
        all_gone(tree, timeout=0)

    def queue(self) -> list[str]:
        return [str(text) for text in self.client.lrange(QUEUE, 0, -1)]

    def announced_after(self, before: list[str]) -> list[Event]:
        """What was added to a queue that was so; each is as the schema wants it."""
        now = self.queue()
        assert now[: len(before)] == before, "what waited in the queue waits there still"
        found = [message(text) for text in now[len(before) :]]
        return sorted((event["bucket"], event["event_type"], event["key"]) for event in found)

    def state(self, bucket: str, key: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            str(self.client.get(f"linode:objstore:state:{bucket}:{key}"))
        )
        return found

    def clear_away(self) -> None:
        if self.running is not None:
            self.running.clear_away()
        self.client.close()


@pytest.fixture
def rehearsal(
    tmp_path: Path, s3_server: TestS3Server, infisical_server: InfisicalServer
) -> Iterator[Rehearsal]:
    store = RedisServer(tmp_path / "redis")
    store.start()
    built = Rehearsal(tmp_path, store, s3_server, infisical_server)
    yield built
    built.clear_away()
    store.stop()


@pytest.mark.timeout(400)
def test_bucketwatch_takes_over_and_gives_back_and_nothing_is_repeated_or_lost(rehearsal):
    here: Rehearsal = rehearsal
    s3, client = here.s3, here.client

    # What the older monitor leaves: one bucket larger than its batch, one silent, one paused.
    here.add("media-in", "a same", "b changed", "c gone", "d same", "past/1", "past/2", note="ours")
    here.add("silent", "s1", webhook_auth=AUTH)
    client.set("linode:objstore:config:silent:notifications_disabled", "true")
    here.add("paused", "p1", status="paused")
    assert len(here.older.scan()) == BATCH
    assert here.older.scan() == []
    left = here.queue()
    assert 0 < client.ttl(QUEUE) <= 604_800
    documents = {
        name: json.loads(str(client.get(CONFIG + name))) for name in ("media-in", "silent")
    }

    # It is stopped, and life goes on.
    s3.put("media-in", "b changed", b"other")
    s3.put("media-in", "a new", b"new")
    s3.put("media-in", "past/3", b"new, and behind the first batch")
    s3.client().delete_object(Bucket="media-in", Key="c gone")
    s3.put("silent", "s2")
    s3.put("paused", "p2")

    # The swap, as the page says.
    assert "3 would be imported" in here.ours.manage("importbuckets", "--dry-run", "--wait=1")
    assert "3 imported" in here.ours.manage("importbuckets", "--wait=1")
    here.start()
    here.wait_for_a_scan_of("media-in", "silent")
    swap = [
        ("media-in", "created", "a new"),
        ("media-in", "created", "past/1"),
        ("media-in", "created", "past/2"),
        ("media-in", "created", "past/3"),
        ("media-in", "updated", "b changed"),
    ]
    assert here.announced_after(left) == swap
    assert client.ttl(QUEUE) == -1
    assert client.get(redis_keys.last_scan("paused")) is None

    # While we run: changes are announced once, and a new bucket shares the keys of another.
    s3.put("media-in", "d same", b"not any more")
    s3.client().delete_object(Bucket="media-in", Key="past/2")
    s3.put(s3.bucket("media-out"), "first")
    here.ours.call(
        "services.add_bucket(name='media-out', endpoint="
        f"{s3.url!r}, credential=selectors.bucket_named('media-in').credential, "
        "webhook_url='https://api.example.com/hook')"
    )
    here.wait_for_a_scan_of("media-in", "silent", "media-out")
    ours = [*swap, ("media-in", "updated", "d same"), ("media-out", "created", "first")]
    assert here.announced_after(left) == sorted(ours)

    # We stop. What the older monitor expects is there, in its formats and with its lifetimes.
    here.stop()
    assert client.ttl(QUEUE) == -1
    assert client.get("linode:objstore:config:silent:notifications_disabled") == "true"
    for name, before in documents.items():
        now = json.loads(str(client.get(CONFIG + name)))
        assert {member: now[member] for member in before} == before | {
            "updated_at": now["updated_at"]
        }
    for listed in s3.client().list_objects_v2(Bucket="media-in")["Contents"]:
        state = here.state("media-in", listed["Key"])
        assert set(state) == {"etag", "last_modified", "size", "last_processed"}
        assert (state["etag"], state["last_modified"], state["size"]) == (
            listed["ETag"].strip('"'),
            listed["LastModified"].timestamp(),
            listed["Size"],
        )
        ttl = client.ttl(f"linode:objstore:state:media-in:{listed['Key']}")
        assert STATE_TTL_S / 2 < ttl <= STATE_TTL_S

    assert not client.exists("linode:objstore:state:media-in:past/2")

    # And back: its keys are in the vault under each bucket's own name.
    here.ours.manage("writealiases")
    s3.put("media-in", "a same", b"changed while nobody looked")
    before = here.queue()
    assert here.older.scan() == [("media-in", "updated", "a same")]
    assert here.queue()[: len(before)] == before
    assert here.older.scan() == []
