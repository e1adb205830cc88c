"""A stand-in for the older monitor: does to Redis what the wire contract says that it does.

So it shows both what bucketwatch finds when it takes over, and whether the older monitor finds its
way when it is started again.
"""

import json
import time
from typing import Any

import boto3
import redis
from botocore.config import Config

from tests.support.infisical_server import InfisicalServer
from tests.support.notifications import QUEUE

CONFIG = "linode:objstore:config:bucket:"
STATE_TTL_S = 2_592_000
QUEUE_TTL_S = 604_800


class OlderMonitor:
    """Scans all active buckets, one after the other, when it is asked to.

    It lists no further than the first ``batch`` of each bucket. ``vault`` is where it reads keys.
    """

    def __init__(self, client: redis.Redis, vault: InfisicalServer, *, batch: int) -> None:
        self.client, self.vault, self.batch = client, vault, batch

    def add(self, name: str, endpoint: str, *, keys: tuple[str, str], **members: Any) -> None:
        document = {
            "name": name,
            "endpoint": endpoint,
            "webhook_url": "https://api.example.com/hook",
            "status": "active",
            "added_at": "2025-04-10T12:00:00",
            "updated_at": "2025-04-11T09:30:00",
        }
        self.client.set(CONFIG + name, json.dumps(document | members))
        prefix = name.upper().replace("-", "_")
        self.vault.put(**{f"{prefix}_ACCESS_KEY": keys[0], f"{prefix}_SECRET_KEY": keys[1]})

    def scan(self) -> list[tuple[str, str, str]]:
        """Scan every active bucket; return bucket, event type and key of each message."""
        announced = []
        for found in sorted(self.client.scan_iter(f"{CONFIG}*")):
            document = json.loads(str(self.client.get(found)))
            if document["status"] == "active":
                announced += self._scan(document["name"], document)
        return announced

    def _scan(self, name: str, document: dict[str, Any]) -> list[tuple[str, str, str]]:
        began = time.time()
        announced = []
        is_silent = self.client.get(f"linode:objstore:config:{name}:notifications_disabled")
        for listed in self._listing(name, document["endpoint"]):
            event_type = self._classify(name, listed)
            if event_type and not is_silent:
                self._push(name, document["endpoint"], listed, event_type)
                announced.append((name, event_type, listed["Key"]))
            if event_type:
                self._remember(name, listed)
        self.client.set(f"linode:objstore:last_scan:{name}", str(began))
        return announced

    def _listing(self, name: str, endpoint: str) -> list[Any]:
        prefix = name.upper().replace("-", "_")
        values = self.vault.values
        s3 = boto3.client(
            "s3",
            endpoint_url=endpoint if "://" in endpoint else f"https://{endpoint}",
            region_name="us-east-1",
            aws_access_key_id=values[f"{prefix}_ACCESS_KEY"],
            aws_secret_access_key=values[f"{prefix}_SECRET_KEY"],
            config=Config(s3={"addressing_style": "path"}),
        )
        try:
            return list(s3.list_objects_v2(Bucket=name, MaxKeys=self.batch).get("Contents", []))
        finally:
            s3.close()

    def _classify(self, name: str, listed: Any) -> str:
        stored = self.client.get(f"linode:objstore:state:{name}:{listed['Key']}")
        modified = listed["LastModified"].timestamp()
        if stored is None:
            return "created" if time.time() - modified <= 24 * 3600 else "detected"
        known = json.loads(str(stored))
        same = (known["etag"], known["last_modified"]) == (listed["ETag"].strip('"'), modified)
        return "" if same else "updated"

    def _push(self, name: str, endpoint: str, listed: Any, event_type: str) -> None:
        modified = listed["LastModified"].timestamp()
        message = {
            "bucket": name,
            "key": listed["Key"],
            "region": endpoint.removeprefix("http://"),
            "etag": listed["ETag"].strip('"'),
            "size": listed["Size"],
            "last_modified": modified,
            "event_type": event_type,
            "content_type": "application/octet-stream",
            "metadata": {},
            "detection_time": time.time(),
            "is_recent": time.time() - modified <= 24 * 3600,
            "retry_count": 0,
        }
        self.client.rpush(QUEUE, json.dumps(message))
        self.client.expire(QUEUE, QUEUE_TTL_S)

    def _remember(self, name: str, listed: Any) -> None:
        state = {
            "etag": listed["ETag"].strip('"'),
            "last_modified": listed["LastModified"].timestamp(),
            "size": listed["Size"],
            "last_processed": time.time(),
            "last_seen": time.time(),
        }
        key = f"linode:objstore:state:{name}:{listed['Key']}"
        self.client.set(key, json.dumps(state), ex=STATE_TTL_S)
