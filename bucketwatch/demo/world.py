"""The buckets that the demo watches, and what lies in them at the first start."""

from __future__ import annotations

import mimetypes
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bucketwatch.local.s3_memory import KeptObject

if TYPE_CHECKING:
    from bucketwatch.local.s3_memory import Memory

DAY_S = 86_400.0
PLACEHOLDER = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class DemoBucket:
    """``keys`` are there from the start; ``pattern`` names what is uploaded later."""

    name: str
    region: str
    pattern: str
    keys: tuple[str, ...]

    def is_its_own(self, key: str) -> bool:
        """Tell the demo's keys from those of a person who tries things out."""
        pattern = r"\d+".join(re.escape(part) for part in PLACEHOLDER.split(self.pattern))
        return key in self.keys or re.fullmatch(pattern, key) is not None


BUCKETS = (
    DemoBucket(
        "media-in",
        "us-iad-1",
        "2025/{month:02}/clip {number}.mp4",
        ("2025/04/Interview mit Jürgen.mp4", "2025/04/intro.mp4", "readme.txt"),
    ),
    DemoBucket(
        "thumbnails",
        "us-iad-1",
        "{number}/small.jpg",
        ("10/small.jpg", "10/large.jpg", "11/small.jpg", "11/large.jpg"),
    ),
    DemoBucket(
        "website",
        "us-iad-1",
        "blog/post-{number}.html",
        ("index.html", "css/main.css", "img/Logo & Schriftzug.svg"),
    ),
    DemoBucket(
        "invoices",
        "fr-par-1",
        "2025/Rechnung {number}.pdf",
        ("2024/Rechnung 0815.pdf", "2024/Größere Rechnung.pdf"),
    ),
    DemoBucket(
        "backups",
        "fr-par-1",
        "db/nightly-{number}.sql.gz",
        ("db/nightly-1.sql.gz", "files/home.tar.gz"),
    ),
    DemoBucket(
        "sensor-data",
        "sg-sin-2",
        "site={month}/part-{number}.csv",
        ("site=1/part-1.csv", "site=1/part-2.csv", "site=2/part-1.csv"),
    ),
    DemoBucket(
        "mail-archive",
        "sg-sin-2",
        "inbox/{number}.eml",
        ("inbox/1.eml", "sent items/2.eml", "drafts/+1 % done?.eml"),
    ),
)


def seed(memory: Memory, *, now: float) -> None:
    """Put every bucket that is not there yet in place, with objects of different ages.

    The first object of a bucket is an hour old and will be announced as created, the others
    are older than a day: detected.
    """
    there = memory.buckets()
    for bucket in BUCKETS:
        if bucket.name in there:
            continue
        for age, key in enumerate(bucket.keys):
            modified = now - (age * 9 * DAY_S or 3600.0)
            content = KeptObject.new(
                key, body(), content_type=content_type(key), last_modified=float(int(modified))
            )
            memory.keep_object(bucket.name, content)
        memory.keep_bucket(bucket.name, bucket.region)  # last: a crash before seeds it again


def body() -> bytes:
    """Make some content, never the same twice."""
    return secrets.token_bytes(200 + secrets.randbelow(3000))


def content_type(key: str) -> str:
    return mimetypes.guess_type(key)[0] or "application/octet-stream"
