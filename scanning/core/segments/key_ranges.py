"""Ranges of keys: which are covered, and where to cut one of which nothing is known."""

from __future__ import annotations

import json
import sys
from bisect import bisect_left, bisect_right
from itertools import accumulate
from string import digits
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Covered = tuple[str, str]
"""After which key, up to which one all is listed."""
Gap = tuple[str, str | None]
"""After which key, up to which one all is to be listed; None: to the end of the bucket."""

# At each place of a key, a character that was seen there weighs 1. Where all keys have the same
# one, another digit may follow, or anything: seldom, so that a long common prefix is halved and not
# gone through place by place.
_OTHER_DIGIT, _ANYTHING = 0.003, 0.01
# Keys that differ first behind this place are not told apart.
_DEEPEST: Final = 256
# A cut may miss the middle by so much of the range: most are shorter for it.
_NEAR: Final = 1 / 8
# Smaller shares of all keys than this one are not told apart.
_LEAST: Final = 1e-12
_SURROGATES: Final = range(0xD800, 0xE000)


def joined_ranges(ranges: Iterable[Covered]) -> list[Covered]:
    """Join ranges that touch; in key order."""
    joined: list[Covered] = []
    for after, until in sorted(ranges):
        if joined and joined[-1][1] >= after:
            joined[-1] = joined[-1][0], max(joined[-1][1], until)
        else:
            joined.append((after, until))
    return joined


def gaps_between(joined: Sequence[Covered]) -> list[Gap]:
    """List what joined ranges, the first of which begins with the first key, leave out."""
    begins = [until for _, until in joined]
    return list(zip(begins, [*(after for after, _ in joined[1:]), None], strict=True))


def is_within(key: str, ranges: Iterable[Covered | Gap]) -> bool:
    return any(after < key and (until is None or key <= until) for after, until in ranges)


def as_json(ranges: Sequence[Covered], commit: int) -> str:
    """Write down what lanes had covered at a commit; "" where that is nothing."""
    return json.dumps([commit, ranges]) if ranges else ""


def from_json(text: bytes | str | None, commit: int) -> tuple[Covered, ...]:
    """Read what lanes had covered at a commit; nothing if another commit came after it.

    That may have been of a host or a look that knows no lanes, and joined segments over the ends.
    """
    if not text:
        return ()
    at, ranges = json.loads(text)
    return tuple((after, until) for after, until in ranges) if at == commit else ()


class KeyDistribution:
    """Guesses from keys that were seen how all keys are spread.

    Each place of a key is looked at by itself: what comes after a character that keys have there,
    may come after another one, too.
    """

    def __init__(self) -> None:
        # What was seen at each place, and at those places where keys differ.
        self._seen: list[set[str]] = []
        self._various: set[str] = set()
        self._places: list[_Place | None] = []

    def __bool__(self) -> bool:
        return bool(self._seen)

    def add(self, key: str) -> None:
        for number, char in enumerate(key[:_DEEPEST]):
            if number == len(self._seen):
                self._seen.append({char})
                self._places.append(None)
            elif char not in self._seen[number]:
                self._seen[number].add(char)
                self._places[number] = None
                if not self._seen[number] <= self._various:
                    self._various |= self._seen[number]
                    self._places = [None] * len(self._seen)

    def share(self, low: str, high: str | None) -> float:
        """Guess the share of all keys that is between two keys."""
        return max(0.0, self._share_up_to(high) - self._share_up_to(low))

    def middle(self, low: str, high: str | None) -> str | None:
        """Find what has about as many keys between ``low`` and itself as up to ``high``.

        None where no key that is likely is between the two.
        """
        start, end = self._share_up_to(low), self._share_up_to(high)
        middle, near = (start + end) / 2, (end - start) * _NEAR
        best, missed_by = None, 1.0
        prefix, before, share = "", 0.0, 1.0
        for place in map(self._place, range(len(self._seen))):
            number = place.reaching((middle - before) / share)
            for cut in (number, number + 1):
                key, missed = prefix + place.cuts[cut], before + share * place.shares[cut] - middle
                if low < key and (high is None or key < high) and abs(missed) < missed_by:
                    best, missed_by = key, abs(missed)
            if missed_by <= near or number == len(place.chars) or share < _LEAST:
                break
            prefix += place.chars[number]
            before += share * place.shares[number]
            share *= place.shares[number + 1] - place.shares[number]
        return best

    def _share_up_to(self, key: str | None) -> float:
        if key is None:
            return 1.0
        before, share = 0.0, 1.0
        for number, char in enumerate(key[: len(self._seen)]):
            place = self._place(number)
            at = bisect_left(place.chars, char)
            before += share * place.shares[at]
            if at == len(place.chars) or place.chars[at] != char:
                break
            share *= place.shares[at + 1] - place.shares[at]
        return before

    def _place(self, number: int) -> _Place:
        place = self._places[number]
        if place is None:
            place = self._places[number] = _Place(self._seen[number], self._various)
        return place


class _Place:
    """The likely characters of one place of keys, in order.

    ``shares[n]`` is how much comes before the n-th character and what begins with it; what comes
    after all of them has a share too. ``cuts[n]`` is the string that divides there.
    """

    def __init__(self, seen: set[str], various: set[str]) -> None:
        is_fixed = len(seen) == 1
        likely = set() if seen.isdisjoint(digits) else set(digits)
        self.chars = sorted(seen | likely | (set() if is_fixed else various))
        unseen = _OTHER_DIGIT if is_fixed else 1 / len(seen)
        weights = [1.0 if char in seen else unseen for char in self.chars]
        total = sum(weights) + _ANYTHING
        self.shares = [*accumulate((weight / total for weight in weights), initial=0.0), 1.0]
        end = _next_char(self.chars[-1])
        self.cuts = [*self.chars, end, end]

    def reaching(self, share: float) -> int:
        """Find the character with which ``share`` is reached; their number: only after all."""
        return min(max(bisect_right(self.shares, share) - 1, 0), len(self.chars))


def _next_char(char: str) -> str:
    number = ord(char) + 1
    if number in _SURROGATES:
        number = _SURROGATES.stop
    return chr(min(number, sys.maxunicode))
