"""S3 endpoints: a host with or without a port (https is implied), or an http(s) URL."""

from __future__ import annotations

import functools
from urllib.parse import urlsplit


def endpoint_url(endpoint: str) -> str:
    """The endpoint as a URL without a path."""
    return (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")


def endpoint_host(endpoint: str) -> str:
    """Its host, and port where it names one, as they were written."""
    return endpoint.split("://", 1)[-1].rstrip("/")


@functools.lru_cache(maxsize=10_000)
def endpoint_name(endpoint: str) -> str:
    """What counts as one endpoint: the host and port, however the endpoint is written."""
    return urlsplit(endpoint_url(endpoint)).netloc.lower()
