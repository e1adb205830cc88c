"""What confirms that missing keys are gone.

A listing that lacks a key is one witness. HEAD of the key is the second one, or another listing.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from scanning.core.changes import Version

# Intervals are kept to a few seconds; so much less than one counts as one.
_NEARLY: Final = 0.9


class Confirm(StrEnum):
    """What has to confirm that a key is gone which a listing lacks."""

    HEAD = "head"
    LISTING = "listing"
    NONE = "none"


class HeadAnswer(Enum):
    """An answer to HEAD that tells no version: 404, and any other refusal."""

    GONE = auto()
    REFUSED = auto()


class HeadVerdict(Enum):
    """What HEAD says of a key that a listing lacks."""

    GONE = auto()
    EXISTS = auto()
    PUT_BACK = auto()  # another version, so the listing may have been right
    UNANSWERED = auto()


def tells_missing_keys(of_no_key: Version | HeadAnswer) -> bool:
    """Tell whether HEAD tells keys that are gone from others, by its answer for no key at all.

    Those who may list are told 404 for a missing key and 403 for one that they may not read; those
    who may not, 403 for both.
    """
    return of_no_key is HeadAnswer.GONE


def judge_head(answer: Version | HeadAnswer, known: Version) -> HeadVerdict:
    """Weigh the answer of a HEAD that is a witness; its times are whole seconds, or 0."""
    if answer is HeadAnswer.GONE:
        return HeadVerdict.GONE
    if answer is HeadAnswer.REFUSED or _is_same(answer, known):
        return HeadVerdict.EXISTS
    return HeadVerdict.PUT_BACK


def _is_same(answer: Version, known: Version) -> bool:
    is_same_time = not answer[1] or int(answer[1]) == int(known[1])
    return is_same_time and (answer[0], answer[2]) == (known[0], known[2])


def is_second_listing(first: float, second: float, *, interval_s: float) -> bool:
    """Tell whether a pass began an interval after another one (0: after none), or nearly."""
    return 0 < first <= second - interval_s * _NEARLY
