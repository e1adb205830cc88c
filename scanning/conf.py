"""What can be configured, with defaults and bounds; the sections of the documented YAML file.

Pure declarations: ``bucketwatch/env.py`` reads the file and the environment into them.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from scanning.core.addresses import AddressRules

_LAST_PORT = 65535


class Section(BaseModel):
    # Unknown members are warned of by the reader, not refused: the file may still be the older
    # monitor's, which has sections that do not concern us.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Parallel(Section):
    max_workers: int = Field(60, ge=1, le=1000, description="most scans at once in one process")
    rate_limit_per_region: int = Field(
        15, ge=1, le=1000, description="most scans at once in one region"
    )
    stagger_method: Literal["hash", "equal", "random"] = Field(
        "hash", description="how bucket scans are spread over the polling interval"
    )


class Defaults(Section):
    polling_interval: int = Field(
        60, ge=1, le=604800, description="seconds between two scans of a bucket"
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


class Redis(Section):
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
    password: SecretStr | None = None
    queue_name: str = Field("linode:notifications:queue", min_length=1)
    state_prefix: str = Field("linode:objstore:state:", min_length=1)
    ttl: int = Field(
        2_592_000, ge=60, description="seconds that the state of an unlisted object is kept"
    )
    object_states: bool = Field(
        default=True, description="write the documented JSON string of each object"
    )

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
            name, colon, port = host.strip().partition(":")
            if colon and not (name and port.isdecimal() and 1 <= int(port) <= _LAST_PORT):
                raise ValueError("must be host or host:port, with commas between several")
        return hosts


class Scan(Section):
    lanes: int = Field(4, ge=1, le=16, description="most listings at once in one large bucket")
    time_slice: float = Field(
        20.0, ge=1, le=60, description="seconds after which a long scan lets other buckets go first"
    )


class Deletions(Section):
    mass_share: float = Field(
        0.5, gt=0, le=1, description="a larger share of missing objects is held until confirmed"
    )
    mass_minimum: int = Field(
        1000, ge=1, description="the share counts from this many known objects on"
    )
    second_look: float = Field(
        0.0, ge=0, description="seconds after which a held deletion is released; 0: by hand only"
    )


class Queue(Section):
    high_water: int = Field(
        1_000_000, ge=1, description="notifications waiting in the queue from which scanning pauses"
    )


class Ready(Section):
    require_webhook: bool = Field(
        default=True, description="/ready asks for a webhook URL once buckets are monitored"
    )


class Storage(Section):
    connect_timeout: float = Field(
        5.0, gt=0, le=120, description="seconds to connect to an S3 endpoint"
    )
    read_timeout: float = Field(
        30.0, gt=0, le=600, description="seconds without a byte from an S3 endpoint"
    )


class Security(Section):
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
        for network in filter(None, map(str.strip, networks.split(","))):
            try:
                ip_network(network)
            except ValueError:
                raise ValueError("must be networks such as 10.0.0.0/8, with commas") from None
        return networks


class ScanningConf(Section):
    """Everything that the scanning engine can be told."""

    parallel: Parallel = Parallel()
    defaults: Defaults = Defaults()
    redis: Redis = Redis()
    scan: Scan = Scan()
    deletions: Deletions = Deletions()
    queue: Queue = Queue()
    ready: Ready = Ready()
    storage: Storage = Storage()
    security: Security = Security()

    @property
    def address_rules(self) -> AddressRules:
        return AddressRules.of(
            allow_private=self.security.allow_private_endpoints,
            networks=self.security.allowed_networks,
        )

    @property
    def page_size(self) -> int:
        """Rows asked for in one listing request: S3 takes 1 to 1000."""
        return min(self.defaults.max_objects_per_batch, 1000)
