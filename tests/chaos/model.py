"""Buckets that change as a seed says, and the memory of every state that every key ever had."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from tests.chaos.s3_objects import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Place: TypeAlias = tuple[str, str]  # bucket and key

DAY_MS: Final = 86_400_000
# What has ever broken somebody's listing; two numbers make each of them one of many.
PATTERNS: Final = (
    "photos/2025/{:02}/IMG-{}.jpg",
    "photos/2026/{:02}/IMG-{}.jpg",
    "{}/{}",
    "a b/{} + {}.mp4",
    "%41%2F{}/a%20b{}",
    "ümläut/{}-ö{}",
    "u\u0308mla\u0308ut/{}-{}",
    "😀/{}-{}",
    "&lt;{}&amp;{}>'\"`",
    "new\nline {}\ttab {}",
    "\x01{}\x1f{}",
    "//{}//{}/",
    "\uffee{}\ufffe{}",
    "~{}*[{}]?",
    "long/" + 240 * "é" + "/{}/{}",
)
ONCE: Final = "once/{:02}/{}"


class Version(NamedTuple):
    """One state of an object; two versions of a key never have etag and time in common."""

    etag: str
    modified_ms: int
    size: int


State: TypeAlias = Version | None


@dataclass(frozen=True, slots=True)
class ModelBucket:
    """``endpoint`` is a number; ``prefix`` is what is watched of the bucket.

    ``probe_s``: how often its totals are asked for, or it is looked at where there are none.
    ``emptied``: now and then everything in it is deleted, or gets another time, at once. ``late``:
    watched from some time on, in a region of its own. ``trusts_etags``: a time alone is no change,
    so every version has an ETag of its own.
    """

    name: str
    endpoint: int
    objects: int
    prefix: str = ""
    metadata: bool = True
    interval_s: int = 1
    probe_s: int | None = None
    emptied: bool = False
    late: bool = False
    trusts_etags: bool = False


class _Keys:
    """Some keys of a bucket: one of them by chance, in the same order in every run."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._keys))

    def add(self, key: str) -> None:
        if key not in self._places:
            self._places[key] = len(self._keys)
            self._keys.append(key)

    def discard(self, key: str) -> None:
        place = self._places.pop(key, None)
        if place is None:
            return
        last = self._keys.pop()
        if last != key:
            self._keys[place], self._places[last] = last, place

    def any(self, dice: random.Random) -> str:
        return dice.choice(self._keys)


class World:
    """All buckets; ``histories`` has the states of each key in their order, None where it is gone.

    A key that is not in it never was.
    """

    def __init__(self, seed: int, buckets: Sequence[ModelBucket]) -> None:
        self.buckets = tuple(buckets)
        self.histories: defaultdict[Place, list[State]] = defaultdict(list)
        self.once: set[Place] = set()
        self._dice = random.Random(f"{seed} world")  # noqa: S311 - the same changes in every run
        self._there: dict[str, _Keys] = {bucket.name: _Keys() for bucket in buckets}
        self._gone: dict[str, _Keys] = {bucket.name: _Keys() for bucket in buckets}
        self._number = 0

    def begin(self, now_ms: int) -> list[Change]:
        """What is there at first."""
        return [
            change
            for bucket in self.buckets
            for _ in range(bucket.objects)
            for change in self._create(bucket, now_ms)
        ]

    def step(self, now_ms: int, *, changes: int) -> list[Change]:
        """Do what ``changes`` draws of lots say, somewhere."""
        return [
            change
            for bucket in self._dice.choices(self.buckets, k=changes)
            for change in self._lot(bucket)(bucket, now_ms)
        ]

    def listed(self, bucket: str) -> dict[str, Version]:
        """What is there now."""
        return {
            key: states[-1]
            for (name, key), states in self.histories.items()
            if name == bucket and states[-1] is not None
        }

    # --- what can happen

    def _lot(self, bucket: ModelBucket) -> Callable[[ModelBucket, int], list[Change]]:
        there, gone = self._there[bucket.name], self._gone[bucket.name]
        if len(there) < bucket.objects // 4:
            return self._create
        full = len(there) > bucket.objects * 5 // 4
        lots = {
            self._create: 5 if full else 30,
            self._create_once: 0 if bucket.emptied else 4,
            self._create_again: 6 if len(gone) else 0,
            self._overwrite: 30,
            self._overwrite_twice: 6,
            self._touch: 0 if bucket.trusts_etags else 6,
            self._touch_some: 0 if bucket.trusts_etags else 0.4,
            self._touch_all: 0.6 if bucket.emptied and not bucket.trusts_etags else 0,
            self._delete: 40 if full else 18,
            self._delete_some: 0.4,
            self._create_some: 0.4,
            self._delete_all: 0.3 if bucket.emptied else 0,
        }
        [lot] = self._dice.choices(list(lots), list(lots.values()))
        return lot

    def _create(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        self._number += 1
        pattern = self._dice.choice(PATTERNS)
        key = self._within(bucket, pattern.format(self._dice.randrange(12), self._number))
        return [self._put(bucket, key, self._new(self._some_time(now_ms)))]

    def _create_once(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        self._number += 1
        key = self._within(bucket, ONCE.format(self._dice.randrange(50), self._number))
        self.once.add((bucket.name, key))
        change = self._put(bucket, key, self._new(now_ms))
        self._there[bucket.name].discard(key)  # nothing more happens to it
        return [change]

    def _create_again(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        key = self._gone[bucket.name].any(self._dice)
        return [self._put(bucket, key, self._new(now_ms))]

    def _overwrite(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        key = self._there[bucket.name].any(self._dice)
        return [self._put(bucket, key, self._new(self._some_time(now_ms)))]

    def _overwrite_twice(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        """In one second, on a server that counts seconds."""
        key, second = self._there[bucket.name].any(self._dice), now_ms // 1000 * 1000
        return [self._put(bucket, key, self._new(second)) for _ in range(2)]

    def _touch(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        """The same bytes again."""
        return [self._move(bucket, self._there[bucket.name].any(self._dice), now_ms)]

    def _touch_some(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        keys = list(self._there[bucket.name])[:: self._dice.randrange(3, 20)]
        return [self._move(bucket, key, now_ms) for key in keys]

    def _touch_all(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        """A node whose clock, or whose memory of times, is another one."""
        moved_ms = now_ms - self._dice.randrange(DAY_MS)
        return [self._move(bucket, key, moved_ms) for key in self._there[bucket.name]]

    def _delete(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        return [self._remove(bucket, self._there[bucket.name].any(self._dice))]

    def _delete_some(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        """Everything that begins like one of the keys."""
        some = self._there[bucket.name].any(self._dice)
        start = some[: len(bucket.prefix) + 1 + self._dice.randrange(12)]
        keys = [key for key in self._there[bucket.name] if key.startswith(start)]
        return [self._remove(bucket, key) for key in keys[: bucket.objects // 3]]

    def _create_some(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        self._number += 1
        keys = [f"{self._number}/{n:03}" for n in range(self._dice.randrange(20, 250))]
        return [self._put(bucket, self._within(bucket, k), self._new(now_ms)) for k in keys]

    def _delete_all(self, bucket: ModelBucket, now_ms: int) -> list[Change]:
        return [self._remove(bucket, key) for key in self._there[bucket.name]]

    # --- how it is done

    def _within(self, bucket: ModelBucket, key: str) -> str:
        """A key under the bucket's prefix, but for a few that lie beside it."""
        return key if bucket.prefix and self._dice.random() < 0.1 else bucket.prefix + key

    def _some_time(self, now_ms: int) -> int:
        """Mostly now, sometimes long ago: copies and restored versions keep their times."""
        ago = self._dice.random()
        if ago < 0.1:
            return now_ms - self._dice.randrange(3 * DAY_MS)
        return now_ms // 1000 * 1000 if ago < 0.3 else now_ms

    def _new(self, modified_ms: int) -> Version:
        etag = f"{self._dice.getrandbits(128):032x}"
        kind = self._dice.random()
        if kind < 0.01:
            etag = ""  # a gateway forgot it
        elif kind < 0.1:
            etag += f"-{self._dice.randrange(1, 20)}"  # in parts
        return Version(etag, modified_ms, self._dice.randrange(10_000_000))

    def _move(self, bucket: ModelBucket, key: str, modified_ms: int) -> Change:
        """Give an object another time, and nothing else."""
        current = self.histories[bucket.name, key][-1]
        assert current is not None
        return self._put(bucket, key, current._replace(modified_ms=modified_ms))

    def _put(self, bucket: ModelBucket, key: str, version: Version) -> Change:
        if bucket.trusts_etags and not version.etag:
            version = version._replace(etag=f"{self._dice.getrandbits(128):032x}")
        states = self.histories[bucket.name, key]
        while any(state and state[:2] == version[:2] for state in states):
            version = version._replace(modified_ms=version.modified_ms + 1)
        states.append(version)
        self._there[bucket.name].add(key)
        self._gone[bucket.name].discard(key)
        return Change(bucket.name, key, *version)

    def _remove(self, bucket: ModelBucket, key: str) -> Change:
        self.histories[bucket.name, key].append(None)
        self._there[bucket.name].discard(key)
        self._gone[bucket.name].add(key)
        return Change(bucket.name, key, None)
