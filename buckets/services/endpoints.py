"""What operators set of S3 endpoints, and when an endpoint is asked anew what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction

from buckets import audit
from buckets.models import Endpoint, Revision
from buckets.sync import endpoints
from scanning import wiring

if TYPE_CHECKING:
    from buckets.audit import Actor


def update_endpoint(*, endpoint: Endpoint, by: Actor = None, **changes: Any) -> Endpoint:
    """Change settings of ``Endpoint.CHANGEABLE``; returns the row as stored.

    "" and None leave a setting to what is learnt, or configured. Raises Endpoint.DoesNotExist.
    """
    if unknown := changes.keys() - set(Endpoint.CHANGEABLE):
        raise TypeError(f"An endpoint's {', '.join(sorted(unknown))} cannot be changed")
    with transaction.atomic():
        stored = Endpoint.objects.select_for_update().get(pk=endpoint.pk)
        before = Endpoint.objects.get(pk=endpoint.pk)
        for field, value in changes.items():
            setattr(stored, field, value.strip() if isinstance(value, str) else value)
        stored.full_clean(validate_unique=False)
        if stored.settings != before.settings:
            stored.revision = Revision.following()
            stored.save()
            audit.changed(stored, audit.fields_changed(stored, before), by=by)
            endpoints.write_after_commit(stored)
            if stored.requests_per_day != before.requests_per_day:
                endpoints.unstretch_after_commit(stored)
    return stored


def learn_again(*, endpoint: Endpoint, by: Actor = None) -> None:
    """Forget what was learnt of an endpoint: the next scan there asks. Raises RedisUnavailable."""
    wiring.interactive().endpoint_profiles.forget(endpoint.name)
    audit.changed(endpoint, ["learnt profile"], by=by)
