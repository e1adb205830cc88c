"""The oracle of `make chaos` sees what it is there to see, and nothing else."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.model import ModelBucket, Version, World
from tests.chaos.oracle import judge, judge_consumer

if TYPE_CHECKING:
    from tests.chaos.model import State
    from tests.chaos.oracle import Notification

PLACE = ("bucket", "key")
A, B, C = (Version(etag, 1_700_000_000_000 + n, n) for n, etag in enumerate("abc", start=1))


def said(before: State, after: State, *, order: int = 0, **changes: Any) -> Notification:
    """The notification of one change, as the product writes it."""
    shown = after or before
    assert shown is not None
    kind = "deleted" if after is None else "updated" if before else "created"
    message = {
        "bucket": "bucket",
        "key": "key",
        "event_type": kind,
        "event_id": f"{before} to {after}",
        "sequencer": f"{order:08}",
        "metadata": {},
        **_members(shown),
    }
    return message | ({"previous": _members(before)} if before else {}) | changes


def _members(version: Version) -> dict[str, Any]:
    return {
        "etag": version.etag,
        "last_modified": version.modified_ms / 1000,
        "size": version.size,
    }


def chain(*states: State) -> list[Notification]:
    """The notifications of these states, one after the other."""
    pairs = zip((None, *states), states, strict=False)
    return [said(*pair, order=n) for n, pair in enumerate(pairs)]


RIGHT = {
    "nothing was, nothing is said": ([], []),
    "every state is announced": ([A, B, None, C], chain(A, B, None, C)),
    "states between two looks are left out": ([A, B, None, A, C], chain(A, C)),
    "it came and went unseen": ([A, None], []),
    "it is there again after a deletion": ([A, None, B], chain(A, None, B)),
    "metadata of this version": ([A], [said(None, A, metadata={"etag": "a"})]),
}
WRONG = {
    "lost: the first": ([A], [], "lost"),
    "lost: the last": ([A, B], chain(A), "lost"),
    "lost: a deletion": ([A, None], chain(A), "lost"),
    "lost: one between": ([A, B, C], [said(None, A), said(B, C, order=1)], "lost"),
    "twice: the same event": ([A], [said(None, A), said(None, A, order=1)], "duplicated"),
    "twice: a deletion": ([A, None], [*chain(A, None), said(A, None, order=9)], "duplicated"),
    "wrong: never there": ([A], chain(B), "wrong"),
    "wrong: in the other order": ([A, B, A], [said(None, B), said(B, A, order=1)][::-1], "wrong"),
    "false: deleted, and is there": ([A], chain(A, None), "false"),
    "false: deleted, and is there again": ([A, None, A], chain(A, None, A, None), "false"),
    "wrong: a key that nobody watches": ([], chain(A), "wrong"),
    "wrong: the sequencers": ([A, B], [said(None, A, order=2), said(A, B, order=1)], "wrong"),
    "wrong: equal sequencers": ([A, B], [said(None, A), said(A, B)], "wrong"),
    "wrong: created from something": ([A], [said(None, A, event_type="updated")], "wrong"),
    "wrong: deleted something else": (
        [A, None],
        [said(None, A), said(A, None, order=1, **_members(B))],
        "wrong",
    ),
    "wrong: metadata of another": ([A], [said(None, A, metadata={"etag": "b"})], "wrong"),
}


@pytest.mark.parametrize(("history", "announced"), RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_not_found_wrong(history, announced):
    assert judge(announced, {PLACE: history}, set()).violations == []


@pytest.mark.parametrize(("history", "announced", "kind"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found(history, announced, kind):
    verdict = judge(announced, {PLACE: history} if history else {}, set())
    assert getattr(verdict, kind)


def test_what_was_written_once_is_announced_once():
    twice = [said(None, A), said(None, A, order=1, event_id="another")]
    assert judge(chain(A), {PLACE: [A]}, {PLACE}).violations == []
    found = judge(twice, {PLACE: [A]}, {PLACE}).duplicated
    assert "written once" in "".join(map(str, found))


def test_a_violation_tells_the_whole_story_of_its_key():
    [violation] = judge(chain(A), {PLACE: [A, B]}, set()).lost
    text = str(violation)
    assert "bucket 'key'" in text
    assert text.count("\n    was ") == 2
    assert text.count("\n    said ") == 1


# --- consumers


def test_a_consumer_may_be_given_the_same_twice():
    seen = [*chain(A, B), *chain(A, B)]
    found = judge_consumer(seen, chain(A, B), {PLACE: [A, B]}, set())
    assert (found.verdict.violations, found.repeated, found.forgotten) == ([], 2, 0)


def test_a_consumer_that_missed_something_is_found():
    found = judge_consumer(chain(A), chain(A, B), {PLACE: [A, B]}, set())
    assert found.verdict.lost


def test_a_commit_that_was_seen_and_then_lost_may_be_made_again_otherwise():
    """Redis forgot A to B; by the time of the next look it was C."""
    seen = [*chain(A, B), said(A, C, order=5)]
    found = judge_consumer(seen, [seen[0], seen[2]], {PLACE: [A, B, C]}, {PLACE})
    assert (found.verdict.violations, found.forgotten) == ([], 1)
    again = judge_consumer(seen[:2], seen[:1], {PLACE: [A, B, C]}, {PLACE})
    assert again.verdict.lost


# --- the model


def test_the_same_seed_changes_the_same_objects():
    def states(seed: int) -> dict[object, object]:
        world = World(seed, [ModelBucket("bucket", 0, 50, emptied=True)])
        world.begin(1_700_000_000_000)
        for step in range(200):
            world.step(1_700_000_000_000 + 100 * step, changes=5)
        return dict(world.histories)

    assert states(1) == states(1)
    assert states(1) != states(2)


def test_no_version_of_a_key_comes_back():
    """Or an event_id might be repeated, and rightly."""
    world = World(3, [ModelBucket("bucket", 0, 40, prefix="in/"), ModelBucket("other", 0, 30)])
    world.begin(1_700_000_000_000)
    for step in range(400):
        world.step(1_700_000_000_000 + step, changes=5)
    for states in world.histories.values():
        versions = [state[:2] for state in states if state]
        assert len(versions) == len(set(versions))
    assert all(len(world.histories[place]) == 1 for place in world.once)


def test_notifications_of_a_whole_world_are_a_chain_in_any_cut():
    world = World(4, [ModelBucket("bucket", 0, 60)])
    world.begin(1_700_000_000_000)
    for _ in range(100):
        world.step(1_700_000_000_000, changes=5)
    dice = random.Random(4)  # noqa: S311
    announced = [
        notification | {"key": key}
        for (_, key), states in world.histories.items()
        for notification in chain(*_some(states, dice))
    ]
    for number, notification in enumerate(announced):
        notification["event_id"] = str(number)
    assert judge(announced, world.histories, world.once).violations == []
    assert judge(announced[:-1], world.histories, world.once).violations


def _some(states: list[State], dice: random.Random) -> list[State]:
    """What a scanner sees that looks at some moments, and at the end."""
    seen: list[State] = [None]
    for state in [*(s for s in states[:-1] if dice.random() < 0.5), states[-1]]:
        if state != seen[-1]:
            seen.append(state)
    return seen[1:]
