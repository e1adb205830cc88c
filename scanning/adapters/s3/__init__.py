"""boto3 ends here; `S3ClientCache` is imported from here by programs, as documented."""

from scanning.adapters.s3.clients import S3ClientCache
from scanning.adapters.s3.storage import S3Storage

__all__ = ["S3ClientCache", "S3Storage"]
