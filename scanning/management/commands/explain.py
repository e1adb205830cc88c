"""Say what is known of one key, and what the next scan would announce of it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scanning import engine
from scanning.core.texts import printable
from scanning.management.base import FAILED, EngineCommand

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from scanning.core.explain import Explanation
    from scanning.core.types import ObjectState


class Command(EngineCommand):
    help = (
        "Say what is known of one key, what a listing shows of it now, what the next scan would "
        "find, and whether and why that would be announced. Changes nothing. "
        "Exit status: 0 explained, 1 it cannot be told: the bucket could not be listed, what is "
        "known of it is damaged, or Redis does not answer; 2 an unknown bucket."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("bucket", metavar="BUCKET")
        parser.add_argument("key", metavar="KEY", help="the whole key, not percent-encoded")
        parser.add_argument("--json", action="store_true", help="one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        found = engine.explain(options["bucket"], options["key"])
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(found)))
        else:
            for line in _lines(found):
                self.stdout.write(printable(line))
        if found.problem:
            sys.exit(FAILED)


def _as_json(found: Explanation) -> dict[str, Any]:
    return {
        "bucket": found.bucket,
        "key": found.key,
        "stored": _state(found.stored),
        "listed": _state(found.listed),
        "event": found.event,
        "announced": found.announced,
        "reasons": found.reasons,
        "problem": found.problem or None,
        "last_listed": found.last_listed and found.last_listed._asdict(),
        "pass_due": found.pass_due,
    } | ({"bucket_name": found.bucket_name} if found.bucket_name else {})


def _state(state: ObjectState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    return {"etag": state.etag, "last_modified": state.last_modified, "size": state.size}


def _lines(found: Explanation) -> list[str]:
    return [
        f"{found.title}: {found.key}",
        f"  stored     {_text(found.stored, found.problem)}",
        f"  listed     {_text(found.listed, found.problem)}",
        f"  next scan  {_event(found)}",
        *(f"  - {reason}" for reason in found.reasons),
    ]


def _text(state: ObjectState | None, problem: str) -> str:
    if state is None:
        return "unknown" if problem else "nothing"
    at = datetime.fromtimestamp(state.last_modified, UTC)
    stamp = at.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
    return f"{stamp} UTC, {state.size} bytes, ETag {state.etag or '(empty)'}"


def _event(found: Explanation) -> str:
    if found.event is None:
        return "unknown" if found.problem else "no event"
    return f"{found.event}, {'' if found.announced else 'not '}announced"
