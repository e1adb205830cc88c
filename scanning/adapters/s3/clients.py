"""boto3 clients: one per endpoint and key pair, made once, kept while they are used."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import boto3
import botocore.configprovider
import botocore.loaders
import botocore.session
from botocore import handlers
from botocore.config import Config

from scanning.adapters.s3.connections import Connections
from scanning.adapters.s3.listing import ListingParser
from scanning.adapters.s3.totals import BucketHeads
from scanning.config import active
from scanning.core.endpoint_profile import Addressing, EndpointProfile
from scanning.core.endpoints import LINODE, endpoint_url, region_of
from scanning.core.providers import signing_region_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from scanning.config.settings import EngineSettings

USED: Final = frozenset({"list_objects_v2", "list_objects", "head_object", "_PY_TO_OP_NAME"})
DEFAULT_REGION: Final = "us-east-1"
# What botocore does for other services, for uploads and for retries of its own, with each
# request: six in a hundred of what listing a page costs.
_NOT_FOR_US: Final = (
    ("before-parameter-build", handlers.generate_idempotent_uuid),
    # It knows AWS's names only; Ceph has tenant:bucket.
    ("before-parameter-build.s3", handlers.validate_bucket_name),
    ("before-call", handlers.add_recursion_detection_header),
    ("before-call", handlers.inject_api_version_header_if_needed),
    ("before-call.s3", handlers.add_expect_header),
    ("before-sign.s3", handlers.remove_arn_from_signing_path),
    ("request-created", handlers.add_retry_headers),
)
_RETRIES: Final = (
    ("request-created.s3", "seed-max-attempts-s3"),
    ("needs-retry.s3", "retry-config-s3"),
)
# botocore's sessions are not safe for threads; making a client takes milliseconds.
_MAKING: Final = threading.Lock()
_UNKNOWN: Final = EndpointProfile()


class S3ClientCache:
    """S3 clients by endpoint and key pair; the least recently used go when there are too many.

    Safe to share between threads, not across a fork: a forked child makes its own. ``attempts``
    counts the tries of one request, the first included; they are `S3Storage`'s, botocore itself
    sends each request once.

    Without ``conf`` it goes by the settings in force, and a `BucketScanner` that has others finds
    clients that go by those (`under`).

    The first client costs 15 MiB, most of it botocore's description of S3, which all caches of
    a process share; each further one 230 KiB and 5 ms (`bench/s3_clients.py`).
    """

    def __init__(
        self, conf: EngineSettings | None = None, *, limit: int = 500, attempts: int = 3
    ) -> None:
        self._is_bound = conf is not None
        self._conf = conf = conf or active.conf()
        self._others: dict[EngineSettings, S3ClientCache] = {}
        self.attempts = attempts
        self._configs = {addressing: _config(conf, addressing) for addressing in Addressing}
        self._region_endpoint = conf.defaults.region_endpoint
        self._connections = Connections(conf)
        self.heads = BucketHeads(
            self._connections.sender, lambda url: signing_region(url, self._region_endpoint)
        )
        self._limit = limit
        self._clients: OrderedDict[str, S3Client] = OrderedDict()
        self._lock = threading.Lock()
        self.parser = ListingParser()
        self._hits = self._misses = self._evictions = 0

    def under(self, conf: EngineSettings) -> S3ClientCache:
        """Find the clients that go by ``conf``: these, if they were made for a configuration."""
        if self._is_bound or conf == self._conf:
            return self
        with self._lock:
            if conf not in self._others:
                limit, attempts = self._limit, self.attempts
                self._others[conf] = S3ClientCache(conf, limit=limit, attempts=attempts)
            return self._others[conf]

    def get_client_key(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        profile: EndpointProfile = _UNKNOWN,
    ) -> str:
        """Derive a key that is the same for the same client, and tells nobody the secret."""
        how = [profile.signing_region, profile.addressing, profile.settings.authorities]
        parts = json.dumps([endpoint_url(endpoint), access_key, secret_key, *how]).encode()
        return hashlib.blake2b(parts, digest_size=16).hexdigest()

    def get_client(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        profile: EndpointProfile = _UNKNOWN,
    ) -> S3Client:
        """Return the client, made if new. Raises ValueError if the endpoint is no address."""
        key = self.get_client_key(endpoint, access_key, secret_key, profile)
        client = self._known(key)
        if client is not None:
            return client
        with _MAKING:
            client = self._known(key)
            if client is not None:
                return client
            client = self._make(endpoint_url(endpoint), access_key, secret_key, profile)
            self._keep(key, client)
            return client

    def clear_cache(self) -> None:
        """Forget all clients and close their idle connections; requests under way go on."""
        with self._lock:
            self._clients.clear()
            others = list(self._others.values())
        self._connections.close()
        for other in others:
            other.clear_cache()

    def break_off(self) -> None:
        """End the requests that are under way: this process is stopping."""
        self._connections.break_off()

    def end_overdue(self) -> None:
        """End the requests whose answers take too long."""
        self._connections.end_overdue()

    def trim(self, endpoint: str, limit: int) -> None:
        """Close idle connections to an endpoint (`endpoint_name`) until there are so many."""
        self._connections.trim(endpoint, limit)

    def get_stats(self) -> dict[str, int]:
        with self._lock:
            stats = Counter(
                cache_hits=self._hits,
                cache_misses=self._misses,
                total_clients=len(self._clients),
                evictions=self._evictions,
                unrecognised_bodies=self.parser.unrecognised,
            )
            others = list(self._others.values())
        for other in others:
            stats.update(other.get_stats())
        return dict(stats)

    def _known(self, key: str) -> S3Client | None:
        with self._lock:
            client = self._clients.get(key)
            if client is not None:
                self._clients.move_to_end(key)
                self._hits += 1
            return client

    def _keep(self, key: str, client: S3Client) -> None:
        with self._lock:
            self._misses += 1
            self._clients[key] = client
            while len(self._clients) > self._limit:
                self._clients.popitem(last=False)
                self._evictions += 1

    def _make(
        self, url: str, access_key: str, secret_key: str, profile: EndpointProfile
    ) -> S3Client:
        region = profile.signing_region or signing_region(url, self._region_endpoint)
        client: S3Client = _session().client(
            "s3",
            region_name=region,
            endpoint_url=url,
            verify=True,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=self._configs[profile.addressing],
        )
        for event, handler in _NOT_FOR_US:
            client.meta.events.unregister(event, handler)
        for event, unique_id in _RETRIES:
            client.meta.events.unregister(event, unique_id=unique_id)
        self.parser.attach(client)
        self._connections.attach(client, url, profile.settings.authorities)
        client.meta.events.register("before-call.s3", _stay_here)
        return client


def signing_region(url: str, region_endpoint: str = LINODE) -> str:
    """Take the region from the endpoint's host, for signing; most servers take any.

    ``region_endpoint`` is the site's own pattern; besides, those of `core/providers.py` name
    theirs, and ``s3.eu-west-1.example.com`` does.
    """
    host = urlsplit(url).hostname or ""
    if region := region_of(url, region_endpoint) or signing_region_of(host):
        return region
    labels = host.split(".")
    if labels[0] == "s3" and len(labels) == 4:
        return labels[1]
    return DEFAULT_REGION


def _config(conf: EngineSettings, addressing: Addressing) -> Config:
    return Config(
        user_agent="bucketwatch",
        parameter_validation=False,  # ours are of the right types; it takes time on each page
        signature_version="s3v4",
        connect_timeout=conf.storage.connect_timeout,
        read_timeout=conf.storage.read_timeout,
        proxies={},
        # Ours wait their turn, and end when the endpoint is found dead.
        retries={"mode": "standard", "total_max_attempts": 1},
        # Path style works nearly everywhere, on IP addresses, hosts without wildcard names and for
        # buckets with dots too; and all buckets of an endpoint share its connections.
        s3={"addressing_style": addressing.value},
        # Servers that are not AWS refuse or ignore AWS's newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        use_dualstack_endpoint=False,
        use_fips_endpoint=False,
    )


def _stay_here(context: dict[str, Any], **_: Any) -> None:
    """Keep botocore from following a redirect to another region (it asks there unasked)."""
    context.setdefault("s3_redirect", {})["redirected"] = True


@functools.cache
def _session() -> boto3.session.Session:
    """Create a session that knows nothing of AWS_* variables, ~/.aws and instance metadata.

    With S3's description it is read once per process: before a fork, if a client is made before it.
    """
    session = botocore.session.Session()
    store = session.get_component("config_store")
    variables = botocore.configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES
    for name, (_in_file, _in_environment, default, _convert) in variables.items():
        store.set_config_variable(name, default)
    for name in ("config_file", "credentials_file"):
        store.set_config_variable(name, os.devnull)
    store.set_config_variable("profile", None)
    loader = botocore.loaders.Loader(
        extra_search_paths=[botocore.loaders.Loader.BUILTIN_DATA_PATH],
        include_default_search_paths=False,
    )
    session.register_component("data_loader", loader)
    session.register_component("credential_provider", _Nothing())
    session.register_component("token_provider", _Nothing())
    session.get_component("event_emitter").register_last(
        "creating-client-class.s3", _drop_unused_operations
    )
    return boto3.session.Session(botocore_session=session)


def _drop_unused_operations(class_attributes: dict[str, Any], **_: Any) -> None:
    """Halve a client's memory: each has a class of its own, with methods that we never call."""
    for name in set(class_attributes) - USED:
        del class_attributes[name]


class _Nothing:
    """A source of credentials and tokens that has none."""

    def load_credentials(self) -> None:
        return None

    def load_token(self, **_: Any) -> None:
        return None
