"""A bucket's totals as scans ask for them: a request that fails is as good as no totals."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scanning.core.errors import BucketwatchError, ScanAborted
from scanning.core.totals import SeenTotals

if TYPE_CHECKING:
    from scanning.core.totals import Totals
    from scanning.ports import KnownState
    from scanning.scan.context import ScanContext

logger = logging.getLogger(__name__)


def ask_totals(context: ScanContext) -> Totals | None:
    """Ask for a bucket's totals, if somebody goes by them; None where they are not told."""
    if not context.settings.asks_totals:
        return None
    context.keep_going()
    try:
        return context.storage.totals()
    except ScanAborted:
        raise
    except BucketwatchError as exc:
        logger.info("the bucket's totals are not told: %s", exc)
        return None


class PassTotals:
    """The totals before a pass, over all of its slices, and after it."""

    def __init__(self, context: ScanContext, known: KnownState) -> None:
        self._context, self._known = context, known
        self._before = known.totals_before if known.progress else ask_totals(context)

    def at_end(self, gained: Totals, *, complete: bool) -> SeenTotals | None:
        """Tell what a slice saw, in which the listed rows ``gained`` so much; None if not asked."""
        before = self._before
        if not self._context.settings.asks_totals:
            return None
        if not complete:
            return SeenTotals(before, before)
        after = ask_totals(self._context)
        # What moved meanwhile may have been behind the listing: another look has to find it.
        last = after if before is None else before
        if after is None or before != after:
            return SeenTotals(last, before)
        return SeenTotals(last, before, apart=after - self._known.listed - gained)
