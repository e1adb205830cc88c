"""Every route under /api/v1/ with every answer that its description promises, as a table."""

from dataclasses import dataclass
from typing import Any, cast

import pytest
from django.core.cache import cache

from buckets import services
from buckets.models import Bucket
from buckets.sync import scan_status
from scanning import wiring
from tests.support import api_client, engine_buckets
from tests.support.commands import manage

pytestmark = pytest.mark.django_db(transaction=True)

BUCKETS, CREDENTIALS, EVENTS = "/api/v1/buckets/", "/api/v1/credentials/", "/api/v1/events/"
ENDPOINTS = "/api/v1/endpoints/"
ENDPOINT = f"{ENDPOINTS}us-iad-1.linodeobjects.com/"
ONE, SHARED = f"{BUCKETS}media-in/", f"{CREDENTIALS}shared/"
OAUTH = {
    "webhook_client_id": "hook-client",
    "webhook_client_secret": "hook-client-secret",
    "webhook_token_url": "https://auth.example.com/token",
}
KEYS = {"access_key": "AK2", "secret_key": "SK2"}
MEMBERS = {
    *(
        "name",
        "bucket_name",
        "region",
        "endpoint",
        "credential",
        "prefix",
        "suffix",
        "polling_interval",
        "polling_longest",
        "probe_interval",
    ),
    *("monitoring_enabled", "notifications_enabled", "events", "first_scan", "fetch_metadata"),
    "trust_etags",
    *("requests_per_day", "requests_today", "forecast"),
    *("lanes", "most_objects", "webhook_url", "webhook_client_id", "webhook_token_url"),
    *("webhook_secret_in_redis", "added_at", "updated_at", "state", "mirrored", "status"),
}


@pytest.fixture
def caller(redis_server):
    """With a bucket media-in that has keys of its own, and a credential that nobody uses."""
    api_client.use_fast_hashes()
    cache.clear()
    client, _ = api_client.new_client()
    api_client.add_bucket("media-in")
    services.add_credential(name="shared", access_key="AK", secret_key="SK")
    return api_client.Caller(client)


@dataclass(frozen=True)
class Case:
    """One request; what a success shows at least, or what the error of a refusal names."""

    title: str
    method: str
    path: str
    body: Any
    status: int
    shows: dict[str, Any] | None = None
    named: tuple[str, ...] = ()


def done(
    title: str, method: str, path: str, body: Any = None, status: int = 200, **shows: Any
) -> Case:
    return Case(title, method, path, body, status, shows)


def refused(title: str, method: str, path: str, body: Any, status: int, *named: str) -> Case:
    return Case(title, method, path, body, status, named=named)


def _new(**changes: Any) -> dict[str, Any]:
    body = {"name": "media-out", "endpoint": "eu.example.com", "credential": "shared"} | changes
    return {k: v for k, v in body.items() if v is not ...}


def created(title: str, changes: dict[str, Any], **shows: Any) -> Case:
    return done(f"create {title}", "POST", BUCKETS, _new(**changes), 201, **shows)


def not_created(title: str, changes: dict[str, Any], *named: str) -> Case:
    return refused(f"create {title}", "POST", BUCKETS, _new(**changes), 400, *named)


def patched(title: str, changes: dict[str, Any], **shows: Any) -> Case:
    return done(f"patch {title}", "PATCH", ONE, changes, **(shows or changes))


def not_patched(title: str, changes: Any, *named: str) -> Case:
    return refused(f"patch {title}", "PATCH", ONE, changes, 400, *named)


def not_listed(query: str, *named: str) -> Case:
    return refused(f"list with {query}", "GET", f"{BUCKETS}?{query}", None, 400, *named)


SETTINGS: dict[str, Any] = {
    "prefix": "in/",
    "suffix": ".mp4",
    "polling_interval": 300,
    "polling_longest": 3600,
    "probe_interval": 0,
    "monitoring_enabled": False,
    "notifications_enabled": False,
    "events": ["created", "deleted"],
    "first_scan": "baseline",
    "fetch_metadata": False,
    "trust_etags": True,
    "lanes": 2,
    "most_objects": 0,
    "webhook_url": "https://b.example.com/hook",
}
NOT_TEXT = ("region", "endpoint", "prefix", "suffix", "webhook_url", "credential", "access_key")
SWITCHES = ("monitoring_enabled", "notifications_enabled", "fetch_metadata", "trust_etags")
NOBODY = [
    refused(f"{method} of nobody{action}", method, f"{BUCKETS}nobody/{action}", body, 404, "nobody")
    for method, action, body in (
        ("GET", "", None),
        ("PATCH", "", {}),
        ("DELETE", "", None),
        ("POST", "scan/", None),
        ("POST", "test/", None),
        ("GET", "held/", None),
        ("GET", "explain/?key=k", None),
        ("POST", "release/", None),
        ("POST", "resume/", {"choice": "announce"}),
    )
]

CASES = [
    done("list", "GET", BUCKETS, count=1, next=None, previous=None),
    done("list with a filter", "GET", f"{BUCKETS}?state=paused", count=0, results=[]),
    not_listed("state=asleep", "state", "paused"),
    not_listed("colour=red", "colour", "known"),
    not_listed("page=0", "page"),
    not_listed("page=x", "page"),
    not_listed("page=99999999999999999999999", "page"),
    not_listed("page_size=501", "page_size", "500"),
    not_listed("ordering=webhook_url", "ordering", "name"),
    not_listed("monitoring_enabled=1", "monitoring_enabled", "true or false"),
    not_listed("region=a&region=b", "region", "once"),
    not_listed("search=a%00b", "search"),
    created("with an endpoint", {}, name="media-out", region="eu.example.com", mirrored=True),
    created("with a region", {"endpoint": ..., "region": "us-ord-1"}, region="us-ord-1"),
    created("with keys", {"credential": ...} | KEYS, credential="media-out"),
    created("with a credential", {}, credential="shared"),
    created("with settings", SETTINGS, **SETTINGS),
    created(
        "with OAuth",
        OAUTH | {"webhook_url": api_client.WEBHOOK_URL},
        webhook_client_id="hook-client",
    ),
    created("for no events", {"events": []}, events=[]),
    not_created("without a name", {"name": ...}, "name"),
    not_created("with a bad name", {"name": "Media Out"}, "name", "without s3://"),
    not_created("without region and endpoint", {"endpoint": ...}, "region", "endpoint"),
    not_created("without keys", {"credential": ...}, "access_key", "secret_key"),
    not_created("with half the keys", {"credential": ..., "access_key": "AK2"}, "secret_key"),
    not_created("with keys and credential", KEYS, "credential", "not both"),
    not_created("with an unknown credential", {"credential": "x1"}, "credential", "x1"),
    not_created("with NUL", {"credential": "a\0b"}, "credential"),
    not_created("with an unknown member", {"colour": "red"}, "colour", "known"),
    not_created("with a member of a strange name", {"a b\nc": 1}, "known"),
    not_created("with part of OAuth", {"webhook_client_id": "x"}, "webhook_client_secret"),
    not_created("with an unknown event", {"events": ["moved"]}, "events", "deleted"),
    not_created("with an event as a list", {"events": [["created"]]}, "events", "deleted"),
    not_created("with events as text", {"events": "created"}, "events", "list"),
    not_created("with a bad first scan", {"first_scan": "ignore"}, "first_scan", "baseline"),
    not_created("probed every eight days", {"probe_interval": 691_200}, "probe_interval"),
    not_created("probed now and then", {"probe_interval": "auto"}, "probe_interval"),
    not_created("with no lanes", {"lanes": 0}, "lanes"),
    not_created("with many lanes", {"lanes": 10**30}, "lanes"),
    not_created("with less than no objects", {"most_objects": -1}, "most_objects"),
    not_created("with too many objects", {"most_objects": 10**30}, "most_objects"),
    *(not_created(f"with {name} of 7", {name: 7}, name, "text") for name in NOT_TEXT),
    *(
        not_created(f"with {name} as text", {name: "no"}, name, "true or false")
        for name in SWITCHES
    ),
    *(
        not_created(f"with interval {value!r}", {"polling_interval": value}, "polling_interval")
        for value in ("60", 1.5, True, 0, -1, 604801, 10**30)
    ),
    refused("create again", "POST", BUCKETS, _new(name="media-in"), 409, "media-in"),
    refused("create what is not JSON", "POST", BUCKETS, b"{name: x}", 400, "JSON"),
    refused("create a list", "POST", BUCKETS, [], 400, "object"),
    refused("create too much", "POST", BUCKETS, b" " * 100_000, 413, "bytes"),
    done("retrieve", "GET", ONE, name="media-in", state="waiting", credential="media-in"),
    *(patched(name, {name: value}) for name, value in SETTINGS.items()),
    patched("nothing", {}, name="media-in"),
    patched("the region", {"region": "us-ord-1"}, region="us-ord-1"),
    patched("the keys", KEYS, credential="media-in"),
    patched("the credential", {"credential": "shared"}),
    patched("the default interval back", {"polling_interval": None}),
    patched("an interval that does not grow", {"polling_longest": 0}),
    patched("the default growth back", {"polling_longest": None}),
    not_patched("a negative longest interval", {"polling_longest": -1}, "polling_longest"),
    not_patched("more than a week", {"polling_longest": 604_801}, "polling_longest"),
    not_patched("a longest interval in text", {"polling_longest": "900"}, "polling_longest"),
    patched("probes every 5 s", {"probe_interval": 5}, probe_interval=5),
    patched("the default of probes back", {"probe_interval": None}, probe_interval=None),
    patched("the webhook away", {"webhook_url": ""}),
    not_patched("the name", {"name": "other"}, "name", "known"),
    not_patched("half the keys", {"access_key": "AK2"}, "secret_key"),
    not_patched("with null", {"webhook_url": None}, "webhook_url"),
    not_patched("a bad endpoint", {"endpoint": "a/b"}, "endpoint"),
    not_patched("not JSON", b"interval=5", "JSON"),
    Case("delete", "DELETE", ONE, None, 204),
    done("list endpoints", "GET", ENDPOINTS, count=1, next=None, previous=None),
    done("list endpoints with a search", "GET", f"{ENDPOINTS}?search=garage", results=[]),
    done(
        "retrieve an endpoint",
        "GET",
        ENDPOINT,
        name="us-iad-1.linodeobjects.com",
        bucket_count=1,
        limits={"list_per_s": 100.0, "connections": 750},
        pace=None,
        asked_at=None,
    ),
    *(
        done(
            f"patch an endpoint's {name}",
            "PATCH",
            ENDPOINT,
            {name: value},
            **cast("Any", {name: value}),
        )
        for name, value in {
            "start_after": "ignored",
            "list_version": "1",
            "url_encoding": "claimed",
            "signing_region": "garage",
            "addressing": "virtual",
            "key_order": "other",
            "totals": "none",
            "authorities": "/etc/ssl/own.pem",
            "connections": None,
        }.items()
    ),
    done(
        "patch an endpoint's limits",
        "PATCH",
        ENDPOINT,
        {"list_per_s": 5, "connections": 0},
        limits={"list_per_s": 5.0, "connections": 0},
    ),
    *(
        refused(f"patch an endpoint's {name} with {value!r}", "PATCH", ENDPOINT, body, 400, name)
        for name, value in [
            ("start_after", "never"),
            ("list_version", 1),
            ("signing_region", "a b"),
            ("authorities", "own.pem"),
            ("list_per_s", -1),
            ("list_per_s", 10**30),
            ("connections", "7"),
            ("colour", "red"),
        ]
        for body in [{name: value}]
    ),
    refused("retrieve no endpoint", "GET", f"{ENDPOINTS}nowhere/", None, 404, "nowhere"),
    refused("patch no endpoint", "PATCH", f"{ENDPOINTS}nowhere/", {}, 404, "nowhere"),
    done("scan", "POST", f"{ONE}scan/", None, 202, bucket="media-in"),
    done("held", "GET", f"{ONE}held/", bucket="media-in", held_since=None, count=0, results=[]),
    refused("too many held", "GET", f"{ONE}held/?limit=1001", None, 400, "limit", "1000"),
    refused("explain nothing", "GET", f"{ONE}explain/", None, 400, "key"),
    refused("explain twice", "GET", f"{ONE}explain/?key=a&key=b", None, 400, "key", "once"),
    refused("held by colour", "GET", f"{ONE}held/?colour=red", None, 400, "colour"),
    done("release", "POST", f"{ONE}release/", None, 202, bucket="media-in"),
    *(
        done(f"release: {choice}", "POST", f"{ONE}release/", {"choice": choice}, 202)
        for choice in ("announce_deletions", "announce_updates", "take_times")
    ),
    refused("release all", "POST", f"{ONE}release/", {"choice": "all"}, 400, "choice"),
    refused("release by colour", "POST", f"{ONE}release/", {"colour": "red"}, 400, "colour"),
    done("resume", "POST", f"{ONE}resume/", {"choice": "baseline"}, 202, bucket="media-in"),
    done("resume all", "POST", "/api/v1/resume/", {"choice": "baseline"}, 202, buckets=[]),
    refused("resume somehow", "POST", f"{ONE}resume/", {"choice": "x"}, 400, "choice", "announce"),
    refused("resume all somehow", "POST", "/api/v1/resume/", {}, 400, "choice", "required"),
    refused("test with half a key pair", "POST", f"{ONE}test/", {"access_key": "A"}, 400, "secret"),
    *NOBODY,
    done("list credentials", "GET", CREDENTIALS, count=2),
    done("search credentials", "GET", f"{CREDENTIALS}?search=SHAR", count=1),
    refused("list credentials by colour", "GET", f"{CREDENTIALS}?colour=x", None, 400, "colour"),
    done("create a credential", "POST", CREDENTIALS, {"name": "k"} | KEYS, 201, bucket_count=0),
    refused(
        "create a credential again", "POST", CREDENTIALS, {"name": "shared"} | KEYS, 400, "name"
    ),
    refused(
        "create a credential without keys", "POST", CREDENTIALS, {"name": "k"}, 400, "secret_key"
    ),
    done("retrieve a credential", "GET", SHARED, name="shared", vault_prefix="SHARED"),
    done("rotate a credential", "PATCH", SHARED, KEYS, name="shared"),
    done("patch nothing of a credential", "PATCH", SHARED, {}, name="shared"),
    done(
        "note an endpoint",
        "PATCH",
        SHARED,
        {"endpoint": "eu.example.com"},
        endpoint="eu.example.com",
    ),
    refused("rotate by half", "PATCH", SHARED, {"access_key": "AK2"}, 400, "secret_key"),
    refused("rename a credential", "PATCH", SHARED, {"name": "other"}, 400, "name"),
    Case("delete a credential", "DELETE", SHARED, None, 204),
    refused("delete one in use", "DELETE", f"{CREDENTIALS}media-in/", None, 409, "media-in"),
    *(
        refused(f"{method} no credential", method, f"{CREDENTIALS}{name}/", {}, 404, "credential")
        for method in ("GET", "PATCH", "DELETE")
        for name in ("nobody", "a%00b")
    ),
    done("events", "GET", EVENTS, results=[]),
    refused("events of a type", "GET", f"{EVENTS}?type=moved", None, 400, "type", "deleted"),
    refused("too many events", "GET", f"{EVENTS}?limit=1001", None, 400, "limit"),
    refused("events by colour", "GET", f"{EVENTS}?colour=red", None, 400, "colour"),
    *(
        refused(f"{method} {path}", method, path, None, 405, method)
        for path, method in (
            (BUCKETS, "DELETE"),
            (ONE, "PUT"),
            (f"{ONE}scan/", "GET"),
            (EVENTS, "POST"),
        )
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_the_contract(caller, case):
    response = caller.send(case.method, case.path, case.body)
    assert response.status_code == case.status, response.content
    if case.status >= 400:
        error = api_client.error_of(response)
        assert all(name in error for name in case.named), error
        fields = response.json()["fields"]
        assert all(message in error for said in fields.values() for message in said)
        assert bool(fields) == (case.status == 400 and "JSON" not in error)
    elif case.status == 204:
        assert response.content == b""
    else:
        shown = response.json()
        wanted = case.shows or {}
        assert {name: shown[name] for name in wanted} == wanted


def test_a_bucket_shows_all_of_itself_wherever_it_is_shown(caller):
    shown = [
        caller.get(ONE).json(),
        caller.get(BUCKETS).json()["results"][0],
        caller.send("PATCH", ONE, {"polling_interval": 5}).json(),
        caller.post(BUCKETS, _new()).json(),
    ]
    assert [set(bucket) for bucket in shown] == [MEMBERS] * 4


def test_what_is_created_is_where_the_answer_says(caller):
    for path, body in ((BUCKETS, _new()), (CREDENTIALS, {"name": "k"} | KEYS)):
        response = caller.post(path, body)
        assert caller.get(response["Location"]).json() == response.json()


def test_a_slash_at_the_end_changes_nothing(caller):
    for path in (BUCKETS, ONE, CREDENTIALS, SHARED, EVENTS):
        assert caller.get(path.rstrip("/")).json() == caller.get(path).json()


def test_deleted_is_gone_everywhere(caller):
    assert caller.send("DELETE", ONE).status_code == 204
    assert not Bucket.objects.exists()
    assert "media-in" not in wiring.background().bucket_configs.load().buckets
    assert "MEDIA_IN" not in wiring.vault().read_all()


def test_rotated_keys_are_in_the_vault(caller):
    caller.send("PATCH", SHARED, KEYS)
    pair = wiring.vault().read_all()["SHARED"]
    assert (pair.access_key, pair.secret_key) == ("AK2", "SK2")


def test_events_wanted_are_the_models_four_switches(caller):
    caller.send("PATCH", ONE, {"events": ["deleted"]})
    assert Bucket.objects.get().wanted_events == ["deleted"]


def test_a_paused_bucket_is_not_scanned_on_demand(caller):
    caller.send("PATCH", ONE, {"monitoring_enabled": False})
    response = caller.post(f"{ONE}scan/")
    assert response.status_code == 409
    assert "paused" in api_client.error_of(response)


def test_a_connection_test_says_what_is_in_the_bucket(caller, s3_server, settings):
    security = settings.SCANNING.security.model_copy(update={"allow_private_endpoints": True})
    settings.SCANNING = settings.SCANNING.model_copy(update={"security": security})
    s3_server.put(s3_server.bucket("on-this-host"), "a/b c.txt")
    pair = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    api_client.add_bucket("on-this-host", endpoint=s3_server.url, **pair)
    answer = caller.post(f"{BUCKETS}on-this-host/test/").json()
    assert (answer["ok"], answer["first_keys"], answer["error"]) == (True, ["a/b c.txt"], "")
    s3_server.remove("on-this-host")
    answer = caller.post(f"{BUCKETS}on-this-host/test/", pair).json()
    assert not answer["ok"]
    assert "on-this-host" in answer["error"]
    assert answer["fix"]


def test_a_key_is_explained_with_when_its_range_was_listed_and_will_be(caller, s3_server, settings):
    conf = settings.SCANNING
    security = conf.security.model_copy(update={"allow_private_endpoints": True})
    settings.SCANNING = conf.model_copy(update={"security": security})
    name = s3_server.bucket()
    s3_server.put(name, "a/b c.mp4", b"film")
    pair = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    api_client.add_bucket(name, endpoint=s3_server.url, **pair)
    answer = caller.get(f"{BUCKETS}{name}/explain/?key=a/b%20c.mp4")
    assert answer.status_code == 200
    found = answer.json()
    assert (found["event"], found["stored"], found["listed"]["size"]) == ("created", None, 4)
    assert (found["last_listed"], found["problem"]) == (None, "")
    assert "No scan has listed" in " ".join(found["reasons"])


def test_held_objects_are_listed_before_their_deletion_is_confirmed(
    caller, s3_server, settings, capsys
):
    given = settings.SCANNING
    deletions = given.deletions.model_copy(update={"mass_minimum": 1})
    security = given.security.model_copy(update={"allow_private_endpoints": True})
    settings.SCANNING = given.model_copy(update={"deletions": deletions, "security": security})
    name = s3_server.bucket()
    pair = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    api_client.add_bucket(name, endpoint=s3_server.url, **pair)
    engine_buckets.trust()
    for key in ("=a", "b", "c"):
        s3_server.put(name, key, b"one")
    assert manage(capsys, "runscan", name).status == 0
    for key in ("=a", "b", "c"):
        s3_server.client().delete_object(Bucket=name, Key=key)
    assert "3 missing, held" in manage(capsys, "runscan", name).out

    answer = caller.get(f"{BUCKETS}{name}/held/?limit=2").json()
    assert (answer["bucket"], answer["count"]) == (name, 3)
    assert answer["held_since"].startswith("20")
    assert [(held["key"], held["size"]) for held in answer["results"]] == [("=a", 3), ("b", 3)]
    members = {"key", "size", "last_modified", "etag", "new_last_modified"}
    assert set(answer["results"][0]) == members
    assert "Z" in answer["results"][0]["last_modified"]
    assert answer["results"][0]["new_last_modified"] is None
    assert (answer["held_missing"], answer["held_moved"], answer["known"]) == (3, 0, 3)


def test_held_times_are_listed_and_taken_silently(caller, s3_server, settings, capsys):
    given = settings.SCANNING
    deletions = given.deletions.model_copy(update={"mass_minimum": 1})
    security = given.security.model_copy(update={"allow_private_endpoints": True})
    settings.SCANNING = given.model_copy(update={"deletions": deletions, "security": security})
    name = s3_server.bucket()
    pair = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    api_client.add_bucket(name, endpoint=s3_server.url, **pair)
    engine_buckets.trust()
    for key in ("a", "b"):
        s3_server.put(name, key, b"one")
    assert manage(capsys, "runscan", name).status == 0
    s3_server.touch(name, "a", "b")
    assert "of 2 only the time moved, held" in manage(capsys, "runscan", name).out

    answer = caller.get(f"{BUCKETS}{name}/held/?limit=1").json()
    assert (answer["count"], answer["held_moved"], answer["known"]) == (2, 2, 2)
    assert (answer["held_since"], answer["held_missing"]) == (None, 0)
    assert answer["held_moved_since"].startswith("20")
    [held] = answer["results"]
    assert held["last_modified"] < held["new_last_modified"]
    scan_status.flush()
    status = caller.get(f"{BUCKETS}{name}/").json()["status"]
    assert (status["held_moved"], status["held_moved_since"][:2]) == (2, "20")

    taken = caller.post(f"{BUCKETS}{name}/release/", {"choice": "take_times"})
    assert (taken.status_code, "announces nothing" in taken.json()["message"]) == (202, True)
    assert "0 updated" in manage(capsys, "runscan", name).out
    assert caller.get(f"{BUCKETS}{name}/held/").json()["count"] == 0
