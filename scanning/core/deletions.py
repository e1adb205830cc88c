"""When missing keys are held for somebody to look at, instead of becoming deletions."""

from __future__ import annotations


def is_mass(*, missing: int, known: int, share: float, minimum: int) -> bool:
    """Whether more than ``share``, or all, of at least ``minimum`` known objects are missing."""
    return known >= minimum and (missing > known * share or missing >= known)


def had_second_look(since: float, *, now: float, second_look_s: float) -> bool:
    """Whether what was held ``since`` then is released by itself by now; 0 s: it never is."""
    return 0 < second_look_s <= now - since
