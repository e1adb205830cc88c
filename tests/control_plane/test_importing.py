"""`manage.py importbuckets`: from a file, or from what an older monitor left."""

import json
import time
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from buckets import services
from buckets.importing import plan, sources
from buckets.management.commands import importbuckets
from buckets.models import Bucket, Credential, Outbox
from scanning import wiring
from scanning.core.types import KeyPair

pytestmark = pytest.mark.django_db(transaction=True)

CONFIG = "linode:objstore:config:bucket:"
SECRET = "the-consumers-client-secret"
AUTH = {
    "type": "oauth2",
    "client_id": "me",
    "client_secret": SECRET,
    "token_url": "https://auth.example.com/token",
}


def older_bucket(store, name="media-in", *, has_keys=True, last_scan=1640995200.5, **members: Any):
    document = {
        "name": name,
        "endpoint": "us-iad-1.linodeobjects.com",
        "webhook_url": "https://api.example.com/hook",
        "status": "active",
        "added_at": "2025-04-10T12:00:00",
        "updated_at": "2025-04-11T09:30:00",
    }
    store.set(CONFIG + name, json.dumps(document | members))
    store.set(f"linode:objstore:last_scan:{name}", repr(last_scan))
    if has_keys:
        prefix = name.upper().replace("-", "_")
        wiring.vault().write(prefix, KeyPair("A" + prefix, "S" + prefix))


def run(*arguments: str, sleep=lambda _: None, fails: bool = False) -> str:
    """What the command printed; `sleep` is what happens while it looks for the older monitor."""
    output = StringIO()
    command = importbuckets.Command(stdout=output, stderr=output)
    command.sleep = sleep
    if fails:
        with pytest.raises(CommandError) as failed:
            call_command(command, *arguments)
        return output.getvalue() + str(failed.value)
    call_command(command, *arguments)
    return output.getvalue()


def document(store, name="media-in"):
    return json.loads(store.get(CONFIG + name))


def test_a_bucket_of_the_older_monitor_is_taken_over_with_all_that_it_said(store):
    older_bucket(store, note="theirs", status="paused")
    store.set("linode:objstore:config:media-in:notifications_disabled", "true")

    output = run()

    bucket = Bucket.objects.get()
    assert (bucket.endpoint, bucket.region) == ("us-iad-1.linodeobjects.com",) * 2
    assert (bucket.taken_over, bucket.first_scan) == (True, "baseline")
    assert not bucket.monitoring_enabled
    assert not bucket.notifications_enabled
    assert bucket.added_at.isoformat() == "2025-04-10T12:00:00+00:00"
    assert bucket.last_scan_at == datetime.fromtimestamp(1640995200.5, UTC)
    assert bucket.generation > 0
    assert (bucket.credential.vault_prefix, bucket.credential.came_with_bucket) == (
        "MEDIA_IN",
        True,
    )
    written = document(store)
    assert written["note"] == "theirs"
    assert written["added_at"] == "2025-04-10T12:00:00"
    assert written["bucketwatch"]["taken_over"] is True
    seen = wiring.background().bucket_configs.load().buckets["media-in"]
    assert seen.taken_over
    assert not seen.notifications
    assert "1 imported, 0 were here already, 0 refused" in output
    assert not Outbox.objects.exists()
    assert {entry.object_repr for entry in LogEntry.objects.all()} == {"media-in"}


def test_importing_twice_changes_nothing(store):
    older_bucket(store)
    run("--first-scan", "announce")
    before = store.get(CONFIG + "media-in")

    output = run()

    assert "0 imported, 1 were here already" in output
    assert store.get(CONFIG + "media-in") == before
    assert Bucket.objects.get().first_scan == "announce"


def test_a_dry_run_shows_a_table_and_writes_nothing(store):
    older_bucket(store)
    older_bucket(store, "no-keys", has_keys=False)
    before = {key: store.dump(key) for key in store.scan_iter()}

    output = run("--dry-run", fails=True)

    lines = output.splitlines()
    assert lines[0].split() == [
        "BUCKET",
        "ENDPOINT",
        "CREDENTIAL",
        "SCANNED",
        "ANNOUNCED",
        "OUTCOME",
    ]
    assert lines[1].split() == [
        "media-in",
        "us-iad-1.linodeobjects.com",
        "media-in",
        "yes",
        "yes",
        "import",
    ]
    assert "no-keys" in lines[2]
    assert "The vault does not hold NO_KEYS_ACCESS_KEY and NO_KEYS_SECRET_KEY" in lines[2]
    assert "1 would be imported" in output
    assert not Bucket.objects.exists()
    assert not Credential.objects.exists()
    assert {key: store.dump(key) for key in store.scan_iter()} == before


def test_nothing_is_imported_while_the_older_monitor_runs_unless_forced(store):
    older_bucket(store)
    looked = []

    def it_scans(seconds: float) -> None:
        looked.append(seconds)
        store.set("linode:objstore:last_scan:media-in", repr(1640995260.0 + len(looked)))

    output = run("--wait", "3", sleep=it_scans, fails=True)
    assert "still runs: it has just scanned media-in. Stop it first" in output
    assert not Bucket.objects.exists()
    assert looked == [3.0]

    assert "still runs" in run("--force", sleep=it_scans)
    assert Bucket.objects.exists()


@pytest.mark.parametrize(
    ("ages", "waits"),
    [
        pytest.param([], 10, id="never"),
        pytest.param([100_000], 10, id="long ago"),
        pytest.param([5], 65, id="a moment ago"),
        pytest.param([5, 40, 100_000], 30, id="the one that is due first"),
        pytest.param([-900], 70, id="by a clock that is ahead"),
    ],
)
def test_it_looks_for_the_older_monitor_until_that_would_scan_again(store, ages, waits):
    for number, age in enumerate(ages):
        older_bucket(store, f"bucket-{number}", last_scan=1_800_000_000.0 - age)

    assert sources.watch_for_s(now=1_800_000_000.0) == waits


def test_an_older_monitor_with_one_bucket_is_seen_by_default(store):
    older_bucket(store, last_scan=time.time())

    def it_scans(seconds: float) -> None:
        if seconds > 60:
            store.set("linode:objstore:last_scan:media-in", repr(time.time() + 60))

    assert "still runs" in run(sleep=it_scans, fails=True)


def test_a_webhook_secret_in_redis_stays_there_and_comes_to_the_vault_too(store):
    older_bucket(store, webhook_auth=AUTH)

    output = run()

    bucket = Bucket.objects.get()
    assert bucket.webhook_secret_in_redis
    assert "its webhook client secret stays in Redis" in output
    assert SECRET not in output
    assert document(store)["webhook_auth"] == AUTH
    stored = wiring.vault().read_secrets(["MEDIA_IN_WEBHOOK_CLIENT_SECRET"])
    assert stored == {"MEDIA_IN_WEBHOOK_CLIENT_SECRET": SECRET}

    services.update_bucket(bucket=bucket, webhook_client_secret="newer")
    assert document(store)["webhook_auth"]["client_secret"] == "newer"
    services.update_bucket(bucket=bucket, webhook_secret_in_redis=False)
    assert "client_secret" not in document(store)["webhook_auth"]


@pytest.mark.parametrize(
    "auth",
    [
        pytest.param(None, id="null"),
        pytest.param({}, id="empty"),
        pytest.param(
            {"type": "oauth2", "client_id": None, "client_secret": "", "token_url": None},
            id="empty members",
        ),
    ],
)
def test_a_webhook_without_a_client_stays_as_the_older_monitor_says_it(store, auth):
    older_bucket(store, webhook_auth=auth)

    assert "enter its webhook" not in run()

    bucket = Bucket.objects.get()
    assert (bucket.webhook_client_id, bucket.webhook_secret_in_redis) == ("", False)
    assert document(store)["webhook_auth"] == auth
    services.update_bucket(bucket=bucket, polling_interval=9)
    assert document(store)["webhook_auth"] == auth
    output = StringIO()
    call_command("reconcile", stdout=output)
    assert "0 to repair" in output.getvalue()


@pytest.mark.parametrize(
    ("members", "endpoint"),
    [
        ({"endpoint": None}, "us-east-1.linodeobjects.com"),
        ({"endpoint": "", "region": "us-ord-1"}, "us-ord-1.linodeobjects.com"),
        ({"endpoint": None, "region": "s3.example.com"}, "s3.example.com"),
    ],
)
def test_an_older_bucket_without_an_endpoint_is_where_its_region_is(store, members, endpoint):
    older_bucket(store, **members)

    run()

    assert Bucket.objects.get().endpoint == endpoint


@pytest.mark.parametrize(
    ("members", "fix"),
    [
        pytest.param({"endpoint": None, "region": "a/b"}, "cannot be read", id="region"),
        pytest.param({"webhook_auth": {"type": "basic"}}, "complete or remove it", id="auth"),
        pytest.param({"webhook_auth": "basic"}, "complete or remove it", id="auth of text"),
        pytest.param({"webhook_auth": AUTH | {"client_secret": " s"}}, "blanks", id="blanks"),
        pytest.param({"endpoint": "host/path"}, "no path", id="endpoint"),
        pytest.param({"webhook_url": "https://me:pw@host/"}, "user name", id="webhook"),
        pytest.param({"webhook_url": "http://169.254.169.254/"}, "SECURITY_", id="metadata"),
    ],
)
def test_what_makes_no_bucket_is_refused_with_the_fix_and_left_as_it_is(store, members, fix):
    older_bucket(store, "broken", **members)
    older_bucket(store, "fine")
    store.set(CONFIG + "no-json", "{")
    store.set(CONFIG + "too-deep", "[" * 100_000)
    before = store.get(CONFIG + "broken")

    output = run(fails=True)

    assert fix in output
    assert "1 imported, 0 were here already, 3 refused" in output
    assert [bucket.name for bucket in Bucket.objects.all()] == ["fine"]
    assert store.get(CONFIG + "broken") == before


def test_a_database_that_was_lost_comes_back_from_redis(store):
    shared = services.add_credential(name="shared", access_key="A", secret_key="S")
    lost = services.add_bucket(
        name="media-in", region="us-iad-1", credential=shared, prefix="in/", announce_deleted=True
    )
    Bucket.objects.all()._raw_delete("default")
    Credential.objects.all().delete()

    run()

    bucket = Bucket.objects.get()
    for field in ("region", "endpoint", "prefix", "announce_deleted", "generation", "first_scan"):
        assert getattr(bucket, field) == getattr(lost, field), field
    assert (bucket.credential.name, bucket.taken_over) == ("shared", False)


def test_buckets_that_shared_the_keys_of_one_of_them_come_back_too(store):
    owner = services.add_bucket(name="media-in", region="r-1", access_key="A", secret_key="S")
    for name in ("a-first", "media-out"):
        services.add_bucket(name=name, region="r-1", credential=owner.credential)
    Bucket.objects.all()._raw_delete("default")
    Credential.objects.all().delete()

    assert "3 imported" in run()

    used = set(Bucket.objects.values_list("credential__name", "credential__vault_prefix"))
    assert used == {("media-in", "MEDIA_IN")}


def test_a_lost_bucket_comes_back_to_the_credential_that_has_its_keys(store):
    shared = services.add_credential(name="Shared", access_key="A", secret_key="S")
    services.add_bucket(name="media-in", region="r-1", credential=shared)
    Bucket.objects.all()._raw_delete("default")

    assert "1 imported" in run()

    assert Bucket.objects.get().credential == shared


@pytest.mark.parametrize("has_secret", [True, False])
def test_a_lost_bucket_asks_for_its_webhook_secret_only_if_the_vault_lacks_it(store, has_secret):
    services.add_bucket(
        name="media-in",
        region="us-iad-1",
        access_key="A",
        secret_key="S",
        webhook_url="https://api.example.com/hook",
        webhook_client_id="me",
        webhook_client_secret=SECRET,
        webhook_token_url="https://auth.example.com/token",
    )
    Bucket.objects.all()._raw_delete("default")
    Credential.objects.all().delete()
    if not has_secret:
        wiring.vault().delete_many(["MEDIA_IN_WEBHOOK_CLIENT_SECRET"])

    warning = "media-in: the vault lacks MEDIA_IN_WEBHOOK_CLIENT_SECRET: enter its webhook client"
    assert (warning in run()) is not has_secret


def test_a_bucket_that_was_deleted_here_does_not_come_back(redis_server, store):
    older_bucket(store)
    run()
    redis_server.stop()
    services.delete_bucket(bucket=Bucket.objects.get())
    redis_server.start()

    assert "0 imported" in run()
    assert not Bucket.objects.exists()


FILE = """
credentials:
  - {name: media, access_key: AKIAMEDIA, secret_key: media-secret}
buckets:
  - name: media-in
    region: us-iad-1
    credential: media
    polling_interval: 30
    polling_longest: 900
    probe_interval: 5
    events: [created, deleted]
    lanes: 2
    most_objects: 5000
  - name: media-out
    endpoint: https://s3.example.com
    access_key: AKIAOUT
    secret_key: out-secret
    first_scan: announce
    webhook_url: https://api.example.com/hook
    client_id: me
    client_secret: hook-secret
    token_url: https://auth.example.com/token
"""


def test_a_file_brings_buckets_and_keys(store, tmp_path: Path):
    (tmp_path / "buckets.yaml").write_text(FILE)

    output = run(str(tmp_path / "buckets.yaml"))

    first, second = Bucket.objects.order_by("name")
    assert (first.polling_interval, first.lanes, first.first_scan) == (30, 2, "baseline")
    assert first.polling_longest == 900
    assert (first.probe_interval, second.probe_interval) == (5, None)
    assert first.most_objects == 5000
    assert first.wanted_events == ["created", "deleted"]
    assert (second.region, second.first_scan) == ("s3.example.com", "announce")
    assert not first.taken_over
    assert wiring.vault().read_all() == {
        "MEDIA": KeyPair("AKIAMEDIA", "media-secret"),
        "MEDIA_OUT": KeyPair("AKIAOUT", "out-secret"),
    }
    assert "client_secret" not in document(store, "media-out")["webhook_auth"]
    for secret in ("media-secret", "out-secret", "hook-secret"):
        assert secret not in output
    assert "0 imported, 2 were here already" in run(str(tmp_path / "buckets.yaml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("buckets: {", "is not YAML (line", id="no-yaml"),
        pytest.param(
            "buckets: []\nbuckets: []", "has the same key twice in one place (line 2)", id="twice"
        ),
        pytest.param("- a", "two lists", id="no-mapping"),
        pytest.param("bucket: []", "two lists", id="unknown-section"),
        pytest.param("buckets: [{region: r}]", "entry 1 of buckets has no name", id="no-name"),
        pytest.param("buckets: [{name: abc, colour: red}]", "colour is not known", id="unknown"),
        pytest.param("buckets: [{name: abc, lanes: true}]", "lanes has to be a whole", id="type"),
        pytest.param(
            "buckets: [{name: abc, fetch_metadata: 1, prefix: 2, colour: red}]",
            "fetch_metadata has to be true or false; prefix has to be text: put it in quotes; "
            "colour is not known",
            id="several",
        ),
        pytest.param("buckets: [{name: abc, events: [gone]}]", "some of created", id="events"),
        pytest.param("buckets: [{name: abc, credential: x}]", "Enter a region", id="no-region"),
        pytest.param(
            "buckets: [{name: abc, region: r, credential: x}]", "no credential x", id="credential"
        ),
        pytest.param("buckets: [{name: abc, region: r, access_key: A}]", "both halves", id="half"),
        pytest.param("credentials: [{name: a/b}]", "credential a/b", id="credential-name"),
        pytest.param("buckets: [{name: abc}, {name: abc}]", "is listed twice", id="twice"),
        pytest.param("buckets: [{name: abc, events: [[created]]}]", "some of created", id="nested"),
        pytest.param("buckets: [{name: abc, 1: 2, a: b}]", "1 is not known", id="number-as-name"),
        pytest.param("buckets: [{name: abc, secret_key: 0123}]", "secret_key has to", id="octal"),
        pytest.param("buckets: [{name: abc, access_key: 1_000}]", "in quotes", id="underscore"),
        pytest.param("buckets: [{name: abc, client_secret: 1.10}]", "in quotes", id="float"),
        pytest.param(
            "credentials: [{name: c, access_key: 0123, secret_key: s}]",
            "entry 1 of credentials: access_key has to be text",
            id="octal-credential",
        ),
        pytest.param(
            "buckets: [{name: abc, client_id: c, token_url: 'https://a.example.com'}]",
            "all three, or none",
            id="client-without-secret",
        ),
        pytest.param("buckets: [{name: abc, client_secret: s}]", "all three", id="secret-alone"),
        pytest.param(r'buckets: [{name: abc, prefix: "\0"}]', "prefix holds a", id="nul"),
        pytest.param(r'buckets: [{name: abc, suffix: "\ud800"}]', "suffix holds a", id="half"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path, text, says):
    path = tmp_path / "buckets.yaml"
    path.write_text(text)

    assert says in run(str(path), fails=True)
    assert not Bucket.objects.exists()


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    assert "cannot read" in run(str(tmp_path / "gone.yaml"), fails=True)


def test_an_import_says_how_far_it_has_come(store, tmp_path):
    (tmp_path / "buckets.yaml").write_text(FILE)
    found = sources.from_file(tmp_path / "buckets.yaml", first_scan="baseline")
    through: list[int] = []
    plan.carry_out(plan.plan(*found), progress=through.append)
    assert through[-1] == 2


class Crash(BaseException):
    """The process ends here."""


def test_an_import_that_was_killed_between_vault_and_database_is_finished_by_the_next(
    store, tmp_path, monkeypatch
):
    (tmp_path / "buckets.yaml").write_text(FILE)
    vault = wiring.vault()
    write = vault.write_many

    def write_and_crash(entries) -> None:
        write(entries)
        raise Crash

    monkeypatch.setattr(vault, "write_many", write_and_crash)
    with pytest.raises(Crash):
        run(str(tmp_path / "buckets.yaml"))
    monkeypatch.undo()
    assert not Bucket.objects.exists()

    assert "2 imported" in run(str(tmp_path / "buckets.yaml"))
    assert len(wiring.background().bucket_configs.load().buckets) == 2


def test_five_thousand_buckets_are_imported_and_their_list_opens_with_few_queries(store, client):
    """Asked for are 60 s and 1 s; two busy cores took 18 s and 1 s."""
    pipe = store.pipeline()
    entries: dict[str, str] = {}
    for number in range(5000):
        name = f"bucket-{number:04}"
        members = {"name": name, "endpoint": f"r{number % 9}.example.com", "webhook_auth": AUTH}
        members["webhook_url"] = "https://api.example.com/hook"
        pipe.set(CONFIG + name, json.dumps(members))
        entries |= {f"BUCKET_{number:04}_{half}_KEY": "x" for half in ("ACCESS", "SECRET")}
    pipe.execute()
    wiring.vault().write_many(entries)
    assert "5000 imported" in run()

    assert Bucket.objects.count() == 5000
    assert len(wiring.background().bucket_configs.load().buckets) == 5000
    client.force_login(User.objects.create(username="olga", is_staff=True, is_superuser=True))
    with CaptureQueriesContext(connection) as listing:
        page = client.get(reverse("admin:buckets_bucket_changelist"))
    assert page.status_code == 200
    assert len(listing) <= 30
