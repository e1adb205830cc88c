"""Splitting what is unknown: each key in one lane, few requests, and lanes of about one length."""

import random
from bisect import bisect_right
from dataclasses import dataclass, field
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core.segments.key_ranges import (
    KeyDistribution,
    as_json,
    from_json,
    gaps_between,
    is_within,
    joined_ranges,
)
from scanning.scan.lane_splitter import Lane, LaneSplitter
from tests.support.fakes import FakePage

PAGE = 20
PAGES = 200


def lanes_of(splitter: LaneSplitter) -> list[Lane]:
    return [splitter[number] for number in range(len(splitter))]


@dataclass
class Rounds:
    """Threads that list a bucket: each has an answer in each round, the server's latency."""

    keys: list[str]
    threads: int
    page_size: int = PAGE
    requests: int = 0
    rounds: int = 0
    splitter: LaneSplitter = field(default_factory=lambda: LaneSplitter([Lane("", None, "")]))
    # Per lane, what was listed of it.
    listed: dict[int, list[str]] = field(default_factory=dict)

    def run(self) -> "Rounds":
        listing = {0}
        first = self.page("")
        self.splitter.learn(self.keys[: self.page_size])
        self.take(0, first, listing)
        self.rounds = 1
        while listing:
            cuts: list[str] = []
            while len(listing) + len(cuts) < self.threads:
                cut = self.splitter.next_cut()
                if cut is None:
                    break
                cuts.append(cut)
            for number in sorted(listing):
                self.take(number, self.page(self.splitter.listed_to(number)), listing)
            for cut in cuts:
                page = self.page(cut)
                found = self.splitter.split(cut, page[0] if page else None)
                if found is not None:
                    listing.add(found)
                    self.take(found, page, listing)
            self.rounds += 1
        return self

    def page(self, after: str) -> list[str]:
        self.requests += 1
        start = bisect_right(self.keys, after)
        return self.keys[start : start + self.page_size]

    def take(self, number: int, keys: list[str], listing: set[int]) -> None:
        self.listed.setdefault(number, []).extend(keys)
        last = keys[-1] if keys else ""
        is_truncated = bool(keys) and last != self.keys[-1]
        if not self.splitter.take_page(number, FakePage(b"", last, is_truncated)):
            listing.discard(number)

    def told(self) -> list[str]:
        """List the keys that are in their lane."""
        return [
            key
            for number, lane in enumerate(lanes_of(self.splitter))
            for key in self.listed[number]
            if lane.after < key and (lane.until is None or key <= lane.until)
        ]


def made(count: int = PAGE * PAGES) -> dict[str, list[str]]:
    some = random.Random(5)  # noqa: S311
    digests = [md5(str(n).encode()).hexdigest() for n in range(count)]  # noqa: S324
    times = [(n // 12, n % 12 + 1, some.randrange(28) + 1) for n in range(count)]
    return {
        "digests": digests,
        "digests-behind-a-long-prefix": ["data/eu/production/objects/" + key for key in digests],
        "counters": [f"obj-{n:010d}" for n in range(count)],
        "counters-without-zeros": [f"file{n}.txt" for n in range(count)],
        "days": [
            f"photos/2024/01/{n // 1600 + 1:02d}/IMG-{n % 1600:05d}.jpg" for n in range(count)
        ],
        "months": [f"log/{2020 + n // 1000}/{m:02d}/{d:02d}/{some.random()}" for n, m, d in times],
        "utf-8": ["фото/" + "".join(some.choices("абвгдежзиклмн", k=8)) for _ in range(count)],
        "symbols": [
            "".join(some.choices("\U0001f600\U0001f601\U0001f602", k=12)) for _ in range(count)
        ],
        "all-in-one-place": ["a", "m/x/", "z/1", "z/2", *("m/x/" + key for key in digests)],
    }


KINDS = made()


@pytest.mark.parametrize("kind", KINDS)
def test_ten_lanes_take_turns_of_about_one_length(kind):
    keys = sorted(set(KINDS[kind]))
    pages = -(-len(keys) // PAGE)
    run = Rounds(keys, threads=10).run()
    assert sorted(run.told()) == keys
    assert run.rounds <= pages / 6
    assert run.requests <= pages * 1.25


CHARS = st.sampled_from("019aby/-é\ud7ff\U0001f600\U0010ffff")
KEYS = st.lists(st.text(CHARS, min_size=1, max_size=5), unique=True, max_size=80).map(sorted)


@given(KEYS, st.integers(1, 6), st.integers(1, 6))
def test_whatever_the_keys_each_is_in_one_lane_and_the_requests_are_bounded(
    keys, threads, page_size
):
    run = Rounds(keys, threads, page_size).run()
    assert sorted(run.told()) == keys
    lanes = sorted(lanes_of(run.splitter), key=lambda lane: lane.after)
    assert [lane.until for lane in lanes] == [*(lane.after for lane in lanes[1:]), None]
    pages = max(1, -(-len(keys) // page_size))
    assert run.requests <= (pages if threads == 1 or pages == 1 else 2 * pages + 4)


def test_a_lane_is_split_only_behind_what_is_known_of_it():
    splitter = LaneSplitter([Lane("", "f"), Lane("f", None, unknown_after="k")])
    splitter.learn(KINDS["digests"][:PAGE])
    splitter.take_page(0, FakePage(b"", "b", is_truncated=True))
    splitter.take_page(1, FakePage(b"", "k", is_truncated=True))
    assert splitter.next_cut() is None
    splitter.take_page(1, FakePage(b"", "l", is_truncated=True))
    cut = splitter.next_cut()
    assert cut is not None
    assert cut > "l"
    assert splitter.split(cut, cut + "x") == 2
    assert lanes_of(splitter) == [Lane("", "f"), Lane("f", cut, "k"), Lane(cut, None, cut)]


def test_what_was_listed_meanwhile_is_not_split_any_more():
    splitter = LaneSplitter([Lane("", None, "")])
    splitter.learn(["1", "2", "3"])
    splitter.take_page(0, FakePage(b"", "3", is_truncated=True))
    cut = splitter.next_cut()
    assert cut is not None
    splitter.take_page(0, FakePage(b"", cut + "5", is_truncated=True))
    assert splitter.split(cut, cut + "1") is None
    assert lanes_of(splitter) == [Lane("", None, "")]


# --- key ranges


@given(KEYS, st.text(CHARS, max_size=4), st.text(CHARS, max_size=4) | st.none())
def test_a_middle_is_between_two_keys_whatever_was_seen(seen, low, high):
    keys = KeyDistribution()
    for key in seen:
        keys.add(key)
    middle = keys.middle(low, high)
    if middle is not None:
        assert low < middle
        assert high is None or middle < high
        assert keys.share(low, middle) <= keys.share(low, high)


@pytest.mark.parametrize(
    ("seen", "low", "high", "middle"),
    [
        pytest.param(list("048c"), "0", None, "6", id="halves-what-is-likely"),
        pytest.param(["p/0", "p/4", "p/8", "p/c"], "p/0", "p/c", "p/5", id="behind-a-prefix"),
        pytest.param(["k5"], "k5", "k5", None, id="nothing-is-between"),
        pytest.param([], "a", None, None, id="nothing-is-known"),
    ],
)
def test_where_the_middle_is_guessed(seen, low, high, middle):
    keys = KeyDistribution()
    for key in seen:
        keys.add(key)
    assert keys.middle(low, high) == middle


def test_a_common_prefix_is_halved_and_not_gone_through_place_by_place():
    """Nothing is behind the prefix: each answer that says so takes away half of what may be."""
    keys = KeyDistribution()
    prefix = "a-prefix-of-thirty-two-characters/"
    for number in range(1000):
        keys.add(f"{prefix}{number:06d}")
    low, high, answers = f"{prefix}000999", None, 0
    while (cut := keys.middle(low, high)) and not cut.startswith(prefix):
        high, answers = cut, answers + 1
    assert answers <= 7


@pytest.mark.parametrize(
    ("covered", "joined", "gaps"),
    [
        ([("", "")], [("", "")], [("", None)]),
        ([("", "c"), ("c", "f")], [("", "f")], [("f", None)]),
        ([("m", "p"), ("", "c")], [("", "c"), ("m", "p")], [("c", "m"), ("p", None)]),
        ([("", "d"), ("b", "c"), ("x", "y")], [("", "d"), ("x", "y")], [("d", "x"), ("y", None)]),
    ],
)
def test_ranges_that_touch_are_one_and_gaps_are_what_is_between(covered, joined, gaps):
    assert joined_ranges(covered) == joined
    assert gaps_between(joined) == gaps


def test_ranges_are_written_down_for_one_commit():
    ranges = (("b", "c"), ("e\U0001f600", "g"))
    assert from_json(as_json(ranges, 7), 7) == ranges
    assert from_json(as_json(ranges, 7), 8) == ()
    assert from_json(as_json((), 7), 7) == ()
    assert [is_within(key, ranges) for key in ("b", "bb", "c", "d", "f", "g")] == [
        *(False, True, True, False, True, True)
    ]
