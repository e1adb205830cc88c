"""Announcing again what is known of a bucket; who asked for it is in the bucket's history."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from django.db import close_old_connections

from buckets import audit

if TYPE_CHECKING:
    from collections.abc import Generator

    from buckets.audit import Actor
    from buckets.models import Bucket
    from scanning.inspection.replay import Replay, Step


def replay(*, bucket: Bucket, replay: Replay, by: Actor = None) -> Generator[Step, None, None]:
    """Carry a replay out, step by step; the end is logged too, however it ends.

    Raises what `Replay.run` raises.
    """
    audit.performed(bucket, f"Began to announce objects again, replay {replay.id}", by=by)
    announced = 0
    try:
        with closing(replay.run()) as steps:
            for step in steps:
                announced = step.announced
                yield step
    finally:
        close_old_connections()  # it may have taken hours
        audit.performed(bucket, f"Announced {announced} objects again, replay {replay.id}", by=by)
