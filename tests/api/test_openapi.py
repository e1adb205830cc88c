"""The description of the API: valid, complete, served from here, and true."""

import json
import re
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.urls import URLPattern, URLResolver, get_resolver
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import SecretStr

from buckets.api.errors import no_such_route
from buckets.api.metrics import FORMS
from buckets.api.openapi import views
from tests.support import api_client

SCHEMA, DOCS = "/api/schema", "/api/docs"


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(views.document()))
    return document


def test_it_is_valid_openapi_3_1(described):
    assert described["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(described).validate()


def test_it_was_made_without_a_warning(capsys):
    views.document.cache_clear()
    views.document()
    assert capsys.readouterr().err == ""


def _routes(resolver: URLResolver, before: str = "") -> list[str]:
    """Every path of the URLconf below a resolver, its groups written as {name}."""
    found: list[str] = []
    for pattern in resolver.url_patterns:
        regex = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            found += _routes(pattern, regex)
        elif isinstance(pattern, URLPattern) and pattern.callback is not no_such_route:
            found.append(re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", regex))
    return [re.sub(r"[\^$?]", "", path) for path in found]


def test_every_route_is_described(described):
    routes = {
        "/" + path.rstrip("/") for path in _routes(get_resolver()) if not path.startswith("admin")
    }
    assert "/api/v1/buckets/{name}/scan" in routes
    assert {path.rstrip("/") for path in described["paths"]} == routes - {"/"}


def _operations(described: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, item in described["paths"].items()
        for method, operation in item.items()
    ]


def test_every_operation_has_a_name_of_its_own_and_a_summary(described):
    operations = [operation for _, operation in _operations(described)]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] for operation in operations)


def test_every_error_of_the_api_has_the_one_shape(described):
    for title, operation in _operations(described):
        for status, response in operation["responses"].items():
            if status >= "400" and not title.endswith("/ready"):
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Error"}, (title, status)


def test_bodies_and_answers_have_examples(described):
    for title, operation in _operations(described):
        if "/api/schema" in title or "/api/docs" in title or "/metrics" in title:
            continue
        contents = [
            content
            for part in (operation.get("requestBody", {}), *operation["responses"].values())
            for content in part.get("content", {}).values()
        ]
        assert all("example" in content or "examples" in content for content in contents), title


def test_examples_are_what_they_are_examples_of(described):
    for title, operation in _operations(described):
        for part in (operation.get("requestBody", {}), *operation["responses"].values()):
            for content in part.get("content", {}).values():
                given = [example["value"] for example in content.get("examples", {}).values()]
                shape = content["schema"] | {"components": described["components"]}
                for value in [*given, *([content["example"]] if "example" in content else [])]:
                    problems = list(OAS31Validator(shape).iter_errors(value))
                    assert problems == [], title


@pytest.mark.django_db
def test_readiness_is_described_with_all_its_members(described, redis_server):
    content = described["paths"]["/ready"]["get"]["responses"]["200"]["content"]
    shape = content["application/json"]["schema"]
    answer = api_client.Caller().get("/ready").json()
    assert shape["properties"].keys() == answer.keys() | {"error"}
    assert shape["properties"]["checks"]["properties"].keys() == answer["checks"].keys()
    assert list(OAS31Validator(shape).iter_errors(answer)) == []


@pytest.mark.parametrize("form", FORMS)
def test_metrics_are_described_in_every_format(described, redis_server, form):
    content = described["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    answer = api_client.Caller().get(f"/metrics?format={form}")
    assert answer["Content-Type"].partition(";")[0] in content
    assert len(content) == len(FORMS)


@pytest.mark.parametrize(
    ("status", "query", "site"),
    [
        (400, "?format=xml", {}),
        (401, "", {"metrics_token": SecretStr("right")}),
        (403, "", {"metrics_networks": "10.0.0.0/8"}),
    ],
)
def test_refusals_of_metrics_are_described(described, settings, status, query, site):
    settings.SITE = settings.SITE.model_copy(update=site)
    assert api_client.Caller().get(f"/metrics{query}").status_code == status
    assert str(status) in described["paths"]["/metrics"]["get"]["responses"]


def test_members_that_are_secret_are_in_no_answer(described):
    schemas = described["components"]["schemas"]
    taken = {
        reference["$ref"].rpartition("/")[2]
        for _, operation in _operations(described)
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for reference in (content["schema"], *content["schema"].get("allOf", []))
        if "$ref" in reference
    }
    secret = {"access_key", "secret_key", "client_secret", "webhook_client_secret"}
    for name in schemas.keys() - taken:
        assert not secret & schemas[name].get("properties", {}).keys(), name


def test_it_is_served_without_a_token(described):
    for path in (SCHEMA, f"{SCHEMA}/"):
        response = api_client.Caller().get(path)
        assert (response.status_code, response["Content-Type"]) == (200, "application/json")
        assert response.json() == described


def test_the_page_takes_everything_from_this_host_and_has_no_inline_script():
    response = api_client.Caller().get(DOCS)
    page = response.content.decode()
    assert response.status_code == 200
    assert "://" not in page
    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert "<style" not in page
    assert f'data-schema="{SCHEMA}"' in page
    static = re.findall(r'(?:src|href)="/static/([^"]+)"', page)
    assert len(static) == 4
    assert all(finders.find(path) for path in static)


@pytest.mark.parametrize("method", ["QUERY", "POST", "DELETE"])
@pytest.mark.django_db
def test_another_method_than_the_pages_own_is_not_allowed(method):
    response = api_client.Caller().send(method, DOCS)
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")
    assert api_client.error_of(response) == f"{method} is not allowed here: use GET."


HALF = {"name": "media-in", "access_key": "A"}
LONG = "a" * 256
NEW_V1 = {"name": "other", "region": "r", "access_key": "A", "secret_key": "S"}
REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "long endpoint": ("POST", "/api/buckets/add", api_client.new_bucket_body(endpoint=LONG)),
    "long region": ("POST", "/api/buckets/add", api_client.new_bucket_body(region=LONG)),
    "long name": ("POST", "/api/buckets/add", api_client.new_bucket_body(name="a" * 64)),
    "long key": ("POST", "/api/buckets/add", api_client.new_bucket_body(access_key="a" * 1025)),
    "long client": ("POST", "/api/buckets/add", api_client.new_bucket_body(client_id=LONG)),
    "long URL": (
        "POST",
        "/api/buckets/update",
        {"name": "media-in", "webhook_url": "https://a/" * 201},
    ),
    "half a pair of old": ("POST", "/api/buckets/update", HALF),
    "unknown member": ("POST", "/api/v1/buckets/", NEW_V1 | {"colour": "red"}),
    "v1 endpoint": ("POST", "/api/v1/buckets/", NEW_V1 | {"endpoint": LONG}),
    "v1 prefix": ("PATCH", "/api/v1/buckets/{name}/", {"prefix": "a" * 1025}),
    "v1 half a pair": ("PATCH", "/api/v1/buckets/{name}/", {"secret_key": "S"}),
    "test with half a pair": ("POST", "/api/v1/buckets/{name}/test/", {"secret_key": "S"}),
    "credential": ("POST", "/api/v1/credentials/", HALF | {"secret_key": "S", "name": "a" * 64}),
    "half a new pair": ("PATCH", "/api/v1/credentials/{name}/", {"access_key": "A"}),
    "unknown choice": ("POST", "/api/v1/resume/", {"choice": "baseline", "of": "all"}),
}


@pytest.mark.parametrize(("method", "path", "body"), REFUSED.values(), ids=REFUSED)
@pytest.mark.django_db(transaction=True)
def test_bodies_that_are_refused_are_not_described_as_right(
    described, redis_server, method, path, body
):
    api_client.use_fast_hashes()
    caller = api_client.Caller(api_client.new_client()[0])
    api_client.add_bucket("media-in")
    assert caller.send(method, path.format(name="media-in"), body).status_code == 400

    content = described["paths"][path][method.lower()]["requestBody"]["content"]
    shape = content["application/json"]["schema"] | {"components": described["components"]}
    assert not OAS31Validator(shape).is_valid(body)
