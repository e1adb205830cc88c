"""Providers of S3 that people use: where their endpoints are, and what they say of them.

Nothing here is needed to watch a bucket, and all of it gives way to settings and to what is learnt.
Limits are only those that a provider publishes; Linode's are the default of ``limits.endpoints``.
All of them take path-style addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scanning.core.endpoints import LINODE, REGION, region_of
from scanning.core.pacing import EndpointLimits

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Provider:
    """``pattern`` is of its endpoints, "" for servers of one's own; ``documentation`` an address.

    ``signing_region`` is what signatures are for in all of its regions, "" for the region itself.
    """

    pattern: str
    documentation: str
    limits: EndpointLimits | None = None
    signing_region: str = ""


# As their documentation had it in November 2026; `docs/how-to/endpoints.md` says what it lacks.
PROVIDERS: Final[Mapping[str, Provider]] = {
    "Linode": Provider(
        LINODE,
        "https://techdocs.akamai.com/cloud-computing/docs/object-storage-product-limits",
    ),
    "DigitalOcean Spaces": Provider(
        f"{REGION}.digitaloceanspaces.com",
        "https://docs.digitalocean.com/products/spaces/details/limits/",
        # Of the oldest buckets, with everything that writes.
        limits=EndpointLimits(list_per_s=300),
    ),
    "Hetzner": Provider(
        f"{REGION}.your-objectstorage.com",
        "https://docs.hetzner.com/storage/object-storage/overview",
    ),
    "OVHcloud": Provider(
        f"s3.{REGION}.io.cloud.ovh.net",
        "https://help.ovhcloud.com/csm/en-public-cloud-storage-s3-location",
    ),
    "OVHcloud, its older endpoints": Provider(
        f"s3.{REGION}.perf.cloud.ovh.net",
        "https://help.ovhcloud.com/csm/en-public-cloud-storage-s3-location",
    ),
    "Scaleway": Provider(
        f"s3.{REGION}.scw.cloud",
        "https://www.scaleway.com/en/docs/object-storage/concepts/",
    ),
    "Wasabi": Provider(
        f"s3.{REGION}.wasabisys.com",
        "https://docs.wasabi.com/docs/service-urls-for-wasabis-storage-regions",
    ),
    "Backblaze B2": Provider(
        f"s3.{REGION}.backblazeb2.com",
        "https://www.backblaze.com/docs/cloud-storage-call-the-s3-compatible-api",
    ),
    "AWS": Provider(
        f"s3.{REGION}.amazonaws.com",
        "https://docs.aws.amazon.com/general/latest/gr/s3.html",
    ),
    "Cloudflare R2 (the account's id as region)": Provider(
        f"{REGION}.r2.cloudflarestorage.com",
        "https://developers.cloudflare.com/r2/api/s3/api/",
        signing_region="auto",
    ),
    "Cloudflare R2 in the EU (the same)": Provider(
        f"{REGION}.eu.r2.cloudflarestorage.com",
        "https://developers.cloudflare.com/r2/reference/data-location/",
        signing_region="auto",
    ),
    "Cloudflare R2 in the US (the same)": Provider(
        f"{REGION}.us.r2.cloudflarestorage.com",
        "https://developers.cloudflare.com/changelog/post/2026-08-17-r2-us-jurisdiction/",
        signing_region="auto",
    ),
    "Ceph of your own": Provider("", "https://docs.ceph.com/en/latest/radosgw/s3/"),
    "MinIO of your own": Provider("", "https://min.io/docs/minio/linux/index.html"),
}
# As `pacing.parse_limits` makes them of the configuration, which comes first.
LIMITS: Final = tuple(
    (provider.pattern.replace(REGION, "*"), provider.limits)
    for provider in PROVIDERS.values()
    if provider.limits
)


def signing_region_of(endpoint: str) -> str | None:
    """Say what to sign for at a provider's endpoint; None for an endpoint of nobody's."""
    for provider in PROVIDERS.values():
        if provider.pattern and (region := region_of(endpoint, provider.pattern)):
            return provider.signing_region or region
    return None
