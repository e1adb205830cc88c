"""Secrets go into the v1 routes and never come out, whatever is wrong with the request."""

import json
import logging
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.cache import cache

from buckets import services
from tests.support import api_client

pytestmark = pytest.mark.django_db(transaction=True)

SECRETS = {
    "access_key": "AKIA-SEEN-NOWHERE-1",
    "secret_key": "S3-SEEN-NOWHERE-2",
    "webhook_client_secret": "OAUTH-SEEN-NOWHERE-3",
}
OAUTH = {"webhook_client_id": "hook", "webhook_token_url": "https://auth.example.com/token"}
ROUTES = [
    ("POST", "/api/v1/buckets/"),
    ("PATCH", "/api/v1/buckets/media-in/"),
    ("POST", "/api/v1/buckets/media-in/test/"),
    ("POST", "/api/v1/credentials/"),
    ("PATCH", "/api/v1/credentials/shared/"),
]
SHOWN = ["/api/v1/buckets/", "/api/v1/credentials/", "/api/bucket-notifications/status"]


def _broken() -> list[Any]:
    whole = [{}, {"name": "Bad Name"}, {"endpoint": "ftp://x"}, {"webhook_token_url": "nowhere"}]
    odd = [
        {name: value}
        for name, secret in SECRETS.items()
        for value in (f"{secret} with a space", secret * 150, [secret], {secret: secret})
    ]
    misplaced = [{SECRETS["secret_key"]: 1}, {"credential": ["x"], "events": SECRETS}]
    return [*whole, *odd, *misplaced]


@pytest.mark.parametrize("broken", _broken(), ids=range(len(_broken())))
def test_secrets_are_in_no_answer_log_or_history(redis_server, caplog, broken):
    api_client.use_fast_hashes()
    cache.clear()
    caplog.set_level(logging.DEBUG)
    client, _ = api_client.new_client()
    caller = api_client.Caller(client)
    api_client.add_bucket("media-in")
    services.add_credential(name="shared", access_key="AK", secret_key="SK")
    keys = {name: SECRETS[name] for name in ("access_key", "secret_key")}
    bucket = {"name": "media-out", "region": "r", "webhook_url": api_client.WEBHOOK_URL}
    bodies = [keys | broken, SECRETS | OAUTH | bucket | broken, {"name": "k"} | keys | broken]
    seen = caplog.text
    for method, path in ROUTES:
        for body in bodies:
            text = json.dumps(body).encode()
            seen += caller.send(method, path, text).content.decode()
            seen += caller.send(method, path, text[:-1]).content.decode()
    for path in SHOWN:
        seen += caller.get(path).content.decode()
    seen += caplog.text
    seen += "".join(f"{entry} {entry.change_message}" for entry in LogEntry.objects.all())
    assert "SEEN-NOWHERE" not in seen
