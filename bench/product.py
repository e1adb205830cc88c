"""The product as a worker runs it: Django's settings, a real Redis, `BucketScanner`."""

from __future__ import annotations

import gc
import os
import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from bench.peers import BUCKET, REGION
from bucketwatch.local.environment import without_product_variables
from bucketwatch.local.servers import RedisServer

if TYPE_CHECKING:
    from pathlib import Path

    import redis

QUEUE = "linode:notifications:queue"


@dataclass(frozen=True)
class Cost:
    """What something took: objects, seconds, and seconds of this process on a CPU."""

    objects: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Scanned:
    """What a complete scan has seen."""

    objects: int
    changes: int


class Stopwatch:
    """Times a block in this process, all its threads together."""

    def __enter__(self) -> Self:
        gc.collect()  # the garbage of the one before is not this one's cost
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s = time.perf_counter() - self._wall
        self.cpu_s = time.process_time() - self._cpu

    def cost(self, objects: int) -> Cost:
        return Cost(objects, self.wall_s, self.cpu_s)


def configure(directory: Path, redis_url: str) -> None:
    """Set Django up for this process, whatever the environment says; once."""
    environ = without_product_variables(os.environ)
    for name in set(os.environ) - set(environ):
        del os.environ[name]
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "bucketwatch.settings",
        "ENV_FILE": os.devnull,
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATA_DIR": str(directory),
        "REDIS_URL": redis_url,
        "SECURITY_ALLOWED_NETWORKS": "127.0.0.0/8",
        "LOG_LEVEL": "WARNING",
    }
    from scanning import wiring  # noqa: PLC0415 - Django's settings are read when it is imported

    wiring.ensure_django()


class Product:
    """One bucket on the bench server, scanned as a worker would."""

    def __init__(self, s3_url: str) -> None:
        from scanning import wiring  # noqa: PLC0415 - see configure()
        from scanning.core.types import KeyPair  # noqa: PLC0415

        self._wiring = wiring
        self._url = s3_url
        self._revision = 0
        self.strings = True
        self.lanes = 4
        # Memory is measured after emptying: not while it is still being freed.
        self.redis_client().config_set("lazyfree-lazy-user-flush", "no")
        wiring.vault().write("BENCH", KeyPair("bench", "bench"))

    def forget(self, *, first_scan: str = "announce") -> None:
        """Empty Redis and add the bucket anew."""
        self.redis_client().flushall()
        self._revision += 1
        document = {
            "name": BUCKET,
            "endpoint": self._url,
            "status": "active",
            "bucketwatch": {
                "region": REGION,
                "credential": "BENCH",
                "generation": 1,
                "polling_interval": 60,
                "fetch_metadata": False,
                "first_scan": first_scan,
            },
        }
        self._wiring.background().bucket_configs.put(
            BUCKET, document, notifications=True, revision=self._revision
        )

    def scan(self) -> Scanned:
        """One complete scan, in as many time slices as it takes."""
        from scanning.runtime.bucket_scanner import BucketScanner  # noqa: PLC0415 - see configure()

        bucket = self._wiring.background().bucket_configs.get(BUCKET)
        if bucket is None:
            raise RuntimeError("forget() adds the bucket")
        conf = self._wiring.conf()
        settings = replace(self._wiring.scan_settings(conf), strings=self.strings, lanes=self.lanes)
        changes = 0
        while True:
            scanner = BucketScanner(
                bucket,
                self._wiring.background().connection.client,
                conf,
                None,
                self._wiring.client_cache(),
                settings=settings,
            )
            scanner.run()
            result = scanner.result
            if result is None or not result.ok:
                raise RuntimeError(f"the scan failed: {result and result.error}")
            changes += result.counts.changes
            if result.complete:
                return Scanned(result.listed, changes)

    def timed_scan(self, *, changes: int) -> Cost:
        """Scan, and check that it found as many changes as there are."""
        with Stopwatch() as watch:
            scanned = self.scan()
        if scanned.changes != changes:
            raise RuntimeError(f"{scanned.changes} changes found instead of {changes}")
        return watch.cost(scanned.objects)

    def empty_queue(self) -> None:
        self.redis_client().delete(QUEUE)

    def used_memory(self) -> int:
        """What Redis uses, without buffers for connections and what it has yet to free."""
        client = self.redis_client()
        client.connection_pool.disconnect()
        client.client_kill_filter(_type="normal", skipme=True)
        memory: Any = client.info("memory")
        while memory["lazyfree_pending_objects"]:
            time.sleep(0.01)
            memory = client.info("memory")
        return int(memory["used_memory"])

    def redis_client(self) -> redis.Redis:
        return self._wiring.background().connection.client


def redis_server(directory: Path) -> RedisServer:
    server = RedisServer(directory / "redis")
    server.start()
    return server
