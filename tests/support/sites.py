"""A site that scans a bucket in memory, and what it announced."""

from typing import Any

from scanning.core.types import EventType
from scanning.scan.context import ScanSettings
from tests.support.fakes import Bucket, Crash, FakePage, FakeStorage, Site

OLD, NEW = 1_600_000_000_000, 1_700_000_000_000
ALL = frozenset(EventType)


def numbered(count: int, *, step: int = 1, etag: str = "e", width: int = 5) -> Bucket:
    return {f"key-{number:0{width}d}": (etag, OLD, 1) for number in range(0, count * step, step)}


def site(page_size: int = 10, *, lanes: int = 1, **settings: Any) -> Site:
    # Lanes really run at once, although the bucket in memory answers at once.
    chosen = ScanSettings(page_size=page_size, lanes=lanes, slow_page_s=-1.0, **settings)
    return Site(settings=chosen).wanting(events=ALL)


def scanned(here: Site, bucket: Bucket, **storage: Any) -> FakeStorage:
    listed = FakeStorage(bucket, **storage)
    here.scan_to_the_end(listed)
    return listed


def announced(here: Site) -> list[tuple[str, str]]:
    """Take the events queued since the last call, as event type and key."""
    events = [(event["event_type"], event["key"]) for event in here.states.queue]
    here.states.queue.clear()
    return events


def without(bucket: Bucket, *keys: str) -> Bucket:
    return {key: state for key, state in bucket.items() if key not in keys}


class Broken(FakeStorage):
    """Answers so many times, and then no more."""

    def __init__(self, objects: Bucket, *, after: int) -> None:
        super().__init__(objects)
        self.left = after

    def page(self, start_after: str, max_keys: int) -> FakePage:
        if not self.left:
            raise Crash
        self.left -= 1
        return super().page(start_after, max_keys)
