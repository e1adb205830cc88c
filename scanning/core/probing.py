"""Which buckets are probed, how often, and what comes of it.

A probe asks for a bucket's totals. Totals that moved prove a change, and have the bucket looked at;
totals that stay prove nothing. So a probe that lies, fails or never comes costs requests or time:
every bucket's passes come anyway.

    own interval, else the configured one      probed
    0                                          never
    seconds                                    so often; without totals, looked at so often
    auto                                       a twelfth of the polling interval, 5 s at the least:
                                               buckets of several pages, where there are totals
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from scanning.core.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTO: Final = "auto"
# How often it is looked up whether a bucket that is not worth a probe has grown.
NOT_PROBED_S: Final = 60.0
# Totals for which a look was requested have one requested again after this, if they still differ
# from what the last look saw: the request may be lost, or a worker of an earlier version look.
REQUEST_AGAIN_S: Final = 60.0
_AUTO_SHARE: Final = 12
_LEAST_AUTO_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """How often a bucket is probed, 0 for never; ``is_chosen``: somebody set these seconds."""

    every_s: float
    is_chosen: bool = False

    def is_worth_it(self, objects: int, *, page_size: int) -> bool:
        """Tell whether a probe is worth its request: a listing of one page costs the same."""
        return self.every_s > 0 and (self.is_chosen or objects > page_size)


def plan_probes(
    own_s: int | None, configured: int | Literal["auto"], *, polling_s: float
) -> ProbePlan:
    """Choose how often a bucket is probed that has its own interval, or None for the configured."""
    seconds = configured if own_s is None else own_s
    if seconds != AUTO:
        return ProbePlan(float(seconds), is_chosen=True)
    every_s = max(_LEAST_AUTO_S, polling_s / _AUTO_SHARE)
    return ProbePlan(every_s if every_s < polling_s else 0.0)


@dataclass(frozen=True, slots=True)
class ProbedBucket:
    """What Redis holds of a bucket that a probe has to know.

    ``objects`` are those of the last complete pass, None before the first; ``totals`` are what the
    last look or pass saw, if any. ``waits``: its scans fail, its endpoint is dead, or it is lost.
    """

    objects: int | None = None
    totals: Totals | None = None
    waits: bool = False

    @property
    def is_settled(self) -> bool:
        """Tell whether it is scanned as it should be: else that may change at any moment."""
        return self.objects is not None and not self.waits

    def is_probed(self, plan: ProbePlan, *, page_size: int) -> bool:
        return self.is_settled and plan.is_worth_it(self.objects or 0, page_size=page_size)


@dataclass(frozen=True, slots=True)
class LastProbe:
    """What probes last saw of a bucket; ``totals`` None where its key is told none.

    ``moved_at`` is when probes last saw them move, None if never.
    """

    totals: Totals | None
    moved_at: float | None = None


def has_moved(totals: Totals, *, known: Totals | None, seen: Totals | None) -> bool:
    """Compare totals with those that the last look or pass knows, else with the last probe's."""
    before = seen if known is None else known
    return before is not None and totals != before


def parse_probed(fields: Sequence[str | None]) -> ProbedBucket:
    """Read `PROBED_FIELDS` of a bucket's hash."""
    objects, totals, *marks = fields
    return ProbedBucket(
        objects=int(objects) if objects and objects.isdecimal() else None,
        totals=Totals.read(totals),
        waits=any(marks),
    )


PROBED_FIELDS: Final = ("objects", "totals", "failures", "parked", "lost_since")
