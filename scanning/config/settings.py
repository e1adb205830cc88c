"""What can be configured, with defaults and bounds; the sections of the documented YAML file.

Pure declarations: ``bucketwatch/env.py`` reads the file and the environment into them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from scanning.core import pacing, providers
from scanning.core.addresses import AddressRules, networks_in
from scanning.core.deletions import Confirm
from scanning.core.endpoints import LINODE
from scanning.core.probing import AUTO, ProbePlan, plan_probes
from scanning.core.request_costs import MOST_REQUESTS, RequestPrices, parse_prices
from scanning.core.schedule import PollingIntervals
from scanning.core.types import LONGEST_INTERVAL_S, MOST_LANES, MOST_OBJECTS


def checked_networks(networks: str) -> str:
    """Check networks with commas between. Raises ValueError if one is none."""
    try:
        networks_in(networks)
    except ValueError:
        raise ValueError("must be networks such as 10.0.0.0/8, with commas") from None
    return networks


class Section(BaseModel):
    # Unknown members are warned of by the reader, not refused: the file may still be the older
    # monitor's, which has sections that do not concern us.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    # Members of the older monitor's file that are read, and have no variable of their own.
    older_members: ClassVar[frozenset[str]] = frozenset()


class ParallelSection(Section):
    max_workers: int = Field(60, ge=1, le=1000, description="most scans at once in one process")
    rate_limit_per_region: int = Field(
        15, ge=1, le=1000, description="most scans at once in one region"
    )
    stagger_method: Literal["hash", "equal", "random"] = Field(
        "hash", description="how bucket scans are spread over the polling interval"
    )


class DefaultsSection(Section):
    polling_interval: int = Field(
        60, ge=1, le=LONGEST_INTERVAL_S, description="seconds between two scans of a bucket"
    )
    max_objects_per_batch: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="listing page and commit size; S3 answers at most 1000",
    )
    endpoint: str = Field(
        "us-east-1.linodeobjects.com",
        min_length=1,
        description="endpoint of buckets that name none",
    )
    region_endpoint: str = Field(
        LINODE, description="endpoint of buckets that name only a region, with {region} in it"
    )

    @field_validator("region_endpoint")
    @classmethod
    def _has_a_place_for_the_region(cls, pattern: str) -> str:
        if not re.fullmatch(r"(https?://)?[\w.-]*\{region\}[\w.-]*(:\d+)?", pattern, re.ASCII):
            raise ValueError("must be an endpoint with {region} in its host: s3.{region}.host.com")
        return pattern

    def interval_s(self, own_s: int | None) -> int:
        """Give the polling interval of a bucket whose own is ``own_s``; None has the default."""
        return own_s or self.polling_interval


class PollingSection(Section):
    longest: int = Field(
        0,
        ge=0,
        le=LONGEST_INTERVAL_S,
        description="seconds that the polling interval may grow to while nothing changes; 0: not",
    )


class RedisSection(Section):
    # Where the older monitor writes and reads; we do both at the master.
    older_members: ClassVar[frozenset[str]] = frozenset({"master", "slave"})

    url: SecretStr | None = Field(
        None, description="whole address; wins over every other Redis setting"
    )
    sentinel_host: str = Field(
        "", description="empty: no Sentinel; several as host[:port], with commas between"
    )
    sentinel_port: int = Field(26379, ge=1, le=65535)
    master_name: str = Field("mymaster", min_length=1)
    host: str = Field("localhost", min_length=1)
    port: int = Field(6379, ge=1, le=65535)
    db: int = Field(0, ge=0, le=65535)
    username: str = ""
    password: SecretStr | None = None
    sentinel_username: str = ""
    sentinel_password: SecretStr | None = None
    tls: bool = False
    sentinel_tls: bool | None = Field(None, description="as ``tls`` if not given")
    tls_ca: str = Field("", description="file of the authorities that servers are checked against")
    tls_cert: str = Field("", description="file of our own certificate, for servers that want one")
    tls_key: str = ""
    tls_check_hostname: bool = Field(
        default=True, description="the certificate must name the host, or address, that we ask for"
    )
    queue_name: str = Field("linode:notifications:queue", min_length=1)
    state_prefix: str = Field("linode:objstore:state:", min_length=1)
    ttl: int = Field(
        2_592_000,
        ge=60,
        description="seconds that such a string lives; renewed while its object is there",
    )
    failover_window: int = Field(
        600,
        ge=60,
        le=86400,
        description="a bucket of which Redis lost more than so many seconds waits for an operator",
    )
    object_states: bool = Field(
        default=True, description="write the documented JSON string of each object"
    )

    @model_validator(mode="before")
    @classmethod
    def _takes_the_master(cls, given: Any) -> Any:
        """Let ``master`` say what the section itself, or the environment, leaves out."""
        if not isinstance(given, dict) or given.get("master") is None:
            return given
        members = _of_master(given["master"])
        return given | {name: value for name, value in members.items() if given.get(name) is None}

    @field_validator("url")
    @classmethod
    def _has_a_known_scheme(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None or not url.get_secret_value():
            return None
        if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        try:
            urlsplit(url.get_secret_value()).port  # noqa: B018 - reading it checks it
        except ValueError:
            raise ValueError("has a port that is no number from 0 to 65535") from None
        return url

    @field_validator("sentinel_host")
    @classmethod
    def _names_hosts(cls, hosts: str) -> str:
        for host in hosts.split(","):
            if host.strip() and _address(host, 1) is None:
                raise ValueError("must be host or host:port, with commas between several")
        return hosts

    @field_validator("tls_ca", "tls_cert", "tls_key")
    @classmethod
    def _is_a_file(cls, path: str) -> str:
        if path and not Path(path).is_file():
            raise ValueError("there is no such file")
        return path

    @model_validator(mode="after")
    def _has_both_halves(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("REDIS_TLS_CERT and REDIS_TLS_KEY: set both, or neither")
        return self

    @property
    def sentinels(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each sentinel; none where Redis is reached directly."""
        hosts = "" if self.url else self.sentinel_host
        found = (_address(host, self.sentinel_port) for host in hosts.split(","))
        return tuple(address for address in found if address is not None)


def _of_master(master: Any) -> dict[str, Any]:
    """Read a ``Redis``, a mapping of its members, ``host[:port]`` or a URL into members."""
    if isinstance(master, dict):
        names = ("url", "host", "port", "db", "username", "password", "tls")
        return {name: master[name] for name in names if master.get(name) is not None}
    if isinstance(master, str) and "://" in master:
        return {"url": master}
    address = _address(master, 6379) if isinstance(master, str) else None
    if address is None:
        raise ValueError("master must be host, host:port, a URL, or a mapping with host and port")
    return {"host": address[0], "port": address[1]}


def _address(text: str, port: int) -> tuple[str, int] | None:
    """Split ``host``, ``host:port``, ``[IPv6]`` or ``[IPv6]:port`` into host and port."""
    try:
        parts = urlsplit(f"//{text.strip()}")
        given = parts.port
    except ValueError:
        return None
    odd = parts.username is not None or parts.netloc.endswith(":") or parts.netloc != text.strip()
    if not parts.hostname or given == 0 or odd:
        return None
    return parts.hostname, given or port


class ScanSection(Section):
    lanes: int = Field(
        4, ge=1, le=MOST_LANES, description="most listings at once in one large bucket"
    )
    time_slice: float = Field(
        20.0, ge=1, le=60, description="seconds after which a long scan lets other buckets go first"
    )
    baseline_margin: float = Field(
        86_400.0,
        ge=0,
        le=604_800,
        description="a baseline announces multipart uploads that began so many seconds before it",
    )
    most_objects: int = Field(
        200_000_000,
        ge=0,
        le=MOST_OBJECTS,
        description="objects that may be known of one bucket, others are left out; 0: any number",
    )

    def objects_limit(self, own: int | None) -> int:
        """Give the limit of a bucket whose own is ``own``; None has the default."""
        return self.most_objects if own is None else own


class LookSection(Section):
    pass_gap: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="least seconds between a pass and one that a look asks for which did not find "
        "all that changed",
    )


class ProbeSection(Section):
    interval: Literal["auto"] | int = Field(
        "auto",
        description="seconds between two probes, which ask for a bucket's totals; 0: none",
    )

    @field_validator("interval", mode="plain")
    @classmethod
    def _is_seconds(cls, given: Any) -> Any:
        text = str(given).strip()
        if text == AUTO:
            return AUTO
        if not text.isdecimal() or int(text) > LONGEST_INTERVAL_S:
            raise ValueError(f"must be auto, 0, or seconds up to {LONGEST_INTERVAL_S}")
        return int(text)


class LimitsSection(Section):
    endpoints: str = Field(
        "*.linodeobjects.com=100/750",
        description="host=LIST requests a second in one bucket/requests at once; 0: no limit",
    )

    @field_validator("endpoints")
    @classmethod
    def _can_be_read(cls, text: str) -> str:
        pacing.parse_limits(text)
        return text


class RequestsSection(Section):
    per_day: int = Field(
        0,
        ge=0,
        le=MOST_REQUESTS,
        description="requests a day (UTC) for a bucket without a budget of its own; 0: any number",
    )
    price_per_1000: str = Field(
        "0", description="what 1,000 requests cost: LIST/HEAD/HEAD of buckets, or one for all"
    )
    currency: str = Field("", max_length=12, description="what that is in, such as USD")

    @field_validator("price_per_1000", mode="before")
    @classmethod
    def _is_a_price(cls, given: Any) -> str:
        parse_prices(str(given))
        return str(given)

    def budget(self, own: int | None) -> int:
        """Give the budget of a bucket whose own is ``own``; None has the default."""
        return self.per_day if own is None else own

    def prices(self, own: str) -> RequestPrices:
        """Give the prices at an endpoint whose own are ``own``; "" has the configured ones."""
        return parse_prices(own or self.price_per_1000)


class RetrySection(Section):
    longest: float = Field(
        300.0, ge=5, le=3600, description="most seconds until a failed scan is tried again"
    )
    permanent: float = Field(
        600.0,
        ge=5,
        le=86400,
        description="seconds until one is that fails until somebody changes something",
    )


class DeletionsSection(Section):
    mass_share: float = Field(
        0.5, gt=0, le=1, description="a larger share of missing, or only moved, objects is held"
    )
    mass_minimum: int = Field(
        1000, ge=1, description="missing or moved objects are held from this many known ones on"
    )
    second_look: float = Field(
        0.0, ge=0, description="seconds after which what is held is released; 0: by hand only"
    )
    confirm: Confirm = Field(
        Confirm.HEAD,
        description="what confirms that a missing object is gone: head, listing (the next one) "
        "or none",
    )


class QueueSection(Section):
    high_water: int = Field(
        1_000_000, ge=1, description="notifications waiting in the queue from which scanning pauses"
    )
    bucket_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of high_water from which a bucket that announced as many today pauses "
        "before the others do; 1: with them",
    )


class ReadySection(Section):
    require_webhook: bool = Field(
        default=True, description="/ready asks for a webhook URL once buckets are monitored"
    )


class StorageSection(Section):
    connect_timeout: float = Field(
        5.0,
        gt=0,
        le=120,
        description="seconds to look up an S3 endpoint's name, and as many to connect to it",
    )
    read_timeout: float = Field(
        30.0, gt=0, le=600, description="seconds without a byte from an S3 endpoint"
    )


class SecuritySection(Section):
    allow_private_endpoints: bool = Field(
        default=False,
        description="buckets and webhooks may be at loopback and private addresses",
    )
    allowed_networks: str = Field(
        "", description="networks that they may be in, with commas between: 10.0.0.0/8,fd00::/8"
    )

    @field_validator("allowed_networks")
    @classmethod
    def _names_networks(cls, networks: str) -> str:
        return checked_networks(networks)


class EngineSettings(Section):
    """Everything that the scanning engine can be told."""

    parallel: ParallelSection = ParallelSection()
    defaults: DefaultsSection = DefaultsSection()
    polling: PollingSection = PollingSection()
    redis: RedisSection = RedisSection()
    scan: ScanSection = ScanSection()
    look: LookSection = LookSection()
    probe: ProbeSection = ProbeSection()
    limits: LimitsSection = LimitsSection()
    requests: RequestsSection = RequestsSection()
    retry: RetrySection = RetrySection()
    deletions: DeletionsSection = DeletionsSection()
    queue: QueueSection = QueueSection()
    ready: ReadySection = ReadySection()
    storage: StorageSection = StorageSection()
    security: SecuritySection = SecuritySection()

    @property
    def address_rules(self) -> AddressRules:
        return AddressRules.of(
            allow_private=self.security.allow_private_endpoints,
            networks=self.security.allowed_networks,
        )

    def probe_plan(self, own_s: int | None, *, own_polling_s: int | None) -> ProbePlan:
        """Say how a bucket with these intervals of its own is probed; None has the default."""
        polling_s = self.defaults.interval_s(own_polling_s)
        return plan_probes(own_s, self.probe.interval, polling_s=polling_s)

    @property
    def endpoint_limits(self) -> tuple[tuple[str, pacing.EndpointLimits], ...]:
        return pacing.parse_limits(self.limits.endpoints) + providers.LIMITS

    def polling_intervals(self, own_s: int | None, own_longest_s: int | None) -> PollingIntervals:
        """Give the intervals of a bucket with these of its own; None has the default."""
        longest_s = self.polling.longest if own_longest_s is None else own_longest_s
        return PollingIntervals(self.defaults.interval_s(own_s), longest_s)

    @property
    def page_size(self) -> int:
        """Rows asked for in one listing request: S3 takes 1 to 1000."""
        return min(self.defaults.max_objects_per_batch, 1000)
