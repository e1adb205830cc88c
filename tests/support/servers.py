"""The servers of the test run, with what only tests ask of them."""

from itertools import count
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from bucketwatch.local.servers import RedisServer, S3Server
from scanning.config.settings import EngineSettings, SecuritySection

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["LOCAL", "RedisServer", "TestS3Server"]

# The default configuration, but that servers may be on this host.
LOCAL = EngineSettings(security=SecuritySection(allow_private_endpoints=True))

_numbers = count(1)


class TestS3Server(S3Server):
    """Moto's S3 server with a boto3 client and fresh buckets."""

    __test__ = False
    _client: "S3Client | None" = None

    def client(self) -> "S3Client":
        """Return a boto3 client with the right keys; the same one each time."""
        if self._client is None:
            self._client = boto3.client(
                "s3",
                endpoint_url=self.url,
                region_name="us-east-1",
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret_key,
                config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
            )
        return self._client

    def bucket(self, name: str | None = None) -> str:
        """Create an empty bucket (an existing one is emptied) and return its name."""
        name = name or f"bucket-{next(_numbers)}"
        client = self.client()
        if name in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
            self.remove(name)
        client.create_bucket(Bucket=name)
        return name

    def remove(self, name: str) -> None:
        """Delete a bucket with all that is in it."""
        client = self.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for listed in page.get("Contents", []):
                client.delete_object(Bucket=name, Key=listed["Key"])
        client.delete_bucket(Bucket=name)

    def put(self, bucket: str, key: str, body: bytes = b"x", **arguments: str) -> None:
        self.client().put_object(Bucket=bucket, Key=key, Body=body, **arguments)  # type: ignore[arg-type]

    def delete(self, bucket: str, *keys: str) -> None:
        """Delete objects by one request, so that no scan comes between two of them."""
        objects = [{"Key": key} for key in keys]
        self.client().delete_objects(Bucket=bucket, Delete={"Objects": objects})  # type: ignore[typeddict-item]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self.stop()
