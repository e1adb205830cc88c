"""S3 endpoints: a host with or without a port (https is implied), or an http(s) URL."""

from __future__ import annotations

import functools
import re
from urllib.parse import urlsplit


def endpoint_url(endpoint: str) -> str:
    """Write the endpoint as a URL without a path."""
    return (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")


def endpoint_host(endpoint: str) -> str:
    """Cut an endpoint to its host, and port where it names one, as they were written."""
    return endpoint.split("://", 1)[-1].rstrip("/")


def is_aws(endpoint: str) -> bool:
    host = (urlsplit(endpoint_url(endpoint)).hostname or "").rstrip(".")
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


REGION = "{region}"  # where it stands in a pattern
LINODE = f"{REGION}.linodeobjects.com"


def endpoint_of(region: str, pattern: str) -> str:
    """Fill a region into a provider's ``pattern``."""
    return pattern.replace(REGION, region)


def region_of(endpoint: str, pattern: str) -> str | None:
    """Find the region whose endpoint this is at a provider; None for an endpoint that is none."""
    before, after = map(re.escape, endpoint_name(pattern).split(REGION))
    found = re.fullmatch(rf"{before}([a-z0-9_-]+){after}", endpoint_name(endpoint))
    return found[1] if found else None


@functools.lru_cache(maxsize=10_000)
def endpoint_name(endpoint: str) -> str:
    """Name what counts as one endpoint: the host and port, however the endpoint is written."""
    return urlsplit(endpoint_url(endpoint)).netloc.lower()
