"""What a scan needs of the world. Adapters implement these; `wiring.py` chooses them.

Every method raises only errors of `core/errors.py`. Times are epoch seconds, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from scanning.core.listing import Columns
    from scanning.core.matching import Page
    from scanning.core.segments import Entry, Piece
    from scanning.core.types import (
        BucketConfig,
        Claim,
        EventType,
        KeyPair,
        ObjectMetadata,
        ObjectState,
        ScanResult,
    )


class Storage(Protocol):
    """One bucket at its S3 endpoint."""

    def page(self, start_after: str, max_keys: int) -> Page:
        """The next keys after ``start_after``, in UTF-8 byte order, at most 1000: one answer.

        Only a page that says ``is_truncated`` false is the last. An answer that cannot be read
        raises instead of looking shorter than it was.
        """

    def rows(self, entries: bytes) -> Columns:
        """The rows in a page's ``entries``, or in a part of them, checked to be in order."""

    def head(self, key: str) -> ObjectMetadata | None:
        """Content type and user metadata of one object; None if it is gone."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an unfinished pass over a bucket has come; kept with every commit.

    ``began`` is when the pass began; everything up to ``after`` is covered; ``listed`` and
    ``appeared`` count objects so far. ``is_listed`` says that only deletions are left to commit.
    """

    began: float
    after: str = ""
    listed: int = 0
    appeared: int = 0
    is_listed: bool = False


@dataclass(frozen=True, slots=True)
class KnownState:
    """What is remembered of a bucket when a scan begins; ``entries`` in key order.

    ``commit`` is the number of the commit that wrote it last.
    ``is_first`` until the first pass over the bucket is complete. ``held_since`` is set while a
    mass deletion waits to be confirmed, ``released`` once somebody confirmed it.
    """

    entries: Sequence[Entry]
    progress: Progress | None
    is_first: bool
    held_since: float | None
    released: bool
    commit: int


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit writes: all of it or nothing.

    ``pieces`` are new or changed segments, ``removed`` the ids of those that are no more.
    ``notifications`` are JSON texts in key order; ``recent`` one JSON text for the stream of
    recent events, or "". ``strings`` are documented states to write, ``no_strings`` keys whose
    documented state must go.
    """

    number: int
    pieces: Sequence[Piece] = ()
    removed: Sequence[str] = ()
    notifications: Sequence[str] = ()
    recent: str = ""
    strings: Mapping[str, ObjectState] = field(default_factory=dict)
    no_strings: Sequence[str] = ()
    counted: Mapping[EventType, int] = field(default_factory=dict)
    progress: Progress | None = None


class StateStore(Protocol):
    """What is remembered of a bucket's objects, and the queue that is written with it."""

    def open(self, bucket: BucketConfig) -> KnownState:
        """Everything but the rows; one round trip."""

    def load(self, bucket: BucketConfig, segments: Sequence[str]) -> list[Columns]:
        """The rows of some segments, in the order asked; one round trip."""

    def older_states(self, bucket: BucketConfig, keys: Sequence[str]) -> list[ObjectState | None]:
        """The documented states that an older monitor left, in the order of ``keys``; one MGET."""

    def commit(self, claim: Claim, commit: Commit) -> None:
        """Write it all, or nothing; repeating the same number changes nothing.

        Raises LeaseLost, ConfigurationChanged, QueueFull, or CommitOutOfStep when the number does
        not follow the stored one.
        """


class Leases(Protocol):
    """Who scans what, and when it is due. A claim is a region's slot and a bucket's lock in one."""

    def claim_due(self, region: str, *, most: int, slots: int) -> list[Claim]:
        """Take up to ``most`` due buckets of a region while it runs fewer than ``slots`` scans."""

    def claim(self, bucket: BucketConfig, *, slots: int) -> Claim | None:
        """Take one bucket now, due or not; None while it is being scanned or its region is full."""

    def renew(self, claim: Claim) -> bool:
        """Keep the claim for another lease time; False if it is no longer ours."""

    def finish(self, claim: Claim, result: ScanResult, *, next_due: float | None) -> None:
        """Give the claim back, record how the scan ended and when the bucket is due again."""

    def release(self, claim: Claim) -> None:
        """Give a claim back unused: the bucket stays due, and nothing is recorded."""

    def next_due(self, region: str) -> float | None:
        """When the next bucket of a region that nobody is scanning is due; None without any."""


class Vault(Protocol):
    """Where S3 key pairs live, by vault prefix. Nothing secret is stored anywhere else."""

    def read_all(self) -> Mapping[str, KeyPair]:
        """Every complete key pair. Raises VaultUnavailable."""

    def write(self, prefix: str, pair: KeyPair) -> None:
        """Create or replace one key pair and verify that it can be read back."""

    def delete(self, prefix: str) -> None:
        """Forget one key pair; nothing happens if there is none."""

    def write_secret(self, name: str, value: str) -> None:
        """Create or replace one entry that is not half of a key pair, and verify it."""

    def delete_secret(self, name: str) -> None:
        """Forget one entry; nothing happens if there is none."""

    def names(self) -> frozenset[str]:
        """The names of all entries, halves of key pairs included."""

    def read_secrets(self, names: Collection[str]) -> Mapping[str, str]:
        """The values of some entries; those that are not there are left out."""

    def write_many(self, entries: Mapping[str, str]) -> None:
        """Create or replace entries by name, and verify them. A failure may leave some written."""
