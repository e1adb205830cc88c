"""Print each notification, whatever is killed when: nothing is lost, and repeated ones are dropped.

python safe_consumer.py redis://localhost:6379/0 first

The name at the end is this consumer's own. As many as you like may run, under different names; one
that is started again under its old name first finishes what it had in hand.
"""

import json
import sys
from contextlib import suppress
from typing import Any

import redis

QUEUE = "linode:notifications:queue"
SEVEN_DAYS_S = 7 * 24 * 3600


class Refused(Exception):
    """Raised by `work` for a message that no second try will mend."""


class Consumer:
    def __init__(self, client: redis.Redis, name: str) -> None:
        self.client = client
        self.in_hand = f"my-service:{name}:in-hand"

    def run(self) -> None:
        self.finish_in_hand()  # what a killed run left behind
        while True:
            if self.client.blmove(QUEUE, self.in_hand, timeout=5, src="LEFT", dest="RIGHT"):
                self.finish_in_hand()

    def finish_in_hand(self) -> None:
        """Work off the messages that were taken; each leaves the list when its work is done."""
        while message := self.client.lindex(self.in_hand, 0):
            event = json.loads(message)
            seen = f"my-service:seen:{event['event_id']}"
            if not self.client.exists(seen):
                try:
                    work(event)
                except Refused:
                    self.client.rpush("my-service:refused", message)  # for somebody to look at
                # After the work: a crash before this line repeats it, and loses nothing.
                self.client.set(seen, "1", ex=SEVEN_DAYS_S)
            # Not LPOP: a client that lost the answer asks again, and LREM again does no harm.
            self.client.lrem(self.in_hand, 1, str(message))


def work(event: dict[str, Any]) -> None:
    """Replace this by what you want done; doing it twice must do no harm."""
    print(event["event_id"], event["event_type"], event["bucket"], event["key"], flush=True)


if __name__ == "__main__":
    # The client has to wait longer for an answer than the server waits for a message.
    client = redis.Redis.from_url(sys.argv[1], decode_responses=True, socket_timeout=30)
    with suppress(KeyboardInterrupt):
        Consumer(client, sys.argv[2]).run()
