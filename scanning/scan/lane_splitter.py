"""Which part of an unknown range is listed next: half of what the longest lane has left.

Nothing says where the middle of unknown keys is, so a middle is guessed from the keys that were
seen, and the bucket is listed from there on. If that shows keys of the lane, the lane ends there,
and a new lane has its first page already. If not, at least the range is known to be smaller.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scanning.core.segments.key_ranges import KeyDistribution

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scanning.core.segments.matcher import Page

# So many times a middle may be looked for: twice at first, and once more with each two pages.
CUTS_AT_FIRST, PAGES_A_CUT = 2, 2


@dataclass(frozen=True, slots=True)
class Lane:
    """A range of keys: after ``after``, up to ``until`` (None: to the end of the bucket).

    After ``unknown_after`` nothing is known of the lane: there it may be split (None: nowhere).
    """

    after: str
    until: str | None
    unknown_after: str | None = None

    def goes_on_after(self, page: Page) -> bool:
        """Tell whether more of the lane is to be listed after one of its pages."""
        is_covered = self.until is not None and page.last_key >= self.until
        return page.is_truncated and not is_covered


@dataclass(slots=True)
class _Course:
    """How far a lane is listed. There are keys at ``listed_to``; none after ``empty_after``."""

    lane: Lane
    listed_to: str
    empty_after: str | None
    is_over: bool = False

    @property
    def may_be_split(self) -> bool:
        unknown_after = self.lane.unknown_after
        return not self.is_over and unknown_after is not None and self.listed_to > unknown_after

    @property
    def can_still_be_split(self) -> bool:
        return not self.is_over and self.lane.unknown_after is not None


class LaneSplitter:
    """The lanes of one listing, by number; their numbers stay when some are split.

    Whoever shares it between threads holds a lock at each call.
    """

    def __init__(self, lanes: Iterable[Lane]) -> None:
        self._courses = [_Course(lane, lane.after, lane.until) for lane in lanes]
        self._keys = KeyDistribution()
        self._asked: set[str] = set()
        self._pages = self._cuts = 0

    def __len__(self) -> int:
        return len(self._courses)

    def __getitem__(self, number: int) -> Lane:
        return self._courses[number].lane

    def listed_to(self, number: int) -> str:
        return self._courses[number].listed_to

    def wants_keys_of(self, number: int, page: Page) -> bool:
        """Tell whether a page is the first of unknown keys, of which there are more."""
        lane = self._courses[number].lane
        return (
            not self._keys
            and lane.unknown_after is not None
            and page.last_key > lane.unknown_after
            and lane.goes_on_after(page)
        )

    def learn(self, keys: Iterable[str]) -> None:
        """Guess where others are from these keys."""
        for key in keys:
            self._keys.add(key)

    def take_page(self, number: int, page: Page) -> bool:
        """Note the next page of a lane; tell whether there are more."""
        course = self._courses[number]
        self._pages += 1
        course.listed_to = max(course.listed_to, page.last_key)
        course.is_over = not course.lane.goes_on_after(page)
        if self._keys and page.last_key:
            self._keys.add(page.last_key)
        return not course.is_over

    def has_unknown(self) -> bool:
        """Tell whether a lane is being listed that may still be split, now or later."""
        return any(course.can_still_be_split for course in self._courses)

    def next_cut(self) -> str | None:
        """Choose a key to list after, for a thread that has no lane; None if there is none now."""
        if not self._keys or self._cuts >= CUTS_AT_FIRST + self._pages // PAGES_A_CUT:
            return None
        parts = [part for course in self._courses for part in self._unknown_parts(course)]
        if not parts:
            return None
        cut = self._keys.middle(*max(parts, key=lambda part: self._keys.share(*part)))
        if cut is not None:
            self._asked.add(cut)
            self._cuts += 1
        return cut

    def _unknown_parts(self, course: _Course) -> Iterator[tuple[str, str | None]]:
        """Cut what is unknown of a lane where it is being asked for."""
        if not course.may_be_split:
            return
        low, end = course.listed_to, course.empty_after
        for cut in sorted(self._asked):
            if low < cut and (end is None or cut < end):
                yield low, cut
                low = cut
        if end is None or low < end:
            yield low, end

    def split(self, cut: str, first_key: str | None) -> int | None:
        """Make a lane of what a lane has left after ``cut``; ``first_key`` is what is there.

        Returns the number of the new lane, or None where there is none to make.
        """
        self._asked.discard(cut)
        course = self._course_at(cut)
        if course is None:
            return None
        lane = course.lane
        if first_key is None or (lane.until is not None and first_key > lane.until):
            if course.empty_after is None or cut < course.empty_after:
                course.empty_after = cut
            return None
        self._keys.add(first_key)
        number = len(self._courses)
        rest = _Course(Lane(cut, lane.until, unknown_after=cut), cut, course.empty_after)
        if rest.empty_after is not None and rest.empty_after < first_key:
            rest.empty_after = lane.until  # what was empty then is not any more
        self._courses.append(rest)
        course.lane = replace(lane, until=cut)
        course.empty_after = cut if course.empty_after is None else min(cut, course.empty_after)
        return number

    def _course_at(self, cut: str) -> _Course | None:
        """Find the lane that has yet to list what is after ``cut``."""
        for course in self._courses:
            until = course.lane.until
            if course.may_be_split and course.listed_to < cut and (until is None or cut < until):
                return course
        return None
