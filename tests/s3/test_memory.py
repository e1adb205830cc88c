"""What a scan of a hostile endpoint takes of a worker: measured in processes of its own."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from scanning.adapters.s3.clients import S3ClientCache
from scanning.adapters.s3.storage import S3Storage
from scanning.core.errors import BucketwatchError
from scanning.core.types import BucketConfig, KeyPair
from tests.s3.test_errors import HUGE
from tests.support.canned_http import Answer, CannedServer
from tests.support.fakes import Site
from tests.support.listing_bodies import Row, plain, rgw
from tests.support.processes import ROOT
from tests.support.servers import LOCAL

MOST_BYTES = 256 * 2**20
FAT = "u" * 7_500
HOSTILE = HUGE | {
    "fat rows": rgw([Row(f"{n:03}") for n in range(1000)]).replace(b"U &amp; V", FAT.encode()),
    "fat rows, not encoded": plain(Row(f"{n:03}") for n in range(1000)).replace(
        b"<Size>", b"<Owner>%b</Owner><Size>" % FAT.encode()
    ),
    "odd rows": rgw(Row(f"{n:03}") for n in range(1000)).replace(b"<Size>3</Size>", b""),
    "odd rows of another shape": rgw(Row(f"{n:03}") for n in range(1000)).replace(
        b"<Size>3</Size>", b"<a/>" * 80
    ),
}


def scan(url: str) -> None:
    """Scan a bucket as a worker does, but for Redis."""
    cache = S3ClientCache(LOCAL, attempts=1)
    storage = S3Storage(cache, BucketConfig("photos", url, "r", "C"), KeyPair("a", "b"))
    site = Site()
    with suppress(BucketwatchError):
        site.scan_under(site.claim(), storage)


def peak_bytes() -> int:
    """The most memory that this program has had; its parent's is in `getrusage` too."""
    [line] = [
        text for text in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in text
    ]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("name", HOSTILE)
def test_a_scan_of_a_hostile_endpoint_takes_little_memory(name):
    answer = Answer(200, HOSTILE[name])
    with CannedServer(Answer(200, rgw([Row("a")]))) as usual, CannedServer(answer) as hostile:
        program = [sys.executable, "-m", __name__, usual.url, hostile.url]
        ran = subprocess.run(
            program, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
        )
    assert hostile.asked
    assert int(ran.stdout) < MOST_BYTES, ran.stdout


if __name__ == "__main__":
    scan(sys.argv[1])
    before = peak_bytes()
    scan(sys.argv[2])
    print(peak_bytes() - before)  # noqa: T201
