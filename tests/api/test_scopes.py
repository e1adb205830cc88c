"""What a client of scope ``read`` may do: every GET, and nothing else; of ``hint``: give hints."""

import pytest
from django.core.cache import cache
from django.urls import resolve

from buckets import services
from buckets.api.probes import PROBES
from buckets.api.urls import urlpatterns
from buckets.models import Bucket, Credential
from tests.support import api_client

pytestmark = pytest.mark.django_db(transaction=True)

MANAGED = [
    ("POST", "/api/bucket-notifications/enable?bucket=media-in", None),
    ("POST", "/api/bucket-notifications/disable?bucket=media-in", None),
    ("POST", "/api/buckets/add", api_client.new_bucket_body(name="media-out")),
    ("POST", "/api/buckets/update", {"name": "media-in", "polling_interval": 5}),
    ("POST", "/api/v1/buckets/", {"name": "other", "region": "r", "credential": "shared"}),
    ("PATCH", "/api/v1/buckets/media-in/", {"polling_interval": 5}),
    ("POST", "/api/v1/buckets/media-in/scan/", None),
    ("POST", "/api/v1/buckets/media-in/test/", None),
    ("POST", "/api/v1/buckets/media-in/release/", None),
    ("POST", "/api/v1/buckets/media-in/resume/", {"choice": "announce"}),
    ("POST", "/api/v1/resume/", {"choice": "announce"}),
    ("DELETE", "/api/v1/buckets/media-in/", None),
    ("POST", "/api/buckets/delete?bucket=media-in", None),
    ("POST", "/api/v1/credentials/", {"name": "k", "access_key": "A", "secret_key": "S"}),
    ("PATCH", "/api/v1/credentials/shared/", {"access_key": "A", "secret_key": "S"}),
    ("DELETE", "/api/v1/credentials/shared/", None),
    ("PATCH", "/api/v1/endpoints/us-iad-1.linodeobjects.com/", {"list_per_s": 5}),
]
READ = [
    "/api/bucket-notifications/status",
    "/api/v1/buckets/",
    "/api/v1/buckets/media-in/",
    "/api/v1/buckets/media-in/held/",
    "/api/v1/buckets/media-in/explain/?key=a/b.mp4",
    "/api/v1/credentials/",
    "/api/v1/credentials/shared/",
    "/api/v1/endpoints/",
    "/api/v1/endpoints/us-iad-1.linodeobjects.com/",
    "/api/v1/events/",
]
HINTED = [("POST", "/api/v1/hints/", {"bucket": "media-in", "keys": ["a/b.mp4"]})]
PUBLIC = ["/health", "/ready", "/metrics", "/api/schema/", "/api/docs/"]


@pytest.fixture(autouse=True)
def _a_bucket_and_a_credential(redis_server) -> None:
    api_client.use_fast_hashes()
    cache.clear()
    api_client.add_bucket("media-in")
    services.add_credential(name="shared", access_key="AK", secret_key="SK")


def _caller(scope: str) -> api_client.Caller:
    client, _ = api_client.new_client(f"a program that may {scope}", scope=scope)
    return api_client.Caller(client)


@pytest.mark.parametrize(("method", "path", "body"), MANAGED)
def test_changing_needs_the_scope_manage(method, path, body):
    before = list(Bucket.objects.values()), list(Credential.objects.values())
    response = _caller("read").send(method, path, body)
    assert response.status_code == 403
    assert "'manage'" in api_client.error_of(response)
    assert "'read'" in api_client.error_of(response)
    assert (list(Bucket.objects.values()), list(Credential.objects.values())) == before
    assert _caller("manage").send(method, path, body).status_code < 300


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize("scope", ["read", "manage"])
def test_both_scopes_may_read(scope, path):
    assert _caller(scope).get(path).status_code == 200


@pytest.mark.parametrize(("method", "path", "body"), HINTED)
def test_hints_need_the_scope_hint_or_manage(method, path, body):
    response = _caller("read").send(method, path, body)
    assert response.status_code == 403
    assert "'hint' or 'manage'" in api_client.error_of(response)
    for scope in ("hint", "manage"):
        assert _caller(scope).send(method, path, body).status_code == 202


@pytest.mark.parametrize(("method", "path", "body"), [*MANAGED, *(("GET", p, None) for p in READ)])
def test_the_scope_hint_is_for_nothing_else(method, path, body):
    response = _caller("hint").send(method, path, body)
    assert response.status_code == 403
    assert "'hint'" in api_client.error_of(response)
    assert Bucket.objects.get().polling_interval is None


@pytest.mark.parametrize(
    ("method", "path", "body"), [*MANAGED, *HINTED, *(("GET", p, None) for p in READ)]
)
def test_without_a_token_nothing_is_shown_or_done(method, path, body):
    response = api_client.Caller().send(method, path, body)
    assert response.status_code == 401
    assert response["WWW-Authenticate"].startswith("Bearer")
    assert Bucket.objects.get().name == "media-in"


@pytest.mark.parametrize("path", PUBLIC)
def test_a_few_routes_need_no_token(path):
    assert api_client.Caller().get(path).status_code == 200


def test_a_scope_that_was_taken_back_counts_at_once():
    client, _ = api_client.new_client(scope="manage")
    caller = api_client.Caller(client)
    services.update_api_client(client=client, name=client.name, scope="read", enabled=True)
    assert caller.send("DELETE", "/api/v1/buckets/media-in/").status_code == 403


def test_every_route_is_in_one_of_these_lists():
    changing = [*MANAGED, *HINTED]
    listed = {(method, resolve(path.partition("?")[0]).url_name) for method, path, _ in changing}
    reads = (path.partition("?")[0] for path in (*READ, *PUBLIC))
    listed |= {("GET", resolve(path).url_name) for path in reads}
    listed.add(("POST", "token"))  # where a client's secret is asked for
    there = {
        (method, route.name)
        for route in urlpatterns
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if hasattr(getattr(route.callback, "view_class", None), method.lower())
    }
    assert {(method, name) for method, name in listed if name not in PROBES} == there
