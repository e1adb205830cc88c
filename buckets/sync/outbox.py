"""What the database says about buckets, told to Redis, where the scanner reads it.

The outbox remembers what Redis has to learn. A change is flushed right after its commit; what
could not be written then is written by ``catch_up``, which the monitor calls every few seconds.

Redis never goes backwards, whoever flushes when: a flush takes the newest revision of a bucket
*before* it reads the bucket's row, so what it writes is at least as new as its revision says, and
Redis refuses revisions older than the one that it holds.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.db import transaction

from buckets import selectors
from buckets.models import Bucket, Outbox
from buckets.sync.cooldown import Cooldown
from scanning import engine, wiring
from scanning.core import bucket_document
from scanning.core.errors import BucketwatchError, VaultUnavailable
from scanning.core.types import CommitExpectation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

logger = logging.getLogger(__name__)

_CHUNK = 200
# After a failed flush, saves in this process leave the outbox to catch_up for so long: an action
# on a hundred buckets must not wait for an absent Redis a hundred times.
_COOLDOWN_S = 5.0
_LOG_AGAIN_S = 60.0


class _Gathering(threading.local):
    """The names that one thread enqueues while ``batched``; None otherwise."""

    names: list[str] | None = None


_gathering = _Gathering()
_outage = Cooldown(_COOLDOWN_S)
# Webhook secrets are read for consumers that want them in Redis; each try may cost a time-out.
_vault_outage = Cooldown(60.0)
_logged_at: dict[str, float] = {}


def flush() -> bool:
    """Write what the outbox holds; False if something has to stay in it.

    Raises nothing but the database's errors.

    A bucket that Redis refuses (its key was made something else by hand) is logged and stays,
    and the others are written.
    """
    waiting = list(Outbox.objects.order_by("id").values_list("id", "bucket"))
    newest = {name: revision for revision, name in waiting}
    written_all = True
    for chunk in _chunks(newest):
        buckets = Bucket.objects.select_related("credential").in_bulk(chunk, field_name="name")
        secrets = client_secrets(buckets.values())
        written: set[str] = set()
        try:
            for name, revision in chunk.items():
                try:
                    _write(name, buckets.get(name), revision, secrets)
                except BucketwatchError as exc:
                    written_all = False
                    _log_waiting(name, exc)
                    if engine.redis_health().redis != "ok":
                        return False
                else:
                    written.add(name)
        finally:
            done = [revision for revision, name in waiting if name in written]
            Outbox.objects.filter(id__in=done).delete()
    return written_all


def enqueue(names: Iterable[str]) -> None:
    """Have these buckets written after the commit; what failed with them is tried again then."""
    waiting = list(names)
    if _gathering.names is not None:
        _gathering.names += waiting
    elif waiting:
        Outbox.add(waiting)
        transaction.on_commit(flush_after_commit, robust=True)


@contextmanager
def batched() -> Iterator[None]:
    """Enqueue at the end, and at once, what is enqueued meanwhile; inside a transaction."""
    names: list[str] = []
    _gathering.names = names
    try:
        yield
    finally:
        _gathering.names = None
    enqueue(names)


def flush_after_commit() -> None:
    """Flush, unless that failed in this process a moment ago: then ``catch_up`` will."""
    if not _outage.is_active() and not flush():
        _outage.start()


def catch_up() -> bool:
    """Write what a save could not, and what Redis has lost; False if Redis is away."""
    # In this order: a bucket that is saved meanwhile is not mistaken for a lost one.
    names = set(Bucket.objects.values_list("name", flat=True))
    waiting = set(Outbox.objects.values_list("bucket", flat=True))
    try:
        known = wiring.interactive().bucket_configs.revisions()
    except BucketwatchError as exc:
        logger.debug("Changes wait for Redis: %s", exc)
        return False
    lost = sorted(names - known.keys() - waiting)
    if lost:
        logger.warning("Redis does not hold %d buckets: writing them again", len(lost))
        Outbox.add(lost)
    return flush()


def document(bucket: Bucket) -> dict[str, Any]:
    """Return the bucket's JSON in Redis (wire contract); a member that is None is to be absent.

    The webhook client's secret is not in it where it may be there: ``with_secret`` puts it in.
    """
    webhook_auth: dict[str, str | None] = {
        "type": "oauth2",
        "client_id": bucket.webhook_client_id,
        "token_url": bucket.webhook_token_url,
    }
    if not bucket.webhook_secret_in_redis:
        webhook_auth["client_secret"] = None
    return {
        "name": bucket.name,
        "endpoint": bucket.endpoint,
        "webhook_url": bucket.webhook_url,
        "webhook_auth": webhook_auth if bucket.webhook_client_id else None,
        "status": "active" if bucket.monitoring_enabled else "paused",
        "added_at": _iso(bucket.added_at),
        "updated_at": _iso(bucket.updated_at or bucket.added_at),  # none before the first save
        "bucketwatch": {
            "region": bucket.region,
            "credential": bucket.credential.vault_prefix if bucket.credential_id else "",
            "generation": bucket.generation,
            "polling_interval": bucket.polling_interval,
            "polling_longest": bucket.polling_longest,
            "probe_interval": bucket.probe_interval,
            "fetch_metadata": bucket.fetch_metadata,
            "trust_etags": bucket.trust_etags,
            "prefix": bucket.prefix,
            "suffix": bucket.suffix,
            **bucket_document.names_and_events(bucket.bucket_name, bucket.wanted_events),
            "first_scan": bucket.first_scan,
            "lanes": bucket.lanes,
            "requests_per_day": bucket.requests_per_day,
            "most_objects": bucket.most_objects,
            "taken_over": bucket.taken_over,
        },
    }


def with_secret(bucket: Bucket, secrets: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON with the secret, among `client_secrets`, that a consumer reads there."""
    content = document(bucket)
    secret = secrets.get(selectors.webhook_secret_name(bucket))
    if _wants_secret(bucket) and secret is not None:
        content["webhook_auth"]["client_secret"] = secret
    return content


def expected(bucket: Bucket) -> CommitExpectation:
    """Say which commit Redis has to remember, if it is the Redis that the scanner wrote to."""
    at = bucket.remembered_commit_at
    return CommitExpectation(
        bucket.name,
        bucket.generation,
        commit=None if at is None else bucket.last_commit_number,
        commit_at=None if at is None else at.timestamp(),
        window_s=wiring.conf().redis.failover_window,
    )


def client_secrets(buckets: Iterable[Bucket]) -> Mapping[str, str]:
    """Read the webhook secrets that consumers read from Redis, by vault name; in one call."""
    names = [selectors.webhook_secret_name(bucket) for bucket in buckets if _wants_secret(bucket)]
    if not names or _vault_outage.is_active():
        return {}
    try:
        return wiring.vault().read_secrets(names)
    except BucketwatchError as exc:
        _vault_outage.start()
        logger.warning("Webhook secrets for Redis cannot be read: %s", exc)
        return {}


def _wants_secret(bucket: Bucket) -> bool:
    return bucket.webhook_secret_in_redis and bool(bucket.webhook_client_id)


def _write(name: str, bucket: Bucket | None, revision: int, secrets: Mapping[str, str]) -> None:
    """Put or remove one bucket. That Redis holds something newer is as good."""
    store = wiring.interactive().bucket_configs
    if bucket is None:
        store.remove(name, revision=revision)
        return
    content = with_secret(bucket, secrets)
    notifications = bucket.notifications_enabled
    must_know = expected(bucket)
    store.put(name, content, notifications=notifications, revision=revision, must_know=must_know)
    is_known = selectors.webhook_secret_name(bucket) in secrets
    if _wants_secret(bucket) and not is_known and _vault_outage.is_active():
        raise VaultUnavailable("its webhook secret waits for the vault")


def _log_waiting(name: str, problem: BucketwatchError) -> None:
    """Log that a bucket waits; not each time, since it is tried every few seconds."""
    now = time.monotonic()
    if now - _logged_at.get(name, -_LOG_AGAIN_S) >= _LOG_AGAIN_S:
        _logged_at[name] = now
        logger.warning("%s: its configuration is not in Redis yet: %s", name, problem)


def _iso(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


def _chunks(newest: Mapping[str, int]) -> Iterator[dict[str, int]]:
    items = iter(newest.items())
    while chunk := dict(islice(items, _CHUNK)):
        yield chunk
