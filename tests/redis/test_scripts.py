"""The Lua scripts, as files and in Redis."""

import re

import pytest

from scanning import wiring
from scanning.adapters.redis import scripts
from scanning.adapters.redis.connection import Script
from scanning.adapters.redis.losses import RedisContinuity
from scanning.core import redis_keys
from scanning.core.errors import RedisUnavailable
from scanning.core.types import CommitExpectation
from tests.redis.conftest import GUARD
from tests.support import engine_buckets
from tests.support.meddling import MeddlingConnection
from tests.support.processes import ROOT

FILES = sorted(scripts.DIRECTORY.glob("*.lua"))


def test_every_script_is_run_by_an_adapter_and_no_other():
    adapters = (path.read_text(encoding="utf-8") for path in (ROOT / "scanning").rglob("*.py"))
    loaded = {name for text in adapters for name in re.findall(r'load_script\("(\w+)"\)', text)}
    assert loaded == {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_script_says_at_its_top_what_it_takes(path):
    script = path.read_text(encoding="utf-8")
    head = script[: re.search(r"^(?!--)", script, re.MULTILINE).start()]  # type: ignore[union-attr]
    assert re.match(r"-- [A-Z]\w+ ", head)
    assert "\n-- KEYS  " in head
    for argument in set(re.findall(r"\bargs\.(\w+)", script)):
        assert re.search(rf"^--.*\b{argument}\b", head, re.MULTILINE), argument


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_script_builds_no_name_of_a_key(path):
    assert "linode:" not in scripts.source(path.stem).replace(GUARD, "")


def test_a_key_that_a_script_does_not_declare_is_refused_in_these_tests(store):
    touch_another = "return redis.call('GET', 'other')"
    run = Script(wiring.background().connection, GUARD + touch_another)
    with pytest.raises(RedisUnavailable, match="undeclared key other"):
        run(["one"], {})


def test_arguments_arrive_by_name_whatever_they_are(store):
    run = Script(
        wiring.background().connection,
        """
        local args = cmsgpack.unpack(ARGV[1])
        redis.call('SET', KEYS[1], args.bytes)
        redis.call('SET', KEYS[2], args.text)
        return {args.nothing == nil and 1 or 0, args.is_on and 1 or 0, args.big == 2^53 and 1 or 0}
        """,
    )
    args = {"bytes": b"\xff\x00", "text": "\udcff", "nothing": None, "is_on": True, "big": 2**53}
    assert run(["one", "two"], args) == [1, 1, 1]
    assert [store.strlen("one"), store.strlen("two")] == [2, 1]


def test_a_forgotten_bucket_leaves_a_region_that_came_while_it_was_compared(store):
    elsewhere = engine_buckets.put("bucket", region="elsewhere")
    continuity = RedisContinuity(
        MeddlingConnection(lambda: engine_buckets.schedule(store, elsewhere))
    )
    compared = continuity.compare([CommitExpectation("bucket", 1, commit=7, commit_at=1e9)])
    assert compared.lost == ["bucket"]
    assert not store.exists(redis_keys.due("elsewhere"))
