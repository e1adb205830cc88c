"""Whatever our own description allows, and much that it does not: no request breaks the API."""

from typing import Any

import pytest
import schemathesis
from django.core.cache import cache
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

from buckets import selectors, services
from buckets.api.openapi import views
from buckets.models import Bucket, Credential
from bucketwatch.wsgi import application
from tests.support import api_client

pytestmark = pytest.mark.django_db(transaction=True)

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
# Right bodies, into which members of a generated one are mixed: a generated one alone seldom gets
# past the first check.
RIGHT = {
    "POST /api/buckets/add": api_client.new_bucket_body(name="media-out"),
    "POST /api/buckets/update": {"name": "media-in"},
    "POST /api/v1/buckets/": {"name": "media-out", "region": "r", "credential": "media-in"},
    "PATCH /api/v1/buckets/{name}/": {},
    "POST /api/v1/hints/": {"bucket": "media-in", "keys": ["a/b.mp4"]},
    "PATCH /api/v1/credentials/{name}/": {},
    "POST /api/v1/credentials/": {"name": "k", "access_key": "A", "secret_key": "S"},
}

schema = schemathesis.openapi.from_dict(views.document())
schema.app = application
OPERATIONS: dict[str, Any] = {
    found.ok().label: found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)
}
API = sorted(label for label in OPERATIONS if " /api/" in label)


@pytest.fixture
def headers() -> dict[str, str]:
    api_client.use_fast_hashes()
    cache.clear()
    client, _ = api_client.new_client()
    return api_client.Caller(client).headers


def _cases(label: str) -> st.SearchStrategy[Any]:
    """Requests that fit the description, and requests that do not."""
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    return st.one_of([OPERATIONS[label].as_strategy(generation_mode=mode) for mode in modes])


def _what_there_is() -> None:
    """One bucket and its credential, whatever the request before has done."""
    for bucket in Bucket.objects.exclude(name="media-in"):
        services.delete_bucket(bucket=bucket)
    for credential in Credential.objects.exclude(name="media-in"):
        services.delete_credential(credential=credential)
    if selectors.bucket_named("media-in") is None:
        # Nothing listens there, so that a connection test is short.
        api_client.add_bucket("media-in", endpoint="http://127.0.0.1:1")


def _ask(label: str, headers: dict[str, str], *, examples: int, most: int) -> None:
    @hypothesis_settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=_cases(label), data=st.data())
    def ask(case: Any, data: st.DataObject) -> None:
        _what_there_is()
        for place in (case.path_parameters, case.query):
            for parameter in {"name", "bucket"} & set(place or ()):
                place[parameter] = data.draw(st.sampled_from(["media-in", place[parameter]]))
        if label in RIGHT and isinstance(case.body, dict) and data.draw(st.booleans()):
            kept = data.draw(st.sets(st.sampled_from(sorted(case.body)))) if case.body else ()
            case.body = RIGHT[label] | {member: case.body[member] for member in kept}
        response = case.call(headers=headers)
        assert response.status_code <= most, case.as_curl_command()
        case.validate_response(response, checks=CHECKS)

    ask()


@pytest.mark.parametrize("label", API)
def test_no_request_breaks_the_api(redis_server, headers, label):
    _ask(label, headers, examples=25, most=499)


@pytest.mark.parametrize("label", API)
def test_no_request_breaks_the_api_while_redis_is_away(headers, label):
    _ask(label, headers, examples=6, most=503)
