"""A watch has a name of its own, and its bucket the one that S3 knows."""

import json
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from io import StringIO
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.urls import reverse

from buckets import selectors, services
from buckets.models import Bucket
from scanning import wiring
from scanning.core.types import EventType
from tests.support import api_client
from tests.support.api_client import Caller
from tests.support.commands import Ran, manage
from tests.support.notifications import queued
from tests.support.servers import TestS3Server

pytestmark = pytest.mark.django_db(transaction=True)

CONFIG = "linode:objstore:config:bucket:"
STATE = "linode:objstore:state:"
ENDPOINT = "us-iad-1.linodeobjects.com"


@pytest.fixture(scope="module")
def other_s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestS3Server]:
    server = TestS3Server(
        tmp_path_factory.mktemp("s3-elsewhere"),
        access_key=secrets.token_hex(10),
        secret_key=secrets.token_urlsafe(30),
    )
    server.start()
    yield server
    server.close()


@pytest.fixture
def watch(store, settings) -> Callable[..., Bucket]:
    """Watch a bucket of an S3 server that is on this host."""
    security = settings.SCANNING.security.model_copy(update={"allow_private_endpoints": True})
    settings.SCANNING = settings.SCANNING.model_copy(update={"security": security})

    def add(name: str, server: TestS3Server, **options: Any) -> Bucket:
        given: dict[str, Any] = {
            "name": name,
            "endpoint": server.url,
            "access_key": server.access_key,
            "secret_key": server.secret_key,
            "announce_deleted": True,
        }
        return services.add_bucket(**given | options)

    return add


@pytest.fixture
def run(capsys) -> Callable[..., Ran]:
    return partial(manage, capsys)


@pytest.fixture
def caller() -> Caller:
    client, _ = api_client.new_client(scope="manage")
    return Caller(client)


def add(name: str = "media-in", **values: Any) -> Bucket:
    given: dict[str, Any] = {"endpoint": ENDPOINT, "access_key": "A", "secret_key": "S"}
    return services.add_bucket(name=name, **given | values)


def told(store, *members: str) -> list[tuple[Any, ...]]:
    """What consumers take from the queue."""
    found = [tuple(map(message.get, members)) for message in queued(store)]
    store.delete("linode:notifications:queue")
    return sorted(found, key=str)


def test_two_watches_on_one_bucket_announce_and_remember_what_is_theirs(
    watch, run, store, s3_server
):
    name = s3_server.bucket()
    for key in ("in/a", "out/b", "elsewhere"):
        s3_server.put(name, key)
    watch("inbox", s3_server, bucket_name=name, prefix="in/")
    watch("outbox", s3_server, bucket_name=name, prefix="out/")

    assert run("runscan", "inbox", "outbox").status == 0

    assert told(store, "bucket", "watch", "key", "event_type") == [
        (name, "inbox", "in/a", "created"),
        (name, "outbox", "out/b", "created"),
    ]
    assert sorted(store.keys(f"{STATE}*")) == [f"{STATE}inbox:in/a", f"{STATE}outbox:out/b"]
    s3_server.client().delete_object(Bucket=name, Key="in/a")
    s3_server.put(name, "in/c")
    assert run("runscan", "inbox", "outbox").status == 0
    assert told(store, "watch", "key", "event_type") == [
        ("inbox", "in/a", "deleted"),
        ("inbox", "in/c", "created"),
    ]


def test_one_name_at_two_endpoints_is_two_watches(watch, run, store, s3_server, other_s3_server):
    name = s3_server.bucket()
    other_s3_server.bucket(name)
    s3_server.put(name, "key", b"here")
    other_s3_server.put(name, "key", b"there")
    watch(name, s3_server)
    watch("elsewhere", other_s3_server, bucket_name=name)

    assert run("runscan", "--all").status == 0

    hosts = [server.url.removeprefix("http://") for server in (s3_server, other_s3_server)]
    assert told(store, "bucket", "watch", "region", "key", "size") == sorted(
        [(name, None, hosts[0], "key", 4), (name, "elsewhere", hosts[1], "key", 5)], key=str
    )
    assert store.exists(f"{CONFIG}{name}", f"{CONFIG}elsewhere") == 2
    other_s3_server.client().delete_object(Bucket=name, Key="key")
    assert run("runscan", "--all").status == 0
    assert told(store, "watch", "event_type") == [("elsewhere", "deleted")]


def test_a_watch_that_is_pointed_at_another_bucket_begins_anew(watch, run, store, s3_server):
    one, other = s3_server.bucket(), s3_server.bucket()
    s3_server.put(one, "old")
    s3_server.put(other, "new")
    bucket = watch("inbox", s3_server, bucket_name=one)
    assert run("runscan", "inbox").status == 0

    services.update_bucket(bucket=bucket, bucket_name=other)
    assert run("runscan", "inbox").status == 0

    found = told(store, "bucket", "key", "event_type")
    assert found == sorted([(one, "old", "created"), (other, "new", "created")])


def test_commands_and_pages_show_both_names_where_they_differ(
    watch, run, operator, s3_server, store
):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    bucket = watch("inbox", s3_server, bucket_name=name)

    dry = run("runscan", "--dry-run", "inbox")
    assert f"created   inbox ({name})  key" in dry.out
    scanned = run("runscan", "inbox", "--json")
    assert json.loads(scanned.out)["bucket_name"] == name
    assert run("runscan", "inbox").out.startswith(f"inbox ({name}): 1 objects")
    assert f"inbox ({name})  key" in run("tail", "--no-follow").out
    [tailed] = map(json.loads, run("tail", "--no-follow", "--json").out.splitlines())
    assert (tailed["bucket"], tailed["watch"]) == (name, "inbox")
    explained = run("explain", "inbox", "key")
    assert explained.out.startswith(f"inbox ({name}): key")
    assert run("replay", "--bucket", "inbox", "--yes").status == 0
    assert [(message["bucket"], message["watch"]) for message in queued(store)] == [
        (name, "inbox")
    ] * 2
    for page in ("admin:buckets_bucket_overview", "admin:buckets_bucket_explain"):
        assert name in operator.get(reverse(page, args=[bucket.pk])).content.decode()
    listed = operator.get(reverse("admin:buckets_bucket_changelist"), {"q": name})
    assert "inbox" in listed.content.decode()
    events = operator.get(reverse("admin:index")).content.decode()
    assert f"inbox ({name})" in events


def test_a_host_of_an_earlier_version_cannot_read_a_watch_with_another_name(store):
    """It would list the bucket that is called as the watch, which may be somebody else's."""
    bucket = add("inbox", bucket_name="media-in")
    ours = json.loads(store.get(f"{CONFIG}inbox"))["bucketwatch"]

    with pytest.raises(TypeError):  # what it does with the member, and what it leaves out for
        frozenset(map(EventType, ours["events"]))
    now = wiring.background().bucket_configs.load().buckets["inbox"]
    assert (now.s3_name, now.events) == ("media-in", frozenset(bucket.wanted_events))

    services.update_bucket(bucket=bucket, bucket_name="")
    ours = json.loads(store.get(f"{CONFIG}inbox"))["bucketwatch"]
    assert ours["events"] == bucket.wanted_events
    assert not ours.keys() & {"bucket_name", "announces"}


def test_cephs_names_go_through_every_route(caller, store):
    body = {"endpoint": ENDPOINT, "webhook_url": "https://api.example.com/hook"}
    keys = {"access_key": "A", "secret_key": "S"}
    name = "Tenant_1:Media_In"
    answer = caller.post("/api/buckets/add", {"name": name} | body | keys)
    assert (answer.status_code, answer.json()["bucket"]) == (201, name)
    assert wiring.vault().read_all().keys() == {"TENANT_1_MEDIA_IN"}
    assert json.loads(store.get(CONFIG + name))["name"] == name

    answer = caller.post(f"/api/bucket-notifications/disable?bucket={name}")
    assert answer.status_code == 200
    assert store.get(f"linode:objstore:config:{name}:notifications_disabled") == "true"
    assert caller.get(f"/api/v1/buckets/{name}").json()["bucket_name"] == name
    answer = caller.send("PATCH", f"/api/v1/buckets/{name}/", {"polling_interval": 7})
    assert answer.json()["polling_interval"] == 7

    store.set(f"{STATE}{name}:a:b", "{}")
    store.set(f"{STATE}Tenant_1-Media:a", "{}")
    assert caller.post(f"/api/buckets/delete?bucket={name}").status_code == 200
    wiring.background().cleanup.run()
    assert store.keys(f"{STATE}*") == [f"{STATE}Tenant_1-Media:a"]


def test_the_flag_of_a_watch_of_tenant_bucket_is_no_configuration(store):
    add("bucket:media", notifications_enabled=False)
    assert wiring.background().bucket_configs.stored().keys() == {"bucket:media"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("media-inbox", "Media_Inbox"),
        ("media-inbox", "media:inbox"),
        ("media", "media:inbox"),
        ("media:inbox", "media"),
    ],
)
def test_a_name_that_could_be_taken_for_another_watchs_is_refused(first, second, tmp_path):
    add(first)
    with pytest.raises(ValidationError) as refused:
        add(second)
    assert f"Watch {first} could be taken for it" in refused.value.message_dict["name"][0]

    file = tmp_path / "buckets.yaml"
    rows = [{"name": second, "endpoint": ENDPOINT, "access_key": "A", "secret_key": "S"}]
    file.write_text(json.dumps({"buckets": rows}))
    with pytest.raises(CommandError, match="Not everything"):
        call_command("importbuckets", str(file), stdout=StringIO(), stderr=StringIO())
    assert selectors.watch_names() == {first}


def test_the_documented_routes_take_the_name_in_s3(caller, store):
    body = {"endpoint": ENDPOINT, "webhook_url": "https://api.example.com/hook"}
    keys = {"access_key": "A", "secret_key": "S"}
    add()
    answer = caller.post(
        "/api/buckets/add", {"name": "inbox", "bucket_name": "media-in"} | body | keys
    )
    assert (answer.status_code, answer.json()["bucket"]) == (201, "inbox")
    assert "Watched by bucket media-in too" in answer.json()["note"]
    assert Bucket.objects.get(name="inbox").s3_name == "media-in"

    answer = caller.post("/api/buckets/update", {"name": "inbox", "bucket_name": "media-out"})
    assert answer.json() == {"status": "success", "message": "Bucket inbox updated"}
    assert Bucket.objects.get(name="inbox").s3_name == "media-out"
    answer = caller.post("/api/buckets/add", {"name": "inbox"} | body | keys)
    assert answer.status_code == 409


def test_overlapping_watches_are_saved_and_said_so(caller, operator):
    add(prefix="in/")
    new = {"name": "inbox", "bucket_name": "media-in", "endpoint": ENDPOINT}
    keys = {"access_key": "A", "secret_key": "S"}
    answer = caller.post("/api/v1/buckets/", new | keys | {"prefix": "in/2025/"})
    assert answer.status_code == 201
    assert "announced by each of them" in answer.json()["note"]
    answer = caller.send("PATCH", "/api/v1/buckets/inbox/", {"prefix": "out/"})
    assert "note" not in answer.json()

    typed = new | keys | {"name": "third", "polling_interval": "", "first_scan": "announce"}
    answer = operator.post(reverse("admin:buckets_bucket_add"), typed, follow=True)
    said = [str(message) for message in answer.context["messages"]]
    assert any("Watched by buckets inbox, media-in too" in text for text in said)
    assert Bucket.objects.get(name="third").s3_name == "media-in"


def test_watches_are_imported_with_both_names(tmp_path, store):
    file = tmp_path / "buckets.yaml"
    keys = {"endpoint": ENDPOINT, "access_key": "A", "secret_key": "S"}
    rows = [{"name": "inbox", "bucket_name": "t:Media"}, {"name": "all", "bucket_name": "t:Media"}]
    file.write_text(json.dumps({"buckets": [row | keys for row in rows]}))
    out = StringIO()

    call_command("importbuckets", str(file), stdout=out, stderr=out)

    assert "all: Watched by bucket inbox too" in out.getvalue()
    assert set(Bucket.objects.values_list("name", "bucket_name")) == {
        ("inbox", "t:Media"),
        ("all", "t:Media"),
    }
    Bucket.objects.all()._raw_delete("default")
    call_command("importbuckets", "--wait", "0", stdout=out, stderr=out)
    assert {bucket.s3_name for bucket in Bucket.objects.all()} == {"t:Media"}
