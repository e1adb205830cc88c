"""The S3 server of `make chaos`: it shows what the model says, and fails as it is told to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from scanning.adapters.s3.storage import S3ClientCache, S3Storage
from scanning.core.deletions import HeadAnswer
from scanning.core.errors import PermanentError, TransientError
from scanning.core.types import BucketConfig, KeyPair
from scanning.scan.lane_splitter import Lane
from scanning.scan.prefetch import list_pages
from tests.chaos.model import ModelBucket, World
from tests.chaos.s3_faults import FAULTS, LIES, MOVED_MS, PERMANENT, SHAPES
from tests.chaos.s3_objects import Change
from tests.chaos.s3_server import ChaosS3
from tests.support.servers import LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = ModelBucket("photos", 0, objects=300, prefix="in/")
IMPATIENT = LOCAL.model_copy(
    update={"storage": LOCAL.storage.model_copy(update={"read_timeout": 0.5})}
)


@pytest.fixture(scope="module")
def world() -> World:
    """A bucket in the middle of its life."""
    world = World(1, [BUCKET])
    world.begin(1_700_000_000_000)
    for step in range(100):
        world.step(1_700_000_000_000 + step, changes=5)
    return world


@pytest.fixture(scope="module")
def server(world, tmp_path_factory) -> Iterator[ChaosS3]:
    again = World(1, [BUCKET])
    with ChaosS3(tmp_path_factory.mktemp("chaos"), endpoints=2, seed=1) as running:
        running.change(again.begin(1_700_000_000_000))
        for step in range(100):
            running.change(again.step(1_700_000_000_000 + step, changes=5))
        assert again.histories == world.histories
        yield running


@pytest.fixture
def storage(server) -> Iterator[S3Storage]:
    server.faults({0: {}, 1: {}})
    cache = S3ClientCache(IMPATIENT, attempts=1)
    bucket = BucketConfig(BUCKET.name, server.urls[0], "region", "C")
    yield S3Storage(cache, bucket, KeyPair("key", "secret"))
    cache.clear_cache()


def listed(storage: S3Storage, *, page_size: int = 100) -> dict[str, tuple[str, int, int]]:
    pages = list_pages(storage, Lane("", None), page_size=page_size)
    rows = storage.rows(b"".join(page.entries for page in pages)).columns
    values = zip(rows.etags, rows.last_modified, rows.sizes, strict=True)
    return dict(zip(rows.keys, values, strict=True))


@pytest.mark.parametrize("shape", ["", *SHAPES])
def test_every_shape_of_a_listing_shows_what_the_model_says(server, storage, world, shape):
    # Not so often that eight empty pages in a row, which are too many, come by chance.
    server.faults({0: {shape: 0.25} if shape else {}})
    assert listed(storage) == world.listed(BUCKET.name)
    assert list(listed(storage)) == sorted(world.listed(BUCKET.name))


def test_a_listing_of_a_prefix_leaves_the_others_out(server, world):
    cache = S3ClientCache(LOCAL, attempts=1)
    bucket = BucketConfig(BUCKET.name, server.urls[1], "region", "C", prefix=BUCKET.prefix)
    here = S3Storage(cache, bucket, KeyPair("key", "secret"))
    inside = {k: v for k, v in world.listed(BUCKET.name).items() if k.startswith(BUCKET.prefix)}
    assert 0 < len(inside) < len(world.listed(BUCKET.name))
    assert listed(here) == inside
    cache.clear_cache()


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_no_error_and_leaves_out_what_head_shows(server, storage, world, lie):
    server.faults({0: {lie: 1.0}})
    left_out = world.listed(BUCKET.name).keys() - listed(storage).keys()
    assert left_out
    key = min(left_out)
    assert storage.look_up(key)[0] == world.listed(BUCKET.name)[key][0]


def test_odd_rows_are_left_out_and_the_others_are_listed(server, storage, world):
    server.faults({0: {"odd_rows": 1.0}})
    page = storage.page("", 100)
    server.faults({0: {}})
    rows = storage.rows(page.entries)
    assert 1 <= len(rows.odd) <= 3
    assert len(rows.columns) + len(rows.odd) == 100


def test_a_node_with_a_clock_of_its_own_lists_other_times(server, storage, world):
    server.faults({0: {"moved_clock": 1.0}})
    there = world.listed(BUCKET.name)
    assert listed(storage) == {
        key: (version.etag, version.modified_ms + MOVED_MS, version.size)
        for key, version in there.items()
    }


def test_a_listing_that_begins_behind_a_key_that_is_gone_is_taken_for_the_end(server, storage):
    server.faults({0: {"loses_place": 1.0}})
    [first, second] = list(listed(storage))[:2]
    assert storage.page(first, 10).entries
    assert first < f"{first}!" < second
    assert not storage.page(f"{first}!", 10).entries


def test_changes_come_late_to_a_listing_and_at_once_to_head(server, storage):
    server.lag({0: 3600.0})
    before = listed(storage)
    server.change([Change(BUCKET.name, "late", "etag", 1_700_000_000_000, 7)])
    assert listed(storage) == before
    assert storage.head("late").etag == "etag"
    server.lag({0: 0.0})
    assert listed(storage) == before | {"late": ("etag", 1_700_000_000_000, 7)}
    server.change([Change(BUCKET.name, "late", None)])
    assert listed(storage) == before


def test_head_may_refuse_deny_and_tell_of_what_was(server, storage, world):
    key, now = next(iter(world.listed(BUCKET.name).items()))
    server.faults({0: {"head_refused": 1.0}})
    assert storage.look_up(key) is HeadAnswer.REFUSED
    server.faults({0: {"head_gone": 1.0}})
    assert storage.look_up(key) is HeadAnswer.GONE
    server.faults({0: {"head_weak": 1.0}})
    assert storage.look_up(key)[0] == now.etag
    server.change([Change(BUCKET.name, key, "other", now.modified_ms, 7)])
    server.faults({0: {"head_stale": 1.0}})
    assert storage.look_up(key)[0] == now.etag
    server.change([Change(BUCKET.name, key, *now)])


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"slow"}))
def test_a_fault_is_an_error_and_no_listing(server, storage, fault):
    server.faults({0: {fault: 1.0}})
    with pytest.raises(TransientError):
        storage.page("", 100)


@pytest.mark.parametrize("fault", PERMANENT)
def test_what_stays_is_another_error(server, storage, fault):
    server.faults({0: {fault: 1.0}})
    with pytest.raises(PermanentError):
        storage.page("", 100)


def test_endpoints_have_faults_of_their_own(server, storage):
    server.faults({1: {"failed": 1.0}})
    assert listed(storage)
    server.faults({0: {"slow": 1.0}})
    assert listed(storage)
    assert server.drawn()["slow"] >= 1


def test_head_says_what_the_listing_says(server, storage, world):
    for key, version in list(world.listed(BUCKET.name).items())[:20]:
        found = storage.head(key)
        assert found is not None
        assert found.etag == version.etag
        assert found.metadata == {"etag": version.etag}
    assert storage.head("never there") is None


def test_every_list_is_recorded(server, storage):
    before = server.lists()
    began = time.time()
    storage.page("", 1000)
    storage.page("in/", 1000)
    new = server.lists()[len(before) :]
    assert [name for _, name in new] == [BUCKET.name] * 2
    assert all(began <= at <= time.time() for at, _ in new)
