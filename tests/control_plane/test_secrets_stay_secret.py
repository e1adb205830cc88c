"""Every secret of a busy day, searched for in everything that is kept, sent or shown."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from buckets import services
from buckets.models import ApiClient, Bucket, Credential

pytestmark = pytest.mark.django_db(transaction=True)

OPERATOR_FORM = {
    "region": "us-iad-1",
    "monitoring_enabled": "on",
    "notifications_enabled": "on",
    "announce_created": "on",
    "first_scan": "announce",
    "webhook_url": "https://api.example.com/hook",
    "webhook_client_id": "me",
    "webhook_token_url": "https://auth.example.com/token",
}


class Day:
    """What an operator, a program and commands do; remembers each secret that they enter."""

    def __init__(self, operator: Client) -> None:
        self.operator = operator
        self.secrets: set[str] = set()
        self.pages: list[str] = []

    def secret(self, what: str) -> str:
        value = f"plain-{what}-{len(self.secrets)}-to-see"
        self.secrets.add(value)
        return value

    def post(self, url: str, **form: str) -> Any:
        answer = self.operator.post(url, form, follow=True)
        self.pages.append(str(answer.content, "utf-8"))
        return answer

    def program(self, path: str, token: str = "", **body: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = Client().post(path, json.dumps(body), "application/json", headers=headers)
        assert answer.status_code < 300, answer.content
        result: dict[str, Any] = answer.json()
        if path != "/api/auth/token":  # a token is meant to be sent, once
            self.pages.append(str(result))
        return result


@pytest.fixture
def day(client: Client, redis_server) -> Day:
    client.force_login(User.objects.create(username="olga", is_staff=True, is_superuser=True))
    return Day(client)


def what_happens(day: Day, tmp_path: Path) -> None:
    add = reverse("admin:buckets_bucket_add")
    day.post(
        add,
        **OPERATOR_FORM,
        name="media-in",
        access_key=day.secret("access"),
        secret_key=day.secret("secret"),
        webhook_client_secret=day.secret("hook"),
    )
    # Refused, and shown again.
    day.post(add, name="Wrong", access_key=day.secret("access"), secret_key=day.secret("secret"))
    bucket = Bucket.objects.get()
    services.update_bucket(
        bucket=bucket,
        access_key=day.secret("access"),
        secret_key=day.secret("secret"),
        webhook_client_secret=day.secret("hook"),
    )
    services.check_connection(bucket=bucket)
    client, client_secret = services.create_api_client(name="ingest")
    day.secrets.add(client_secret)
    token = day.program("/api/auth/token", client_id=client.client_id, client_secret=client_secret)[
        "access_token"
    ]
    day.secrets.add(token)
    day.program(
        "/api/buckets/add",
        token,
        name="media-out",
        region="us-iad-1",
        access_key=day.secret("access"),
        secret_key=day.secret("secret"),
        webhook_url="https://api.example.com/hook",
        client_id="me",
        client_secret=day.secret("hook"),
        token_url="https://auth.example.com/token",
    )
    file = tmp_path / "buckets.yaml"
    rows = [
        {
            "name": "imported",
            "region": "us-iad-1",
            "access_key": day.secret("access"),
            "secret_key": day.secret("secret"),
        }
    ]
    file.write_text(json.dumps({"buckets": rows}))
    call_command("importbuckets", str(file))
    call_command("reconcile")
    services.rotate_credential(
        credential=Credential.objects.get(name="imported"),
        access_key=day.secret("access"),
        secret_key=day.secret("secret"),
    )


def every_page(operator: Client) -> list[str]:
    names = ["index", *(f"buckets_{m}_changelist" for m in ("bucket", "credential", "apiclient"))]
    urls = [reverse(f"admin:{name}") for name in names]
    urls += [
        reverse(f"admin:buckets_{row._meta.model_name}_{view}", args=[row.pk])
        for row in (*Bucket.objects.all(), *Credential.objects.all(), *ApiClient.objects.all())
        for view in ("change", "history")
    ]
    answers = [operator.get(url) for url in urls]
    assert {answer.status_code for answer in answers} == {200}
    return [str(answer.content, "utf-8") for answer in answers]


def test_no_secret_is_kept_sent_or_shown_outside_the_vault(
    day, redis_server, tmp_path, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    what_happens(day, tmp_path)

    with redis_server.client() as redis:
        kept = {f"Redis {key}": f"{redis.dump(key)!r}" for key in redis.scan_iter()}
        kept |= {f"{key}": str(redis.get(key)) for key in redis.scan_iter(_type="string")}
    connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kept["the database file"] = Path(connection.settings_dict["NAME"]).read_bytes().decode("latin1")
    kept["the log"] = caplog.text
    kept["the terminal"] = "".join(capfd.readouterr())
    kept |= {f"answer {n}": page for n, page in enumerate(day.pages)}
    kept |= {f"page {n}": page for n, page in enumerate(every_page(day.operator))}

    assert len(day.secrets) > 12
    assert "media-out" in kept["the database file"]
    assert "media-in" in kept["the log"]
    found = [
        (where, secret) for where, text in kept.items() for secret in day.secrets if secret in text
    ]
    assert found == []
