"""The documented /api routes: parse, call one function, answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from drf_spectacular.utils import extend_schema_view
from rest_framework import status
from rest_framework.response import Response
from rest_framework.views import APIView

from buckets import selectors, services
from buckets.api import auth, bucket_commands, fields
from buckets.api.errors import InvalidBody
from buckets.api.legacy import schema
from buckets.api.negotiation import LoginParser
from scanning import wiring

if TYPE_CHECKING:
    from rest_framework.request import Request

    from buckets.models import Bucket

REDIS_AWAY = "Redis did not answer: the scanner learns of this when it does again."


class Token(APIView):
    """Trade a client's id and secret for a token."""

    authentication_classes = ()
    permission_classes = ()
    parser_classes = (LoginParser,)

    def get_authenticate_header(self, request: Request) -> str:
        return auth.CHALLENGE  # without one, REST framework turns the 401 into a 403

    @schema.TOKEN
    def post(self, request: Request) -> Response:
        login = bucket_commands.read(fields.Login, _body(request))
        client = auth.log_in(**login, request=request)
        token = auth.token_for(client)
        body = {
            "access_token": str(token),
            "token_type": "Bearer",
            "expires_in": int(token.lifetime.total_seconds()),
        }
        return Response(body, headers={"Cache-Control": "no-store"})


class NotificationStatus(APIView):
    @schema.STATUS
    def get(self, request: Request) -> Response:
        return Response({"buckets": selectors.notification_status()})


class SwitchNotifications(APIView):
    """Turn a bucket's notifications on or off; scanning goes on either way."""

    enabled: bool

    def post(self, request: Request) -> Response:
        bucket = _bucket_of_query(request)
        services.set_notifications(bucket=bucket, enabled=self.enabled, by=auth.client_of(request))
        word = "enabled" if self.enabled else "disabled"
        body = {"status": "success", "bucket": bucket.name, "notifications": word}
        return Response(body | _note(bucket.name))


@extend_schema_view(post=schema.ENABLE)
class EnableNotifications(SwitchNotifications):
    enabled = True


@extend_schema_view(post=schema.DISABLE)
class DisableNotifications(SwitchNotifications):
    enabled = False


class AddBucket(APIView):
    @schema.ADD
    def post(self, request: Request) -> Response:
        bucket = bucket_commands.add(_body(request), by=auth.client_of(request))
        body = {
            "status": "success",
            "message": f"Bucket {bucket.name} added",
            "bucket": bucket.name,
        }
        about = f"{_about_the_first_scan(bucket)} {services.note_on_overlaps(bucket)}".strip()
        note = _note(bucket.name, about)
        return Response(body | note, status=status.HTTP_201_CREATED)


class UpdateBucket(APIView):
    @schema.UPDATE
    def post(self, request: Request) -> Response:
        update = bucket_commands.update(_body(request), by=auth.client_of(request))
        name = update.bucket.name
        body = {"status": "success", "message": f"Bucket {name} updated"}
        if not update.members:
            known = ", ".join(fields.BucketChanges().fields)
            body["message"] = f"Bucket {name} unchanged"
            return Response(body | {"note": f"Nothing to change was given; known are: {known}."})
        return Response(body | _note(name, services.note_on_overlaps(update.bucket)))


class DeleteBucket(APIView):
    @schema.DELETE
    def post(self, request: Request) -> Response:
        bucket = _bucket_of_query(request)
        name = bucket.name
        services.delete_bucket(bucket=bucket, by=auth.client_of(request))
        return Response({"status": "success", "message": f"Bucket {name} deleted"} | _note(name))


def _body(request: Request) -> dict[str, Any]:
    return cast("dict[str, Any]", request.data)  # our parsers take nothing but objects


def _bucket_of_query(request: Request) -> Bucket:
    name = request.query_params.get("bucket", "").strip()
    if not name:
        raise InvalidBody({"bucket": ["Name the bucket in the query: ?bucket=NAME."]})
    return bucket_commands.find_bucket(name)


def _about_the_first_scan(bucket: Bucket) -> str:
    interval_s = wiring.conf().defaults.interval_s(bucket.polling_interval)
    within = f"{interval_s} second{'' if interval_s == 1 else 's'}"
    verb = "announces" if bucket.notifications_enabled else "only remembers"
    return f"The first scan begins within {within}; it {verb} what is in the bucket already."


def _note(bucket: str, note: str = "") -> dict[str, str]:
    """Return a member ``note`` about a change; no member if there is nothing to note."""
    if selectors.is_waiting_for_redis(bucket):
        note = f"{REDIS_AWAY} {note}".strip()
    return {"note": note} if note else {}
