"""Every Redis key that bucketwatch knows. The documented ones keep their names (`wire-contract`).

Ours begin with ``linode:objstore:bw:``. Redis Cluster is not supported, so scripts may build
names of bucket hashes from the bucket names that they read.
"""

from __future__ import annotations

OURS = "linode:objstore:bw:"

CONFIG_PREFIX = "linode:objstore:config:bucket:"
LAST_SCAN_PREFIX = "linode:objstore:last_scan:"

REVISIONS = f"{OURS}revisions"  # hash: bucket -> revision the mirror wrote
REMOVED = (
    f"{OURS}removed"  # hash: bucket -> revision that removed it, so that nothing older returns
)
CONFIG_VERSION = f"{OURS}config_version"  # counter: moves with every change of configuration
GARBAGE = f"{OURS}garbage"  # set: "{generation} {bucket}" whose segments are to be deleted
EVENTS = f"{OURS}events"  # stream: recent events, for people
CLEARING = f"{OURS}clearing"  # set: removed buckets whose object states are still being deleted
REGIONS = f"{OURS}regions"  # set: regions that have active buckets
LEADER = f"{OURS}leader"  # string with expiry: which monitor schedules
CHANGED_STATUS = f"{OURS}changed_status"  # set: buckets whose status SQL has not seen
STATS = f"{OURS}stats"  # hash: counters of all processes
CLIENTS = f"{OURS}clients"  # hash: process -> "cached S3 clients:when said:when the vault was read"
BUCKET_PREFIX = f"{OURS}bucket:"


def config(bucket: str) -> str:
    return f"{CONFIG_PREFIX}{bucket}"


def notifications_disabled(bucket: str) -> str:
    return f"linode:objstore:config:{bucket}:notifications_disabled"


def last_scan(bucket: str) -> str:
    return f"{LAST_SCAN_PREFIX}{bucket}"


def state(prefix: str, bucket: str, key: str) -> str:
    """The documented JSON string of one object; ``prefix`` is ``redis.state_prefix``."""
    return f"{prefix}{bucket}:{key}"


def bucket(name: str) -> str:
    """Hash: generation, fence, commit, offset, and how the last scan ended."""
    return f"{BUCKET_PREFIX}{name}"


def manifest(bucket: str, generation: int) -> str:
    """Hash: segment id -> entry."""
    return f"{OURS}{bucket}:{generation}:manifest"


def segment(bucket: str, generation: int, id_: str) -> str:
    """String: the rows of one segment."""
    return f"{OURS}{bucket}:{generation}:seg:{id_}"


def due(region: str) -> str:
    """Sorted set: bucket -> when it is due."""
    return f"{OURS}region:{region}:due"


def running(region: str) -> str:
    """Sorted set: bucket -> when its lease expires; its size is the region's slots in use."""
    return f"{OURS}region:{region}:run"
