"""When missing keys are held for somebody to look at, instead of becoming deletions."""

from __future__ import annotations


def is_mass(*, missing: int, known: int, share: float, minimum: int) -> bool:
    """Tell whether more than ``share``, or all, of ``minimum`` or more known objects are gone."""
    return known >= minimum and (missing > known * share or missing >= known)


def had_second_look(since: float, *, now: float, second_look_s: float) -> bool:
    """Tell whether a hold since ``since`` has ended by itself by now; 0 s: it never does."""
    return 0 < second_look_s <= now - since
