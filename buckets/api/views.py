"""The documented /api routes: parse, call one function, answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import status
from rest_framework.exceptions import AuthenticationFailed, NotFound
from rest_framework.response import Response
from rest_framework.views import APIView

from buckets import selectors, services
from buckets.api import auth, logins, serializers
from buckets.api.errors import InvalidBody
from buckets.api.negotiation import LoginParser
from scanning import wiring

if TYPE_CHECKING:
    from rest_framework.request import Request
    from rest_framework.serializers import Serializer

    from buckets.models import Bucket

REDIS_AWAY = "Redis did not answer: the scanner learns of this when it does again."

# What the services call the members that the contract names in short.
_SERVICE_NAMES = {
    "client_id": "webhook_client_id",
    "client_secret": "webhook_client_secret",
    "token_url": "webhook_token_url",
}


class Token(APIView):
    """Trade a client's id and secret for a token."""

    authentication_classes = ()
    permission_classes = ()
    parser_classes = (LoginParser,)

    def get_authenticate_header(self, request: Request) -> str:
        return auth.CHALLENGE  # without one, REST framework turns the 401 into a 403

    def post(self, request: Request) -> Response:
        login = _validated(serializers.Login, request)
        attempt = logins.Attempt(
            client_id=login["client_id"], address=request.META.get("REMOTE_ADDR", "")
        )
        attempt.begin()
        client = auth.client_of_login(**login)
        if client is None:
            raise AuthenticationFailed("client_id or client_secret is wrong, or disabled.")
        attempt.succeeded()
        token = auth.token_for(client)
        body = {
            "access_token": str(token),
            "token_type": "Bearer",
            "expires_in": int(token.lifetime.total_seconds()),
        }
        return Response(body, headers={"Cache-Control": "no-store"})


class NotificationStatus(APIView):
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


class EnableNotifications(SwitchNotifications):
    enabled = True


class DisableNotifications(SwitchNotifications):
    enabled = False


class AddBucket(APIView):
    def post(self, request: Request) -> Response:
        given = _validated(serializers.NewBucket, request)
        bucket = services.add_bucket(**_for_service(given), by=auth.client_of(request))
        interval_s = bucket.polling_interval or wiring.conf().defaults.polling_interval
        first_scan = (
            f"The first scan begins within {interval_s} seconds; "
            "it announces what is in the bucket already."
        )
        body = {
            "status": "success",
            "message": f"Bucket {bucket.name} added",
            "bucket": bucket.name,
        }
        return Response(body | _note(bucket.name, first_scan), status=status.HTTP_201_CREATED)


class UpdateBucket(APIView):
    def post(self, request: Request) -> Response:
        given = _validated(serializers.BucketChanges, request)
        bucket = _bucket_named(given.pop("name"))
        body = {"status": "success", "message": f"Bucket {bucket.name} updated"}
        if not given:
            known = ", ".join(serializers.BucketChanges().fields)
            body["message"] = f"Bucket {bucket.name} unchanged"
            return Response(body | {"note": f"Nothing to change was given; known are: {known}."})
        services.update_bucket(bucket=bucket, **_for_service(given), by=auth.client_of(request))
        return Response(body | _note(bucket.name))


class DeleteBucket(APIView):
    def post(self, request: Request) -> Response:
        bucket = _bucket_of_query(request)
        name = bucket.name
        services.delete_bucket(bucket=bucket, by=auth.client_of(request))
        return Response({"status": "success", "message": f"Bucket {name} deleted"} | _note(name))


def _validated(serializer_class: type[Serializer[Any]], request: Request) -> dict[str, Any]:
    """The body's known members; unknown ones are ignored, as the older monitor did."""
    serializer = serializer_class(data=request.data)
    if not serializer.is_valid():
        raise InvalidBody({k: list(map(str, v)) for k, v in serializer.errors.items()})
    given: dict[str, Any] = serializer.validated_data
    # Null asks for the default interval; for every other member it is the same as leaving it out.
    return {k: v for k, v in given.items() if v is not None or k == "polling_interval"}


def _for_service(given: dict[str, Any]) -> dict[str, Any]:
    return {_SERVICE_NAMES.get(k, k): v for k, v in given.items()}


def _bucket_of_query(request: Request) -> Bucket:
    name = request.query_params.get("bucket", "").strip()
    if not name:
        raise InvalidBody({"bucket": ["Name the bucket in the query: ?bucket=NAME."]})
    return _bucket_named(name)


def _bucket_named(name: str) -> Bucket:
    # PostgreSQL refuses to be asked for a text with NUL in it.
    bucket = None if "\0" in name else selectors.bucket_named(name)
    if bucket is None:
        raise NotFound(f"There is no bucket {name[:63]!r} here; POST /api/buckets/add adds one.")
    return bucket


def _note(bucket: str, note: str = "") -> dict[str, str]:
    """What else to know about a change that was made; no member at all if there is nothing."""
    if selectors.is_waiting_for_redis(bucket):
        note = f"{REDIS_AWAY} {note}".strip()
    return {"note": note} if note else {}
