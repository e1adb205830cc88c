"""The documented consumer at work: `python -m tests.chaos.consumer SENTINELS FILE`.

It may be killed at any moment, and ends by itself when Redis fails: then it is started again. What
it was given is in FILE, one JSON object a line. What it has finished goes to a list instead of
away, so that the oracle can read the whole queue at the end.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from functools import partial
from typing import Any

import redis
from redis.sentinel import Sentinel

from tests.support.processes import ROOT
from tests.support.redis_topology import MASTER_NAME

NAME = "chaos"
IN_HAND = f"my-service:{NAME}:in-hand"
FINISHED = f"my-service:{NAME}:finished"

# KEYS: in hand, finished.  ARGV: a message.  To be repeated without harm, as LREM is.
_FINISH = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 1 then redis.call('RPUSH', KEYS[2], ARGV[1]) end
return 1
"""


class Archiving(redis.Redis):
    """A client whose LREM keeps what it takes away."""

    def lrem(self, name: Any, count: int, value: Any) -> Any:
        assert count == 1
        return self.eval(_FINISH, 2, name, FINISHED, value)


def safe_consumer() -> Any:
    """The module in the documentation."""
    file = ROOT / "docs/examples/safe_consumer.py"
    spec = importlib.util.spec_from_file_location("safe_consumer", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(sentinels: str, file: str) -> None:
    places = [place.rpartition(":") for place in sentinels.split(",")]
    watch = Sentinel([(host, int(port)) for host, _, port in places], socket_timeout=1.0)
    options = {"decode_responses": True, "socket_timeout": 8.0, "socket_connect_timeout": 2.0}
    client = watch.master_for(MASTER_NAME, redis_class=Archiving, **options)
    seen = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    consumer = safe_consumer()
    consumer.work = partial(_note, seen)
    consumer.Consumer(client, NAME).run()


def _note(file: int, event: dict[str, Any]) -> None:
    os.write(file, f"{json.dumps(event)}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
