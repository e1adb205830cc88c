"""What each class of errors means for a bucket, and what an operator can do about it.

The only place for these texts: pages, API, commands and S3's messages are made from them, and
`docs/errors.md` repeats them word for word (a test compares).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scanning.core import errors

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Remedy:
    meaning: str
    next_step: str

    @property
    def clause(self) -> str:
        """The next step as the end of a sentence."""
        return f"{self.next_step[0].lower()}{self.next_step[1:].rstrip('.')}"

    def cut_from(self, message: str) -> str:
        """Return a message without the next step, for whoever shows that beside it."""
        return message.replace(f"; {self.clause}", "")


REMEDIES: Final[Mapping[type[errors.BucketwatchError], Remedy]] = {
    errors.StorageUnavailable: Remedy(
        "S3 does not answer",
        "If it stays: check the endpoint, the network between, and the provider's status page.",
    ),
    errors.Throttled: Remedy(
        "S3 asks to slow down",
        "If it stays: lengthen the polling intervals of the endpoint's buckets, or lower their "
        "lanes.",
    ),
    errors.RedisUnavailable: Remedy(
        "Redis did not answer during the scan",
        "If it stays: look at Redis, its memory and its disk.",
    ),
    errors.QueueFull: Remedy(
        "the notification queue is full",
        "Start or mend the queue's consumers; scanning goes on by itself when they have read.",
    ),
    errors.VaultUnavailable: Remedy(
        "the vault does not answer",
        "Check that this host reaches the vault (INFISICAL_API_URL); scanning goes on by itself.",
    ),
    errors.CredentialsRejected: Remedy(
        "S3 refuses the key pair",
        "Give the bucket's credential a valid key pair.",
    ),
    errors.AccessDenied: Remedy(
        "the key pair may not list the bucket",
        "Allow the access key to list and read the bucket, or use another credential.",
    ),
    errors.BucketNotFound: Remedy(
        "S3 knows no bucket of this name",
        "Correct its name, endpoint or region, or remove it here if it was deleted there.",
    ),
    errors.WrongEndpoint: Remedy(
        "the endpoint is the wrong one",
        "Correct the bucket's endpoint or region.",
    ),
    errors.AddressRefused: Remedy(
        "the endpoint's address is not allowed",
        "Correct the endpoint, or allow its network with SECURITY_ALLOWED_NETWORKS.",
    ),
    errors.StateDamaged: Remedy(
        "a part of its state in Redis is lost",
        "Build it again with manage.py runscan --full --repair, or restore Redis from its backup.",
    ),
    errors.StateLost: Remedy(
        "Redis forgot what was known of it",
        "Restore the right backup; or choose, at the bucket or in the list of buckets, whether to "
        "announce what Redis does not know or only to remember it.",
    ),
    errors.TooManyObjects: Remedy(
        "it has more objects than it may",
        "Raise SCAN_MOST_OBJECTS or the bucket's own limit if Redis has the memory, watch only a "
        "prefix, or remove objects; what was left out is announced as soon as there is room.",
    ),
    errors.UnsupportedKeyOrder: Remedy(
        "its server lists keys in another order than S3 does",
        "Have the server list keys in the order of their UTF-8 bytes, and press Learn again at its "
        "endpoint; or watch only a prefix under which its order is the same.",
    ),
    errors.ClockSkewed: Remedy(
        "the clocks of this host and of S3 differ",
        "Set the clock of the hosts that scan, best by NTP.",
    ),
    errors.CredentialMissing: Remedy(
        "the vault does not hold the key pair",
        "Enter the bucket's access key and secret key again.",
    ),
    errors.VaultRefused: Remedy(
        "the vault does not let us in",
        "Correct the setting that the error names, and start bucketwatch again.",
    ),
    errors.PermanentError: Remedy(
        "S3 refuses the request",
        "Correct what the error names, or look up its code at the provider.",
    ),
    errors.ConfigurationError: Remedy(
        "a setting is wrong",
        "Correct the setting that the error names, and start bucketwatch again.",
    ),
}
UNEXPECTED: Final = Remedy(
    "an error in bucketwatch",
    "Look for this bucket in the log of the workers, and report what it says.",
)
_BY_NAME: Final = {error.__name__: remedy for error, remedy in REMEDIES.items()}


def remedy_for(error_class: str) -> Remedy:
    """Look up a remedy by the error class's name, as scans store it."""
    return _BY_NAME.get(error_class, UNEXPECTED)
