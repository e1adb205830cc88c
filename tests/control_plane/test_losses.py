"""Redis emptied, set back to an old copy, or back without its data: nothing floods the queue."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.models import F
from django.test import Client
from django.utils.module_loading import import_string
from pydantic import SecretStr

from buckets import selectors, services
from buckets.health.alerts import AlertKind
from buckets.health.overview import overview
from buckets.models import Bucket
from buckets.sync import losses, outbox, scan_status
from buckets.sync.cooldown import Cooldown
from scanning import wiring
from scanning.core import redis_keys
from scanning.core.errors import StateLost
from scanning.runtime import region_task, scheduler
from scanning.runtime.monitor import MultiRegionMonitor
from tests.support import api_client
from tests.support.notifications import QUEUE, queued
from tests.support.servers import RedisServer, TestS3Server

pytestmark = pytest.mark.django_db(transaction=True)

REGION = "us-test-1"


class Site:
    """A monitor and a worker in this process, on a Redis that can be taken back."""

    def __init__(self, server: RedisServer, s3: TestS3Server, settings: Any) -> None:
        self.server, self.s3, self.settings = server, s3, settings
        self.monitor = MultiRegionMonitor(web=False, workers=False)

    def client(self) -> redis.Redis:
        return self.server.client()

    def add(self, *objects: str, **options: Any) -> Bucket:
        """Watch a new bucket with these objects."""
        name = self.s3.bucket()
        for key in objects:
            self.s3.put(name, key)
        return services.add_bucket(
            name=name,
            endpoint=self.s3.url,
            region=REGION,
            access_key=self.s3.access_key,
            secret_key=self.s3.secret_key,
            polling_interval=3600,
            **options,
        )

    def keep_house(self) -> None:
        """What the monitor that leads does every few seconds."""
        for path in self.settings.PERIODIC_JOBS:
            import_string(path)()

    def scan(self) -> None:
        """Have everything scanned that the schedule and the claims let through."""
        self.monitor.scheduler.invalidate()
        self.monitor._tick()
        with self.client() as client:
            for name in client.zrange(redis_keys.due(REGION), 0, -1):
                client.zadd(redis_keys.due(REGION), {name: 1.0})
        region_task.scan_region(REGION)

    def live(self) -> None:
        """Some seconds of a whole installation."""
        self.keep_house()
        self.scan()
        self.keep_house()

    def announced(self) -> list[tuple[str, str, str]]:
        """What was put into the queue since the last time: type, key and id of the events."""
        with self.client() as client:
            found = queued(client)
            client.delete(QUEUE)
        return sorted((e["event_type"], e["key"], e["event_id"]) for e in found)

    def keys_announced(self) -> list[str]:
        return [key for _, key, _ in self.announced()]

    # --- what happens to Redis

    def move_clock(self, seconds: float) -> None:
        """Leave what was committed so far as a clock wrote it that was ahead or behind since.

        ``seconds`` < 0: the clock goes back now; > 0: it goes forward.
        """
        moved = timedelta(seconds=-seconds)
        Bucket.objects.update(last_commit_at=F("last_commit_at") + moved)
        with self.client() as client:
            for name in client.hkeys(redis_keys.REVISIONS):
                if at := client.hget(redis_keys.bucket(name), "commit_at"):
                    client.hset(redis_keys.bucket(name), "commit_at", float(at) - seconds)

    def copy(self) -> bytes:
        with self.client() as client:
            client.save()
        return (self.server.directory / "dump.rdb").read_bytes()

    def fail_over(self, copy: bytes) -> None:
        """To a replica that knows no more than this."""
        self.server.stop()
        (self.server.directory / "dump.rdb").write_bytes(copy)
        self.server.start()

    def restore(self, copy: bytes) -> None:
        """As of yesterday: what expires within minutes has expired."""
        self.fail_over(copy)
        with self.client() as client:
            client.delete(redis_keys.TRUSTED, redis_keys.LEADER)

    def empty(self) -> None:
        with self.client() as client:
            client.flushall()

    def restart_without_data(self) -> None:
        self.server.kill()
        for file in self.server.directory.glob("*.rdb"):
            file.unlink()
        self.server.start()


@pytest.fixture
def site(
    tmp_path: Path, s3_server: TestS3Server, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    monkeypatch.setattr(region_task, "TIME_BUDGET_S", 0.4)
    server = RedisServer(tmp_path / "redis")
    server.start()
    use(settings, url=SecretStr(server.url), failover_window=0)
    yield Site(server, s3_server, settings)
    server.stop()


def use(settings: Any, **values: Any) -> None:
    """Change settings of Redis; no time has to pass in these tests, so the window is nothing."""
    changed = settings.SCANNING.redis.model_copy(update=values)
    settings.SCANNING = settings.SCANNING.model_copy(update={"redis": changed})
    wiring.reset()


def state(bucket: Bucket) -> selectors.State:
    bucket.refresh_from_db()
    return selectors.state(bucket)


LOSSES = ["empty", "restart_without_data"]


# --- everything is gone


@pytest.mark.parametrize("loss", LOSSES)
def test_what_redis_forgot_is_not_announced_until_somebody_chooses_to(site, loss, caplog):
    bucket = site.add("a", "b")
    site.live()
    first = site.announced()
    assert [key for _, key, _ in first] == ["a", "b"]
    site.s3.put(bucket.name, "while it was away")

    getattr(site, loss)()
    for _ in range(3):
        site.live()

    assert wiring.background().bucket_configs.get(bucket.name) is not None
    assert state(bucket) is selectors.State.LOST
    assert site.announced() == []
    assert caplog.text.count(f"Redis forgot what was known of 1 buckets ({bucket.name})") == 1

    assert services.resume_after_loss(buckets=[bucket], choice="announce") == [bucket.name]
    assert state(bucket) is not selectors.State.LOST
    site.live()
    again = site.announced()
    assert [key for _, key, _ in again] == ["a", "b", "while it was away"]
    assert set(first) < set(again)  # the same ids
    site.live()
    assert state(bucket) is selectors.State.WATCHED
    assert site.announced() == []


@pytest.mark.parametrize("loss", LOSSES)
def test_what_redis_forgot_can_be_remembered_only_and_later_changes_are_announced(site, loss):
    bucket = site.add("a", "b")
    bucket.taken_over = True  # nor is it compared with what an older monitor left
    bucket.save()
    site.live()
    site.announced()

    getattr(site, loss)()
    site.live()
    services.resume_after_loss(buckets=[bucket], choice="baseline")
    site.live()
    assert state(bucket) is selectors.State.WATCHED
    assert site.announced() == []

    site.s3.put(bucket.name, "later")
    site.live()
    assert site.keys_announced() == ["later"]


def test_a_bucket_that_was_only_remembered_is_announced_if_somebody_chooses_to(site):
    bucket = site.add("a", first_scan="baseline")
    site.live()
    assert site.announced() == []
    site.empty()
    site.live()
    services.resume_after_loss(buckets=[bucket], choice="announce")
    site.live()
    assert site.keys_announced() == ["a"]


def test_an_empty_bucket_is_known_to_be_empty(site):
    bucket = site.add(first_scan="baseline")
    site.live()
    site.s3.put(bucket.name, "while it was away")
    site.empty()
    site.live()
    assert state(bucket) is selectors.State.LOST


# --- an old copy


def test_an_old_copy_is_noticed_and_the_difference_is_announced(site):
    bucket = site.add("old")
    site.live()
    copy = site.copy()
    site.s3.put(bucket.name, "new")
    site.live()
    assert site.keys_announced() == ["new", "old"]

    site.restore(copy)
    site.live()
    assert state(bucket) is selectors.State.LOST
    assert site.keys_announced() == ["old"]  # it waited in the queue when the copy was made

    services.resume_after_loss(buckets=[bucket], choice="announce")
    site.live()
    assert site.keys_announced() == ["new"]


def test_nothing_of_an_old_copy_is_announced_if_it_is_only_remembered(site):
    bucket = site.add("old")
    site.live()
    site.announced()
    copy = site.copy()
    site.s3.put(bucket.name, "new")
    site.live()
    site.announced()

    site.restore(copy)
    site.live()
    services.resume_after_loss(buckets=[bucket], choice="baseline")
    site.live()
    assert site.announced() == []
    site.s3.put(bucket.name, "later")
    site.live()
    assert site.keys_announced() == ["later"]


def test_a_bucket_that_did_not_change_since_the_copy_is_simply_scanned(site):
    bucket = site.add("old")
    site.live()
    copy = site.copy()
    site.restore(copy)
    site.announced()
    site.s3.put(bucket.name, "new")
    site.live()
    assert state(bucket) is selectors.State.WATCHED
    assert site.keys_announced() == ["new"]


def test_what_was_lost_within_the_window_is_announced_again_under_the_same_id(site, settings):
    use(settings, failover_window=600)
    bucket = site.add("old")
    site.live()
    copy = site.copy()
    site.s3.put(bucket.name, "new")
    site.live()
    [new, _old] = site.announced()
    site.restore(copy)
    site.announced()
    site.live()
    assert state(bucket) is selectors.State.WATCHED
    assert site.announced() == [new]


def test_the_right_backup_brings_the_buckets_back_by_itself(site):
    bucket = site.add("a")
    site.live()
    good = site.copy()
    site.empty()
    site.live()
    assert state(bucket) is selectors.State.LOST
    site.restore(good)
    site.announced()
    site.live()
    site.s3.put(bucket.name, "new")
    site.live()
    assert state(bucket) is selectors.State.WATCHED
    assert site.keys_announced() == ["new"]


def test_configurations_that_changed_since_the_copy_are_written_again(site):
    bucket = site.add("a")
    site.live()
    copy = site.copy()
    services.update_bucket(bucket=bucket, suffix=".mp4", monitoring_enabled=False)
    site.restore(copy)
    site.keep_house()
    found = wiring.background().bucket_configs.get(bucket.name)
    assert found is not None
    assert (found.suffix, found.active) == (".mp4", False)


def test_what_a_failover_forgot_of_the_configuration_is_written_again(site):
    changed, removed = site.add("a"), site.add("a")
    site.live()
    site.announced()
    copy = site.copy()
    services.update_bucket(bucket=changed, suffix=".mp4")
    services.delete_bucket(bucket=removed)
    site.s3.put(removed.name, "new")
    site.fail_over(copy)
    assert wiring.background().continuity.verified() == "checked"
    site.live()
    found = wiring.background().bucket_configs.get(changed.name)
    assert found is not None
    assert found.suffix == ".mp4"
    assert site.announced() == []


def test_a_bucket_that_was_removed_since_the_copy_is_not_scanned(site):
    bucket = site.add("a")
    site.live()
    copy = site.copy()
    services.delete_bucket(bucket=bucket)
    site.restore(copy)
    site.announced()
    site.s3.put(bucket.name, "new")
    site.live()
    assert site.announced() == []
    found = wiring.background().bucket_configs.get(bucket.name)
    assert found is not None
    with pytest.raises(StateLost):
        wiring.background().states.open(found)


def test_a_copy_of_when_another_bucket_had_that_name_is_noticed_by_its_generation(site):
    """Its commits have larger numbers."""
    bucket = site.add("a")
    site.live()
    with site.client() as client:
        client.hset(redis_keys.bucket(bucket.name), "commit", 500)
    copy = site.copy()
    bucket = added_again(bucket, endpoint=site.s3.url)
    Bucket.objects.filter(pk=bucket.pk).update(
        last_commit_at=bucket.added_at,
        last_commit_generation=bucket.generation,
        last_commit_number=3,
    )
    site.restore(copy)
    compared = wiring.background().continuity.compare(
        [outbox.expected(Bucket.objects.get(pk=bucket.pk))]
    )
    assert compared.lost == [bucket.name]


# --- clocks

BACK, FORWARD = -900.0, 900.0


@pytest.fixture
def window(site, settings, monkeypatch) -> None:
    """As long as it is unless configured, and buckets are compared each time."""
    use(settings, failover_window=600)
    monkeypatch.setattr(losses, "_cooldown", Cooldown(0.0))


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("seconds", [BACK, FORWARD], ids=["back", "forward"])
def test_a_clock_that_moves_is_no_loss(site, seconds):
    bucket = site.add("a")
    site.live()
    site.announced()
    site.move_clock(seconds)
    for key in ("b", "c"):
        site.s3.put(bucket.name, key)
        for _ in range(2):
            site.live()
            assert state(bucket) is selectors.State.WATCHED
        assert site.keys_announced() == [key]


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("seconds", [BACK, FORWARD], ids=["back", "forward"])
def test_an_old_copy_is_noticed_also_if_the_clock_was_ahead_when_it_was_made(site, seconds):
    bucket = site.add("a")
    site.live()
    site.move_clock(seconds)
    copy = site.copy()
    site.s3.put(bucket.name, "b")
    site.live()
    site.restore(copy)
    site.announced()
    site.live()
    assert state(bucket) is selectors.State.LOST
    assert site.announced() == []


@pytest.mark.usefixtures("window")
def test_what_a_failover_forgot_is_not_expected_any_more(site, caplog):
    bucket = site.add("a")
    site.live()
    copy = site.copy()
    for key in ("b", "c"):
        site.s3.put(bucket.name, key)
        site.live()
    bucket.refresh_from_db()
    expected = bucket.last_commit_number
    assert expected is not None

    site.fail_over(copy)
    losses.check()

    bucket.refresh_from_db()
    assert bucket.last_commit_number is not None
    assert bucket.last_commit_number < expected
    assert f"forgot the last moments of 1 buckets ({bucket.name})" in caplog.text
    # So neither a clock that differs there nor time that passes makes a loss of it.
    site.move_clock(BACK)
    for _ in range(2):
        site.live()
        assert state(bucket) is selectors.State.WATCHED
    caplog.clear()
    losses.check()
    assert "forgot" not in caplog.text


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("seconds", [BACK, FORWARD], ids=["back", "forward"])
def test_a_choice_holds_although_redis_and_the_database_have_different_clocks(site, seconds):
    bucket = site.add("a")
    site.live()
    site.announced()
    site.move_clock(seconds)
    site.empty()
    site.live()
    assert state(bucket) is selectors.State.LOST
    services.resume_after_loss(buckets=[bucket], choice="announce")
    for _ in range(2):
        site.live()
        assert state(bucket) is selectors.State.WATCHED
    assert site.keys_announced() == ["a"]
    site.move_clock(seconds)
    site.empty()
    site.live()
    assert state(bucket) is selectors.State.LOST  # what was announced then is expected now


# --- what an earlier version stored


def stored_before(bucket: Bucket) -> None:
    Bucket.objects.filter(pk=bucket.pk).update(last_commit_number=None)


@pytest.mark.usefixtures("window")
def test_a_bucket_of_an_earlier_version_is_not_lost_and_its_number_is_learnt(site):
    bucket = site.add("a")
    site.live()
    stored_before(bucket)
    site.keep_house()
    assert state(bucket) is selectors.State.WATCHED
    site.live()
    bucket.refresh_from_db()
    assert bucket.last_commit_number is not None


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("loss", [*LOSSES, "old copy"])
def test_what_redis_forgot_of_a_bucket_of_an_earlier_version_is_noticed(site, loss):
    bucket = site.add("a")
    site.live()
    copy = site.copy()
    stored_before(bucket)
    Bucket.objects.update(last_commit_at=F("last_commit_at") + timedelta(hours=1))
    if loss == "old copy":
        site.restore(copy)
    else:
        getattr(site, loss)()
    for _ in range(2):
        site.live()
    assert state(bucket) is selectors.State.LOST


def test_a_choice_of_an_earlier_version_holds(site):
    bucket = site.add("a")
    site.live()
    stored_before(bucket)
    Bucket.objects.update(resumed_at=F("last_commit_at") + timedelta(seconds=1))
    site.empty()
    site.live()
    assert state(bucket) is selectors.State.WATCHED


# --- who waits for what


def test_nobody_claims_a_bucket_before_redis_was_compared_with_the_database(site):
    bucket = site.add("a")
    site.live()
    copy = site.copy()
    site.restore(copy)
    leases = wiring.background().leases
    with site.client() as client:
        client.zadd(redis_keys.due(REGION), {bucket.name: 1.0})
        client.delete(f"django_q:{REGION}:q")
    assert leases.claim_due(REGION, limit=9, slots=15) == []
    assert leases.next_due_in_s(REGION) is None
    site.monitor._tick()
    with site.client() as client:
        assert client.llen(f"django_q:{REGION}:q") == 0  # nor is anybody woken

    losses.check()

    assert [c.bucket for c in leases.claim_due(REGION, limit=9, slots=15)] == [bucket.name]


def test_a_mirror_that_is_faster_than_the_comparison_lets_nothing_through(site):
    """Another monitor's, for one: what it writes says what Redis has to remember."""
    bucket = site.add("a")
    site.live()
    site.empty()
    outbox.catch_up()
    with site.client() as client:
        client.set(redis_keys.TRUSTED, "checked")
        assert client.hget(redis_keys.bucket(bucket.name), "lost_since")
    site.scan()
    assert site.announced() == []


def test_redis_that_is_emptied_while_it_is_compared_is_not_trusted(site):
    store = wiring.background().continuity
    token = store.begin()
    site.empty()
    assert not store.mark_verified(token)
    assert store.verified() == ""


def test_the_trust_is_renewed_and_does_not_last(site):
    store = wiring.background().continuity
    assert not store.renew_verified()
    store.mark_verified(store.begin())
    with site.client() as client:
        client.pexpire(redis_keys.TRUSTED, 5000)
        assert store.renew_verified()
        assert 5000 < client.pttl(redis_keys.TRUSTED) <= 30_000


def test_without_the_database_scanning_goes_on_and_the_comparison_follows(
    site, monkeypatch, caplog
):
    def away(*_: Any) -> None:
        raise OperationalError("connection refused")

    bucket = site.add("a")
    site.live()
    site.announced()
    copy = site.copy()
    site.s3.put(bucket.name, "new")
    site.restore(copy)
    site.announced()
    with connection.execute_wrapper(away):
        with pytest.raises(OperationalError):
            losses.check()
        site.scan()
        assert site.announced() == []
        monkeypatch.setattr(scheduler, "UNCHECKED_AFTER_S", 0.0)
        site.scan()
        assert site.keys_announced() == ["new"]
    assert "the database could not be asked" in caplog.text
    assert wiring.background().continuity.verified() == "unchecked"
    site.keep_house()
    assert wiring.background().continuity.verified() == "checked"


def test_a_lost_bucket_that_the_database_was_never_told_of_is_shown_as_lost(
    site, monkeypatch, admin_client: Client
):
    """Whoever stored it was killed, or a backup took the database back: no scan says it again."""
    monkeypatch.setattr(losses, "_cooldown", Cooldown(0.0))
    bucket = site.add("a")
    site.live()
    site.empty()
    losses.check()
    with site.client() as client:
        assert client.delete(redis_keys.STATUS_CHANGES)
    assert state(bucket) is selectors.State.WATCHED

    site.keep_house()

    assert state(bucket) is selectors.State.LOST
    listed = admin_client.get("/admin/buckets/bucket/?state=lost").content.decode()
    assert bucket.name in listed
    assert AlertKind.LOST in {found.kind for found in overview().attention}
    assert services.resume_after_loss(buckets=[bucket], choice="baseline") == [bucket.name]


def test_a_lost_bucket_whose_status_was_read_by_one_who_was_killed_is_shown_as_lost(site):
    bucket = site.add("a")
    site.live()
    site.empty()
    losses.check()
    assert list(wiring.background().bucket_status.changed()) == [bucket.name]  # and is killed
    site.keep_house()
    assert state(bucket) is selectors.State.LOST


def test_one_bucket_whose_keys_were_deleted_waits_and_the_others_go_on(site, monkeypatch):
    monkeypatch.setattr(losses, "_cooldown", Cooldown(0.0))
    lost, other = site.add("a"), site.add("b")
    site.live()
    site.announced()
    with site.client() as client:
        client.delete(*client.keys(f"*{lost.name}*"))
    site.s3.put(other.name, "new")
    site.live()
    assert (state(lost), state(other)) == (selectors.State.LOST, selectors.State.WATCHED)
    assert site.keys_announced() == ["new"]


@pytest.mark.parametrize("spoilt", [None, "{"])
def test_one_configuration_that_somebody_spoilt_is_written_again(site, spoilt, monkeypatch):
    monkeypatch.setattr(losses, "_cooldown", Cooldown(0.0))
    bucket = site.add("a")
    site.live()
    site.announced()
    with site.client() as client:
        client.delete(redis_keys.config(bucket.name))
        if spoilt:
            client.set(redis_keys.config(bucket.name), spoilt)
        client.incr(redis_keys.CONFIG_VERSION)  # as any other bucket's change does
    site.s3.put(bucket.name, "b")
    site.scan()
    assert site.announced() == []
    site.live()
    assert site.keys_announced() == ["b"]


def test_a_part_of_a_state_that_is_missing_is_damage_that_the_same_choice_mends(site):
    bucket = site.add("a", "b")
    site.live()
    site.announced()
    with site.client() as client:
        client.delete(redis_keys.manifest(bucket.name, bucket.generation))
    site.live()
    assert state(bucket) is selectors.State.FAILING
    assert "a part of its state in Redis is missing" in bucket.last_error
    assert site.announced() == []
    services.resume_after_loss(buckets=[bucket], choice="announce")
    site.live()
    assert state(bucket) is selectors.State.WATCHED
    assert site.keys_announced() == ["a", "b"]


# --- no loss


def added_again(bucket: Bucket, **options: Any) -> Bucket:
    credential = services.add_credential(name="kept", access_key="A", secret_key="S")
    services.delete_bucket(bucket=bucket)
    return services.add_bucket(name=bucket.name, region=REGION, credential=credential, **options)


CHANGES = {
    "new": lambda bucket: bucket,
    "another prefix": lambda b: services.update_bucket(bucket=b, prefix="in/"),
    "another endpoint": lambda b: services.update_bucket(bucket=b, endpoint="s3.example.com"),
    "added again": added_again,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("scanned", [True, False], ids=["scanned", "never scanned"])
def test_what_starts_anew_is_never_taken_for_lost(site, change, scanned):
    bucket = site.add("a")
    if scanned:
        site.live()
    bucket = change(bucket)
    for _ in range(2):
        site.keep_house()
        with site.client() as client:
            client.delete(redis_keys.TRUSTED)  # compare it again
    site.keep_house()
    assert state(bucket) is not selectors.State.LOST


def test_a_status_that_arrives_late_says_nothing_of_the_new_generation(site):
    bucket = site.add("a")
    site.live()
    late = wiring.background().bucket_status.read([bucket.name])
    bucket = services.update_bucket(bucket=bucket, prefix="in/")
    scan_status._store(late)
    bucket.refresh_from_db()
    assert bucket.last_commit_at is not None
    assert bucket.remembered_commit_at is None
    site.empty()
    site.keep_house()
    assert state(bucket) is not selectors.State.LOST


def test_an_old_copy_does_not_make_the_database_forget(site):
    bucket = site.add("a")
    site.live()
    old = wiring.background().bucket_status.read([bucket.name])
    site.s3.put(bucket.name, "b")
    site.live()
    bucket.refresh_from_db()
    before = bucket.last_commit_at
    scan_status._store(old)
    bucket.refresh_from_db()
    assert bucket.last_commit_at == before


def test_a_paused_bucket_waits_as_well_once_it_is_resumed(site):
    bucket = site.add("a")
    site.live()
    site.announced()
    services.set_monitoring(bucket=bucket, enabled=False)
    site.empty()
    site.live()
    assert state(bucket) is selectors.State.PAUSED
    services.set_monitoring(bucket=bucket, enabled=True)
    site.live()
    assert state(bucket) is selectors.State.LOST
    assert site.announced() == []


# --- choosing


def test_a_choice_is_for_buckets_that_wait_for_one(site):
    lost, other = site.add("a"), site.add("b")
    site.live()
    Bucket.objects.filter(pk=lost.pk).update(lost_since=lost.added_at)
    chosen = services.resume_after_loss(buckets=[lost, other], choice="baseline")
    assert chosen == [lost.name]
    before = other.generation
    other.refresh_from_db()
    assert other.generation == before


def test_another_choice_is_refused(site):
    with pytest.raises(ValidationError, match="announce, baseline"):
        services.resume_after_loss(buckets=[], choice="forget")


def test_a_program_chooses_for_one_bucket_and_for_all(site):
    api_client.use_fast_hashes()
    caller = api_client.Caller(api_client.new_client()[0])
    one, two, three = site.add("a"), site.add("b"), site.add("c")
    site.live()
    site.announced()
    site.empty()
    site.live()
    listed = caller.get("/api/v1/buckets/?state=lost").json()["results"]
    assert [row["status"]["lost_since"] is not None for row in listed] == [True] * 3

    answer = caller.send("POST", f"/api/v1/buckets/{one.name}/resume/", {"choice": "announce"})
    assert (answer.status_code, answer.json()["bucket"]) == (202, one.name)
    answer = caller.send("POST", "/api/v1/resume/", {"choice": "baseline"})
    assert (answer.status_code, answer.json()["buckets"]) == (202, sorted([two.name, three.name]))

    site.live()
    assert site.keys_announced() == ["a"]
    assert caller.get("/api/v1/buckets/?state=lost").json()["count"] == 0
    for path in (f"/api/v1/buckets/{one.name}/resume/", "/api/v1/resume/"):
        answer = caller.send("POST", path, {"choice": "baseline"})
        assert "nothing was changed" in answer.json()["message"]


@pytest.mark.parametrize(
    ("action", "announced"), [("announce_after_loss", ["a"]), ("remember_after_loss", [])]
)
def test_an_operator_chooses_in_the_list_of_buckets(site, admin_client: Client, action, announced):
    bucket = site.add("a")
    site.live()
    site.announced()
    site.empty()
    site.live()
    listed = admin_client.get("/admin/buckets/bucket/?state=lost").content.decode()
    assert bucket.name in listed
    body = {"action": action, "_selected_action": bucket.pk}
    page = admin_client.post("/admin/buckets/bucket/", body, follow=True).content.decode()
    assert "Yes, " in page
    body |= {"confirmed": "yes"}
    page = admin_client.post("/admin/buckets/bucket/", body, follow=True).content.decode()
    assert "1 go on: the next scan will" in page
    site.live()
    assert site.keys_announced() == announced


def test_a_scan_by_hand_without_any_monitor_compares_first(site, capsys):
    bucket = site.add("a")
    site.live()
    copy = site.copy()
    site.s3.put(bucket.name, "new")
    site.live()
    site.restore(copy)
    site.announced()
    with pytest.raises(SystemExit):
        call_command("runscan", bucket.name)
    assert "Redis forgot" in capsys.readouterr().out
    assert site.announced() == []


def test_a_scan_by_hand_says_what_to_do(site, capsys):
    bucket = site.add("a")
    site.live()
    site.announced()
    site.empty()
    site.live()
    with pytest.raises(SystemExit):
        call_command("runscan", bucket.name)
    assert (
        "Redis forgot what was known of it; restore the right backup; or choose"
        in capsys.readouterr().out
    )
    assert site.announced() == []
    site.keep_house()
    assert state(bucket) is selectors.State.LOST
