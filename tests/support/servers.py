"""The servers of the test run, with what only tests ask of them."""

from itertools import count
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from bucketwatch.local.servers import RedisServer, S3Server
from scanning.config.settings import EngineSettings, SecuritySection

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["LOCAL", "RedisServer", "S3Account", "TestS3Server"]

# The default configuration, but that servers may be on this host.
LOCAL = EngineSettings(security=SecuritySection(allow_private_endpoints=True))

_numbers = count(1)
WRITERS = 16  # threads that may use one client at a time


class S3Account:
    """Whoever has a key pair at an S3 server: a boto3 client, and fresh buckets."""

    access_key: str
    secret_key: str
    _client: "S3Client | None" = None

    @property
    def url(self) -> str:
        raise NotImplementedError

    def client(self) -> "S3Client":
        """Return a boto3 client with the right keys; the same one each time."""
        if self._client is None:
            self._client = boto3.client(
                "s3",
                endpoint_url=self.url,
                region_name="us-east-1",
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret_key,
                config=Config(
                    signature_version="s3v4",
                    s3={"addressing_style": "path"},
                    retries={"max_attempts": 1},
                    max_pool_connections=WRITERS,
                ),
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

    def touch(self, bucket: str, *keys: str) -> None:
        """Write objects again as they are, so that only their times move."""
        client = self.client()
        for key in keys:
            found = client.get_object(Bucket=bucket, Key=key)
            body, before = found["Body"].read(), found["LastModified"]
            while client.head_object(Bucket=bucket, Key=key)["LastModified"] == before:
                self.put(bucket, key, body)

    def delete(self, bucket: str, *keys: str) -> None:
        """Delete objects by one request, so that no scan comes between two of them."""
        objects = [{"Key": key} for key in keys]
        self.client().delete_objects(Bucket=bucket, Delete={"Objects": objects})  # type: ignore[typeddict-item]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


class TestS3Server(S3Server, S3Account):
    """Moto's S3 server, and the account that owns its buckets."""

    __test__ = False

    def close(self) -> None:
        S3Account.close(self)
        self.stop()
