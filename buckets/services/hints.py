"""Places to look, as programs, S3 servers and event buses name them: hints change nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from buckets import selectors
from buckets.batching import in_batches
from scanning import engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from buckets.models import Bucket
    from scanning.core.hints import Hint

MOST_UNKNOWN_NAMED = 100


@dataclass(frozen=True, slots=True)
class HintsTaken:
    """What became of hints: ``ignored`` ones are of keys that no active watch covers.

    ``unknown`` are the names of buckets that nobody watches, ``MOST_UNKNOWN_NAMED`` at most.
    """

    accepted: int = 0
    ignored: int = 0
    unknown: tuple[str, ...] = ()


def give_hints(*, hints: Sequence[Hint]) -> HintsTaken:
    """Have every watch that covers a hint's key look at it soon. Raises RedisUnavailable."""
    watches = _watches_of(hint.bucket for hint in hints)
    keys: dict[str, list[str]] = {}
    covering: list[list[str]] = []
    for hint in hints:
        names = []
        for watch in watches.get(hint.bucket, ()):
            if covered := [key for key in hint.keys if key.startswith(watch.prefix)]:
                names.append(watch.name)
                keys.setdefault(watch.name, []).extend(covered)
        covering.append(names)
    regions = {row.name: row.region for rows in watches.values() for row in rows}
    asked = {name: regions[name] for name in keys}
    scheduled = engine.request_looks(asked, keys=keys) if asked else set()
    accepted = sum(not scheduled.isdisjoint(names) for names in covering)
    unknown = dict.fromkeys(hint.bucket for hint in hints if hint.bucket not in watches)
    of_unknown = sum(hint.bucket in unknown for hint in hints)
    return HintsTaken(
        accepted=accepted,
        ignored=len(hints) - accepted - of_unknown,
        unknown=tuple(unknown)[:MOST_UNKNOWN_NAMED],
    )


def _watches_of(s3_names: Iterable[str]) -> dict[str, list[Bucket]]:
    """Find the watches on buckets by S3's name of them, at whatever endpoint."""
    found: dict[str, list[Bucket]] = {}
    for names in in_batches(sorted(set(s3_names)), size=200):
        for row in selectors.watches_of(*names):
            found.setdefault(row.s3_name, []).append(row)
    return found
