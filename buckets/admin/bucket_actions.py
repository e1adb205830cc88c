"""What the buttons of a bucket's page do, each through a service, with the outcome in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import messages
from django.core.exceptions import ValidationError

from buckets import services
from buckets.admin.base import REFUSALS, actor
from buckets.admin.forms import refusals
from buckets.models import Bucket
from scanning.core.errors import RedisUnavailable
from scanning.core.holds import Release

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest


def do(request: HttpRequest, bucket: Bucket, action: str) -> None:
    """Do one of ``ACTIONS`` and leave a message. Raises KeyError for anything else."""
    act = ACTIONS[action]
    try:
        messages.success(request, act(request, bucket))
    except RedisUnavailable as exc:
        messages.error(request, f"Nothing was done: {exc}")
    except REFUSALS as exc:
        for texts in refusals(exc).values():
            for text in texts:
                messages.error(request, text)


def _scan_now(request: HttpRequest, bucket: Bucket) -> str:
    services.scan_now(bucket=bucket, by=actor(request))
    return "The bucket is due now: it is scanned as soon as a worker is free."


def _pause(request: HttpRequest, bucket: Bucket) -> str:
    services.set_monitoring(bucket=bucket, enabled=False, by=actor(request))
    return "Paused: it is not scanned until you resume it."


def _resume(request: HttpRequest, bucket: Bucket) -> str:
    services.set_monitoring(bucket=bucket, enabled=True, by=actor(request))
    return "Resumed: it is scanned again."


def _notify(request: HttpRequest, bucket: Bucket) -> str:
    services.set_notifications(bucket=bucket, enabled=True, by=actor(request))
    return "Notifications are on: what changes from now on is announced."


def _silence(request: HttpRequest, bucket: Bucket) -> str:
    services.set_notifications(bucket=bucket, enabled=False, by=actor(request))
    return "Notifications are off: what changes meanwhile is never announced."


def _release(request: HttpRequest, bucket: Bucket) -> str:
    if not bucket.held_since:
        raise ValidationError("Nothing is held any more.")
    services.release_hold(bucket=bucket, by=actor(request))
    return "Released: the next scan announces the deletions."


def _announce_updates(request: HttpRequest, bucket: Bucket) -> str:
    _release_moved_times(request, bucket, Release.ANNOUNCE_UPDATES)
    return "Released: the next scan announces the updates."


def _take_times(request: HttpRequest, bucket: Bucket) -> str:
    _release_moved_times(request, bucket, Release.TAKE_TIMES)
    return "Released: the next scan takes the new times, and announces nothing of them."


def _release_moved_times(request: HttpRequest, bucket: Bucket, choice: Release) -> None:
    if not bucket.held_moved_since:
        raise ValidationError("Nothing is held any more.")
    services.release_hold(bucket=bucket, choice=choice, by=actor(request))


def _rebaseline(request: HttpRequest, bucket: Bucket) -> str:
    services.rebaseline(bucket=bucket, by=actor(request))
    return "It starts over: the next scan only remembers what is there."


def _announce_lost(request: HttpRequest, bucket: Bucket) -> str:
    _resume_after_loss(request, bucket, Bucket.FirstScan.ANNOUNCE)
    return "It goes on: the next scan announces what Redis does not know."


def _remember_lost(request: HttpRequest, bucket: Bucket) -> str:
    _resume_after_loss(request, bucket, Bucket.FirstScan.BASELINE)
    return "It goes on: the next scan only remembers what is there."


def _resume_after_loss(request: HttpRequest, bucket: Bucket, choice: Bucket.FirstScan) -> None:
    resumed = services.resume_after_loss(buckets=[bucket], choice=choice, by=actor(request))
    if not resumed:
        raise ValidationError("Redis knows this bucket: there is nothing to choose any more.")


def _test(request: HttpRequest, bucket: Bucket) -> str:
    test = services.check_connection(bucket=bucket, by=actor(request))
    if not test.ok:
        raise ValidationError(f"{test.error}. {test.fix}")
    keys = ", ".join(test.first_keys)
    found = f"It begins with: {keys}" if keys else "It is empty."
    return f"The keys work: one page was listed in {test.latency_ms:,.0f} ms. {found}"


ACTIONS: dict[str, Callable[[HttpRequest, Bucket], str]] = {
    "scan": _scan_now,
    "pause": _pause,
    "resume": _resume,
    "notify": _notify,
    "silence": _silence,
    "release": _release,
    "announce_updates": _announce_updates,
    "take_times": _take_times,
    "rebaseline": _rebaseline,
    "announce_lost": _announce_lost,
    "remember_lost": _remember_lost,
    "test": _test,
}
