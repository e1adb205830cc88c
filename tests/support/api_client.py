"""A program with a token, which speaks to the API as curl would."""

import json
from typing import Any

from django.conf import settings
from django.test import Client

from buckets import services
from buckets.api import auth
from buckets.models import ApiClient, Bucket, Outbox

ACCESS_KEY = "AKIAFORTHETEST000001"
SECRET_KEY = "the-secret-key-that-nobody-may-see"
WEBHOOK_URL = "https://api.example.com/hook"


class Caller:
    """Sends requests with CSRF checks on, and a Bearer token if it has a client."""

    def __init__(self, api_client: ApiClient | None = None) -> None:
        self._client = Client(enforce_csrf_checks=True, raise_request_exception=False)
        self.headers: dict[str, str] = {}
        if api_client is not None:
            self.headers["Authorization"] = f"Bearer {auth.token_for(api_client)}"

    def get(self, path: str, **headers: str) -> Any:
        return self._client.get(path, headers=self.headers | headers)

    def post(
        self, path: str, body: Any = b"", content_type: str = "application/json", **headers: str
    ) -> Any:
        data = body if isinstance(body, bytes | str) else json.dumps(body)
        return self._client.post(
            path, data=data, content_type=content_type, headers=self.headers | headers
        )

    def send(self, method: str, path: str, body: Any = None) -> Any:
        if method == "GET":
            return self.get(path)
        if method == "POST":
            return self.post(path, b"" if body is None else body)
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body)
        return self._client.generic(
            method, path, data, content_type="application/json", headers=self.headers
        )


def use_fast_hashes() -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def new_client(name: str = "a program", **arguments: Any) -> tuple[ApiClient, str]:
    return services.create_api_client(name=name, **arguments)


def add_bucket(name: str = "media-in", **changes: Any) -> Bucket:
    arguments = {
        "endpoint": "us-iad-1.linodeobjects.com",
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "webhook_url": WEBHOOK_URL,
    }
    return services.add_bucket(name=name, **(arguments | changes))


def add_with_status(name: str, **columns: Any) -> None:
    """Add a bucket as if mirrored to Redis, with ``columns`` as scans would have recorded them."""
    add_bucket(name)
    Bucket.objects.filter(name=name).update(**columns)
    Outbox.objects.all().delete()


def new_bucket_body(**changes: Any) -> dict[str, Any]:
    """Make a right body for /api/buckets/add; a member set to ... is left out."""
    body = {
        "name": "media-in",
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "webhook_url": WEBHOOK_URL,
        "endpoint": "us-iad-1.linodeobjects.com",
    }
    return {k: v for k, v in (body | changes).items() if v is not ...}


def error_of(response: Any) -> str:
    """Return the one-line ``error`` that every refusal has."""
    assert response["Content-Type"] == "application/json"
    error = json.loads(response.content)["error"]
    assert isinstance(error, str)
    assert error
    assert "\n" not in error
    return error
