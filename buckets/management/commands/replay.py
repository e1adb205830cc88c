"""Announce again what is known of a bucket's objects."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shlex
import sys
import time
from argparse import ArgumentTypeError
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from buckets import selectors, services
from buckets.formatting import pluralize
from scanning import engine
from scanning.core.errors import BucketwatchError
from scanning.core.replay import Selection, read_moment
from scanning.management.base import FAILED, INTERRUPTED, UNKNOWN, EngineCommand
from scanning.management.output import event_line
from scanning.management.progress import ProgressBar

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from buckets.models import Bucket
    from scanning.inspection.replay import Counted, Replay, Step

_PAUSE_S = 0.5
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class Command(EngineCommand):
    help = (
        "Announce the known objects of a bucket again, marked as a replay, from what is stored: "
        "nothing is listed. Asks before it begins. "
        "Exit status: 0 all announced, 1 not all, 2 an unknown bucket or nobody to confirm it, "
        "130 interrupted."
    )
    sleep = staticmethod(time.sleep)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--bucket", required=True, metavar="B", help="its name")
        parser.add_argument("--prefix", default="", metavar="P", help="only keys that begin so")
        parser.add_argument(
            "--since",
            type=_moment,
            metavar="T",
            help="only objects modified since then: 2025-04-10, 2025-04-10T12:00Z, or 24h, 7d",
        )
        parser.add_argument(
            "--any-type",
            action="store_true",
            help="announce created and detected objects even if the bucket leaves them out",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="print what would be announced; queue nothing"
        )
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument(
            "--json", action="store_true", help="one JSON object; with --dry-run one an event"
        )
        parser.add_argument("--id", type=_id, metavar="ID", help="of an interrupted replay")
        parser.add_argument("--after", default="", metavar="KEY", help="where it was interrupted")

    def handle(self, *args: Any, **options: Any) -> None:
        bucket = selectors.all_buckets().filter(name=options["bucket"]).first()
        if bucket is None:
            raise CommandError(f"unknown bucket: {options['bucket']}", returncode=UNKNOWN)
        since: datetime | None = options["since"]
        chosen = Selection(options["prefix"], since.timestamp() if since else float("-inf"))
        replay = engine.replay(
            bucket.name,
            chosen,
            id_=options["id"] or _new_id(),
            after=options["after"],
            any_type=options["any_type"],
        )
        as_json: bool = options["json"]
        counted = replay.count()
        self._show(bucket, counted)
        if options["dry_run"]:
            for text in replay.notifications():
                self.stdout.write(text if as_json else event_line(json.loads(text)))
            return
        announced = 0
        if counted.wanted:
            if not options["yes"]:
                _confirm(bucket, counted)
            announced = self._run(bucket, replay, counted, _again(options, replay.id))
        summary = {"bucket": bucket.name, "replay": replay.id, "announced": announced}
        objects = pluralize(announced, "object")
        in_words = f"{bucket.name}: {objects} announced again, replay {replay.id}"
        self.stdout.write(json.dumps(summary) if as_json else in_words)

    def _show(self, bucket: Bucket, counted: Counted) -> None:
        self.stderr.write(f"{bucket.name}: {pluralize(counted.wanted, 'known object')} to announce")
        if counted.left_out:
            self.stderr.write(
                f"{bucket.name}: {counted.left_out} more are left out: by the bucket's suffix, or "
                "because it does not announce such events (--any-type)"
            )

    def _run(self, bucket: Bucket, replay: Replay, counted: Counted, again: list[str]) -> int:
        """Replay with progress shown, and return the number of objects announced."""
        step: Step | None = None
        waits_for = ""
        try:
            with (
                ProgressBar(expected=counted.wanted) as bar,
                contextlib.closing(services.replay(bucket=bucket, replay=replay)) as steps,
            ):
                for step in steps:
                    bar.show(step.announced, step.waits_for)
                    if step.waits_for and step.waits_for != waits_for:
                        with bar.above():
                            self.stderr.write(f"{bucket.name}: waiting: {step.waits_for}")
                    waits_for = step.waits_for
                    if waits_for:
                        self.sleep(_PAUSE_S)
        except KeyboardInterrupt:
            self._interrupted(step, again)
            sys.exit(INTERRUPTED)
        except BucketwatchError as exc:
            self._interrupted(step, again)
            raise CommandError(str(exc), returncode=FAILED) from exc
        return step.announced if step else 0

    def _interrupted(self, step: Step | None, again: list[str]) -> None:
        announced, after = (step.announced, step.after) if step else (0, "")
        rest = shlex.join([*again, *(["--after", after] if after else [])])
        self.stderr.write(f"Interrupted after {pluralize(announced, 'object')}. The rest: {rest}")


def _confirm(bucket: Bucket, counted: Counted) -> None:
    if not sys.stdin.isatty():
        raise CommandError("nobody is there to confirm it: say --yes", returncode=UNKNOWN)
    answer = input(f"Announce {pluralize(counted.wanted, 'object')} of {bucket.name} again? [y/N] ")
    if answer.strip().lower() not in {"y", "yes"}:
        raise CommandError("nothing was announced", returncode=FAILED)


def _again(options: dict[str, Any], replay: str) -> list[str]:
    """Write the command that goes on with this replay."""
    command = ["manage.py", "replay", "--bucket", options["bucket"], "--id", replay]
    if options["prefix"]:
        command += ["--prefix", options["prefix"]]
    if options["since"]:
        command += ["--since", options["since"].isoformat()]
    return command + (["--any-type"] if options["any_type"] else [])


def _new_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise ArgumentTypeError("must be at most 64 letters, digits and . : - _")
    return text


def _moment(text: str) -> datetime:
    now = datetime.now(UTC)
    try:
        moment = read_moment(text, now=now)
    except ValueError:
        raise ArgumentTypeError("must be like 2025-04-10, 2025-04-10T12:00Z, 24h or 7d") from None
    if moment > now:
        raise ArgumentTypeError(f"{moment:%Y-%m-%d %H:%M} UTC is still to come")
    return moment
