"""What the v1 lists show: filters, order and pages over what the selectors give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from django.db.models import Count, F, Model, Q, QuerySet
from rest_framework.utils.urls import replace_query_param

from buckets import selectors
from buckets.api.v1.requests import ORDERS
from buckets.health.costs import costs_of
from buckets.models import Bucket, Credential, Endpoint, Outbox
from buckets.pages import endpoint as endpoint_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rest_framework.request import Request

    from buckets.api.v1.responses import PageAnswer

M = TypeVar("M", bound=Model)

_EXACTLY = {
    "region": "region",
    "credential": "credential__name",
    "notifications_enabled": "notifications_enabled",
    "monitoring_enabled": "monitoring_enabled",
}
_SEARCHED = ("name", "bucket_name", "region", "endpoint", "webhook_url")


def buckets(filters: dict[str, Any]) -> QuerySet[Bucket]:
    """Select the buckets that a `BucketQuery` asks for, in its order."""
    exactly = {field: filters[name] for name, field in _EXACTLY.items() if name in filters}
    found = selectors.all_buckets().filter(**exactly)
    if "state" in filters:
        state = selectors.State[filters["state"].upper()]
        found = selectors.in_state(found, state, late=selectors.late_buckets())
    if "search" in filters:
        found = found.filter(_any_contains(_SEARCHED, filters["search"]))
    return found.order_by(*_order(filters["ordering"]))


def _any_contains(fields: Iterable[str], text: str) -> Q:
    return Q.create([Q(**{f"{field}__icontains": text}) for field in fields], connector=Q.OR)


def _order(ordering: str) -> list[Any]:
    field = F(ORDERS[ordering.lstrip("-")])
    descending = ordering.startswith("-")
    first = field.desc(nulls_last=True) if descending else field.asc(nulls_last=True)
    return [first, "name"]  # by name among equals: pages must not overlap


def credentials(filters: dict[str, Any]) -> QuerySet[Credential]:
    """Select what a `CredentialQuery` asks for, by name; each row has a ``bucket_count``."""
    found = Credential.objects.annotate(bucket_count=Count("buckets")).order_by("name")
    return found.filter(name__icontains=filters["search"]) if "search" in filters else found


def credential_named(name: str) -> Credential:
    """Find a credential, with its ``bucket_count``. Raises Credential.DoesNotExist, for people."""
    # PostgreSQL refuses to be filters for a text with NUL in it.
    credential = None if "\0" in name else credentials({}).filter(name=name).first()
    if credential is None:
        problem = f"There is no credential {name[:63]!r} here; GET /api/v1/credentials/ lists them."
        raise Credential.DoesNotExist(problem)
    return credential


def endpoints(filters: dict[str, Any]) -> QuerySet[Endpoint]:
    """Select what an `EndpointQuery` asks for, by name."""
    found = Endpoint.objects.order_by("name")
    return found.filter(name__icontains=filters["search"]) if "search" in filters else found


def endpoint_named(name: str) -> Endpoint:
    """Find an endpoint. Raises Endpoint.DoesNotExist, for people."""
    endpoint = None if "\0" in name else Endpoint.objects.filter(name=name.lower()).first()
    if endpoint is None:
        problem = f"There is no endpoint {name[:255]!r} here; GET /api/v1/endpoints/ lists them."
        raise Endpoint.DoesNotExist(problem)
    return endpoint


def row_context(buckets: Sequence[Bucket]) -> dict[str, Any]:
    """Read what `BucketAnswer` has to know beside the rows, as its context.

    ``waiting``: those whose last change Redis has yet to learn; ``late``: see `selectors.state`;
    ``costs`` by name.
    """
    rows = Outbox.objects.filter(bucket__in=[bucket.name for bucket in buckets])
    waiting = frozenset(rows.values_list("bucket", flat=True))
    return {"waiting": waiting, "late": selectors.late_buckets(), "costs": costs_of(buckets)}


def page(
    request: Request, rows: QuerySet[M], filters: dict[str, Any], answer: type[PageAnswer]
) -> dict[str, Any]:
    """Answer with one page of the rows; a page past the end is empty, as rows may go meanwhile."""
    number, size = filters["page"], filters["page_size"]
    count = rows.count()
    shown = list(rows[(number - 1) * size : number * size])
    last = max(-(-count // size), 1)
    here = request.build_absolute_uri()

    def url(of: int) -> str | None:
        return replace_query_param(here, "page", str(of)) if 1 <= of <= last else None

    results: list[Any] = [*shown]
    if issubclass(rows.model, Endpoint):
        results = endpoint_page.endpoint_overviews(results)
    body = {
        "count": count,
        "next": url(number + 1),
        "previous": url(number - 1),
        "results": results,
    }
    buckets = [row for row in shown if isinstance(row, Bucket)]
    context = row_context(buckets) if buckets else {}
    return dict(answer(body, context=context).data)
