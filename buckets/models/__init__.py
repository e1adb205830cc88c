"""The control plane's tables: the source of truth for which buckets are watched, and how.

No secret is stored here: S3 keys and webhook secrets live in the vault, API secrets as a hash, and
the keys of second factors follow from SECRET_KEY.
"""

from buckets.models.api_clients import ApiClient
from buckets.models.buckets import EVENT_TYPES, Bucket
from buckets.models.credentials import Credential
from buckets.models.endpoints import Endpoint
from buckets.models.outbox import Outbox, Revision, VaultRemoval
from buckets.models.second_factors import SecondFactor

__all__ = [
    "EVENT_TYPES",
    "ApiClient",
    "Bucket",
    "Credential",
    "Endpoint",
    "Outbox",
    "Revision",
    "SecondFactor",
    "VaultRemoval",
]
