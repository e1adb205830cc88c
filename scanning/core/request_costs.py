"""What watching costs in requests: their kinds, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class RequestKind(StrEnum):
    """What a request to an S3 endpoint asks for; providers bill LIST and HEAD apart."""

    LIST = "list"
    METADATA = "head_metadata"
    WITNESS = "head_witness"
    BUCKET = "head_bucket"


# How many requests of each kind.
Requests = Mapping[RequestKind, int]
