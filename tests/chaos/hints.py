"""Somebody who tells over the API where something changed, unreliably."""

from __future__ import annotations

import http.client
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Final

from tests.chaos.operator import Api, Unanswered

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

    from tests.chaos.s3_objects import Change

LOST: Final = 0.5
FORGED: Final = 0.1
_MOST_WAITING: Final = 2000


class Informant:
    """Gives hints of what changed: half of them get lost, a tenth name what did not change."""

    def __init__(self, dice: random.Random, ports: Sequence[int]) -> None:
        self.gave: Counter[str] = Counter()
        self._dice, self._api = dice, Api(dice, ports)
        self._waiting: deque[tuple[str, str]] = deque(maxlen=_MOST_WAITING)

    def notice(self, changes: Iterable[Change]) -> None:
        """Remember some places, maybe; any thread may call it."""
        for change in changes:
            fate = self._dice.random()
            if fate >= LOST:
                self._waiting.append((change.bucket, change.key))
            elif fate < FORGED:
                self._waiting.append((change.bucket, f"{change.key[:20]}{fate}"))

    def give(self) -> None:
        """Send what waits, in one request; what is not answered is lost."""
        places: defaultdict[str, list[str]] = defaultdict(list)
        while self._waiting:
            bucket, key = self._waiting.popleft()
            places[bucket].append(key)
        if not places:
            return
        hints = [{"bucket": bucket, "keys": keys} for bucket, keys in places.items()]
        try:
            status, _ = self._api.ask("POST", "/api/v1/hints/", hints)
        except Unanswered:
            outcome = "unanswered"
        else:
            outcome = "given" if status == http.client.ACCEPTED else f"HTTP {status}"
        self.gave[outcome] += sum(map(len, places.values()))
