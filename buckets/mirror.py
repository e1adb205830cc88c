"""What the database says about buckets, told to Redis, where the scanner reads it.

The outbox remembers what Redis has to learn. A change is flushed right after its commit; what
could not be written then is written by ``catch_up``, which the monitor calls every few seconds.

Redis never goes backwards, whoever flushes when: a flush takes the newest revision of a bucket
*before* it reads the bucket's row, so what it writes is at least as new as its revision says, and
Redis refuses revisions older than the one that it holds.
"""

from __future__ import annotations

import logging
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from buckets.models import Bucket, Outbox
from scanning import wiring
from scanning.core.errors import BucketwatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

logger = logging.getLogger(__name__)

_CHUNK = 200
# After a failed flush, saves in this process leave the outbox to catch_up for so long: an action
# on a hundred buckets must not wait for an absent Redis a hundred times.
_LEAVE_IT_S = 5.0
_SAY_AGAIN_S = 60.0


class _Outage:
    """When a flush of this process last failed, and with which store."""

    def __init__(self) -> None:
        self._store: object = None
        self._until = 0.0

    def note(self) -> None:
        self._store, self._until = wiring.impatient_configuration(), time.monotonic() + _LEAVE_IT_S

    def goes_on(self) -> bool:
        return self._store is wiring.impatient_configuration() and time.monotonic() < self._until


_outage = _Outage()
_said_at: dict[str, float] = {}


def flush() -> bool:
    """Write what the outbox holds; False if something has to stay in it.

    Raises nothing but the database's errors.

    A bucket that Redis refuses (its key was made something else by hand) is logged and stays,
    and the others are written.
    """
    newest = dict(Outbox.objects.order_by("id").values_list("bucket", "id"))
    written_all = True
    for chunk in _chunks(newest):
        buckets = Bucket.objects.select_related("credential").in_bulk(chunk, field_name="name")
        for name, revision in chunk.items():
            try:
                _write(name, buckets.get(name), revision)
            except BucketwatchError as exc:
                written_all = False
                _say(name, exc)
                if wiring.redis_health().redis != "ok":
                    return False
            else:
                Outbox.objects.filter(bucket=name, id__lte=revision).delete()
    return written_all


def flush_after_commit() -> None:
    """Flush, unless that failed in this process a moment ago: then ``catch_up`` will."""
    if not _outage.goes_on() and not flush():
        _outage.note()


def catch_up() -> bool:
    """Write what a save could not, and what Redis has lost; False if Redis is away."""
    # In this order: a bucket that is saved meanwhile is not mistaken for a lost one.
    names = set(Bucket.objects.values_list("name", flat=True))
    waiting = set(Outbox.objects.values_list("bucket", flat=True))
    try:
        known = wiring.impatient_configuration().revisions()
    except BucketwatchError as exc:
        logger.debug("The mirror waits for Redis: %s", exc)
        return False
    lost = sorted(names - known.keys() - waiting)
    if lost:
        logger.warning("Redis does not hold %d buckets: writing them again", len(lost))
        Outbox.add(lost)
    return flush()


def document(bucket: Bucket) -> dict[str, Any]:
    """The bucket's JSON in Redis (wire contract); a member that is None is to be absent."""
    webhook_auth = {
        "type": "oauth2",
        "client_id": bucket.webhook_client_id,
        "token_url": bucket.webhook_token_url,
    }
    return {
        "name": bucket.name,
        "endpoint": bucket.endpoint,
        "webhook_url": bucket.webhook_url,
        "webhook_auth": webhook_auth if bucket.webhook_client_id else None,
        "status": "active" if bucket.monitoring_enabled else "paused",
        "added_at": _iso(bucket.added_at),
        "updated_at": _iso(bucket.updated_at),
        "bucketwatch": {
            "region": bucket.region,
            "credential": bucket.credential.vault_prefix if bucket.credential_id else "",
            "generation": bucket.generation,
            "polling_interval": bucket.polling_interval,
            "fetch_metadata": bucket.fetch_metadata,
            "prefix": bucket.prefix,
            "suffix": bucket.suffix,
            "events": bucket.wanted_events,
            "first_scan": bucket.first_scan,
            "lanes": bucket.lanes,
            "taken_over": bucket.taken_over,
        },
    }


def _write(name: str, bucket: Bucket | None, revision: int) -> None:
    """Put or remove one bucket. That Redis holds something newer is as good."""
    store = wiring.impatient_configuration()
    if bucket is None:
        store.remove(name, revision=revision)
    else:
        notifications = bucket.notifications_enabled
        store.put(name, document(bucket), notifications=notifications, revision=revision)


def _say(name: str, problem: BucketwatchError) -> None:
    """Log that a bucket waits; not each time, since it is tried every few seconds."""
    now = time.monotonic()
    if now - _said_at.get(name, -_SAY_AGAIN_S) >= _SAY_AGAIN_S:
        _said_at[name] = now
        logger.warning("%s: its configuration is not in Redis yet: %s", name, problem)


def _iso(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


def _chunks(newest: Mapping[str, int]) -> Iterator[dict[str, int]]:
    items = iter(newest.items())
    while chunk := dict(islice(items, _CHUNK)):
        yield chunk
