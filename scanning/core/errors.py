"""The error tree of the engine.

    BucketwatchError
    ├── ConfigurationError        a setting is wrong; the message names it and the fix
    ├── UnknownBucket             Redis holds no configuration of a bucket of that name
    ├── TransientError            goes away by itself: back off and try again
    │   ├── StorageUnavailable    S3: time-out, refused, reset, 5xx, unreadable answer
    │   ├── Throttled             S3: SlowDown, 429
    │   ├── RedisUnavailable
    │   ├── QueueFull             the notification queue is above its high-water mark
    │   └── VaultUnavailable
    ├── PermanentError            stays until somebody changes something: show it, poll slowly
    │   ├── CredentialsRejected   S3: InvalidAccessKeyId, SignatureDoesNotMatch
    │   ├── AccessDenied          S3: 403 for the bucket
    │   ├── BucketNotFound        S3: NoSuchBucket; never read as "all objects deleted"
    │   ├── WrongEndpoint         S3: redirect, or a host name that does not resolve
    │   ├── AddressRefused        the endpoint's address is one that configuration does not allow
    │   ├── StateDamaged          a part of the bucket's state is missing in Redis
    │   ├── StateLost             Redis was emptied or set back; nobody has said how to go on yet
    │   ├── TooManyObjects        more objects than a bucket may have; those known stay watched
    │   ├── UnsupportedKeyOrder   S3: keys are listed in another order than that of their bytes
    │   ├── ClockSkewed           S3: RequestTimeTooSkewed
    │   ├── CredentialMissing     the vault does not hold the bucket's keys
    │   └── VaultRefused          the vault does not let us in, or refuses what we ask
    └── ScanAborted               this scan may not go on; another one may
        ├── LeaseLost             the lease expired or went to another worker
        ├── CommitOutOfStep       Redis does not hold our previous commit (a failover lost it)
        ├── ConfigurationChanged  the bucket was deleted or pointed elsewhere during the scan
        └── Interrupted           this process is stopping; the bucket stays due

Adapters turn every error of their vendor library into one of these (``raise … from exc``).
Messages are for operators: they name the bucket, endpoint or setting, never a secret.
"""

from __future__ import annotations


class BucketwatchError(Exception):
    """Base of everything that bucketwatch raises on purpose."""


class ConfigurationError(BucketwatchError):
    """A setting is wrong; the message names it and the fix."""


class UnknownBucket(BucketwatchError):
    """Redis holds no configuration of a bucket of that name."""


class TransientError(BucketwatchError):
    """Goes away by itself: back off and try again."""


class StorageUnavailable(TransientError):
    """S3 did not give a usable answer in time."""


class Throttled(TransientError):
    """S3 asked us to slow down."""


class RedisUnavailable(TransientError):
    """Redis did not answer within the bounded retries."""


class QueueFull(TransientError):
    """The notification queue is above its high-water mark; nothing was committed."""


class VaultUnavailable(TransientError):
    """The vault did not answer, and there is no snapshot fresh enough."""


class PermanentError(BucketwatchError):
    """Stays until somebody changes something."""


class CredentialsRejected(PermanentError):
    """S3 does not know the access key, or the secret key does not belong to it."""


class AccessDenied(PermanentError):
    """The credential may not list the bucket."""


class BucketNotFound(PermanentError):
    """There is no bucket of that name at the endpoint."""


class WrongEndpoint(PermanentError):
    """The endpoint does not resolve, or says that the bucket lives elsewhere."""


class AddressRefused(PermanentError):
    """The endpoint's address is private or reserved, and no setting allows it."""


class ClockSkewed(PermanentError):
    """This host's clock and the endpoint's differ by more than S3 accepts."""


class CredentialMissing(PermanentError):
    """The vault holds no usable key pair under the bucket's vault prefix."""


class VaultRefused(PermanentError):
    """The vault does not let us in, or refuses what we ask; the message names the setting."""


class StateDamaged(PermanentError):
    """A part of a bucket's state is missing in Redis; nothing is announced from what is left."""

    @classmethod
    def of(cls, bucket: str) -> StateDamaged:
        return cls(
            f"{bucket}: a part of its state in Redis is missing or broken (was a key evicted, "
            f"deleted or written over?); manage.py runscan --full --repair {bucket} builds it again"
        )


class StateLost(PermanentError):
    """Redis knows less of a bucket than the database saw; an operator says how to go on."""


class TooManyObjects(PermanentError):
    """The bucket has more objects than it may; some are neither known nor announced."""

    @classmethod
    def of(cls, bucket: str, *, limit: int, left_out: int) -> TooManyObjects:
        return cls(
            f"{bucket} has more than {limit:,} objects, the most that it may (SCAN_MOST_OBJECTS, "
            f"or its own limit): {left_out:,} or more are neither known nor announced until there "
            "is room; the others are watched as usual"
        )


class UnsupportedKeyOrder(PermanentError):
    """The server lists keys in another order than that of their UTF-8 bytes."""


class ScanAborted(BucketwatchError):
    """This scan may not go on; another one may."""


class LeaseLost(ScanAborted):
    """The lease expired or went to another worker."""

    @classmethod
    def not_to_be_had(cls, bucket: str) -> LeaseLost:
        return cls(f"{bucket} is being scanned, or its region has no free slot")


class CommitOutOfStep(ScanAborted):
    """Redis does not hold the commit before this one; reload and scan again."""


class ConfigurationChanged(ScanAborted):
    """The bucket was deleted or pointed elsewhere while it was being scanned."""


class Interrupted(ScanAborted):
    """This process is stopping; the bucket stays due and somebody else goes on."""
