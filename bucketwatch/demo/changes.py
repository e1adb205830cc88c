"""Somebody else's work: uploads, overwrites and deletions at a rate that a person can follow."""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bucketwatch.demo.world import BUCKETS, body, content_type

if TYPE_CHECKING:
    from bucketwatch.demo.world import DemoBucket
    from bucketwatch.local.servers import S3Server

MOST_OBJECTS = 40  # of its own in one bucket; above that it deletes
CHANGE_EVERY_S = (0.7, 1.7)

logger = logging.getLogger(__name__)


class Changer(threading.Thread):
    """Changes one object of one bucket after the other until ``stop()``."""

    def __init__(self, server: S3Server) -> None:
        super().__init__(name="changer", daemon=True)
        self.dice = random.SystemRandom()
        self._stopping = threading.Event()
        self._client = boto3.client(
            "s3",
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            config=Config(
                connect_timeout=2,
                read_timeout=5,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
            ),
        )

    def run(self) -> None:
        while not self._stopping.wait(self.dice.uniform(*CHANGE_EVERY_S)):
            try:
                self.change(self.dice.choice(BUCKETS))
            except (BotoCoreError, ClientError) as exc:
                # A bucket may be gone, the server may be stopping: the next change will show.
                logger.info("A change failed: %s", exc)

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)
        self._client.close()

    def change(self, bucket: DemoBucket) -> None:
        """Upload (half of the time), overwrite or delete one object; those of others stay."""
        listed = self._client.list_objects_v2(Bucket=bucket.name).get("Contents", [])
        keys = [row["Key"] for row in listed if bucket.is_its_own(row["Key"])]
        fate = self.dice.random()
        if keys and (len(keys) > MOST_OBJECTS or fate > 0.85):
            self._client.delete_object(Bucket=bucket.name, Key=self.dice.choice(keys))
        elif keys and fate > 0.5:
            self._put(bucket.name, self.dice.choice(keys))
        else:
            month, number = self.dice.randint(1, 12), self.dice.randint(100, 9999)
            self._put(bucket.name, bucket.pattern.format(month=month, number=number))

    def _put(self, bucket: str, key: str) -> None:
        self._client.put_object(
            Bucket=bucket,
            Key=key,
            Body=body(),
            ContentType=content_type(key),
            Metadata={"by": "demo"},
        )
