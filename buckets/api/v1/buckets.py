"""/api/v1/buckets/: what is watched, how, and how it goes."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.urls import reverse
from rest_framework import status
from rest_framework.response import Response
from rest_framework.views import APIView

from buckets import selectors, services
from buckets.api import auth, bucket_commands
from buckets.api.errors import refusals_as_conflicts
from buckets.api.v1 import parsing, queries, requests, responses, schema
from buckets.models import EVENT_TYPES, Bucket, Credential
from scanning import engine
from scanning.core.holds import Release

if TYPE_CHECKING:
    from rest_framework.request import Request

    from scanning.core.types import ObjectState

_RESUMED = {
    Bucket.FirstScan.ANNOUNCE.value: "What Redis does not know is announced by the next scan.",
    Bucket.FirstScan.BASELINE.value: "What is there now is remembered, and not announced.",
}
_RELEASED = {
    Release.ANNOUNCE_DELETIONS: "Held deletions are confirmed: the next scan announces them.",
    Release.ANNOUNCE_UPDATES: "The next scan announces the held updates.",
    Release.TAKE_TIMES: "The next scan takes the new times, and announces nothing of them.",
}
_NONE_WAITED = "Redis forgot nothing here: nothing was changed."


class Buckets(APIView):
    @schema.LIST_BUCKETS
    def get(self, request: Request) -> Response:
        filters = parsing.query(requests.BucketQuery, request)
        rows = queries.buckets(filters)
        return Response(queries.page(request, rows, filters, responses.BucketsAnswer))

    @schema.CREATE_BUCKET
    def post(self, request: Request) -> Response:
        given = _service_arguments(parsing.body(requests.BucketCreate, request))
        bucket = services.add_bucket(**given, by=auth.client_of(request))
        where = reverse("api:v1-bucket", args=[bucket.name]) + "/"
        return Response(_as_changed(bucket), status.HTTP_201_CREATED, headers={"Location": where})


class OneBucket(APIView):
    @schema.RETRIEVE_BUCKET
    def get(self, request: Request, name: str) -> Response:
        return Response(_as_json(bucket_commands.find_bucket(name)))

    @schema.PATCH_BUCKET
    def patch(self, request: Request, name: str) -> Response:
        bucket = bucket_commands.find_bucket(name)
        changes = _service_arguments(parsing.body(requests.BucketPatch, request))
        if changes:
            by = auth.client_of(request)
            bucket = services.update_bucket(bucket=bucket, by=by, **changes)
        return Response(_as_changed(bucket))

    @schema.DELETE_BUCKET
    def delete(self, request: Request, name: str) -> Response:
        services.delete_bucket(bucket=bucket_commands.find_bucket(name), by=auth.client_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class ScanBucket(APIView):
    @schema.SCAN_BUCKET
    def post(self, request: Request, name: str) -> Response:
        with refusals_as_conflicts():
            services.scan_now(bucket=bucket_commands.find_bucket(name), by=auth.client_of(request))
        return _accepted(name, "The bucket is due: it is scanned as soon as a worker is free.")


class TestBucket(APIView):
    @schema.TEST_BUCKET
    def post(self, request: Request, name: str) -> Response:
        bucket = bucket_commands.find_bucket(name)
        keys = parsing.body(requests.KeyPairFields, request)
        test = services.check_connection(bucket=bucket, **keys, by=auth.client_of(request))
        return Response(responses.ConnectionAnswer(test).data)


class HeldObjects(APIView):
    @schema.HELD_OBJECTS
    def get(self, request: Request, name: str) -> Response:
        limit = parsing.query(requests.HeldQuery, request)["limit"]
        held = engine.held_objects(bucket_commands.find_bucket(name).name)
        first = [
            {
                "key": one.key,
                "size": one.state.size,
                "last_modified": _time(one.state.last_modified),
                "etag": one.state.etag,
                "new_last_modified": _time_or_none(one.moved_to),
            }
            for one in islice(held.objects, limit)
        ]
        found = {
            "bucket": name,
            "held_since": _time_or_none(held.missing_since),
            "held_missing": held.missing,
            "held_moved_since": _time_or_none(held.moved_since),
            "held_moved": held.moved,
            "known": held.known,
            "count": held.count,
            "results": first,
        }
        return Response(responses.HeldObjectsAnswer(found).data)


class ExplainKey(APIView):
    @schema.EXPLAIN_KEY
    def get(self, request: Request, name: str) -> Response:
        bucket = bucket_commands.find_bucket(name)
        key = parsing.query(requests.ExplainQuery, request)["key"]
        found = engine.explain(bucket.name, key)
        listed = found.last_listed
        shown = {
            "bucket": name,
            "key": key,
            "stored": _state(found.stored),
            "listed": _state(found.listed),
            "event": found.event,
            "announced": found.announced,
            "reasons": found.reasons,
            "problem": found.problem,
            "last_listed": listed and {"at": _time(listed.at), "by": listed.by},
            "pass_due": None if found.pass_due is None else _time(found.pass_due),
        }
        return Response(responses.ExplanationAnswer(shown).data)


class ReleaseBucket(APIView):
    @schema.RELEASE_BUCKET
    def post(self, request: Request, name: str) -> Response:
        bucket = bucket_commands.find_bucket(name)
        choice = Release(parsing.body(requests.ReleaseChoice, request)["choice"])
        services.release_hold(bucket=bucket, choice=choice, by=auth.client_of(request))
        return _accepted(name, _RELEASED[choice])


class ResumeBucket(APIView):
    @schema.RESUME_BUCKET
    def post(self, request: Request, name: str) -> Response:
        bucket = bucket_commands.find_bucket(name)
        choice = parsing.body(requests.Resumption, request)["choice"]
        by = auth.client_of(request)
        names = services.resume_after_loss(buckets=[bucket], choice=choice, by=by)
        return _accepted(name, _RESUMED[choice] if names else _NONE_WAITED)


class ResumeBuckets(APIView):
    @schema.RESUME_BUCKETS
    def post(self, request: Request) -> Response:
        choice = parsing.body(requests.Resumption, request)["choice"]
        names = services.resume_after_loss(
            buckets=list(selectors.lost_buckets()), choice=choice, by=auth.client_of(request)
        )
        message = _RESUMED[choice] if names else _NONE_WAITED
        return Response({"buckets": names, "message": message}, status.HTTP_202_ACCEPTED)


def _state(state: ObjectState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    modified = _time(state.last_modified)
    return {"size": state.size, "last_modified": modified, "etag": state.etag}


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _time_or_none(at: float | None) -> datetime | None:
    return None if at is None else _time(at)


def _service_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Turn a body's members into the arguments of the services."""
    arguments = dict(given)
    if (wanted := arguments.pop("events", None)) is not None:
        arguments |= {f"announce_{kind}": kind in wanted for kind in EVENT_TYPES}
    if (name := arguments.pop("credential", None)) is not None:
        arguments["credential"] = _credential(name)
    return arguments


def _credential(name: str) -> Credential:
    try:
        return queries.credential_named(name)
    except Credential.DoesNotExist as exc:
        raise ValidationError({"credential": [str(exc)]}) from None


def _as_json(bucket: Bucket) -> dict[str, Any]:
    return dict(responses.BucketAnswer(bucket, context=queries.row_context([bucket])).data)


def _as_changed(bucket: Bucket) -> dict[str, Any]:
    note = services.note_on_overlaps(bucket)
    return _as_json(bucket) | ({"note": note} if note else {})


def _accepted(name: str, message: str) -> Response:
    return Response({"bucket": name, "message": message}, status.HTTP_202_ACCEPTED)
