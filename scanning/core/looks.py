"""Where a look looks, and what it takes for an explanation.

    hinted segments     always; keys beyond all known ones are the tail's
    the tail            behind the last known key, where many names appear
    hot segments        whose rows changed last, the hottest first; a few of them

A bucket is *explained* when its totals and what was listed of it differ by what they differed by
after the last pass. So a look stops as soon as they do; what it cannot explain is for a pass.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from scanning.core.segments.model import Entry

# Hot segments of a look: about as many LIST calls. At one look in 5 s they and the tail are 0.048
# of what passes over a million objects cost, one a minute.
LEAST_HOT: Final = 3
# A look that may be explained saves a pass. One in 120 segments, twelve times a minute, is a tenth
# of what a pass a minute costs: no more, however busy the bucket is.
HOT_SHARE: Final = 1 / 120
# A last segment that is fuller stays as it is; rows behind a smaller one are to join it.
ROOMY: Final = 3 / 4
# Deletions that a look may announce, and moved times; more are for a pass to judge.
FEW: Final = 100


@dataclass(frozen=True, slots=True)
class Range:
    """Neighbouring ``entries``, and the keys after ``after`` up to ``until`` (None: all).

    ``is_hinted``: it is looked at, whatever the totals say.
    """

    after: str
    until: str | None
    entries: Sequence[Entry]
    is_hinted: bool


def hot_segments(segments: int, *, may_be_explained: bool) -> int:
    """Say how many of a bucket's segments a look may list because they changed lately."""
    return max(LEAST_HOT, int(segments * HOT_SHARE)) if may_be_explained else LEAST_HOT


def choose_ranges(
    entries: Sequence[Entry],
    keys: Collection[str],
    *,
    most_hot: int,
    page_size: int,
    pass_after: str = "",
) -> list[Range]:
    """Choose what to look at, in the order of looking; ``entries`` are all, in key order.

    What a pass under way has covered, up to ``pass_after``, and what it has not are apart: rows on
    both sides of that key must not come into one segment.
    """
    last_keys = [entry.last_key for entry in entries]
    beyond, cut = len(entries), bisect_right(last_keys, pass_after)
    # 1. Places of segments, the tail being the one beyond: hinted ones, the tail, hot ones.
    hinted = {bisect_left(last_keys, key) for key in keys}
    tail = {beyond}
    if entries and entries[-1].count < page_size * ROOMY:
        tail.add(beyond - 1)
    if hinted & tail:
        hinted, tail = hinted | tail, set()
    cold = (place for place, entry in enumerate(entries) if not entry.changed_at)
    hot = set(range(beyond)).difference(hinted, tail, cold)
    hottest = nlargest(most_hot, sorted(hot), key=lambda place: entries[place].changed_at)
    # 2. Ranges: neighbours are one, but for what need not be listed once all is explained.
    hot_runs = [*_neighbours(hottest, cut)]
    hot_runs.sort(key=lambda run: -max(entries[place].changed_at for place in run))
    runs = [*_neighbours(hinted, cut), *_neighbours(tail, cut), *hot_runs]
    found = []
    for run in runs:
        first, last = run[0], run[-1]
        after = last_keys[first - 1] if first else ""
        found.append(
            Range(
                after=max(after, pass_after) if first == cut else after,
                until=last_keys[last] if last < beyond else None,
                entries=entries[first : last + 1],
                is_hinted=first in hinted,
            )
        )
    return found


def _neighbours(places: Collection[int], cut: int) -> Iterator[Sequence[int]]:
    """Cut places into runs of neighbours; none goes over ``cut``, where one may begin."""
    ordered, start = sorted(places), 0
    for at in range(1, len(ordered) + 1):
        if at == len(ordered) or ordered[at] != ordered[at - 1] + 1 or ordered[at] == cut:
            yield ordered[start:at]
            start = at


def are_few(objects: int, *, rows: int) -> bool:
    """Tell whether a look may decide about so many objects, of the ``rows`` that it saw."""
    return objects <= FEW and objects * 2 < rows
