"""Every Redis key that bucketwatch knows: name, type, and what it is for.

The documented ones keep their names; our own begin with ``linode:objstore:bw:``. The page
`docs/redis-keys.md` tells operators of the same keys, and of the fields of a bucket's hash. Names
are built here only: a Lua script is given them as KEYS.
"""

from __future__ import annotations

OURS = "linode:objstore:bw:"

CONFIG_PREFIX = "linode:objstore:config:bucket:"
FLAG = "notifications_disabled"
LAST_SCAN_PREFIX = "linode:objstore:last_scan:"

REVISIONS = f"{OURS}revisions"  # hash: bucket -> revision that is written: managed
REMOVED = f"{OURS}removed"  # hash: bucket -> revision that removed it: nothing older returns
CONFIG_VERSION = f"{OURS}config_version"  # counter: moves with every change of configuration
GARBAGE = f"{OURS}garbage"  # set: "{generation} {bucket}" whose segments are to be deleted
EVENTS = f"{OURS}events"  # stream: recent events, for people
CLEARING = f"{OURS}clearing"  # set: removed buckets whose object states are still being deleted
REGIONS = f"{OURS}regions"  # set: regions that have active buckets
TRUSTED = f"{OURS}trusted"  # string with expiry: Redis is the one that was written to
COMPARING = f"{OURS}comparing"  # string with expiry: somebody is finding out whether it is
LEADER = f"{OURS}leader"  # string with expiry: which monitor schedules
STATUS_CHANGES = f"{OURS}status_changes"  # sorted set: bucket whose status SQL lacks -> since when
CHANGED_STATUS = f"{OURS}changed_status"  # set: the same, from hosts of an earlier version
STRETCHED = f"{OURS}stretched"  # sorted set: bucket whose budget puts its pass off -> until when
STATS = f"{OURS}stats"  # hash: counters of all processes
CLIENTS = f"{OURS}clients"  # hash: process -> "cached S3 clients:when said:when the vault was read"
PROBES = f"{OURS}probes"  # hash: bucket -> "objects:bytes when they moved last", for people
PACE_PREFIX = f"{OURS}pace:"
PACES = f"{OURS}paces"  # sorted set with expiry: endpoint -> when it was asked last
BUCKET_PREFIX = f"{OURS}bucket:"
MINUTE_PREFIX = f"{OURS}minute:"
DAY_PREFIX = f"{OURS}events_of_day:"
REQUESTS_PREFIX = f"{OURS}requests_of_day:"


def config(bucket: str) -> str:
    """String, JSON: one configuration; other programs may add members."""
    return f"{CONFIG_PREFIX}{bucket}"


def notifications_disabled(bucket: str) -> str:
    """String ``true``, or absent."""
    return f"linode:objstore:config:{bucket}:{FLAG}"


def last_scan(bucket: str) -> str:
    """String: when the last complete scan began, epoch seconds."""
    return f"{LAST_SCAN_PREFIX}{bucket}"


def state(prefix: str, bucket: str, key: str) -> str:
    """String, JSON, with expiry: one object's state; ``prefix`` is ``redis.state_prefix``."""
    return f"{prefix}{bucket}:{key}"


def bucket(name: str) -> str:
    """Hash: generation, fence, commit, offset, progress, and how the last scan ended."""
    return f"{BUCKET_PREFIX}{name}"


def manifest(bucket: str, generation: int) -> str:
    """Hash: segment id -> entry."""
    return f"{OURS}{bucket}:{generation}:manifest"


def segment(bucket: str, generation: int, id_: str) -> str:
    """String: the rows of one segment."""
    return f"{OURS}{bucket}:{generation}:seg:{id_}"


def minute(minute: int) -> str:
    """Hash with expiry: what all processes counted in one minute, by minutes since the epoch."""
    return f"{MINUTE_PREFIX}{minute}"


def events_of_day(day: int) -> str:
    """Hash with expiry: bucket -> events announced that day (UTC), by days since the epoch."""
    return f"{DAY_PREFIX}{day}"


def requests_of_day(day: int) -> str:
    """Hash with expiry: "kind bucket" -> requests sent that day (UTC), by days since the epoch."""
    return f"{REQUESTS_PREFIX}{day}"


def endpoint_requests_of_day(day: int) -> str:
    """Hash with expiry: "kind endpoint" -> requests sent that day, as `requests_of_day`."""
    return f"{REQUESTS_PREFIX}{day}:endpoints"


def look_history(bucket: str) -> str:
    """List: a bucket's last looks, as in its history."""
    return f"{OURS}looks:{bucket}"


def history(bucket: str) -> str:
    """List: the bucket's last scans, the newest last."""
    return f"{OURS}history:{bucket}"


def pace(endpoint: str) -> str:
    """String, JSON, with expiry: how an endpoint answers (`core/pacing.py`)."""
    return f"{PACE_PREFIX}{endpoint}"


def pace_failed_at(endpoint: str) -> str:
    """String with expiry: when a failing endpoint failed last."""
    return f"{pace(endpoint)}:failed_at"


def pace_use(endpoint: str) -> str:
    """Hash with expiry: process -> "until when:connections it may have:requests a second"."""
    return f"{pace(endpoint)}:use"


def request_report(endpoint: str, reporter: str) -> str:
    """String with expiry: number of the last report that counted."""
    return f"{pace(endpoint)}:report:{reporter}"


def pace_slots(endpoint: str) -> str:
    """String with expiry: up to when moments to ask the endpoint are reserved."""
    return f"{pace(endpoint)}:slots:"


def pace_waiting(endpoint: str) -> str:
    """Sorted set with expiry: "bucket region" that waits for the endpoint -> when it was due."""
    return f"{pace(endpoint)}:waiting"


def endpoint_profile(endpoint: str) -> str:
    """Hash: what is known of an endpoint (`core/endpoint_profile.py`), by its `endpoint_name`."""
    return f"{OURS}endpoint:{endpoint}"


def due(region: str) -> str:
    """Sorted set: bucket -> when it is due."""
    return f"{OURS}region:{region}:due"


def endpoints(region: str) -> str:
    """Set with expiry: the endpoints of a region that has several."""
    return f"{OURS}region:{region}:endpoints"


def running(region: str) -> str:
    """Sorted set: bucket -> when its lease expires; its size is the region's slots in use."""
    return f"{OURS}region:{region}:run"
