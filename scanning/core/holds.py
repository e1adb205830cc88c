"""When most of a bucket's changes wait for somebody to look at them, and what somebody may choose.

Two kinds are held: a mass deletion, and a storm of moved times, where most objects have another
time and the ETag and size that are known of them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Release(StrEnum):
    """What somebody chooses to have done with a hold. The names are those of the API."""

    ANNOUNCE_DELETIONS = "announce_deletions"
    ANNOUNCE_UPDATES = "announce_updates"
    TAKE_TIMES = "take_times"


class HoldRules(Protocol):
    """The settings of holds, those of `ScanSettings`."""

    @property
    def mass_share(self) -> float: ...
    @property
    def mass_minimum(self) -> int: ...
    @property
    def second_look_s(self) -> float: ...


def is_mass(objects: int, *, known: int, share: float, minimum: int) -> bool:
    """Tell whether so many are more than ``share``, or all, of ``minimum`` or more known ones."""
    return known >= minimum and (objects > known * share or objects >= known)


def had_second_look(since: float, *, now: float, second_look_s: float) -> bool:
    """Tell whether a hold since ``since`` has ended by itself by now; 0 s: it never does."""
    return 0 < second_look_s <= now - since


def held_since(
    objects: int,
    *,
    known: int,
    before: float | None,
    released: int,
    rules: HoldRules,
    now: float,
) -> float | None:
    """Tell since when the changes of so many ``objects`` are held; None if they are not.

    ``before`` is since when those found before are held, None without a hold; somebody has
    ``released`` so many.
    """
    # What somebody released is decided; the rest may be a mass of its own.
    if objects <= released:
        return None
    if before and had_second_look(before, now=now, second_look_s=rules.second_look_s):
        return None
    # A hold that nobody released holds whatever is left: neither what came back, nor what came
    # new, nor what changed since says that the rest was meant to be.
    if before and not released:
        return before
    is_held = is_mass(
        objects - released,
        known=known - released,
        share=rules.mass_share,
        minimum=rules.mass_minimum,
    )
    return (before or now) if is_held else None
