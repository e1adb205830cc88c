"""The notification queue as consumers find it: each message is checked against the JSON Schema."""

import json
from pathlib import Path
from typing import Any

import redis
from jsonschema_rs import validator_for

from scanning.config.settings import RedisSection
from scanning.core import notification
from scanning.core.types import BucketConfig, Change, EventType, ObjectMetadata, ObjectState

QUEUE = RedisSection().queue_name
SCHEMA = json.loads(
    (Path(__file__).resolve().parents[2] / "docs/notification.schema.json").read_text()
)

_validator = validator_for(SCHEMA)


def message(text: str | bytes) -> dict[str, Any]:
    """Read one element of the queue. Raises ValidationError unless it is a notification."""
    found: dict[str, Any] = json.loads(text)
    _validator.validate(found)
    return found


def queued(client: redis.Redis) -> list[dict[str, Any]]:
    """Read the notifications that wait in the queue, oldest first."""
    return [message(text) for text in client.lrange(QUEUE, 0, -1)]


def check(client: redis.Redis) -> None:
    """Look at what a test left in the queue; some tests push messages that are none of ours."""
    if client.type(QUEUE) != "list":
        return
    for text in map(str, client.lrange(QUEUE, 0, -1)):
        if '"event_id":"' in text:
            message(text)


def example(**changes: Any) -> dict[str, Any]:
    """Make a notification of an update, as the product writes it, but for ``changes``."""
    bucket = BucketConfig("media-in", "localhost:9000", "local", "MEDIA_IN")
    state = ObjectState("5eb6", 1740830982.5, 11)
    change = Change(EventType.UPDATED, "a.txt", state, ObjectState("d41d", 1740744582.0, 0))
    head = ObjectMetadata("5eb6", "text/plain", {"by": "hand"})
    [text] = notification.Notifications(bucket, now=1740830986.0, sequencer="1").texts(
        [change], [head]
    )
    return message(text) | changes
