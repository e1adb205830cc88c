"""What an operator can do about each class of errors that end a scan."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remedy:
    """What a class of errors means for a bucket, and the next step."""

    meaning: str
    next_step: str


# By the class of the error, as scans store it (`scanning/core/errors.py`).
ADVICE = {
    "StorageUnavailable": Remedy(
        "S3 does not answer",
        "It is tried again by itself. If it stays: check the endpoint, the network between, and "
        "the provider's status page.",
    ),
    "Throttled": Remedy(
        "S3 asks to slow down",
        "Scans of this endpoint wait by themselves. If it stays: lengthen the polling intervals "
        "of its buckets, or lower their lanes.",
    ),
    "RedisUnavailable": Remedy(
        "Redis did not answer during the scan",
        "It is scanned again by itself. If it stays: look at Redis, its memory and its disk.",
    ),
    "QueueFull": Remedy(
        "the notification queue is full",
        "Start or mend the queue's consumers; scanning goes on by itself when they have read.",
    ),
    "VaultUnavailable": Remedy(
        "the vault does not answer",
        "Check that this host reaches the vault (INFISICAL_API_URL); scanning goes on by itself.",
    ),
    "CredentialsRejected": Remedy(
        "S3 refuses the key pair",
        "Enter a valid key pair on the credential's page.",
    ),
    "AccessDenied": Remedy(
        "the key pair may not list the bucket",
        "Give the key read access to the bucket at the provider, or choose another credential.",
    ),
    "BucketNotFound": Remedy(
        "S3 knows no bucket of this name",
        "Correct its region or endpoint, or remove it here if it was deleted there.",
    ),
    "WrongEndpoint": Remedy(
        "the endpoint is the wrong one",
        "Correct the bucket's region or endpoint.",
    ),
    "AddressRefused": Remedy(
        "the endpoint's address is not allowed",
        "Correct the endpoint, or allow its network with SECURITY_ALLOWED_NETWORKS.",
    ),
    "StateDamaged": Remedy(
        "a part of its state in Redis is lost",
        "Build it again with manage.py runscan --full --repair, or restore Redis from its backup.",
    ),
    "StateLost": Remedy(
        "Redis forgot what was known of it",
        "Choose in the list of buckets whether to announce what Redis does not know or only to "
        "remember it.",
    ),
    "ClockSkewed": Remedy(
        "the clocks of this host and of S3 differ",
        "Set the clock of the hosts that scan (NTP).",
    ),
    "CredentialMissing": Remedy(
        "the vault does not hold the key pair",
        "Enter the key pair again on the credential's page.",
    ),
    "VaultRefused": Remedy(
        "the vault does not let us in",
        "Correct the setting that the reason names, and start bucketwatch again.",
    ),
    "ConfigurationError": Remedy(
        "a setting is wrong",
        "Correct the setting that the reason names, and start bucketwatch again.",
    ),
}
UNEXPECTED = Remedy(
    "an error in bucketwatch",
    "Look for this bucket in the log of the workers, and report what it says.",
)


def remedy_for(error_class: str) -> Remedy:
    """By the class's name, as scans store it."""
    return ADVICE.get(error_class, UNEXPECTED)
