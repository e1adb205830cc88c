"""What the page of a bucket says of its probes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from buckets.formatting import format_ago, format_duration, format_number, format_size
from scanning import engine, wiring
from scanning.core.endpoint_profile import Fact, TotalsSource
from scanning.core.endpoints import endpoint_name

if TYPE_CHECKING:
    from buckets.models import Bucket
    from scanning.core.probing import LastProbe, ProbePlan


def probes_in_words(bucket: Bucket) -> str:
    """Say how often the bucket is probed and what was seen last, or why it is not probed.

    Raises RedisUnavailable.
    """
    conf = wiring.conf()
    plan = conf.probe_plan(bucket.probe_interval, own_polling_s=bucket.polling_interval)
    if why_not := _why_not(bucket, plan, page_size=conf.page_size):
        return why_not
    every = f"every {format_duration(plan.every_s)}"
    last = engine.last_probe(bucket.name)
    if last is None:
        return f"{every}; none was answered yet"
    if last.totals is None:
        return _without_totals(bucket, plan)
    objects = format_number(last.totals.objects)
    return f"{every}: {objects} objects, {format_size(last.totals.size_bytes)}, {_moved(last)}"


def _why_not(bucket: Bucket, plan: ProbePlan, *, page_size: int) -> str:
    if not plan.every_s:
        return "off" if plan.is_chosen else "none: it is scanned as often"
    if bucket.object_count is None:
        return "from its first complete scan on"
    if not plan.is_worth_it(bucket.object_count, page_size=page_size):
        return "none: to list its one page costs the same"
    return "none while its scans fail" if bucket.last_error_class else ""


def _moved(last: LastProbe) -> str:
    if last.moved_at is None:
        return "not seen moving yet"
    return f"moved {format_ago(datetime.fromtimestamp(last.moved_at, UTC))}"


def _without_totals(bucket: Bucket, plan: ProbePlan) -> str:
    endpoint = endpoint_name(bucket.endpoint)
    facts = engine.endpoint_profiles([endpoint])[endpoint]
    if facts.value(Fact.TOTALS) == TotalsSource.NONE:
        reason = "its endpoint tells no totals"
    else:
        reason = "its credential is told no totals"
    if plan.is_chosen:
        return f"none, but a look every {format_duration(plan.every_s)}: {reason}"
    return f"none: {reason}"
