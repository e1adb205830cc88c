"""Judges what was announced by what really happened. Pure.

Of each key, the notifications have to be a chain: the first one finds nothing known, each later one
starts from the state that the one before it announced, and the last one ends in what is there now.
Every announced state was there at some time, in this order. Several changes between two looks are
one notification, so states may be left out, but never invented.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.chaos.model import Version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from tests.chaos.model import Place, State

Notification: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that was promised and does not hold, with all that is known of the key."""

    place: Place
    says: str
    history: Sequence[State]
    announced: Sequence[Notification]

    def __str__(self) -> str:
        bucket, key = self.place
        lines = [f"{bucket} {key!r}: {self.says}", *(f"    was {state}" for state in self.history)]
        return "\n".join([*lines, *(f"    said {_brief(said)}" for said in self.announced)])


@dataclass(slots=True)
class Verdict:
    """What was missed, said twice, said to be deleted and was there, and what else is wrong."""

    lost: list[Violation] = field(default_factory=list)
    duplicated: list[Violation] = field(default_factory=list)
    false: list[Violation] = field(default_factory=list)
    wrong: list[Violation] = field(default_factory=list)

    @property
    def violations(self) -> list[Violation]:
        return [*self.lost, *self.duplicated, *self.false, *self.wrong]


def judge(
    announced: Iterable[Notification],
    histories: Mapping[Place, Sequence[State]],
    once: Collection[Place],
) -> Verdict:
    """``announced`` in the order of the queue; ``histories`` only of keys that are watched."""
    verdict = Verdict()
    by_place: dict[Place, list[Notification]] = defaultdict(list)
    ids: dict[str, Place] = {}
    for said in announced:
        place = said["bucket"], said["key"]
        by_place[place].append(said)
        if said["event_id"] in ids:
            verdict.duplicated.append(
                _violation(place, f"event_id {said['event_id']} again", histories, by_place)
            )
        ids[said["event_id"]] = place
    for place in sorted(histories.keys() | by_place.keys()):
        _judge_key(place, by_place[place], histories.get(place, ()), verdict)
        if place in once and len(by_place[place]) > 1:
            verdict.duplicated.append(
                _violation(place, "was written once, announced often", histories, by_place)
            )
    return verdict


def _judge_key(
    place: Place, announced: Sequence[Notification], history: Sequence[State], verdict: Verdict
) -> None:
    def note(where: list[Violation], says: str) -> None:
        where.append(Violation(place, says, history, announced))

    known: State = None
    at = -1  # which state of the history ``known`` is; -1 is before the first
    for said in announced:
        before, after = previous(said), current(said)
        if problem := _misfit(said):
            note(verdict.wrong, problem)
        if before != known:
            where = verdict.duplicated if after == known else verdict.lost
            note(where, f"{said['event_id']} starts from {before}, but {known} was announced")
        found = _next(history, after, at)
        if found is None:
            where = verdict.false if after is None else verdict.wrong
            note(where, f"{said['event_id']} announces what was not there then: {after}")
        known, at = after, at if found is None else found
    if known != (history[-1] if history else None):
        note(verdict.lost, f"{known} was announced last, which is not the end")
    orders = [said["sequencer"] for said in announced]
    if any(earlier >= later for earlier, later in pairwise(orders)):
        note(verdict.wrong, "the sequencers do not sort its notifications")


def _next(history: Sequence[State], state: State, after: int) -> int | None:
    """Where in the history a state comes next."""
    later = range(after + 1, len(history))
    return next((n for n in later if history[n] == state), None)


def _misfit(said: Notification) -> str | None:
    """What a notification says about itself that cannot be."""
    kind, before = said["event_type"], previous(said)
    if (before is None) != (kind in {"created", "detected"}):
        return f"{kind} with previous {before}"
    if kind == "deleted" and version(said) != before:
        return f"deleted says {version(said)} instead of what was known: {before}"
    if said["metadata"] and said["metadata"] != {"etag": said["etag"]}:
        return f"metadata of another version: {said['metadata']}"
    return None


def version(said: Mapping[str, Any]) -> Version:
    return Version(said["etag"], round(said["last_modified"] * 1000), said["size"])


def timeless(said: Notification) -> Notification:
    """Leave out times, which nobody can tell of a server whose clocks differ."""
    told = said | {"last_modified": 0.0}
    if "previous" in said:
        told["previous"] = said["previous"] | {"last_modified": 0.0}
    return told


def previous(said: Notification) -> State:
    return version(said["previous"]) if "previous" in said else None


def current(said: Notification) -> State:
    return None if said["event_type"] == "deleted" else version(said)


def _violation(
    place: Place,
    says: str,
    histories: Mapping[Place, Sequence[State]],
    announced: Mapping[Place, Sequence[Notification]],
) -> Violation:
    return Violation(place, says, histories.get(place, ()), announced[place])


def _brief(said: Notification) -> str:
    kept = ("event_type", "event_id", "sequencer", "etag", "last_modified", "detection_time")
    return json.dumps({name: said[name] for name in (*kept, "previous") if name in said})


# --- what a consumer saw that read all the time


@dataclass(frozen=True, slots=True)
class Seen:
    """``repeated`` came more than once, and were dropped.

    ``forgotten`` are in Redis no more, since a failover lost the commits that had announced them.
    """

    verdict: Verdict
    repeated: int
    forgotten: int


def judge_consumer(
    seen: Sequence[Notification],
    announced: Sequence[Notification],
    histories: Mapping[Place, Sequence[State]],
    once: Collection[Place],
) -> Seen:
    """``seen`` in the order in which one consumer was given them, repeated ones included.

    Where commits that had been seen were lost, the change is found again, from the state that was
    known before it: with the same id if the object has not changed since, and then it is dropped;
    with another id if it has, and then two notifications start from the same state. So keys with
    something forgotten are judged by less: nothing is missing, and the last one is the end.
    """
    first: dict[str, Notification] = {}
    for said in seen:
        first.setdefault(said["event_id"], said)
    kept = {said["event_id"] for said in announced}
    torn = {(s["bucket"], s["key"]) for id_, s in first.items() if id_ not in kept}
    whole = [said for said in first.values() if (said["bucket"], said["key"]) not in torn]
    verdict = judge(
        whole,
        {place: states for place, states in histories.items() if place not in torn},
        once,
    )
    for place in torn:
        told = [s for s in first.values() if (s["bucket"], s["key"]) == place]
        missing = [s for s in announced if (s["bucket"], s["key"]) == place]
        missing = [s for s in missing if s["event_id"] not in first]
        last = max(told, key=lambda said: str(said["sequencer"]))
        if missing or current(last) != histories[place][-1]:
            says = "a consumer that read during a failover does not know its end"
            verdict.lost.append(Violation(place, says, histories[place], told))
    return Seen(verdict, repeated=len(seen) - len(first), forgotten=len(first.keys() - kept))
