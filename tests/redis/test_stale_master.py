"""A master that was replaced by a failover, and does not know it: its answers do not count."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanning.adapters.redis.connection import RedisConnection
from scanning.adapters.redis.leases import RedisLeases
from scanning.adapters.redis.state import RedisStateStore
from scanning.config import settings as engine_settings
from scanning.core.errors import CommitOutOfStep
from scanning.core.segments.model import Entry, Piece
from scanning.core.types import BucketConfig, Claim
from scanning.ports import Commit, Position
from tests.support.fakes import columns_of
from tests.support.redis_topology import RedisTopology

BUCKET = BucketConfig("bucket", "localhost:9000", "region", "BUCKET")


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[RedisTopology]:
    with RedisTopology(tmp_path, down_after_s=1.0) as built:
        yield built


class Worker:
    """A process with connections of its own."""

    def __init__(self, topology: RedisTopology) -> None:
        settings = engine_settings.EngineSettings(
            redis=engine_settings.RedisSection(**topology.settings())
        )
        link = RedisConnection(settings.redis)
        self.leases, self.states = RedisLeases(link), RedisStateStore(link, settings)

    def claim(self) -> Claim:
        claimed = self.leases.claim(BUCKET, slots=1)
        assert claimed is not None
        return claimed


def piece(etag: str) -> Piece:
    columns = columns_of({"key": (etag, 1_700_000_000_000, 5)})
    return Piece(Entry("a", "key", 1, b"", 40), columns)


def test_a_scan_refuses_rows_and_manifests_of_a_master_that_was_replaced(topology):
    here, there = Worker(topology), Worker(topology)
    claim = here.claim()
    here.states.commit(claim, Commit(1, pieces=[piece("old")]))
    assert here.states.load(BUCKET, ["a"]) == [piece("old").columns]
    here.leases.release(claim)

    replaced = topology.master()
    replaced.signal(signal.SIGSTOP)
    topology.wait_for_master(other_than=replaced, writable=True)
    claim = there.claim()
    there.states.commit(claim, Commit(2, pieces=[piece("new")]))
    assert there.states.load(BUCKET, ["a"], Position(claim.fence, 2)) == [piece("new").columns]
    topology.stop_sentinels()  # or they would tell it
    replaced.signal(signal.SIGCONT)

    # The connection is still there, and the server believes itself.
    assert here.states.load(BUCKET, ["a"]) == [piece("old").columns]
    with pytest.raises(CommitOutOfStep):
        here.states.load(BUCKET, ["a"], Position(claim.fence, 2))
    with pytest.raises(CommitOutOfStep):
        here.states.open(BUCKET, claim)
