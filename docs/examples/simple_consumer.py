"""Print each notification, once at most: a crash loses the message that was in work.

python simple_consumer.py redis://localhost:6379/0
"""

import json
import sys
from contextlib import suppress
from typing import Any

import redis

QUEUE = "linode:notifications:queue"


def run(client: redis.Redis) -> None:
    while True:
        # LPOP would do as well; BLPOP waits for the next message instead of asking again and again.
        popped: Any = client.blpop([QUEUE], timeout=5)
        if popped:
            work(json.loads(popped[1]))


def work(event: dict[str, Any]) -> None:
    print(event["event_id"], event["event_type"], event["bucket"], event["key"], flush=True)


if __name__ == "__main__":
    # The client has to wait longer for an answer than the server waits for a message.
    client = redis.Redis.from_url(sys.argv[1], decode_responses=True, socket_timeout=30)
    with suppress(KeyboardInterrupt):
        run(client)
