"""The v1 routes in OpenAPI."""

from __future__ import annotations

from typing import Any

from buckets.api.openapi.route import path_name, route
from buckets.api.v1 import requests, responses

_BUCKETS, _CREDENTIALS, _EVENTS = "buckets", "credentials", "events"
_BUCKET, _CREDENTIAL = path_name("bucket"), path_name("credential")
_ENDPOINTS, _ENDPOINT = "endpoints", path_name("endpoint")

_REQUESTS: dict[str, Any] = {
    "list": 34848,
    "head_metadata": 12,
    "head_witness": 0,
    "head_bucket": 3456,
    "cost": None,
}
BUCKET: dict[str, Any] = {
    "name": "media-in",
    "bucket_name": "media-in",
    "region": "us-iad-1",
    "endpoint": "us-iad-1.linodeobjects.com",
    "credential": "shared-key",
    "prefix": "",
    "suffix": ".mp4",
    "polling_interval": 300,
    "polling_longest": 3600,
    "probe_interval": None,
    "monitoring_enabled": True,
    "notifications_enabled": True,
    "events": ["created", "updated", "detected"],
    "first_scan": "baseline",
    "fetch_metadata": True,
    "trust_etags": False,
    "lanes": None,
    "requests_per_day": None,
    "most_objects": None,
    "webhook_url": "https://api.example.com/hook",
    "webhook_client_id": "",
    "webhook_token_url": "",
    "webhook_secret_in_redis": False,
    "added_at": "2025-04-10T12:00:00Z",
    "updated_at": "2025-04-11T09:30:00Z",
    "state": "watched",
    "mirrored": True,
    "status": {
        "last_scan_at": "2025-04-11T09:35:00Z",
        "last_scan_duration_s": 1.4,
        "last_lag_s": 0.2,
        "objects": 120345,
        "last_changes": 2,
        "last_error": "",
        "last_error_class": "",
        "last_error_at": None,
        "next_scan_at": "2025-04-11T09:36:00Z",
        "held_since": None,
        "held_missing": 0,
        "held_moved_since": None,
        "held_moved": 0,
        "lost_since": None,
        "warnings": [],
    },
    "requests_today": _REQUESTS,
    "forecast": _REQUESTS,
}
CREDENTIAL: dict[str, Any] = {
    "name": "shared-key",
    "vault_prefix": "SHARED_KEY",
    "came_with_bucket": False,
    "bucket_count": 25,
    "endpoint": "us-iad-1.linodeobjects.com",
    "created_at": "2025-04-10T11:58:00Z",
    "keys_entered_at": "2025-04-10T11:58:00Z",
    "last_verified_at": "2025-04-11T09:35:00Z",
    "last_verified_error": "",
}
ENDPOINT: dict[str, Any] = {
    "name": "us-iad-1.linodeobjects.com",
    "start_after": "",
    "list_version": "",
    "url_encoding": "",
    "signing_region": "",
    "addressing": "",
    "key_order": "",
    "totals": "",
    "authorities": "",
    "list_per_s": 50.0,
    "connections": None,
    "requests_per_day": None,
    "request_price": "",
    "bucket_count": 37,
    "limits": {"list_per_s": 50.0, "connections": 750},
    "pace": {"state": "normal", "list_per_s": 0.0, "why": ""},
    "facts": [
        {
            "name": "start_after",
            "value": "exclusive",
            "source": "learnt",
            "learnt": "exclusive",
            "learnt_at": "2025-04-11T09:35:00Z",
        }
    ],
    "asked_at": "2025-04-11T09:35:00Z",
    "requests_today": _REQUESTS,
    "forecast": _REQUESTS,
}
_KEYS = {"access_key": "THE-ACCESS-KEY", "secret_key": "THE-SECRET-KEY"}
_NEW_BUCKET = {"name": "media-in", "region": "us-iad-1", "credential": "shared-key"}


def _page_of(row: dict[str, Any]) -> dict[str, Any]:
    return {"count": 1, "next": None, "previous": None, "results": [row]}


LIST_BUCKETS = route(
    "v1_list_buckets",
    "Buckets by page, filtered and sorted",
    tag=_BUCKETS,
    parameters=[requests.BucketQuery],
    answers={200: responses.BucketsAnswer},
    errors=(400,),
    answered=_page_of(BUCKET),
)
CREATE_BUCKET = route(
    "v1_create_bucket",
    "Watch a bucket",
    description="One of `region` and `endpoint` is required; and `credential`, or both keys.",
    tag=_BUCKETS,
    takes=requests.BucketCreate,
    answers={201: responses.BucketAnswer},
    errors=(400, 403, 409),
    example=_NEW_BUCKET,
    answered=BUCKET,
)
RETRIEVE_BUCKET = route(
    "v1_retrieve_bucket",
    "One bucket, and how its last scan ended",
    tag=_BUCKETS,
    parameters=[_BUCKET],
    answers={200: responses.BucketAnswer},
    errors=(404,),
    answered=BUCKET,
)
PATCH_BUCKET = route(
    "v1_patch_bucket",
    "Change a bucket",
    description="What is left out stays. Keys that other buckets use too are changed at their "
    "credential.",
    tag=_BUCKETS,
    parameters=[_BUCKET],
    takes=requests.BucketPatch,
    answers={200: responses.BucketAnswer},
    errors=(400, 403, 404),
    example={"polling_interval": 300, "events": ["created", "updated", "detected"]},
    answered=BUCKET,
)
DELETE_BUCKET = route(
    "v1_delete_bucket",
    "Stop watching a bucket",
    description="Its objects in S3 are not touched.",
    tag=_BUCKETS,
    parameters=[_BUCKET],
    answers={204: None},
    errors=(403, 404),
)
SCAN_BUCKET = route(
    "v1_scan_bucket",
    "Scan a bucket as soon as possible",
    description="409 while its monitoring is paused.",
    tag=_BUCKETS,
    parameters=[_BUCKET],
    answers={202: responses.ActionAnswer},
    errors=(403, 404, 409),
    answered={"bucket": "media-in", "message": "The bucket is due: …"},
)
TEST_BUCKET = route(
    "v1_test_bucket",
    "List one page of a bucket, with its keys or with those given",
    description="Changes nothing. 200 also when it fails: `ok` says which.",
    tag=_BUCKETS,
    parameters=[_BUCKET],
    takes=requests.KeyPairFields,
    answers={200: responses.ConnectionAnswer},
    errors=(400, 403, 404),
    example={},
    answered={
        "ok": True,
        "latency_ms": 41.5,
        "first_keys": ["a/b c.mp4"],
        "error": "",
        "fix": "",
    },
)
HELD_OBJECTS = route(
    "v1_held_objects",
    "Which objects are held",
    description="Those of a held mass deletion, of a held storm of moved times, or of both: to "
    "look at before somebody decides. `manage.py held BUCKET --csv` and the bucket's page have "
    "all of them.",
    tag=_BUCKETS,
    parameters=[_BUCKET, requests.HeldQuery],
    answers={200: responses.HeldObjectsAnswer},
    errors=(400, 404),
    answered={
        "bucket": "media-in",
        "held_since": "2025-04-11T09:35:00Z",
        "held_missing": 1284,
        "held_moved_since": None,
        "held_moved": 0,
        "known": 2310,
        "count": 1284,
        "results": [
            {
                "key": "a/b c.mp4",
                "size": 1024,
                "last_modified": "2025-04-10T12:00:00Z",
                "etag": "951be343b093f1f4ccea1db8e178b151",
                "new_last_modified": None,
            }
        ],
    },
)
EXPLAIN_KEY = route(
    "v1_explain_key",
    "What the next scan would find of one key, and when its range was and will be listed",
    description="Costs one LIST request and changes nothing.",
    tag=_BUCKETS,
    parameters=[_BUCKET, requests.ExplainQuery],
    answers={200: responses.ExplanationAnswer},
    errors=(400, 404),
    answered={
        "bucket": "media-in",
        "key": "a/b c.mp4",
        "stored": None,
        "listed": {
            "size": 1024,
            "last_modified": "2025-04-11T09:35:30Z",
            "etag": "951be343b093f1f4ccea1db8e178b151",
        },
        "event": "created",
        "announced": True,
        "reasons": ["Nothing is known of the key, …", "The next pass is due in 41 s."],
        "problem": "",
        "last_listed": {"at": "2025-04-11T09:35:00Z", "by": "pass"},
        "pass_due": "2025-04-11T09:36:00Z",
    },
)
RELEASE_BUCKET = route(
    "v1_release_bucket",
    "Decide about a held mass deletion or storm of moved times",
    description="The next scan, which is due now, announces the deletions or updates, or takes the "
    "new times silently. Nothing happens to a bucket that holds nothing of that kind.",
    tag=_BUCKETS,
    parameters=[_BUCKET],
    takes=requests.ReleaseChoice,
    answers={202: responses.ActionAnswer},
    errors=(400, 403, 404),
    example={"choice": "announce_deletions"},
    answered={"bucket": "media-in", "message": "Held deletions are confirmed: …"},
)
RESUME_BUCKET = route(
    "v1_resume_bucket",
    "Say how to go on with a bucket that Redis forgot",
    description="Nothing happens to a bucket that does not wait for it.",
    tag=_BUCKETS,
    parameters=[_BUCKET],
    takes=requests.Resumption,
    answers={202: responses.ActionAnswer},
    errors=(400, 403, 404),
    example={"choice": "announce"},
    answered={"bucket": "media-in", "message": "What Redis does not know is announced …"},
)
RESUME_BUCKETS = route(
    "v1_resume_buckets",
    "The same for every bucket that Redis forgot",
    tag=_BUCKETS,
    takes=requests.Resumption,
    answers={202: responses.ResumedAnswer},
    errors=(400, 403),
    example={"choice": "baseline"},
    answered={"buckets": ["media-in"], "message": "What is there now is remembered …"},
)
GIVE_HINTS = route(
    "v1_give_hints",
    "Say where something may have changed",
    description="Also takes a list of these; notifications of S3, Ceph and MinIO (`Records`), of "
    "Amazon EventBridge, and CloudEvents: structured, as a list, or in `ce-` headers. A hint is a "
    "place to look, within seconds; what is announced is what the listing shows. 200 instead of "
    "202 where a server only tests the connection. Takes the client's id and secret instead of a "
    "token, too.",
    tag="hints",
    takes=requests.HintedKeys,
    answers={202: responses.HintsAnswer, 200: responses.HintsAnswer},
    errors=(400, 429),
    example={"bucket": "media-in", "keys": ["a/b c.mp4"]},
    answered={"accepted": 1, "ignored": 0, "unknown": []},
)
LIST_CREDENTIALS = route(
    "v1_list_credentials",
    "Credentials by page, by name",
    tag=_CREDENTIALS,
    parameters=[requests.CredentialQuery],
    answers={200: responses.CredentialsAnswer},
    errors=(400,),
    answered=_page_of(CREDENTIAL),
)
CREATE_CREDENTIAL = route(
    "v1_create_credential",
    "Store a key pair that several buckets may use",
    tag=_CREDENTIALS,
    takes=requests.CredentialCreate,
    answers={201: responses.CredentialAnswer},
    errors=(400, 403),
    example={"name": "shared-key", **_KEYS},
    answered=CREDENTIAL,
)
RETRIEVE_CREDENTIAL = route(
    "v1_retrieve_credential",
    "One credential, without its keys",
    tag=_CREDENTIALS,
    parameters=[_CREDENTIAL],
    answers={200: responses.CredentialAnswer},
    errors=(404,),
    answered=CREDENTIAL,
)
PATCH_CREDENTIAL = route(
    "v1_patch_credential",
    "Give a credential another key pair",
    description="For every bucket that uses it. Both keys together, or neither.",
    tag=_CREDENTIALS,
    parameters=[_CREDENTIAL],
    takes=requests.CredentialPatch,
    answers={200: responses.CredentialAnswer},
    errors=(400, 403, 404),
    example=_KEYS,
    answered=CREDENTIAL,
)
DELETE_CREDENTIAL = route(
    "v1_delete_credential",
    "Remove a credential that no bucket uses",
    description="409 while buckets use it; the error names them.",
    tag=_CREDENTIALS,
    parameters=[_CREDENTIAL],
    answers={204: None},
    errors=(403, 404, 409),
)
LIST_EVENTS = route(
    "v1_list_events",
    "What happened lately, the newest first",
    description="A window on the last commits, for people; programs read the queue.",
    tag=_EVENTS,
    parameters=[requests.EventQuery],
    answers={200: responses.EventsAnswer},
    errors=(400,),
    answered={
        "window": {"since": "2025-04-11T08:00:00Z", "not_listed": 0, "note": "This is a window …"},
        "results": [
            {
                "bucket": "media-in",
                "bucket_name": "media-in",
                "type": "created",
                "key": "a/b c.mp4",
                "size": 1024,
                "at": "2025-04-11T09:35:01Z",
            }
        ],
    },
)
LIST_ENDPOINTS = route(
    "v1_list_endpoints",
    "The endpoints that buckets are at, by page",
    tag=_ENDPOINTS,
    parameters=[requests.EndpointQuery],
    answers={200: responses.EndpointsAnswer},
    errors=(400,),
    answered=_page_of(ENDPOINT),
)
RETRIEVE_ENDPOINT = route(
    "v1_retrieve_endpoint",
    "One endpoint: what is set, what is known, and how it stands",
    tag=_ENDPOINTS,
    parameters=[_ENDPOINT],
    answers={200: responses.EndpointAnswer},
    errors=(404,),
    answered=ENDPOINT,
)
PATCH_ENDPOINT = route(
    "v1_patch_endpoint",
    "Set what wins over what is learnt, and limits",
    description="What is left out stays.",
    tag=_ENDPOINTS,
    parameters=[_ENDPOINT],
    takes=requests.EndpointPatch,
    answers={200: responses.EndpointAnswer},
    errors=(400, 403, 404),
    example={"signing_region": "garage", "list_per_s": 50},
    answered=ENDPOINT,
)
