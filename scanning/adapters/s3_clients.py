"""boto3 clients: one per endpoint and key pair, made once, kept while they are used."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import boto3
import botocore.configprovider
import botocore.loaders
import botocore.session
from botocore.config import Config

from scanning.adapters.s3_connections import Connections
from scanning.adapters.s3_listing import ListingParser
from scanning.conf import ScanningConf

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

USED: Final = frozenset({"list_objects_v2", "head_object", "_PY_TO_OP_NAME"})
DEFAULT_REGION: Final = "us-east-1"


class S3ClientCache:
    """S3 clients by endpoint and key pair; the least recently used go when there are too many.

    Safe to share between threads, not across a fork: a forked child makes its own. ``attempts``
    counts botocore's tries of one request, the first included.

    The first client costs 15 MiB, most of it botocore's description of S3, which all caches of
    a process share; each further one 230 KiB and 5 ms (`bench/s3_clients.py`).
    """

    def __init__(
        self, conf: ScanningConf | None = None, *, most: int = 500, attempts: int = 3
    ) -> None:
        conf = conf or ScanningConf()
        self._config = _config(conf, attempts)
        self._connections = Connections(conf)
        self._most = most
        self._clients: OrderedDict[str, S3Client] = OrderedDict()
        self._lock = threading.Lock()
        # botocore's sessions are not safe for threads; making a client takes milliseconds.
        self._making = threading.Lock()
        self._session = _session()
        self.parser = ListingParser()
        self._hits = self._misses = self._evictions = 0

    @property
    def unrecognised_bodies(self) -> int:
        """Listing answers that were left to botocore's own (slow) parser."""
        return self.parser.unrecognised

    def get_client_key(self, endpoint: str, access_key: str, secret_key: str) -> str:
        """A key that is the same for the same client, and tells nobody the secret."""
        parts = json.dumps([_url(endpoint), access_key, secret_key]).encode()
        return hashlib.blake2b(parts, digest_size=16).hexdigest()

    def get_client(self, endpoint: str, access_key: str, secret_key: str) -> S3Client:
        """The client, made if there is none. Raises ValueError if the endpoint is no address."""
        key = self.get_client_key(endpoint, access_key, secret_key)
        client = self._known(key)
        if client is not None:
            return client
        with self._making:
            client = self._known(key)
            if client is not None:
                return client
            client = self._make(_url(endpoint), access_key, secret_key)
            self._keep(key, client)
            return client

    def clear_cache(self) -> None:
        """Forget all clients and close their idle connections; requests under way go on."""
        with self._lock:
            self._clients.clear()
        self._connections.close()

    def get_stats(self) -> dict[str, int]:
        with self._lock:
            return {
                "cache_hits": self._hits,
                "cache_misses": self._misses,
                "total_clients": len(self._clients),
                "evictions": self._evictions,
                "unrecognised_bodies": self.parser.unrecognised,
            }

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
            while len(self._clients) > self._most:
                self._clients.popitem(last=False)
                self._evictions += 1

    def _make(self, url: str, access_key: str, secret_key: str) -> S3Client:
        client: S3Client = self._session.client(
            "s3",
            region_name=signing_region(url),
            endpoint_url=url,
            verify=True,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=self._config,
        )
        self.parser.attach(client)
        self._connections.attach(client, url)
        client.meta.events.register("before-call.s3", _stay_here)
        return client


def signing_region(url: str) -> str:
    """The region that the endpoint's host names, for signing; most servers take any.

    ``us-east-1.linodeobjects.com`` and ``s3.eu-west-1.amazonaws.com`` name theirs.
    """
    labels = (urlsplit(url).hostname or "").split(".")
    if labels[1:] == ["linodeobjects", "com"]:
        return labels[0]
    if labels[0] == "s3" and len(labels) == 4:  # noqa: PLR2004
        return labels[1]
    return DEFAULT_REGION


def _url(endpoint: str) -> str:
    return (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")


def _config(conf: ScanningConf, attempts: int) -> Config:
    return Config(
        user_agent="bucketwatch",
        signature_version="s3v4",
        # For the time to live that retries announce; connections have theirs already.
        connect_timeout=conf.storage.connect_timeout,
        read_timeout=conf.storage.read_timeout,
        proxies={},
        retries={"mode": "standard", "total_max_attempts": attempts},
        # Path style works everywhere, on IP addresses, hosts without wildcard names and for
        # buckets with dots too; and all buckets of an endpoint share its connections.
        s3={"addressing_style": "path"},
        # Servers that are not AWS refuse or ignore AWS's newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        use_dualstack_endpoint=False,
        use_fips_endpoint=False,
    )


def _stay_here(context: dict[str, Any], **_: Any) -> None:
    """Keep botocore from following a redirect to another region (it asks there unasked)."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _session() -> boto3.session.Session:
    """A session that knows nothing of AWS_* variables, ~/.aws and instance metadata."""
    session = botocore.session.Session()
    store = session.get_component("config_store")
    variables = botocore.configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES
    for name, (_in_file, _in_environment, default, _convert) in variables.items():
        store.set_config_variable(name, default)
    for name in ("config_file", "credentials_file"):
        store.set_config_variable(name, os.devnull)
    store.set_config_variable("profile", None)
    session.register_component("data_loader", _loader())
    session.register_component("credential_provider", _Nothing())
    session.register_component("token_provider", _Nothing())
    session.get_component("event_emitter").register_last(
        "creating-client-class.s3", _drop_unused_operations
    )
    return boto3.session.Session(botocore_session=session)


def _drop_unused_operations(class_attributes: dict[str, Any], **_: Any) -> None:
    """Each client has a class of its own; the methods we never call are half of its memory."""
    for name in set(class_attributes) - USED:
        del class_attributes[name]


@functools.cache
def _loader() -> botocore.loaders.Loader:
    """S3's description, read once per process (before a fork, if a cache is made before it)."""
    return botocore.loaders.Loader(
        extra_search_paths=[botocore.loaders.Loader.BUILTIN_DATA_PATH],
        include_default_search_paths=False,
    )


class _Nothing:
    """A source of credentials and tokens that has none."""

    def load_credentials(self) -> None:
        return None

    def load_token(self, **_: Any) -> None:
        return None
