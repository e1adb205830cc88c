"""The documented import path of `BucketScanner`."""

from scanning.runtime.bucket_scanner import BucketScanner

__all__ = ["BucketScanner"]
