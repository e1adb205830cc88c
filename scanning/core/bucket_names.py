"""The names that buckets have on some S3 server."""

from __future__ import annotations

import re
from typing import Final

# Ceph's with rgw_relaxed_s3_bucket_names; before it a tenant, whose name may be empty.
_RELAXED: Final = re.compile(r"([A-Za-z0-9_]*:)?[A-Za-z0-9._-]{3,255}")


def is_bucket_name(name: str) -> bool:
    """Tell whether any S3 server may have a bucket of this name."""
    return _RELAXED.fullmatch(name) is not None
