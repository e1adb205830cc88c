"""Going on with buckets that Redis forgot: only an operator can say how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from buckets import audit, selectors
from buckets.batching import in_batches
from buckets.models import Bucket
from buckets.sync import outbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from buckets.audit import Actor

_HISTORY_TEXTS = {
    Bucket.FirstScan.ANNOUNCE: "Chose to announce what Redis forgot",
    Bucket.FirstScan.BASELINE: "Chose to only remember what Redis forgot",
}


def resume_after_loss(*, buckets: Sequence[Bucket], choice: str, by: Actor = None) -> list[str]:
    """Go on with buckets of which Redis lost what was known; names those that had waited for it.

    ``announce``: everything that Redis does not know is announced; all objects, if it knows
    nothing any more. ``baseline``: what is there now is only remembered. Nothing happens to the
    other buckets.
    """
    if choice not in Bucket.FirstScan.values:
        problem = f"Choose one of: {', '.join(Bucket.FirstScan.values)}."
        raise ValidationError({"choice": [problem]})
    chosen = Bucket.FirstScan(choice)
    resumed: list[str] = []
    with transaction.atomic(), outbox.batched():
        for pks in in_batches(bucket.pk for bucket in buckets):
            lost = list(selectors.lost_buckets().select_for_update().filter(pk__in=pks))
            _resume(lost, chosen)
            audit.performed_alike(lost, _HISTORY_TEXTS[chosen], by=by)
            outbox.enqueue(bucket.name for bucket in lost)
            resumed += [bucket.name for bucket in lost]
    return resumed


def _resume(lost: Iterable[Bucket], choice: Bucket.FirstScan) -> None:
    now = timezone.now()
    is_baseline = choice is Bucket.FirstScan.BASELINE
    # What an older Redis knows serves to tell what to announce; the rest of a damaged state not.
    anew = [bucket.pk for bucket in lost if is_baseline or bucket.lost_since is None]
    Bucket.begin_new_generation(Bucket.objects.filter(pk__in=anew))
    resumed = Bucket.objects.filter(pk__in=[bucket.pk for bucket in lost])
    resumed.update(
        first_scan=choice,
        resumed_at=now,
        lost_since=None,
        updated_at=now,
        last_commit_at=None,
        last_commit_generation=None,
        last_commit_number=None,
    )
    if is_baseline:  # else an older monitor's states would be compared with
        resumed.update(taken_over=False)
