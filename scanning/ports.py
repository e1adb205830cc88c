"""What a scan needs of the world. Adapters implement these; `wiring.py` chooses them.

Every method raises only errors of `core/errors.py`. Times are epoch seconds, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from scanning.core.types import (
        BucketConfig,
        Claim,
        KeyPair,
        ListingPage,
        ObjectMetadata,
        ObjectState,
        ScanCounts,
        ScanResult,
    )


class Storage(Protocol):
    """One bucket at its S3 endpoint."""

    def pages(self, *, page_size: int, start_after: str = "") -> Iterator[ListingPage]:
        """List the whole bucket, in UTF-8 byte order of the keys, whatever its size.

        The last page is the one that says ``is_truncated`` false; a listing that cannot be
        completed raises instead of ending early.
        """

    def head(self, key: str) -> ObjectMetadata | None:
        """Content type and user metadata of one object; None if it is gone."""


@dataclass(frozen=True, slots=True)
class PageCommit:
    """What one commit writes: all of it or nothing.

    ``states`` are new or changed, or need their expiry renewed; ``notifications`` are JSON texts
    in key order.
    """

    number: int
    states: Mapping[str, ObjectState]
    notifications: Sequence[str]
    counts: ScanCounts


class StateStore(Protocol):
    """What is remembered of a bucket's objects, and the queue that is written with it."""

    def load(self, bucket: str, keys: Sequence[str]) -> list[ObjectState | None]:
        """The states of ``keys``, in their order; one round trip."""

    def commit(self, claim: Claim, commit: PageCommit) -> None:
        """Write states and notifications together; repeating the same number changes nothing.

        Raises LeaseLost, ConfigurationChanged, or CommitOutOfStep when the number does not
        follow the stored one.
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
