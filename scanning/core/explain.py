"""Explain what the next scan would find of one key, and why: in sentences for people.

The rules themselves stand elsewhere (`core/changes.py`, `scan/`); here they are asked of a single
key. `tests/inspection/test_explain.py` compares the explanations with what scans then do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from scanning.core.changes import (
    RECENT_S,
    Silence,
    announce_cutoff,
    classify,
    classify_older,
    is_moved_time,
    is_recent,
    silences,
    without_moved_time,
)
from scanning.core.holds import had_second_look
from scanning.core.listing.body import MOST_KEY_BYTES
from scanning.core.segments.key_ranges import is_within
from scanning.core.texts import watch_and_bucket
from scanning.core.types import EventType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scanning.core.schedule import PollingIntervals
    from scanning.core.types import BucketConfig, ObjectState

# A bucket that is due for longer than this is not only waiting for its turn.
_LONG_DUE_S = 120.0


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of a key.

    ``is_missing``: the last listing that came to the key did not show it. ``older`` is an older
    monitor's state, which counts until the first scan is complete. ``is_covered``: a pass over the
    bucket is unfinished, and past the key. ``held_since``: a mass deletion waits to be confirmed.
    ``older_scan_at``: when the older monitor last scanned the bucket. ``began``: when the
    unfinished pass began. ``moved_to``: the time that the last listing of the key showed, if only
    that differed. ``held_moved_since``: a storm of moved times waits for a choice; ``takes_times``:
    somebody chose to take the times silently. ``objects`` are known of the whole bucket.
    """

    state: ObjectState | None = None
    is_missing: bool = False
    older: ObjectState | None = None
    is_first: bool = False
    older_scan_at: float | None = None
    is_covered: bool = False
    began: float | None = None
    held_since: float | None = None
    moved_to: float | None = None
    held_moved_since: float | None = None
    takes_times: bool = False
    objects: int = 0


@dataclass(frozen=True, slots=True)
class LookedAt:
    """When a bucket's last look began, and the ``ranges`` that it listed.

    Each holds the keys after its first up to its second one; "" is before all, None behind all.
    """

    at: float
    ranges: tuple[tuple[str, str | None], ...] = ()

    def covers(self, key: str) -> bool:
        return is_within(key, self.ranges)


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """A bucket's place in the schedule, and its last scans; times are epoch seconds.

    ``last_pass_at`` is when the last complete pass began, ``pass_due`` when the next one is due
    where the bucket is due sooner for a look. ``quiet_s``: for how long nothing had changed.
    """

    is_managed: bool = True
    is_clearing: bool = False
    is_running: bool = False
    due_at: float | None = None
    error: str = ""
    held_missing: int = 0
    held_moved: int = 0
    queue_length: int = 0
    last_pass_at: float | None = None
    last_look: LookedAt | None = None
    pass_due: float | None = None
    quiet_s: float | None = None


class Listed(NamedTuple):
    """When the scan began that listed the range of a key last, and of which kind it was."""

    at: float
    by: Literal["pass", "look"]


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """Everything that counts for one key.

    ``problem`` says why the listing could not be asked: ``listed`` means nothing then; ``damage``
    why what is stored cannot be used: nothing is in ``known`` then. ``probe_s``: the bucket is
    probed so often, 0 for never; without totals it is looked at as often.
    """

    bucket: BucketConfig
    key: str
    now: float
    known: Known
    schedule: ScheduleStatus
    listed: ObjectState | None
    problem: str = ""
    damage: str = ""
    queue_high_water: int = 1_000_000
    second_look_s: float = 0.0
    baseline_margin_s: float = RECENT_S
    intervals: PollingIntervals | None = None
    probe_s: float = 0.0
    has_totals: bool = True
    most_objects: int = 0

    @property
    def is_held(self) -> bool:
        """Tell whether the bucket's deletions wait for somebody, in the next scan too."""
        return self._holds(self.known.held_since)

    @property
    def is_storm_held(self) -> bool:
        """Tell whether the bucket's moved times wait for somebody, in the next scan too."""
        return self._holds(self.known.held_moved_since)

    @property
    def is_only_moved(self) -> bool:
        """Tell whether the listing shows what is known of the key, but for another time."""
        state = self.known.state
        if state is None or self.listed is None or (self.bucket.trust_etags and state.etag):
            return False
        is_moved = is_moved_time(state[:3], self.listed[:3])
        return is_moved and state.last_modified != self.listed.last_modified

    @property
    def is_noted(self) -> bool:
        """Tell whether the last listing of the key showed the same time as this one."""
        return self.listed is not None and self.known.moved_to == self.listed.last_modified

    def _holds(self, since: float | None) -> bool:
        return since is not None and not had_second_look(
            since, now=self.now, second_look_s=self.second_look_s
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of one key, what a listing shows now, and what the next scan would find.

    ``event`` is the event that the next scan would find, None if none; ``announced`` says whether
    it would be put into the queue; ``reasons`` are sentences for people, in order. ``problem`` says
    why nobody can tell: the bucket could not be listed, or a part of what is known of it is lost;
    "" if there is none. The problem is the first of the reasons too. ``bucket_name`` is S3's,
    "" where it is the watch's. ``last_listed``: the key's range; None if no scan came to it.
    ``pass_due`` is when the next pass is due, None if it is not scheduled.
    """

    bucket: str
    key: str
    stored: ObjectState | None
    listed: ObjectState | None
    event: EventType | None
    announced: bool
    reasons: tuple[str, ...]
    problem: str = ""
    bucket_name: str = ""
    last_listed: Listed | None = None
    pass_due: float | None = None

    @property
    def title(self) -> str:
        return watch_and_bucket(self.bucket, self.bucket_name or self.bucket)


def why_impossible(key: str) -> str:
    """Say why no object can have this key; "" if one can."""
    if not key:
        return "A key has at least one character."
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        return "Keys are UTF-8, and this one is not."
    if length > MOST_KEY_BYTES:
        return f"No key is longer than {MOST_KEY_BYTES} bytes, and this one has {length}."
    return ""


def why_outside(bucket: BucketConfig, key: str) -> str:
    """Say why the bucket's listings can never show this key; "" if they can."""
    if key.startswith(bucket.prefix):
        return why_impossible(key)
    return (
        f'The key does not begin with the bucket\'s prefix "{bucket.prefix}": what is outside it '
        "is neither listed nor remembered."
    )


def explain(facts: KeyFacts) -> Explanation:
    """Say what the next scan would find of the key, and whether and why it would announce that."""
    event, reasons = _find_event(facts)
    announced = False
    if event is not None:
        never = list(_why_never(facts.bucket, facts.key, event))
        later = list(_why_not_yet(facts, event))
        announced = not never and not later
        reasons += never or later or [f"The next scan announces it as {event}."]
        if facts.is_only_moved and announced:
            reasons.append(
                "Only the time differs: the update comes when the whole bucket is listed, and is "
                "held if most of the bucket's objects have moved times."
            )
    return Explanation(
        bucket=facts.bucket.name,
        key=facts.key,
        stored=facts.known.state or facts.known.older,
        listed=None if facts.problem else facts.listed,
        event=event,
        announced=announced,
        reasons=(*reasons, *_describe_last_listing(facts), *_describe_next_scan(facts)),
        problem=facts.damage or facts.problem,
        bucket_name=facts.bucket.bucket_name,
        last_listed=_find_last_listing(facts),
        pass_due=facts.schedule.pass_due or facts.schedule.due_at,
    )


def _find_event(facts: KeyFacts) -> tuple[EventType | None, list[str]]:
    """Find the event, None if there is none, and say why."""
    if nowhere := why_outside(facts.bucket, facts.key):
        return None, [nowhere]
    if facts.damage:
        return None, [
            f"What is stored cannot be used: {facts.damage}",
            "Until that is mended the bucket is not scanned, and nothing of it is announced.",
        ]
    if facts.problem:
        return None, [
            f"The bucket could not be listed: {facts.problem}",
            "While its listings fail, nothing of it is announced, and nothing counts as deleted.",
        ]
    if facts.listed is None:
        return _explain_absence(facts.known)
    return _compare(facts, facts.listed)


def _explain_absence(known: Known) -> tuple[EventType | None, list[str]]:
    if known.state is None:
        return None, ["The listing does not show the key, and nothing is known of it."]
    reason = "The key is known, and the listing does not show it any more."
    if known.is_missing:
        reason = "The key is known, and a scan has already missed it in the listing."
    when = (
        "It counts as deleted once a scan has listed the whole bucket without it, and what "
        "DELETIONS_CONFIRM names says so too."
    )
    return EventType.DELETED, [reason, when]


def _compare(facts: KeyFacts, listed: ObjectState) -> tuple[EventType | None, list[str]]:
    known, bucket = facts.known, facts.bucket
    previous = known.state or known.older
    if previous is not None and bucket.trust_etags:
        listed = without_moved_time(previous, listed)
    compare = classify if known.state else classify_older
    event = compare(previous, listed, now=facts.now)
    if event is None:
        return None, ["Nothing differs: the listing shows what is known."]
    if facts.is_only_moved and facts.is_noted and known.takes_times:
        return None, [
            "The listing shows another time than known, and the same ETag and size.",
            "Somebody chose to take the new times silently: the next scan does so.",
        ]
    if previous is not None:
        whose = "known" if known.state else "what the older monitor knew"
        return event, list(_differences(previous, listed, whose))
    reasons = [_why_new(listed, facts.now)]
    # A pass that is past the key comes to it only in the next one, which is not the first.
    if known.is_first and not known.is_covered:
        began = facts.now if known.began is None else known.began
        cutoff = announce_cutoff(
            bucket,
            is_first=True,
            began=began,
            older_scan_at=known.older_scan_at,
            margin_s=facts.baseline_margin_s,
        )
        if not cutoff.is_news(listed):
            return None, [
                "Nothing is known of the key, and no scan of the bucket was complete so far.",
                "The bucket's first scan is a baseline: it only remembers what was there before.",
            ]
        reasons.append(_why_announced_first(bucket, listed, began, known.older_scan_at))
    return event, reasons


def _why_announced_first(
    bucket: BucketConfig, listed: ObjectState, began: float, older_scan_at: float | None
) -> str:
    if bucket.first_scan != "baseline":
        return "It is the bucket's first scan, which announces everything in it."
    if listed.last_modified > began:
        return "The bucket's first scan is a baseline, but this came after it had begun."
    if not bucket.taken_over or older_scan_at is None:
        return (
            "The bucket's first scan is a baseline, but this is a multipart upload that may have "
            "been under way when it began."
        )
    return (
        "The bucket's first scan is a baseline, but this came after the older monitor's last "
        "scan or within a day before it."
    )


def _why_new(listed: ObjectState, now: float) -> str:
    hours = RECENT_S // 3600
    if is_recent(listed.last_modified, now):
        return f"Nothing is known of the key, and it was modified within {hours} hours: created."
    return (
        f"Nothing is known of the key, and it was last modified more than {hours} hours ago: "
        "that is detected, not created."
    )


def _differences(known: ObjectState, listed: ObjectState, whose: str) -> Iterator[str]:
    if listed.etag != known.etag:
        yield f"The listing shows another ETag than {whose}."
    if listed.last_modified > known.last_modified:
        yield f"The listing shows a later time than {whose}."
    if listed.last_modified < known.last_modified:
        yield (
            f"The listing shows an earlier time than {whose}, as when an older version was "
            "restored: that is an update too."
        )
    if listed.size != known.size and (listed.etag, listed.last_modified) == known[:2]:
        yield f"The listing shows another size than {whose}."


def _why_never(bucket: BucketConfig, key: str, event: EventType) -> Iterator[str]:
    """Say why a change is remembered and not announced, neither now nor later."""
    for silence in silences(bucket, event, key):
        match silence:
            case Silence.NOTIFICATIONS_OFF:
                yield (
                    "The bucket's notifications are off: the change is remembered, and is not "
                    "announced later either."
                )
            case Silence.OTHER_EVENTS:
                wanted = ", ".join(kind for kind in EventType if kind in bucket.events)
                yield (f"The bucket does not announce {event}; it announces {wanted or 'nothing'}.")
            case Silence.OTHER_SUFFIX:
                yield (
                    f'The key does not end with "{bucket.suffix}", and the bucket announces only '
                    "keys that do."
                )


def _why_not_yet(facts: KeyFacts, event: EventType) -> Iterator[str]:
    """Say what keeps an event back for now."""
    schedule = facts.schedule
    yield from _why_not_scanned(facts.bucket, schedule)
    if schedule.queue_length >= facts.queue_high_water:
        yield (
            f"The queue holds {schedule.queue_length} notifications, and scanning pauses from "
            f"{facts.queue_high_water} on (QUEUE_HIGH_WATER): it goes on when consumers have read "
            "some."
        )
    if facts.known.state is None and 0 < facts.most_objects <= facts.known.objects:
        yield (
            f"The bucket has {facts.known.objects:,} known objects, and may have "
            f"{facts.most_objects:,} (SCAN_MOST_OBJECTS, or its own limit): new ones are left out "
            "until there is room."
        )
    if event is EventType.DELETED:
        if facts.is_held:
            yield (
                f"A mass deletion is held: {schedule.held_missing} known objects are missing. "
                "Somebody has to confirm that they were deleted; until then, no deletion is "
                "announced."
            )
    elif facts.is_only_moved and facts.is_storm_held:
        yield (
            f"A storm of moved times is held: {schedule.held_moved} known objects have another "
            "time, and the ETag and size that are known. Somebody has to choose whether they are "
            "updates; until then, none of which only the time differs is announced."
        )
    elif facts.known.is_covered and not (facts.is_only_moved and facts.is_noted):
        yield (
            "A pass over the bucket is unfinished, and was past this key already: the pass after "
            "it finds the change."
        )


def _why_not_scanned(bucket: BucketConfig, schedule: ScheduleStatus) -> Iterator[str]:
    if not schedule.is_managed:
        yield (
            "The bucket's configuration in Redis is not bucketwatch's own, so it is not scanned "
            "(manage.py importbuckets takes it over)."
        )
    elif schedule.is_clearing:
        yield "The bucket was removed, and what was known of it is still being deleted."
    elif not bucket.active:
        yield "The bucket is paused: it is not scanned until somebody lets it go on."


def _find_last_listing(facts: KeyFacts) -> Listed | None:
    if why_outside(facts.bucket, facts.key):
        return None
    known, schedule = facts.known, facts.schedule
    found = []
    if schedule.last_pass_at is not None:
        found.append(Listed(schedule.last_pass_at, "pass"))
    if known.is_covered and known.began is not None:
        found.append(Listed(known.began, "pass"))
    if schedule.last_look is not None and schedule.last_look.covers(facts.key):
        found.append(Listed(schedule.last_look.at, "look"))
    return max(found, default=None)


def _describe_last_listing(facts: KeyFacts) -> Iterator[str]:
    if why_outside(facts.bucket, facts.key):
        return
    listed = _find_last_listing(facts)
    if listed is None:
        yield "No scan has listed the key's range of the bucket yet."
        return
    ago_s = max(0.0, facts.now - listed.at)
    if listed.by == "look":
        yield f"The key's range was last listed by a look, which began {ago_s:.0f} s ago."
    elif facts.known.is_covered and listed.at == facts.known.began:
        yield f"The pass under way has listed the key's range; it began {ago_s:.0f} s ago."
    else:
        yield f"The key's range was last listed by the pass that began {ago_s:.0f} s ago."


def _describe_intervals(facts: KeyFacts) -> Iterator[str]:
    intervals, quiet_s = facts.intervals, facts.schedule.quiet_s
    if intervals is None or not intervals.may_grow or quiet_s is None:
        return
    yield (
        f"Passes are {intervals.choose(quiet_s):.0f} s apart now, and up to "
        f"{intervals.longest_s:.0f} s while nothing changes; nothing had for "
        f"{max(0.0, quiet_s):.0f} s when the last one began."
    )


def _describe_probes(facts: KeyFacts) -> Iterator[str]:
    if facts.probe_s and facts.has_totals:
        yield (
            f"The bucket's totals are asked for every {facts.probe_s:.0f} s, and a look follows "
            "where they have moved."
        )
    elif facts.probe_s:
        yield f"A look follows every {facts.probe_s:.0f} s: at what changed lately."


def _describe_next_scan(facts: KeyFacts) -> Iterator[str]:
    schedule = facts.schedule
    if any(_why_not_scanned(facts.bucket, schedule)):
        return
    if schedule.error:
        yield f"The last scan failed: {schedule.error}"
    if schedule.is_running:
        yield "The bucket is being scanned now."
    elif schedule.due_at is None:
        yield "The schedule does not know the bucket yet: does a monitor run?"
    elif schedule.pass_due is not None and schedule.pass_due > facts.now:
        pass_s = schedule.pass_due - facts.now
        yield "A look is due now: at what hints named, and where something changed lately."
        yield f"The next pass is due in {pass_s:.0f} s."
    elif schedule.due_at > facts.now:
        yield f"The next pass is due in {schedule.due_at - facts.now:.0f} s."
    elif (late_s := facts.now - schedule.due_at) > _LONG_DUE_S:
        yield (
            f"A scan has been due for {late_s:.0f} s: do workers run, and does "
            "the bucket's region have enough slots?"
        )
    else:
        yield "A scan is due now."
    yield from _describe_intervals(facts)
    yield from _describe_probes(facts)
